//! Reading over HTTP/1.1: a thread for each connection that discards what arrives in the kernel, which costs next to nothing. Slow
//! readers share one thread.

use std::io::{Read as _, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::http1::{self, each, joined, stream};
use super::upload::{Outcome, reply};
use crate::contestant::Door;
use crate::error::Result;
use crate::plant::{CLIENT, FIRST};
use crate::read::{PAGE, Read};
use crate::server::Server;

/// How much is received at once, in bytes.
const BLOCK: usize = 256 << 10;

/// The least length of an attachment in a page, in bytes.
const ENTRY: u64 = 100;

/// The receive buffer of a slow reader, in bytes. A larger one would take all of a download that the server sends.
const SLOW_BUFFER: u32 = 16 << 10;

/// Puts a server under a load, and checks that all that was asked for arrives.
pub fn drive(read: Read, door: Door, server: &Server) -> Result<Outcome> {
    match read {
        Read::Bulk { downloads, size } => {
            let begun = Instant::now();
            thread::scope(|scope| {
                let clients = each(scope, downloads, move |number| {
                    let mut connection = Connection::open(server)?;
                    connection.get(&content(door, read.id(number, 0)), None, Some(size)).map(drop)
                })?;
                clients.into_iter().try_for_each(joined)
            })?;
            let bytes = size * downloads as u64;
            Ok(Outcome { time: begun.elapsed(), uploads: downloads as u64, bytes, ..Outcome::default() })
        }
        Read::Small { connections, size, time } => {
            in_turn(connections, time, server, move |connection, number, turn| {
                connection.get(&content(door, read.id(number, turn)), None, Some(size))
            })
        }
        Read::Ranges { connections, length, size, time } => {
            in_turn(connections, time, server, move |connection, number, turn| {
                let offset = offset(number, turn) % (size - length + 1);
                connection.get(&content(door, read.id(number, turn)), Some((offset, length)), Some(length))
            })
        }
        Read::Pages { before, time, .. } => {
            let token = if before == 0 { String::new() } else { format!("&page_token={}", page_token(before)) };
            let path = format!("/api/v2/clients/{CLIENT}/attachments?page_size={PAGE}{token}");
            in_turn(1, time, server, move |connection, _, _| match connection.get(&path, None, None)? {
                length if length < PAGE * ENTRY => Err(format!("a page of {length} bytes").into()),
                length => Ok(length),
            })
        }
        Read::Slow { readers, size, piece, every, time, upload } => {
            let ask = request(server, &content(door, read.id(0, 0)), None);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            thread::scope(|scope| {
                runtime.block_on(async {
                    let open = begin(readers, size, &ask, server).await?;
                    let begun = Instant::now();
                    let beside = (door == Door::Form).then(|| scope.spawn(|| http1::bulk(1, upload, door, server)));
                    let bytes = go_on(open, piece, every, time).await?;
                    let time = begun.elapsed();
                    let beside = beside.map(joined).transpose()?;
                    let beside = beside.map(|beside| beside.bytes as f64 / beside.time.as_secs_f64());
                    Ok(Outcome { time, uploads: readers as u64, bytes, beside, ..Outcome::default() })
                })
            })
        }
    }
}

/// One request after the other over each of so many connections. `ask` returns how many bytes it has read.
fn in_turn(
    connections: usize,
    time: Duration,
    server: &Server,
    ask: impl Fn(&mut Connection, usize, u64) -> Result<u64> + Clone + Send + Sync,
) -> Result<Outcome> {
    let start = Barrier::new(connections + 1);
    let (elapsed, bytes, latencies) = thread::scope(|scope| -> Result<_> {
        let (start, ask) = (&start, &ask);
        let clients = each(scope, connections, move |number| {
            let mut latencies = Vec::with_capacity(1 << 16);
            // The first request opens what stays open, and is not measured.
            let opened =
                Connection::open(server).and_then(|mut connection| ask(&mut connection, number, 0).map(|_| connection));
            start.wait();
            let mut connection = opened?;
            let (begun, mut bytes) = (Instant::now(), 0);
            let mut now = begun;
            for turn in 1.. {
                if now - begun >= time {
                    break;
                }
                bytes += ask(&mut connection, number, turn)?;
                let then = Instant::now();
                latencies.push(u32::try_from((then - now).as_micros())?);
                now = then;
            }
            Ok((bytes, latencies))
        })?;
        start.wait();
        let begun = Instant::now();
        let (mut bytes, mut latencies) = (0, Vec::new());
        for client in clients {
            let (read, took) = joined(client)?;
            bytes += read;
            latencies.extend(took);
        }
        Ok((begun.elapsed(), bytes, latencies))
    })?;
    Ok(Outcome { time: elapsed, uploads: latencies.len() as u64, bytes, latencies, ..Outcome::default() })
}

/// Begins so many downloads, of which nothing but the head is read.
async fn begin(readers: usize, size: u64, ask: &str, server: &Server) -> Result<Vec<tokio::net::TcpStream>> {
    let mut begun: JoinSet<Result<tokio::net::TcpStream>> = JoinSet::new();
    for _ in 0..readers {
        let (ask, address) = (ask.to_owned(), server.address);
        begun.spawn(async move {
            let socket = TcpSocket::new_v4()?;
            socket.set_recv_buffer_size(SLOW_BUFFER)?;
            let mut stream = socket.connect(address).await?;
            stream.write_all(ask.as_bytes()).await?;
            let mut head = Vec::new();
            loop {
                if stream.read_buf(&mut head).await? == 0 {
                    return Err("the connection was closed before the reply".into());
                }
                match reply(&head)? {
                    Some(reply) if (reply.length as u64) < size => return Err("a reply that is too short".into()),
                    Some(_) => return Ok(stream),
                    None => {}
                }
            }
        });
    }
    let mut open = Vec::with_capacity(readers);
    while let Some(stream) = begun.join_next().await {
        open.push(stream??);
    }
    Ok(open)
}

/// Takes a piece of each download now and then.
async fn go_on(open: Vec<tokio::net::TcpStream>, piece: usize, every: Duration, time: Duration) -> Result<u64> {
    let begun = Instant::now();
    let mut readers: JoinSet<Result<(u64, tokio::net::TcpStream)>> = JoinSet::new();
    for mut stream in open {
        readers.spawn(async move {
            let (mut bytes, mut room, mut pace) = (0, vec![0; piece], interval(every));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while begun.elapsed() < time {
                pace.tick().await;
                bytes += stream.read_exact(&mut room).await? as u64;
            }
            Ok((bytes, stream))
        });
    }
    let (mut bytes, mut open) = (0, Vec::new());
    while let Some(reader) = readers.join_next().await {
        let (read, stream) = reader??;
        bytes += read;
        // All stay open until the last one has read for long enough.
        open.push(stream);
    }
    Ok(bytes)
}

/// A connection that stays open.
struct Connection<'a> {
    server: &'a Server,
    stream: TcpStream,
    room: Vec<u8>,
}

