//! One upload as a client says it, over HTTP/1.1, and what came of all of them.

use std::time::Duration;

use crate::contestant::Door;
use crate::error::Result;
use crate::plant::CLIENT;
use crate::server::Server;

/// How long one load may take.
pub(super) const LIMIT: Duration = Duration::from_secs(120);

/// How many attachments a connection may fill before its ids meet those of the next.
pub const IDS: u64 = 1 << 28;

/// How much of a reply that refuses is quoted, in bytes.
const QUOTED: usize = 4 << 10;

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long it took.
    pub time: Duration,
    /// How many uploads were accepted, or reads answered.
    pub uploads: u64,
    /// How many bytes they had.
    pub bytes: u64,
    /// How long each took, in microseconds, the shortest first, where they came one after the other.
    pub latencies: Vec<u32>,
    /// How fast an upload was beside slow readers, in bytes a second.
    pub beside: Option<f64>,
    /// What the same load came to without a crowd, how many uploads of the crowd were accepted meanwhile, and how many were
    /// refused.
    pub beside_crowd: Option<(Box<Outcome>, u64, u64)>,
    /// What an attack came to, beside which honest clients uploaded.
    pub ordeal: Option<Ordeal>,
    /// What was accepted over more and more connections.
    pub stages: Vec<Stage>,
}

/// What was accepted over so many connections.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    /// How many.
    pub connections: usize,
    /// For how long it was measured.
    pub time: Duration,
    /// How many uploads were accepted.
    pub accepted: u64,
    /// How many were refused, or cut off.
    pub refused: u64,
    /// How long each took that was accepted, in microseconds, the shortest first.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// Of uploads of so many bytes, one after the other.
    pub(super) fn of_small(time: Duration, size: usize, mut latencies: Vec<u32>) -> Outcome {
        latencies.sort_unstable();
        let uploads = latencies.len() as u64;
        Outcome { time, uploads, bytes: uploads * size as u64, latencies, ..Outcome::default() }
    }
}

/// What an attack came to, beside what honest clients saw.
#[derive(Clone, Copy, Debug)]
pub struct Ordeal {
    /// How many connections, or streams if it was an attack of streams, the attackers opened.
    pub opened: u64,
    /// How many of them the server ended.
    pub ended: u64,
    /// How many honest uploads were not accepted.
    pub lost: u64,
    /// How many cores the server used.
    pub cores: f64,
    /// How much log it wrote, in bytes a second.
    pub log: f64,
}

/// What is uploaded to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    /// Whose attachment.
    pub(super) client: u64,
    /// Which.
    pub(super) id: u64,
}

impl Target {
    /// An attachment of the client that has all of them in most loads.
    pub(super) fn own(id: u64) -> Target {
        Target { client: CLIENT, id }
    }
}

/// What stands before the content of an upload over HTTP/1, and after it.
pub(super) fn envelope(
    door: Door,
    server: &Server,
    Target { client, id }: Target,
    size: u64,
) -> (String, &'static str) {
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
            format!("/api/v2/clients/{client}/attachments/{id}"),
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
pub(super) fn reply(received: &[u8]) -> Result<Option<Reply>> {
    let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end])?;
    if !head.starts_with("HTTP/1.1 2") {
        return Err(String::from_utf8_lossy(&received[..received.len().min(QUOTED)]).into_owned().into());
    }
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length: usize = field("content-length").unwrap_or("0").parse()?;
    let chunked = field("transfer-encoding").is_some();
    let goes_on = !chunked && !field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Reply { head: end + 4, length: end + 4 + length, goes_on }))
}

/// The measure of a reply.
pub(super) struct Reply {
    /// The length of its head, in bytes.
    pub(super) head: usize,
    /// Its length with its head, in bytes.
    pub(super) length: usize,
    /// Whether more may be sent over its connection.
    pub(super) goes_on: bool,
}

/// One thread drives all: it has to leave the rest of the machine to the server.
pub(super) fn asynchronous<T>(load: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(LIMIT, load).await.map_err(|_| "it took too long")? })
}
