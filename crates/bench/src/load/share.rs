//! What a client with few connections keeps beside one with many: the same loads one after the other, first without the
//! crowd and then with it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::http1::{Connection, each, joined};
use super::upload::{IDS, Outcome, Target};
use crate::cell::Share;
use crate::content::noise;
use crate::contestant::Door;
use crate::error::Result;
use crate::server::Server;

/// The client with few connections.
pub(super) const FEW: u64 = 1;
/// The client with many.
pub(super) const CROWD: u64 = 2;

/// How long the crowd is there before the few begin.
pub(super) const BEFORE: Duration = Duration::from_secs(1);

/// How long a client of the crowd that was refused waits.
pub(super) const REFUSED: Duration = Duration::from_millis(10);

/// What became of a crowd.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) over: AtomicBool,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// The load over HTTP/1.1.
pub fn drive(share: Share, door: Door, server: &Server) -> Result<Outcome> {
    let alone = few(share, door, server, 0)?;
    let counts = Counts::default();
    let content = noise(share.size);
    let (mut beside, crowd) = thread::scope(|scope| {
        let (counts, content) = (&counts, &content);
        let crowd = each(scope, share.crowd, move |number| {
            let mut id = server.ids + number as u64 * IDS;
            while !counts.over.load(Ordering::Relaxed) {
                // A connection that was cut off is replaced.
                let Ok(mut connection) = Connection::open(server) else { continue };
                loop {
                    id += 1;
                    let target = Target { client: CROWD, id };
                    if counts.over.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    if connection.send_until(door, target, share.size as u64, content, &counts.over).is_err() {
                        break;
                    }
                    counts.accepted.fetch_add(1, Ordering::Relaxed);
                }
                counts.refused.fetch_add(1, Ordering::Relaxed);
                thread::sleep(REFUSED);
            }
            Ok(())
        })?;
        thread::sleep(BEFORE);
        let before = counts.accepted.load(Ordering::Relaxed);
        let beside = few(share, door, server, share.few as u64);
        let accepted = counts.accepted.load(Ordering::Relaxed) - before;
        counts.over.store(true, Ordering::Relaxed);
        crowd.into_iter().try_for_each(joined)?;
        beside.map(|beside| (beside, accepted))
    })?;
    beside.beside_crowd = Some((Box::new(alone), crowd, counts.refused.load(Ordering::Relaxed)));
    Ok(beside)
}

/// One upload after the other over each of the few connections, for the time of the load.
fn few(share: Share, door: Door, server: &Server, number: u64) -> Result<Outcome> {
    let content = noise(share.size);
    let begun = Instant::now();
    let latencies = thread::scope(|scope| -> Result<_> {
        let content = &content;
        let clients = each(scope, share.few, move |own| {
            let mut latencies = Vec::new();
            let mut connection = Connection::open(server)?;
            let first = server.ids + (number + own as u64) * IDS;
            let mut now = begun;
            for id in first + 1.. {
                if now - begun >= share.time {
                    break;
                }
                connection.send(door, Target { client: FEW, id }, share.size as u64, content)?;
                let then = Instant::now();
                latencies.push(u32::try_from((then - now).as_micros())?);
                now = then;
            }
            Ok(latencies)
        })?;
        let mut latencies = Vec::new();
        for client in clients {
            latencies.extend(joined(client)?);
        }
        Ok(latencies)
    })?;
    Ok(Outcome::of_small(begun.elapsed(), share.size, latencies))
}
