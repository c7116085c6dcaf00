//! Attackers: each keeps a connection, does one thing over it, and opens it again when the server has closed it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::honest::half_hello;
use super::wire::{ACK, DATA, Frame, PING, PRIORITY, SETTINGS, UNKNOWN, WINDOW_UPDATE, frame, head, preface};
use crate::contestant::Door;
use crate::error::Result;
use crate::hostile::{Attack, Flood, Hostile};
use crate::load::grpc::{Caller, header, part};
use crate::load::share::CROWD;
use crate::load::upload::{IDS, Target, envelope};
use crate::server::Server;

/// How long an attacker whose connection was closed waits before it comes again.
const AGAIN: Duration = Duration::from_millis(10);

/// How many streams a connection has that sends a byte to each in turn.
const BYTE_STREAMS: u32 = 190;

/// How many streams a connection has whose responses have no window.
const UNREAD_STREAMS: u32 = 100;

/// How many uploads are begun on a connection: as many as attachd permits.
const UPLOADS: u32 = 200;

/// The window of streams whose responses are read, in bytes.
const WINDOW: u32 = 65_535;

/// How many frames or chunks are written at once.
const AT_ONCE: usize = 500;

/// The call of an upload over gRPC.
const UPLOAD: &str = "/attachments.v2.AttachmentService/UploadAttachment";

/// The size that uploads declare, in bytes. Others declare halves of it, so that all of them together leave no room.
const DECLARED: u64 = 5 << 30;
const HALVES: u64 = 20;

/// How often an upload sends something that is to go on, and how many bytes: more than the least rate.
const DRIP: Duration = Duration::from_millis(500);
const DRIPS: usize = 400;

/// How many connections, or streams where the attack is one of streams, were opened, and how many of them the server has ended.
#[derive(Debug, Default)]
pub struct Tally {
    over: AtomicBool,
    pub opened: AtomicU64,
    pub ended: AtomicU64,
}

/// Connections or streams that are open.
struct Opened<'a> {
    tally: &'a Tally,
    left: u64,
}

