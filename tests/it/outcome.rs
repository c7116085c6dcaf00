//! Once a commit has begun, its outcome is what the client, the request log, the metrics and the audit trail report, whatever
//! deadline passes and whoever goes away meanwhile. A commit is kept from ending by holding the locks of the storage.

use std::fs::File;

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use h2::Reason;
use prost::Message as _;
use serde_json::Value;
use tonic::Code;

use crate::harness::{
    Ask, Form, GrpcRefusal, RawConnection, RawStream, Server, Setup, chunk, eventually, finish, framed, header,
    hold_all_locks, noise, token,
};

/// Long enough for a call to come to its commit on a busy machine.
const DEADLINE: (&str, &str) = ("grpc-timeout", "3S");

/// What a server reports of the request of this id, when it does: the outcomes of its line in the log, and the lines of the
/// audit trail.
fn reported(server: &Server, id: &str) -> (Value, Vec<Value>) {
    let of = |message: &str| {
        let mut events = server.events(message);
        events.retain(|event| event["request_id"] == id);
        events
    };
    eventually(&format!("{id} is reported"), || !of("request").is_empty() && !of("audit").is_empty());
    let mut request = of("request");
    assert_eq!(request.len(), 1, "{request:?}");
    (request.remove(0), of("audit"))
}

/// Asserts that log, audit trail and metrics say of the one request of this method that it was served.
fn assert_done(server: &Server, id: &str, method: &str, door: &str) -> Value {
    let (request, audit) = reported(server, id);
    assert_eq!(request["outcome"], "OK", "{request}");
    assert_eq!(audit.len(), 1, "{audit:?}");
    assert_eq!(audit[0]["outcome"], "done", "{audit:?}");
    let series =
        |outcome: &str| format!("attachd_requests_total{{door=\"{door}\",method=\"{method}\",outcome=\"{outcome}\"}}");
    let numbers = server.numbers();
    assert_eq!((numbers[&series("OK")], numbers[&series("CLIENT_GONE")]), (1.0, 0.0));
    request
}

/// All messages of an upload to attachment 1 of client 1.
fn whole() -> Vec<u8> {
    [framed(Message::Header(header(1, 1))), framed(chunk(content())), framed(finish())].concat()
}

/// Content that has an object of its own: that it is there shows that the commit has begun.
fn content() -> Vec<u8> {
    noise(20_000, 1)
}

/// A registration of attachment 1 of client 1, framed.
fn registration() -> Vec<u8> {
    let request = RegisterAttachmentRequest { client_id: 1, attachment_id: 1, project_id: None, portfolio_id: None };
    let bytes = request.encode_to_vec();
    [&[0], &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], &bytes].concat()
}

/// What a call asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Call {
    Upload,
    Register,
}

impl Call {
    const BOTH: [Call; 2] = [Call::Upload, Call::Register];

    fn method(self) -> &'static str {
        match self {
            Call::Upload => "UploadAttachment",
            Call::Register => "RegisterAttachment",
        }
    }

    /// Makes the call, of which the server has all that there is to send.
    async fn make(self, connection: &mut RawConnection, headers: &[(&str, &str)]) -> RawStream {
        let mut stream = connection.call(self.method(), &token(&[1]), headers).await;
        stream.send(if self == Call::Upload { whole() } else { registration() });
        stream.end();
        stream
    }

    /// Waits until the change of the storage has begun.
    fn begun(self, server: &Server) {
        eventually("the commit has begun", || match self {
            Call::Upload => server.contents(1) == 1,
            Call::Register => server.readiness()["uploads_in_flight"] == 1,
        });
    }
}

/// A server in which no commit ends before the locks are dropped.
fn held() -> (Server, Vec<File>) {
    let server = Server::start();
    let locks = hold_all_locks(&server.root());
    (server, locks)
}

