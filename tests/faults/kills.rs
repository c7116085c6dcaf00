//! What the tests share that end a server by SIGKILL: where, how often, and a client that outlives it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Barrier;

use crate::harness::{Connection, Form, Reply, Server, deleter, noise, token};

/// The steps, in the order in which an upload passes them.
pub const STEPS: [&str; 9] = [
    "content_opened",
    "content_written",
    "content_closed",
    "content_synced",
    "record_written",
    "record_put",
    "record_synced",
    "replying",
    "replaced_deleted",
];

/// How many kills: what `ATTACHD_TEST_KILLS` says, else `default`.
pub fn kills(default: usize) -> usize {
    std::env::var("ATTACHD_TEST_KILLS").map_or(default, |kills| kills.parse().expect("ATTACHD_TEST_KILLS is a number"))
}

/// Uploads over REST, and returns whether it was acknowledged.
pub fn upload(rest: SocketAddr, attachment: i64, bytes: &[u8]) -> bool {
    let Ok(mut connection) = Connection::try_open(rest) else { return false };
    let form = Form::file(bytes);
    let body = form.bytes();
    let head = format!(
        "POST /api/v2/clients/1/attachments/{attachment} HTTP/1.1\r\nHost: attachd\r\nAuthorization: Bearer {}\r\n\
         Content-Type: {}\r\nContent-Length: {}\r\n\r\n",
        token(&[1]),
        form.content_type(),
        body.len()
    );
    // That the server is gone shows in the reply that does not come.
    let _ = connection.send(head.as_bytes());
    let _ = connection.send(&body);
    connection.reply().is_some_and(|reply| reply.status == 201)
}

/// Sends a request without a body, and returns its reply if it comes whole.
fn ask(rest: SocketAddr, line: &str) -> Option<Reply> {
    let mut connection = Connection::try_open(rest).ok()?;
    let head = format!("{line} HTTP/1.1\r\nHost: attachd\r\nAuthorization: Bearer {}\r\n\r\n", deleter());
    connection.send(head.as_bytes()).ok()?;
    let reply = connection.reply()?;
    let length = reply.header("content-length").parse::<usize>().ok()?;
    (reply.bytes.len() == length).then_some(reply)
}

/// Reads an attachment until the server is gone. A reply that comes whole has all bytes, or says that there are none.
fn read_until_gone(rest: SocketAddr, attachment: i64, bytes: &[u8], has_read: &Barrier) {
    let mut reads = 0;
    while let Some(reply) = ask(rest, &format!("GET /api/v2/clients/1/attachments/{attachment}/content")) {
        match reply.status {
            200 => assert!(reply.bytes == bytes, "other bytes came whole"),
            404 => {}
            503 => break,
            status => panic!("a reader got {status}: {reply:?}"),
        }
        reads += 1;
        if reads == 1 {
            has_read.wait();
        }
    }
    assert!(reads > 0, "nothing was read");
}

/// Ends a server at every step of a deletion, while others read. `start` starts one on the storage that the last one left, with
/// these variables, and `stop` ends it.
pub fn in_deletions(start: impl Fn(BTreeMap<&'static str, String>) -> Server, stop: impl Fn(Server)) {
    let mut attachment = 500_i64;
    for (size, window) in [(3000, "0s"), (3000, "1h"), (300_000, "0s"), (300_000, "1h")] {
        let is_discarded = size > 16 << 10 && window == "0s";
        for step in ["record_written", "record_put", "record_synced", "replaced_deleted"] {
            if step == "replaced_deleted" && !is_discarded {
                continue;
            }
            attachment += 1;
            let case = format!("{size} bytes, {window}, {step}");
            let of_upload = usize::from(step != "replaced_deleted");
            let window = ("ATTACHD_ATTACHMENTS__UNDELETE_WINDOW", window.to_owned());
            let mut server = start(BTreeMap::from([
                ("ATTACHD_STORAGE__CRASH__STEP", step.to_owned()),
                ("ATTACHD_STORAGE__CRASH__NTH", (of_upload + 1).to_string()),
                window.clone(),
            ]));
            let (rest, bytes) = (server.rest, noise(size, attachment.unsigned_abs()));
            assert!(upload(rest, attachment, &bytes), "{case}");
            let path = format!("/api/v2/clients/1/attachments/{attachment}");
            let has_read = Barrier::new(3);
            let is_told = std::thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| read_until_gone(rest, attachment, &bytes, &has_read));
                }
                has_read.wait();
                ask(rest, &format!("DELETE {path}")).is_some_and(|reply| reply.status == 200)
            });
            assert!(!is_told || step == "replaced_deleted", "{case}: the step comes before the reply");
            assert_eq!(server.wait(), None, "{case}: it ended by a signal");
            stop(server);
            let server = start(BTreeMap::from([window.clone()]));
            let rest = server.rest;
            let content = format!("GET {path}/content");
            let stands = ask(rest, &content).expect("it answers");
            let is_deleted = step != "record_written";
            assert_eq!(stands.status, if is_deleted { 404 } else { 200 }, "{case}");
            assert!(is_deleted || stands.bytes == bytes, "{case}");
            let undeleted = ask(rest, &format!("POST {path}:undelete")).expect("it answers").status;
            let expected = match (is_deleted, window.1.as_str()) {
                (false, _) => 409,
                (true, "0s") => 404,
                (true, _) => 200,
            };
            assert_eq!(undeleted, expected, "{case}");
            if undeleted != 404 {
                assert!(ask(rest, &content).expect("it answers").bytes == bytes, "{case}");
            }
            stop(server);
        }
    }
}
