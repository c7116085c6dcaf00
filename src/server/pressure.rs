//! What the log says while connections are closed to make room: a line when it begins, and a summary at most every ten seconds.
//! This module does not know which connections there are.

use std::time::{Duration, Instant};

use super::prefix::Prefix;
use super::standing::State;
use crate::telemetry::Port;

/// How often the log has a summary.
const SUMMARY: Duration = Duration::from_secs(10);

/// The lines of one port.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    closed: Count,
    waiting: Option<Instant>,
    /// When the log last had a line about closed connections. None if none was closed for some time.
    told: Option<Instant>,
}

#[derive(Debug, Default)]
struct Count {
    silent: u64,
    handshaking: u64,
    idle: u64,
    stalled: u64,
}

impl Count {
    fn is_zero(&self) -> bool {
        self.silent + self.handshaking + self.idle + self.stalled == 0
    }
}

impl Pressure {
    /// A connection in this state was closed.
    pub(super) fn closed(&mut self, state: State) {
        match state {
            State::Silent => self.closed.silent += 1,
            State::Handshaking => self.closed.handshaking += 1,
            State::Idle => self.closed.idle += 1,
            State::Stalled => self.closed.stalled += 1,
            State::Active => {}
        }
    }

    /// A new connection waits.
    pub(super) fn waits(&mut self, port: Port, limit: usize) {
        let now = Instant::now();
        if self.waiting.is_none_or(|told| now.duration_since(told) >= SUMMARY) {
            self.waiting = Some(now);
            tracing::warn!(port = port.as_str(), connections = limit, "no more connections, new ones wait");
        }
    }

    /// Whether there may be something to say later.
    pub(super) fn pends(&self) -> bool {
        self.told.is_some()
    }

    /// Says what there is to say. `most` finds the address with the most connections, and their number.
    pub(super) fn tell(
        &mut self,
        port: Port,
        open: usize,
        limit: usize,
        most: impl FnOnce() -> Option<(Prefix, usize)>,
    ) {
        let now = Instant::now();
        if self.told.is_some_and(|told| now.duration_since(told) < SUMMARY) {
            return;
        }
        let Count { silent, handshaking, idle, stalled } = self.closed;
        if self.closed.is_zero() {
            self.told = None;
            return;
        }
        self.told = Some(now);
        self.closed = Count::default();
        let (address, of_address) = most().map(|(address, count)| (address.to_string(), count)).unwrap_or_default();
        tracing::warn!(
            port = port.as_str(),
            silent,
            handshaking,
            idle,
            stalled,
            open,
            limit,
            address,
            of_address,
            "connections are closed to make room for others"
        );
    }
}
