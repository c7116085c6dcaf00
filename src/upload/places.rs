//! Places of uploads that are under way. An upload without a place is refused, and asked to come back when those that were refused
//! before it are likely to have been served. This module must not know what an upload does.

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Limit, Metrics};

/// Over which time refusals and ends are counted at least, and at most twice.
const WINDOW: Duration = Duration::from_secs(10);

/// How many seconds a refused caller is asked to wait.
const WAIT: RangeInclusive<u64> = 1..=30;

/// The places of a process.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: usize,
    turnover: Arc<Mutex<Turnover>>,
}

/// The place of one upload, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    turnover: Arc<Mutex<Turnover>>,
}

/// How many uploads have ended and how many were refused, in the current window and in the one before.
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

    /// In how many seconds at most as many uploads end as were refused lately, at the rate at which uploads ended lately.
    fn seconds(&self, at: Instant) -> u64 {
        let before = self.before.unwrap_or_default();
        let (ended, refused) = (self.now.ended + before.ended, self.now.refused + before.refused);
        let measured = at.saturating_duration_since(self.since) + self.before.map_or(Duration::ZERO, |_| WINDOW);
        let seconds = refused.saturating_mul(measured.as_secs().max(1)).div_ceil(ended.max(1));
        if ended == 0 { *WAIT.end() } else { seconds.clamp(*WAIT.start() + 1, *WAIT.end()) }
    }
}

fn lock(turnover: &Mutex<Turnover>) -> MutexGuard<'_, Turnover> {
    turnover.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Places {
    pub(super) fn new(all: usize) -> Places {
        let all = all.min(Semaphore::MAX_PERMITS);
        let turnover = Turnover { since: Instant::now(), now: Counts::default(), before: None };
        Places { free: Arc::new(Semaphore::new(all)), all, turnover: Arc::new(Mutex::new(turnover)) }
    }

    /// Takes a place for an upload of a client.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if none is free.
    pub(super) fn take(&self, client: Id, metrics: &Metrics) -> Result<Place> {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            metrics.limited(Limit::MaxUploads, Some(client));
            let why = format!(
                "{} uploads are under way, which is limits.max_uploads or what the file descriptors permit",
                self.all
            );
            return Err(self.later(Error::new(Kind::Overloaded).because(why)));
        };
        Ok(Place { _permit: permit, turnover: Arc::clone(&self.turnover) })
    }

    /// Asks a caller that is refused to come back when it is likely to be served.
    pub(super) fn later(&self, refusal: Error) -> Error {
        let now = Instant::now();
        let seconds = {
            let mut turnover = lock(&self.turnover);
            turnover.counts(now).refused += 1;
            turnover.seconds(now)
        };
        refusal.at_limit().retry_within(*WAIT.start()..=seconds)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.turnover).counts(Instant::now()).ended += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_places_are_taken_as_there_are_and_one_that_is_left_is_free() {
        let (places, metrics) = (Places::new(3), Metrics::default());
        let client = Id::try_from(1).unwrap();
        let mut taken: Vec<_> = (0..3).map(|_| places.take(client, &metrics).unwrap()).collect();
        let refused = places.take(client, &metrics).unwrap_err();
        assert_eq!((refused.kind(), refused.is_at_limit()), (Kind::Overloaded, true));
        assert!(WAIT.contains(&refused.retry_after().unwrap().as_secs()));
        taken.pop();
        let _again = places.take(client, &metrics).unwrap();
        assert!(places.take(client, &metrics).is_err());
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
