//! HTTP/1.1 at a pace: many connections that each send a piece now and then.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::upload::{Outcome, Target, envelope, reply};
use crate::content::noise;
use crate::contestant::Door;
use crate::error::Result;
use crate::server::Server;

/// `uploads` at once, each of so many pieces, one `every` so often. They do not all begin at the same moment.
pub async fn drive(
    uploads: usize,
    pieces: u32,
    piece: usize,
    every: Duration,
    door: Door,
    server: &Server,
) -> Result<Outcome> {
    let content = noise(piece);
    let size = u64::from(pieces) * piece as u64;
    let begun = Instant::now();
    let mut clients: JoinSet<Result> = JoinSet::new();
    for number in 0..uploads {
        let content = content.clone();
        let address = server.address;
        let (head, tail) = envelope(door, server, Target::own(server.ids + number as u64 + 1), size);
        clients.spawn(async move {
            let mut pace = pace(begun, every, number, uploads);
            pace.tick().await;
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            stream.write_all(head.as_bytes()).await?;
            for _ in 0..pieces {
                pace.tick().await;
                stream.write_all(&content).await?;
            }
            stream.write_all(tail.as_bytes()).await?;
            let mut received = Vec::new();
            loop {
                if stream.read_buf(&mut received).await? == 0 {
                    return Err("the connection was closed before the reply".into());
                }
                if reply(&received)?.is_some_and(|reply| received.len() >= reply.length) {
                    return Ok(());
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let uploads = uploads as u64;
    Ok(Outcome { time: begun.elapsed(), uploads, bytes: uploads * size, ..Outcome::default() })
}

/// The pace of one of `count` clients, which are spread evenly over the time between two pieces.
pub fn pace(begun: Instant, every: Duration, number: usize, count: usize) -> tokio::time::Interval {
    let mut pace = interval_at(begun + every.mul_f64(number as f64 / count as f64), every);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}
