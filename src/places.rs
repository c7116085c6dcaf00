//! Places of what is under way, uploads or downloads. A client may take one as long as it has fewer than three times as many as are
//! free (the dynamic thresholds of Choudhury and Hahne, 1998): one client alone gets 75 % of them, and another that comes finds some
//! free. A request without a place is refused, and asked to come back when those that were refused before it are likely to have been
//! served. This module must not know what has the places.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use crate::fair::Tally;
use crate::telemetry::{Limit, Metrics};

/// Over which time refusals and ends are counted at least, and at most twice.
const WINDOW: Duration = Duration::from_secs(10);

/// How many seconds a refused caller is asked to wait.
const WAIT: RangeInclusive<u64> = 1..=30;

/// How many times as many places as are free a client may have.
const OF_FREE: u64 = 3;

/// The places of a process.
#[derive(Debug)]
pub struct Places {
    all: u64,
    /// What sets their number.
    limit: Limit,
    state: Arc<Mutex<State>>,
}

/// One place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    client: Id,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    taken: Tally,
    turnover: Turnover,
}

/// How many have ended and how many were refused, in the current window and in the one before.
#[derive(Debug)]
struct Turnover {
    since: Instant,
    now: Counts,
    before: Option<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    ended: u64,
    refused: u64,
}

impl Turnover {
    fn counts(&mut self, at: Instant) -> &mut Counts {
        let passed = at.saturating_duration_since(self.since);
        if passed >= WINDOW {
            self.before = (passed < 2 * WINDOW).then_some(self.now);
            (self.now, self.since) = (Counts::default(), at);
        }
        &mut self.now
    }

    /// In how many seconds at most as many end as were refused lately, at the rate at which they ended lately.
    fn seconds(&self, at: Instant) -> u64 {
        let before = self.before.unwrap_or_default();
        let (ended, refused) = (self.now.ended + before.ended, self.now.refused + before.refused);
        let measured = at.saturating_duration_since(self.since) + self.before.map_or(Duration::ZERO, |_| WINDOW);
        let seconds = refused.saturating_mul(measured.as_secs().max(1)).div_ceil(ended.max(1));
        if ended == 0 { *WAIT.end() } else { seconds.clamp(*WAIT.start() + 1, *WAIT.end()) }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    /// So many places, a number that `limit` sets.
    pub fn new(all: usize, limit: Limit) -> Places {
        let turnover = Turnover { since: Instant::now(), now: Counts::default(), before: None };
        Places { all: all as u64, limit, state: Arc::new(Mutex::new(State { taken: Tally::default(), turnover })) }
    }

    /// Takes a place for a client, if it is permitted one more beside so many.
    ///
    /// # Errors
    /// What `permits` raises, and [`Kind::Overloaded`] if too few are free for one more of this client.
    pub fn take(&self, client: Id, metrics: &Metrics, permits: impl FnOnce(u64) -> Result<()>) -> Result<Place> {
        let mut state = lock(&self.state);
        let (taken, own) = (state.taken.all(), state.taken.of(client));
        permits(own)?;
        let free = self.all.saturating_sub(taken);
        if own >= free.saturating_mul(OF_FREE) {
            drop(state);
            metrics.limited(self.limit, Some(client));
            let why = format!(
                "{taken} are under way, {own} of them of this client; {} or the file descriptors permit {}, and each client {OF_FREE} times \
                 as many as are free",
                self.limit.as_str(),
                self.all
            );
            return Err(self.later(Error::new(Kind::Overloaded).because(why)));
        }
        state.taken.add(client, 1);
        Ok(Place { client, state: Arc::clone(&self.state) })
    }

    /// Asks a caller that is refused to come back when it is likely to be served.
    pub fn later(&self, refusal: Error) -> Error {
        let now = Instant::now();
        let seconds = {
            let turnover = &mut lock(&self.state).turnover;
            turnover.counts(now).refused += 1;
            turnover.seconds(now)
        };
        refusal.at_limit().retry_within(*WAIT.start()..=seconds)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.turnover.counts(Instant::now()).ended += 1;
        state.taken.remove(self.client, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(id: i64) -> Id {
        Id::try_from(id).unwrap()
    }

    fn of(all: usize) -> Places {
        Places::new(all, Limit::MaxUploads)
    }

    /// How many places a client gets.
    fn fill(places: &Places, of: i64, taken: &mut Vec<Place>) -> usize {
        let before = taken.len();
        while let Ok(place) = places.take(client(of), &Metrics::default(), |_| Ok(())) {
            taken.push(place);
        }
        taken.len() - before
    }

    #[test]
    fn no_more_places_are_taken_than_there_are_and_one_that_is_left_is_free() {
        let (places, metrics) = (of(3), Metrics::default());
        let mut taken: Vec<_> = (1..=3).map(|id| places.take(client(id), &metrics, |_| Ok(())).unwrap()).collect();
        let refused = places.take(client(4), &metrics, |_| Ok(())).unwrap_err();
        assert_eq!((refused.kind(), refused.is_at_limit()), (Kind::Overloaded, true));
        assert!(WAIT.contains(&refused.retry_after().unwrap().as_secs()));
        taken.pop();
        let _again = places.take(client(4), &metrics, |_| Ok(())).unwrap();
        assert!(places.take(client(1), &metrics, |_| Ok(())).is_err());
    }

    #[test]
    fn a_client_leaves_places_to_others() {
        let (places, mut taken) = (of(1000), Vec::new());
        let shares = (1..=4).map(|id| fill(&places, id, &mut taken)).collect::<Vec<_>>();
        assert_eq!(shares[0], 750);
        // The others find some, each fewer than the one before.
        assert!(shares.windows(2).all(|pair| pair[1] < pair[0] && pair[1] > 0), "{shares:?}");
        drop(taken);
        assert_eq!(fill(&places, 2, &mut Vec::new()), 750);
        assert_eq!(lock(&places.state).taken.clients(), 0);
        // With one place there is nothing to share.
        assert_eq!(fill(&of(1), 1, &mut Vec::new()), 1);
    }

    #[test]
    fn the_wait_follows_from_how_many_were_refused_and_how_fast_uploads_end() {
        let began = Instant::now();
        let wait = |ended, refused, passed| {
            let turnover = Turnover { since: began, now: Counts { ended, refused }, before: None };
            turnover.seconds(began + Duration::from_secs(passed))
        };
        assert_eq!(wait(0, 1, 5), 30, "nothing ends");
        assert_eq!(wait(100, 1, 5), 2);
        assert_eq!(wait(100, 100, 5), 5);
        assert_eq!(wait(100, 400, 5), 20);
        assert_eq!(wait(100, 100_000, 5), 30);
        // What is long ago does not count.
        let mut turnover = Turnover { since: began, now: Counts { ended: 9, refused: 9 }, before: None };
        turnover.counts(began + WINDOW).ended += 1;
        assert_eq!(turnover.before.map(|before| before.ended), Some(9));
        turnover.counts(began + 4 * WINDOW);
        assert!(turnover.before.is_none() && turnover.now.ended == 0);
    }
}
