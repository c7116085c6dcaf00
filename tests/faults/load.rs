//! A storage that hangs keeps what it was given: when the budget is full of that, who comes next waits, and who comes when as many
//! wait as may is told to come back.

use std::fmt::Write as _;
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use tonic::Code;

use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, noise, token};

/// The smallest budget that a server accepts, in bytes.
const BUDGET: u64 = 8 << 20;

/// How many uploads fill it, and more: each takes the memory of a write of 256 KiB before its first byte, and then of another.
const STUCK: i64 = 40;

/// The time of a storage operation. What hangs is given up after twice as long.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What is said of a limit.
const AT_LIMIT: &str = "The service is at its limit, try again later";

/// What others upload to. Rules name an attachment whatever its client.
const NEWCOMER: i64 = 100;

/// A connection that waits for what comes after memory: who waits for that gets it when what hangs is given up, and then waits for
/// a thread no longer than an operation may take.
fn patient(server: &Server) -> Connection {
    let connection = server.connect();
    connection.writer().set_read_timeout(Some(4 * TIMEOUT)).expect("a timeout can be set");
    connection
}

#[test]
fn newcomers_are_told_to_come_back_while_too_many_wait_and_are_served_once_there_is_memory_again() {
    let mut storage = format!("timeout = \"{}s\"\nfaults = [\n", TIMEOUT.as_secs());
    for attachment in 1..=STUCK {
        let _ = writeln!(
            storage,
            "{{ attachment = {attachment}, operation = \"write\", nth = 1, always = true, fault = \"hang\" }},"
        );
    }
    storage.push_str("]\n");
    let limits = format!("memory_budget = {BUDGET}\nmax_waiting_uploads = 1\n");
    let server = Setup { limits, storage, ..Setup::default() }.start();
    let form = Form::file(&noise(4 << 20, 1));
    let (writer, other) = (token(&[1]), token(&[2]));
    std::thread::scope(|scope| {
        for attachment in 1..=STUCK {
            let (server, form, writer) = (&server, &form, &writer);
            scope.spawn(move || {
                let reply = patient(server).upload(writer, 1, attachment, form);
                assert_eq!(reply.status, 503, "{reply:?}");
                if reply.details() == AT_LIMIT {
                    assert_eq!(reply.header("connection"), "close");
                }
            });
        }
        eventually("one waits", || server.numbers()["attachd_memory_budget_waiting_uploads"] >= 1.0);
        let under_way = || server.readiness()["uploads_in_flight"].as_i64().unwrap();
        let refused = || server.numbers()["attachd_memory_budget_refused_total"];
        // In this order none is counted twice.
        eventually("each is under way or refused", || {
            let refused = refused();
            refused + under_way() as f64 >= STUCK as f64
        });
        let stuck = under_way();
        let (server, other) = (&server, &other);
        let over_rest = server.connect().upload(&writer, 1, NEWCOMER, &Form::file(b"x"));
        assert_eq!(over_rest.status, 503, "{over_rest:?}");
        assert_eq!((over_rest.details(), over_rest.header("connection")), (AT_LIMIT, "close"));
        assert!(over_rest.headers.contains_key("retry-after"), "{over_rest:?}");
        let messages = vec![Message::Header(header(1, NEWCOMER)), chunk(b"x".to_vec()), finish()];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let over_grpc = runtime.block_on(server.grpc_upload(&writer, messages));
        let over_grpc = over_grpc.expect_err("a newcomer is refused over gRPC");
        assert_eq!((over_grpc.code, over_grpc.reason.as_str()), (Code::Unavailable, "OVERLOADED"));
        // A client that has less than its share of those that wait may wait as well.
        scope.spawn(|| patient(server).upload(other, 2, NEWCOMER, &Form::file(b"x")));
        eventually("another client is taken", || under_way() == stuck + 1);
    });
    eventually("the memory is given back", || server.readiness()["budget_used_bytes"] == 0);
    assert_eq!(server.connect().upload(&writer, 1, NEWCOMER, &Form::file(b"last")).status, 201);
    assert_eq!(server.stored(1, NEWCOMER).unwrap(), b"last");
}
