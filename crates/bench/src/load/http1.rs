//! HTTP/1.1 at full speed: a thread for each connection, blocking sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::upload::{IDS, LIMIT, Outcome, Target, envelope, reply};
use crate::content::noise;
use crate::contestant::Door;
use crate::error::Result;
use crate::server::Server;

/// How much is handed to a socket at once, in bytes.
const BLOCK: usize = 256 << 10;

/// Up to this size an upload is sent in one piece, as a client would that has it at hand, in bytes.
const ONE_PACKET: u64 = 64 << 10;

/// The stack of a client's thread, in bytes.
const STACK: usize = 128 << 10;

/// `uploads` at once, each over a connection of its own.
pub fn bulk(uploads: usize, size: u64, door: Door, server: &Server) -> Result<Outcome> {
    let block = noise(BLOCK);
    let begun = Instant::now();
    thread::scope(|scope| {
        let block = &block;
        let clients = each(scope, uploads, move |number| {
            Connection::open(server)?.send(door, Target::own(server.ids + number as u64 + 1), size, block)
        })?;
        clients.into_iter().try_for_each(joined)
    })?;
    Ok(Outcome { time: begun.elapsed(), uploads: uploads as u64, bytes: size * uploads as u64, ..Outcome::default() })
}

/// One upload after the other over each of `connections`.
pub fn small(connections: usize, size: usize, time: Duration, door: Door, server: &Server) -> Result<Outcome> {
    let content = noise(size);
    let start = Barrier::new(connections + 1);
    let (elapsed, latencies) = thread::scope(|scope| -> Result<_> {
        let (start, content) = (&start, &content);
        let clients = each(scope, connections, move |number| {
            let mut latencies = Vec::with_capacity(1 << 16);
            let first = server.ids + number as u64 * IDS;
            // The first upload opens what stays open, and is not measured.
            let opened = Connection::open(server).and_then(|mut connection| {
                connection.send(door, Target::own(first + 1), size as u64, content).map(|()| connection)
            });
            start.wait();
            let mut connection = opened?;
            let begun = Instant::now();
            let mut now = begun;
            for id in first + 2.. {
                if now - begun >= time {
                    break;
                }
                connection.send(door, Target::own(id), size as u64, content)?;
                let then = Instant::now();
                latencies.push(u32::try_from((then - now).as_micros())?);
                now = then;
            }
            Ok(latencies)
        })?;
        start.wait();
        let begun = Instant::now();
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(joined(client)?);
        }
        Ok((begun.elapsed(), latencies))
    })?;
    Ok(Outcome::of_small(elapsed, size, latencies))
}

/// A thread for each number.
pub(super) fn each<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    count: usize,
    client: impl Fn(usize) -> Result<T> + Clone + Send + 'scope,
) -> Result<Vec<ScopedJoinHandle<'scope, Result<T>>>> {
    (0..count)
        .map(|number| {
            let client = client.clone();
            Ok(thread::Builder::new().stack_size(STACK).spawn_scoped(scope, move || client(number))?)
        })
        .collect()
}

pub(super) fn joined<T>(client: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    client.join().map_err(|_| "a client panicked")?
}

/// A connection that stays open as long as the server wants.
pub(super) struct Connection<'a> {
    server: &'a Server,
    stream: TcpStream,
    request: Vec<u8>,
    received: Vec<u8>,
}

impl<'a> Connection<'a> {
    pub(super) fn open(server: &'a Server) -> Result<Connection<'a>> {
        Ok(Connection { server, stream: stream(server)?, request: Vec::new(), received: vec![0; 8 << 10] })
    }

    /// One upload of `size` bytes, which are `block` again and again.
    pub(super) fn send(&mut self, door: Door, target: Target, size: u64, block: &[u8]) -> Result {
        self.send_until(door, target, size, block, &AtomicBool::new(false))
    }

    /// The same, unless it is over before all is sent.
    pub(super) fn send_until(
        &mut self,
        door: Door,
        target: Target,
        size: u64,
        block: &[u8],
        over: &AtomicBool,
    ) -> Result {
        let (head, tail) = envelope(door, self.server, target, size);
        self.request.clear();
        self.request.extend_from_slice(head.as_bytes());
        if size <= ONE_PACKET {
            self.request.extend_from_slice(&block[..size as usize]);
            self.request.extend_from_slice(tail.as_bytes());
            self.stream.write_all(&self.request)?;
        } else {
            self.stream.write_all(&self.request)?;
            let mut left = size;
            while left > 0 {
                if over.load(Ordering::Relaxed) {
                    return Err("it is over".into());
                }
                let piece = left.min(block.len() as u64);
                self.stream.write_all(&block[..piece as usize])?;
                left -= piece;
            }
            self.stream.write_all(tail.as_bytes())?;
        }
        self.accepted()
    }

    /// Reads the reply.
    fn accepted(&mut self) -> Result {
        let mut filled = 0;
        loop {
            let count = self.stream.read(&mut self.received[filled..])?;
            if count == 0 {
                return Err("the connection was closed before the reply".into());
            }
            filled += count;
            if let Some(reply) = reply(&self.received[..filled])?
                && filled >= reply.length
            {
                if !reply.goes_on {
                    self.stream = stream(self.server)?;
                }
                return Ok(());
            }
        }
    }
}

pub(super) fn stream(server: &Server) -> Result<TcpStream> {
    let stream = TcpStream::connect(server.address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    Ok(stream)
}
