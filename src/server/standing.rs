//! The state of one connection, and the order to close it. This module does not know the other connections.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;

/// The state of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// It has no request yet, and is not in a TLS handshake.
    Silent,
    /// It has sent a whole ClientHello, and its TLS handshake is not complete.
    Handshaking,
    /// Its requests are complete.
    Idle,
    /// It has a request, or a response that is being sent.
    Active,
    /// Its client has not taken any of the response for some time.
    Stalled,
}

/// The state of one connection. Its lock is held by the connection itself, and by the search for connections to close.
#[derive(Debug)]
pub(super) struct Standing {
    now: Mutex<Now>,
    evicted: AtomicBool,
    closes: AtomicWaker,
    /// After which time without progress of its response a connection is stalled.
    patience: Duration,
}

#[derive(Debug)]
struct Now {
    /// The state without a request.
    rest: State,
    since: Instant,
    requests: usize,
    /// How many requests have a response that waits for the client.
    untaken: usize,
    /// When such a response last made progress.
    taken: Instant,
    /// Since when the socket takes no more bytes, if it does not.
    blocked: Option<Instant>,
}

impl Now {
    /// The state, and its beginning.
    fn state(&self, now: Instant, patience: Duration) -> (State, Instant) {
        if self.requests == 0 && self.blocked.is_none() {
            return (self.rest, self.since);
        }
        let waits_for_client = self.requests > 0 && self.untaken == self.requests;
        let stuck = self.blocked.or(waits_for_client.then_some(self.taken));
        match stuck.filter(|since| now.saturating_duration_since(*since) >= patience) {
            Some(since) => (State::Stalled, since),
            None => (State::Active, self.since),
        }
    }

    fn rests(&mut self, rest: State) {
        self.rest = rest;
        self.since = Instant::now();
    }
}

impl Standing {
    /// A connection that is accepted now.
    pub(super) fn new(patience: Duration) -> Standing {
        let now = Instant::now();
        let now = Now { rest: State::Silent, since: now, requests: 0, untaken: 0, taken: now, blocked: None };
        Standing { now: Mutex::new(now), evicted: AtomicBool::new(false), closes: AtomicWaker::new(), patience }
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state at `now`, and its beginning.
    pub(super) fn state(&self, now: Instant) -> (State, Instant) {
        self.now().state(now, self.patience)
    }

    /// A whole ClientHello has arrived.
    pub(super) fn handshaking(&self) {
        self.now().rests(State::Handshaking);
    }

    /// The TLS handshake is complete.
    pub(super) fn shaken(&self) {
        self.now().rests(State::Silent);
    }

    /// The socket takes no more bytes, or does again.
    pub(super) fn blocked(&self, blocked: bool) {
        self.now().blocked = blocked.then(Instant::now);
    }

    /// A request begins.
    pub(super) fn begin(self: &Arc<Self>) -> Exchange {
        let mut now = self.now();
        now.requests += 1;
        if now.requests == 1 {
            now.since = Instant::now();
        }
        drop(now);
        Exchange { standing: Arc::clone(self), untaken: false }
    }

    /// It has been without a request since then.
    #[cfg(test)]
    pub(super) fn rested_since(&self, since: Instant) {
        self.now().since = since;
    }

    /// Orders the connection to close if it still is in this state since then.
    pub(super) fn evict(&self, state: State, since: Instant) -> bool {
        let now = self.now();
        let evicts =
            now.state(Instant::now(), self.patience) == (state, since) && !self.evicted.swap(true, Ordering::AcqRel);
        drop(now);
        if evicts {
            self.closes.wake();
        }
        evicts
    }

    /// Waits for the order to close. Only the task of the connection waits.
    pub(super) async fn evicted(&self) {
        poll_fn(|context| {
            self.closes.register(context.waker());
            if self.evicted.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// A request, from its headers to the end of its response.
#[derive(Debug)]
pub(super) struct Exchange {
    standing: Arc<Standing>,
    /// Whether the response waits for the client.
    untaken: bool,
}

impl Exchange {
    /// A part of the response is ready for the client.
    pub(super) fn offers(&mut self) {
        let mut now = self.standing.now();
        now.untaken += usize::from(!self.untaken);
        now.taken = Instant::now();
        self.untaken = true;
    }

    /// The response waits for content.
    pub(super) fn waits(&mut self) {
        if self.untaken {
            self.standing.now().untaken -= 1;
            self.untaken = false;
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let mut now = self.standing.now();
        now.untaken -= usize::from(self.untaken);
        now.requests -= 1;
        if now.requests == 0 {
            now.rests(State::Idle);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn state_after(standing: &Standing, time: Duration) -> State {
        standing.state(Instant::now() + time).0
    }

    #[test]
    fn a_connection_passes_through_its_states() {
        let standing = Arc::new(Standing::new(PATIENCE));
        let state = || state_after(&standing, 2 * PATIENCE);
        assert_eq!(state(), State::Silent);
        standing.handshaking();
        assert_eq!(state(), State::Handshaking);
        standing.shaken();
        assert_eq!(state(), State::Silent);
        let (first, second) = (standing.begin(), standing.begin());
        assert_eq!(state(), State::Active);
        drop(first);
        assert_eq!(state(), State::Active);
        drop(second);
        assert_eq!(state(), State::Idle);
        standing.blocked(true);
        assert_eq!(state_after(&standing, PATIENCE / 2), State::Active);
        assert_eq!(state(), State::Stalled);
        standing.blocked(false);
        assert_eq!(state(), State::Idle);
    }

    #[test]
    fn a_connection_is_stalled_if_all_its_responses_wait_for_the_client() {
        let standing = Arc::new(Standing::new(PATIENCE));
        let state = || state_after(&standing, 2 * PATIENCE);
        let (mut first, mut second) = (standing.begin(), standing.begin());
        first.offers();
        assert_eq!(state(), State::Active, "the other one may receive");
        second.offers();
        second.offers();
        assert_eq!(state(), State::Stalled);
        assert_eq!(state_after(&standing, PATIENCE / 2), State::Active, "it is soon after");
        second.waits();
        second.waits();
        assert_eq!(state(), State::Active, "the other one waits for content");
        drop(second);
        assert_eq!(state(), State::Stalled);
        drop(first);
        assert_eq!(state(), State::Idle);
        assert_eq!(standing.now().untaken, 0);
    }

    #[test]
    fn a_connection_is_only_evicted_in_the_state_that_was_seen_and_once() {
        let standing = Arc::new(Standing::new(PATIENCE));
        let (state, since) = standing.state(Instant::now());
        let request = standing.begin();
        assert!(!standing.evict(state, since));
        assert!(standing.evicted().now_or_never().is_none());
        drop(request);
        assert!(!standing.evict(state, since));
        let (state, since) = standing.state(Instant::now());
        assert!(standing.evict(state, since));
        assert!(!standing.evict(state, since));
        assert!(standing.evicted().now_or_never().is_some());
    }
}
