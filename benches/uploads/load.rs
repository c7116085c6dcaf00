//! The clients. They share the machine with the server, so they are made to cost little: one block of noise is sent again
//! and again, and nothing is copied or encoded while the clock runs that could have been before.

mod grpc;
mod http1;
mod paced;

use std::time::Duration;

use bytes::Bytes;

use crate::Result;
use crate::cell::{Cell, Load};
use crate::contestant::{Contestant, Door};
use crate::server::Server;

/// How long one load may take.
const LIMIT: Duration = Duration::from_secs(120);

/// How many attachments a connection may fill before its ids meet those of the next.
pub const IDS: u64 = 1 << 28;

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it took.
    pub time: Duration,
    /// How many uploads were accepted.
    pub uploads: u64,
    /// How many bytes of content they had.
    pub bytes: u64,
    /// How long each took, in microseconds, the shortest first, where they came one after the other.
    pub latencies: Vec<u32>,
}

/// Puts a server under a load. Every upload must be accepted.
pub fn drive(cell: &Cell, contestant: &Contestant, server: &Server) -> Result<Outcome> {
    let mut outcome = match (cell.load, contestant.door) {
        (Load::Bulk { uploads, size }, Door::Copy) => {
            let begun = std::time::Instant::now();
            server.copy(uploads, size)?;
            Outcome {
                time: begun.elapsed(),
                uploads: uploads as u64,
                bytes: size * uploads as u64,
                latencies: Vec::new(),
            }
        }
        (Load::Idle(time), _) => {
            std::thread::sleep(time);
            Outcome { time: server.ready, ..Outcome::default() }
        }
        (load, Door::Grpc { message }) => asynchronous(grpc::drive(load, message, server))?,
        (Load::Paced { uploads, pieces, piece, every }, door) => {
            asynchronous(paced::drive(uploads, pieces, piece, every, door, server))?
        }
        (Load::Bulk { uploads, size }, door) => http1::bulk(uploads, size, door, server)?,
        (Load::Small { connections, size, time }, door) => http1::small(connections, size, time, door, server)?,
    };
    outcome.latencies.sort_unstable();
    Ok(outcome)
}

/// One thread drives all: it has to leave the rest of the machine to the server.
fn asynchronous(load: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(LIMIT, load).await.map_err(|_| "it took too long")? })
}

/// Bytes that look like nothing in particular.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// What stands before the content of an upload over HTTP/1, and after it.
fn envelope(door: Door, server: &Server, id: u64, size: u64) -> (String, &'static str) {
    const CLOSE: &str = "\r\n--xxxxxxxxxxxxxxxxxxxxxxxx--\r\n";
    let address = server.address;
    let form = |route: String, authorization: String, part: &str| {
        let open = format!(
            "--xxxxxxxxxxxxxxxxxxxxxxxx\r\nContent-Disposition: form-data; name=\"{part}\"; filename=\"{id}.bin\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        let length = open.len() as u64 + size + CLOSE.len() as u64;
        let head = format!(
            "POST {route} HTTP/1.1\r\nHost: {address}\r\n{authorization}Content-Type: multipart/form-data; \
             boundary=xxxxxxxxxxxxxxxxxxxxxxxx\r\nContent-Length: {length}\r\n\r\n{open}"
        );
        (head, CLOSE)
    };
    match door {
        Door::Form | Door::Grpc { .. } => form(
            format!("/api/v2/clients/1/attachments/{id}"),
            format!("Authorization: Bearer {}\r\n", server.token),
            "file",
        ),
        Door::Copy => (String::new(), ""),
        Door::MiniserveForm => form("/upload?path=/".to_owned(), String::new(), "path"),
        Door::Put => (format!("PUT /{id} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {size}\r\n\r\n"), ""),
    }
}

/// What a reply over HTTP/1 says, once its head has arrived: how long it is in all, and whether more may be sent over its
/// connection. A reply that refuses is an error.
fn reply(received: &[u8]) -> Result<Option<Reply>> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end])?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(String::from_utf8_lossy(received).into_owned().into());
    }
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length: usize = field("content-length").unwrap_or("0").parse()?;
    let chunked = field("transfer-encoding").is_some();
    let goes_on = !chunked && !field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Reply { length: end + 4 + length, goes_on }))
}

/// The measure of a reply.
struct Reply {
    length: usize,
    goes_on: bool,
}
