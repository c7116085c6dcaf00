//! An attack, with honest clients beside it: what it costs the server, and what it costs them.

mod attackers;
mod honest;
mod wire;

use std::thread;
use std::time::{Duration, Instant};

use super::upload::{Ordeal, Outcome, asynchronous};
use crate::error::Result;
use crate::hostile::{Attack, Hostile};
use crate::server::Server;
use attackers::Attackers;

/// How long the attack is under way before honest clients come, in parts of its time.
const BEFORE: u32 = 10;

/// Attacks a server.
pub fn drive(hostile: Hostile, server: &Server) -> Result<Outcome> {
    let attackers = Attackers::start(hostile, server)?;
    server.stall_log(hostile.attack == Attack::StalledLog);
    thread::sleep(hostile.time / BEFORE);
    let (begun, cpu, log) = (Instant::now(), server.cpu()?, server.log_bytes()?);
    let honest = asynchronous(honest::drive(hostile.time, server))?;
    let elapsed = begun.elapsed();
    let per_second = |value: f64| value / elapsed.as_secs_f64();
    let cores = per_second(server.cpu()?.saturating_sub(cpu).as_secs_f64());
    let log = per_second(server.log_bytes()?.saturating_sub(log) as f64);
    let (opened, ended) = attackers.end();
    server.stall_log(false);
    thread::sleep(hostile.rest);
    let uploads = honest.latencies.len() as u64;
    Ok(Outcome {
        time: elapsed.max(Duration::from_millis(1)),
        uploads,
        bytes: uploads * honest::SIZE as u64,
        latencies: honest.latencies,
        ordeal: Some(Ordeal { opened, ended, lost: honest.lost, cores, log }),
        ..Outcome::default()
    })
}
