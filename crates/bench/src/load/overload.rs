//! What is still accepted if more ask than can be served: the same uploads over few connections, over more and more, and then over
//! few again, at once. A client that is refused asks again after a short while, as impatient ones do.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use super::http1::{Connection, each, joined};
use super::share::REFUSED;
use super::upload::{IDS, Outcome, Stage, Target};
use crate::cell::Overload;
use crate::content::noise;
use crate::contestant::Door;
use crate::error::Result;
use crate::server::Server;

/// What share of its time a stage is not measured, at its beginning, while its connections are opened.
const OPENING: u32 = 4;

/// The load over HTTP/1.1.
pub fn drive(overload: Overload, door: Door, server: &Server) -> Result<Outcome> {
    let content = noise(overload.size);
    let begun = Instant::now();
    let mut stages = Vec::new();
    let mut first = server.ids;
    let counts = overload.connections.into_iter().map(|connections| (connections, overload.time));
    // The last one begins when the many have just gone.
    for (connections, time) in counts.chain([(overload.connections[0], overload.recovery)]) {
        stages.push(stage(
            connections,
            time,
            stages.len() == overload.connections.len(),
            &content,
            door,
            server,
            first,
        )?);
        first += connections as u64 * IDS;
    }
    let uploads = stages.iter().map(|stage| stage.accepted).sum();
    let bytes = uploads * overload.size as u64;
    Ok(Outcome { time: begun.elapsed(), uploads, bytes, stages, ..Outcome::default() })
}

/// Uploads over so many connections for so long. What ends while they are opened counts only where it is asked for, and what ends
/// after that time never does.
fn stage(
    connections: usize,
    time: Duration,
    counts_all: bool,
    content: &[u8],
    door: Door,
    server: &Server,
    first: u64,
) -> Result<Stage> {
    let opening = if counts_all { Duration::ZERO } else { time / OPENING };
    let (begun, from) = (Instant::now(), Instant::now() + opening);
    let sum = Mutex::new(Stage { connections, time, ..Stage::default() });
    thread::scope(|scope| -> Result {
        let sum = &sum;
        let clients = each(scope, connections, move |number| {
            let (mut accepted, mut refused, mut latencies) = (0, 0, Vec::new());
            let mut connection = None;
            for id in first + number as u64 * IDS + 1.. {
                let now = Instant::now();
                if now - begun >= opening + time {
                    break;
                }
                let sent = match connection.take().map_or_else(|| Connection::open(server), Ok) {
                    Ok(mut open) => {
                        let sent = open.send(door, Target::own(id), content.len() as u64, content);
                        sent.map(|()| open)
                    }
                    Err(error) => Err(error),
                };
                let ended = Instant::now();
                let is_measured = (from..from + time).contains(&ended);
                match sent {
                    Ok(open) => {
                        connection = Some(open);
                        if is_measured {
                            accepted += 1;
                            latencies.push(u32::try_from((ended - now).as_micros())?);
                        }
                    }
                    Err(_) => {
                        refused += u64::from(is_measured);
                        thread::sleep(REFUSED);
                    }
                }
            }
            let mut sum = sum.lock().map_err(|_| "a client panicked")?;
            sum.accepted += accepted;
            sum.refused += refused;
            sum.latencies.append(&mut latencies);
            Ok(())
        })?;
        clients.into_iter().try_for_each(joined)
    })?;
    let mut sum = sum.into_inner().map_err(|_| "a client panicked")?;
    sum.latencies.sort_unstable();
    Ok(sum)
}