/// Waits for the deadline of a call that never comes to its commit, so that those of earlier calls have passed too.
async fn deadline_passes(server: &Server) -> GrpcRefusal {
    let mut connection = RawConnection::open(server.grpc).await;
    let mut idle = connection.upload(&token(&[1]), &[DEADLINE, ("x-request-id", "late")]).await;
    idle.send([framed(Message::Header(header(1, 2))), framed(chunk("content"))].concat());
    idle.reply().await.expect_err("its deadline passes")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_has_begun_is_the_reply_though_the_deadline_passes() {
    for call in Call::BOTH {
        let (server, locks) = held();
        let mut connection = RawConnection::open(server.grpc).await;
        let stream = call.make(&mut connection, &[DEADLINE, ("x-request-id", "mine")]).await;
        call.begun(&server);
        let refusal = deadline_passes(&server).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DeadlineExceeded, "CLIENT_TOO_SLOW"), "{refusal:?}");
        drop(locks);
        let attachment = stream.reply().await.unwrap_or_else(|refusal| panic!("{call:?}: {refusal:?}"));
        assert_eq!((attachment.client_id, attachment.attachment_id), (1, 1));
        let request = assert_done(&server, "mine", call.method(), "grpc");
        assert_eq!(request.get("client_gone"), None, "{request}");
        assert!(server.record(1, 1).is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_passes_before_the_commit_is_a_refusal_everywhere() {
    let server = Server::start();
    let refusal = deadline_passes(&server).await;
    assert_eq!(refusal.code, Code::DeadlineExceeded, "{refusal:?}");
    assert_eq!(refusal.request_id.as_deref(), Some("late"));
    let (request, audit) = reported(&server, "late");
    assert_eq!(request["outcome"], "CLIENT_TOO_SLOW", "{request}");
    assert_eq!(
        (&audit[0]["outcome"], &audit[0]["reason"]),
        (&"refused".into(), &"CLIENT_TOO_SLOW".into()),
        "{audit:?}"
    );
    eventually("nothing is left of it", || server.temporary().is_empty());
    assert_eq!(server.record(1, 2), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_reported_though_its_grpc_client_has_gone() {
    for call in Call::BOTH {
        for vanishes in [true, false] {
            let (server, locks) = held();
            let mut connection = RawConnection::open(server.grpc).await;
            let mut stream = call.make(&mut connection, &[("x-request-id", "mine")]).await;
            call.begun(&server);
            if vanishes {
                connection.vanish();
                let open = || server.numbers()["attachd_connections_open{port=\"grpc\"}"];
                eventually("the server has seen it", || open() == 0.0);
            } else {
                stream.reset(Reason::CANCEL);
                connection.delivered().await;
            }
            drop(locks);
            let request = assert_done(&server, "mine", call.method(), "grpc");
            assert_eq!(request["client_gone"], true, "{call:?}: {request}");
            assert!(server.record(1, 1).is_some());
        }
    }
}

#[test]
fn what_is_stored_is_reported_though_its_rest_client_has_gone() {
    let (server, locks) = held();
    let mut connection = server.connect();
    connection.send(&Ask::upload(1, 1, &Form::file(&content())).with("X-Request-Id", "mine").bytes()).unwrap();
    Call::Upload.begun(&server);
    drop(connection);
    drop(locks);
    assert_done(&server, "mine", "UploadAttachment", "rest");
    assert_eq!(server.stored(1, 1).unwrap(), content());
    let stored = server.numbers()["attachd_upload_size_bytes_sum{door=\"rest\"}"];
    assert_eq!(stored, 20_000.0);
}

#[test]
fn a_commit_without_an_answer_is_unknown_until_the_storage_answers() {
    let server = Setup { storage: "timeout = \"1s\"\n".to_owned(), ..Setup::default() }.start();
    let locks = hold_all_locks(&server.root());
    let reply = server.connect().ask(&Ask::upload(1, 1, &Form::file(&content())).with("X-Request-Id", "mine"));
    assert_eq!(reply.status, 503, "{reply:?}");
    let (request, audit) = reported(&server, "mine");
    assert_eq!(request["outcome"], "STORAGE_UNAVAILABLE", "{request}");
    assert_eq!((audit.len(), &audit[0]["outcome"]), (1, &"unknown".into()), "{audit:?}");
    drop(locks);
    eventually("it is known", || reported(&server, "mine").1.len() == 2);
    let late = reported(&server, "mine").1.remove(1);
    assert_eq!((&late["outcome"], &late["late"]), (&"failed".into(), &true.into()), "{late}");
    assert_eq!(server.record(1, 1), None);
}

#[test]
fn a_process_that_ends_in_the_middle_of_a_commit_says_that_its_outcome_is_unknown() {
    let variables = [("ATTACHD_SHUTDOWN__GRACE", "0s".to_owned())].into();
    let mut server = Setup { variables, garbage: true, ..Setup::default() }.start();
    let locks = hold_all_locks(&server.root());
    let mut connection = server.connect();
    connection.send(&Ask::upload(1, 1, &Form::file(&content())).with("X-Request-Id", "mine").bytes()).unwrap();
    Call::Upload.begun(&server);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let (request, audit) = reported(&server, "mine");
    assert_eq!(request["outcome"], "STORAGE_UNAVAILABLE", "{request}");
    assert_eq!((audit.len(), &audit[0]["outcome"]), (1, &"unknown".into()), "{audit:?}");
    drop(locks);
}
