//! What the tests share that end a server by SIGKILL: where, how often, and a client that outlives it.

use std::net::SocketAddr;

use crate::harness::{Connection, Form, token};

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