impl<'a> Opened<'a> {
    fn new(tally: &'a Tally, count: u64) -> Opened<'a> {
        tally.opened.fetch_add(count, Ordering::Relaxed);
        Opened { tally, left: count }
    }

    /// The server has ended one of them.
    fn one_ended(&mut self) {
        if self.left > 0 {
            self.left -= 1;
            self.tally.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Opened<'_> {
    fn drop(&mut self) {
        if !self.tally.over.load(Ordering::Relaxed) {
            self.tally.ended.fetch_add(self.left, Ordering::Relaxed);
        }
    }
}

/// All attackers, until they are dropped. They have a thread of their own.
pub struct Attackers {
    runtime: Option<Runtime>,
    tally: Arc<Tally>,
}

impl Attackers {
    /// Begins an attack.
    pub fn start(hostile: Hostile, server: &Server) -> Result<Attackers> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let tally = Arc::new(Tally::default());
        for number in 0..hostile.connections {
            let attacker = Attacker::new(hostile.attack, server, number as u64)?;
            let tally = Arc::clone(&tally);
            runtime.spawn(async move {
                loop {
                    // How an attack failed says no more than that it is over.
                    let _ = attacker.attack(&tally).await;
                    sleep(AGAIN).await;
                }
            });
        }
        Ok(Attackers { runtime: Some(runtime), tally })
    }

    /// Ends the attack: how many connections or streams were opened, and how many the server has ended.
    pub fn end(self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (count(&self.tally.opened), count(&self.tally.ended))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        self.tally.over.store(true, Ordering::Relaxed);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One attacker.
struct Attacker {
    attack: Attack,
    address: SocketAddr,
    /// What is sent first.
    first: Bytes,
    /// What is sent again and again after that.
    again: Bytes,
    caller: Caller,
    id: u64,
}

impl Attacker {
    fn new(attack: Attack, server: &Server, number: u64) -> Result<Attacker> {
        // Far from the attachments of honest clients.
        let id = server.ids + (number + 1) * IDS;
        let bearer = format!("Bearer {}", server.token);
        let call = |stream, more: &[(&str, &str)]| {
            let fields = [&[("content-type", "application/grpc"), ("te", "trailers")], more].concat();
            head(stream, "POST", UPLOAD, &fields, false)
        };
        let (mut address, mut first, mut again) = (server.grpc, preface(WINDOW), Vec::new());
        match attack {
            Attack::None | Attack::StalledLog | Attack::IdleHttp2 | Attack::EmptyMessages => {}
            Attack::Refusals => {
                let long = "x".repeat(60_000);
                (address, first) = (server.address, Vec::new());
                for path in [format!("/{long}"), format!("/api/v2/clients/1/attachments/1?x={long}")] {
                    again.extend(format!("GET {path} HTTP/1.1\r\nHost: attachd\r\n\r\n").into_bytes());
                }
            }
            Attack::UnreadHttp1 => {
                (address, first) = (server.address, Vec::new());
                again = b"GET /openapi.json HTTP/1.1\r\nHost: attachd\r\n\r\n".repeat(AT_ONCE);
            }
            Attack::UnreadHttp2 => {
                address = server.address;
                first = preface(0);
                let ask = |stream| head(stream, "GET", "/openapi.json", &[], true);
                first.extend(streams(UNREAD_STREAMS).flat_map(ask));
            }
            Attack::ByteFrames => {
                first.extend(streams(BYTE_STREAMS).flat_map(|stream| call(stream, &[])));
                again = streams(BYTE_STREAMS).flat_map(|stream| frame(DATA, 0, stream, b"x")).collect();
            }
            Attack::HalfHellos => {
                (address, first) = (server.address, half_hello(server)?);
            }
            Attack::OpenStreams => {
                for (place, stream) in streams(UPLOADS).enumerate() {
                    first.extend(call(stream, &[("authorization", &bearer)]));
                    first.extend(frame(DATA, 0, stream, &header(theirs(id + place as u64))?));
                }
            }
            Attack::Silent => {
                (address, first) = (server.address, Vec::new());
            }
            Attack::Flood(flood) => {
                let flood = match flood {
                    Flood::Priority => frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 15]),
                    Flood::Window => frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
                    Flood::Settings => frame(SETTINGS, 0, 0, &[]),
                    Flood::Ping => frame(PING, 0, 0, &[0; 8]),
                    Flood::Unknown => frame(UNKNOWN, 0, 0, &[0; 8]),
                };
                again = flood.repeat(AT_ONCE);
            }
            Attack::ByteChunks => {
                address = server.address;
                let (declared, _) = envelope(Door::Form, server, theirs(id), 0);
                let (fields, open) = declared.split_once("\r\n\r\n").ok_or("a request without an end of its head")?;
                let fields = fields.lines().filter(|line| !line.starts_with("Content-Length"));
                let fields = fields.collect::<Vec<_>>().join("\r\n");
                let length = open.len();
                first = format!("{fields}\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{open}\r\n").into_bytes();
                again = b"1\r\nx\r\n".repeat(AT_ONCE);
            }
            Attack::Declared => {
                address = server.address;
                first = envelope(Door::Form, server, theirs(id), DECLARED >> (number % HALVES)).0.into_bytes();
                again = vec![b'x'; DRIPS];
            }
        }
        let caller = Caller::to(server.grpc, server, "UploadAttachment")?;
        Ok(Attacker { attack, address, first: first.into(), again: again.into(), caller, id })
    }

    /// Attacks over one connection, until the server has ended it.
    async fn attack(&self, tally: &Tally) -> Result {
        if self.attack == Attack::EmptyMessages {
            return self.empty_messages(tally).await;
        }
        let mut stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut opened = Opened::new(tally, self.count());
        stream.write_all(&self.first).await?;
        match self.attack {
            Attack::UnreadHttp1 => loop {
                stream.write_all(&self.again).await?;
            },
            Attack::IdleHttp2 | Attack::UnreadHttp2 | Attack::OpenStreams => hold(&mut stream, &mut opened).await,
            Attack::Declared => {
                let (reads, mut writes) = stream.split();
                tokio::select! {
                    read = discard(reads) => read,
                    dripped = async {
                        loop {
                            sleep(DRIP).await;
                            writes.write_all(&self.again).await?;
                        }
                    } => dripped,
                }
            }
            _ => {
                let (reads, writes) = stream.split();
                tokio::select! {
                    read = discard(reads) => read,
                    poured = pour(writes, &self.again) => poured,
                }
            }
        }
    }

    /// How many a connection counts as.
    fn count(&self) -> u64 {
        match self.attack {
            Attack::UnreadHttp2 => UNREAD_STREAMS.into(),
            Attack::OpenStreams => UPLOADS.into(),
            _ => 1,
        }
    }

    /// These go as the windows of the server permit, which a library knows.
    async fn empty_messages(&self, tally: &Tally) -> Result {
        let mut upload = self.caller.connect().await?.start(theirs(self.id)).await?;
        let _opened = Opened::new(tally, 1);
        let messages: Bytes = part(Message::Chunk(Bytes::new())).repeat(AT_ONCE).into();
        loop {
            upload.send(messages.clone()).await?;
        }
    }
}

/// An attachment of a client other than the honest ones.
fn theirs(id: u64) -> Target {
    Target { client: CROWD, id }
}

/// The first streams that a client opens.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

/// Writes the same bytes again and again. Without any it waits for the end.
async fn pour(mut writes: impl AsyncWrite + Unpin, bytes: &[u8]) -> Result {
    if bytes.is_empty() {
        std::future::pending::<()>().await;
    }
    loop {
        writes.write_all(bytes).await?;
    }
}

/// Throws away what comes, until nothing more does.
async fn discard(mut reads: impl AsyncRead + Unpin) -> Result {
    let mut room = vec![0; 4 << 10];
    while reads.read(&mut room).await? > 0 {}
    Ok(())
}

/// Keeps a connection of HTTP/2: answers settings and pings, and counts the streams that end.
async fn hold(stream: &mut TcpStream, opened: &mut Opened<'_>) -> Result {
    let mut arrived = BytesMut::with_capacity(1 << 10);
    while stream.read_buf(&mut arrived).await? > 0 {
        while let Some(come) = Frame::take(&mut arrived) {
            match (come.kind, come.flags & ACK) {
                (PING | SETTINGS, 0) => {
                    let payload = if come.kind == PING { &come.payload[..] } else { &[] };
                    stream.write_all(&frame(come.kind, ACK, 0, payload)).await?;
                }
                _ if come.ends_stream() => opened.one_ended(),
                _ => {}
            }
        }
    }
    Ok(())
}