impl<'a> Connection<'a> {
    fn open(server: &'a Server) -> Result<Connection<'a>> {
        Ok(Connection { server, stream: stream(server)?, room: vec![0; BLOCK] })
    }

    /// Reads one reply, and returns how many bytes its body has, which are as many as are `expected`.
    fn get(&mut self, path: &str, range: Option<(u64, u64)>, expected: Option<u64>) -> Result<u64> {
        self.stream.write_all(request(self.server, path, range).as_bytes())?;
        let mut filled = 0;
        let (head, length) = loop {
            match self.stream.read(&mut self.room[filled..])? {
                0 => return Err("the connection was closed before the reply".into()),
                count => filled += count,
            }
            if let Some(reply) = reply(&self.room[..filled])? {
                break (reply.head as u64, reply.length as u64);
            }
        };
        let mut left = length.checked_sub(filled as u64).ok_or("more than one reply")?;
        while left > 0 {
            let most = left.min(BLOCK as u64) as usize;
            // TCP discards what is truncated: tcp(7), MSG_TRUNC.
            match recv(&self.stream, &mut self.room[..most], RecvFlags::TRUNC)?.1 {
                0 => return Err(format!("{left} bytes are missing at the end").into()),
                count => left -= count as u64,
            }
        }
        match (length - head, expected) {
            (length, Some(expected)) if length != expected => {
                Err(format!("{length} bytes came and {expected} were expected").into())
            }
            (length, _) => Ok(length),
        }
    }
}

/// Where the content of an attachment is.
fn content(door: Door, id: u64) -> String {
    match door {
        Door::Form => format!("/api/v2/clients/{CLIENT}/attachments/{id}/content"),
        _ => format!("/{id}"),
    }
}

fn request(server: &Server, path: &str, range: Option<(u64, u64)>) -> String {
    let Server { address, token, .. } = server;
    let mut request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n");
    if !token.is_empty() {
        request += &format!("Authorization: Bearer {token}\r\n");
    }
    if let Some((offset, length)) = range {
        request += &format!("Range: bytes={offset}-{}\r\n", offset + length - 1);
    }
    request + "\r\n"
}

/// An offset without an order, and the same in every run.
pub(super) fn offset(connection: usize, turn: u64) -> u64 {
    let mut state = ((connection as u64 + 1) << 32 | turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    state ^= state >> 32;
    state.wrapping_mul(0xd6e8_feb8_6659_fd93) >> 16
}

/// The token of the page that begins after so many attachments, as attachd would have sent it. To ask for it would be to read
/// all pages before it. attachd refuses one that it would not have sent.
fn page_token(before: u64) -> String {
    const FORM: u64 = 1;
    let last = FIRST + before - 1;
    let query = [FORM, last, CLIENT, 0, 0, 0].map(u64::to_be_bytes).concat();
    let check = digest(&SHA256, &query);
    URL_SAFE_NO_PAD.encode([&[FORM as u8][..], &last.to_be_bytes(), &check.as_ref()[..8]].concat())
}
