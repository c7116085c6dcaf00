//! Rates that are not to be passed. [`spend`] is the generic cell rate algorithm (ITU-T I.371), which needs one number for whatever
//! is limited: when the next piece would be due if all came at the rate. Its times are nanoseconds since a moment of the caller's
//! choice. [`Bucket`] is for what earns its cost by itself too. This module must not know what is limited.

use std::time::{Duration, Instant};

/// One second.
pub const SECOND: u64 = 1_000_000_000;

/// When the next piece is due, if the next one was `due` and one that takes `cost` comes at `now`.
///
/// It may come as long as what came before it is less than `burst` ahead of the rate, whatever its own cost is.
///
/// # Errors
/// How long to wait, if it may not come yet.
pub fn spend(due: u64, now: u64, cost: u64, burst: u64) -> Result<u64, u64> {
    let due = due.max(now);
    let ahead = due - now;
    if ahead < burst { Ok(due.saturating_add(cost)) } else { Err((ahead - burst).saturating_add(1)) }
}

/// When the next piece is due if the next one was `due` and one that takes `cost` has come at `now` in any case, and how long to wait
/// so that all together are no more than `burst` ahead of the rate.
pub fn charge(due: u64, now: u64, cost: u64, burst: u64) -> (u64, u64) {
    let due = due.max(now).saturating_add(cost);
    (due, (due - now).saturating_sub(burst))
}

/// What `amount` costs where `a_second` of it may come, which is not 0.
pub fn cost(amount: u64, a_second: u64) -> u64 {
    let cost = u128::from(amount) * u128::from(SECOND) / u128::from(a_second);
    u64::try_from(cost).unwrap_or(u64::MAX)
}

/// A bucket of units (a token bucket). Units come with time and are earned, and what costs some takes them out.
#[derive(Debug)]
pub struct Bucket {
    units: u64,
    /// How many come in a millisecond.
    a_milli: u64,
    /// How many there are at most.
    most: u64,
    since: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn full(a_milli: u64, most: u64, now: Instant) -> Bucket {
        Bucket { units: most, a_milli, most, since: now }
    }

    /// Adds what has come until `now`, by whole milliseconds. The rest of a millisecond is kept for the next time.
    pub fn refill(&mut self, now: Instant) {
        let millis = u64::try_from(now.duration_since(self.since).as_millis()).unwrap_or_default();
        self.since += Duration::from_millis(millis);
        self.earn(millis.saturating_mul(self.a_milli));
    }

    /// Adds units that were earned.
    pub fn earn(&mut self, units: u64) {
        self.units = self.units.saturating_add(units).min(self.most);
    }

    /// Takes units out. If there are too few, the bucket is empty afterwards, and the answer is no.
    pub fn pay(&mut self, units: u64) -> bool {
        let left = self.units.checked_sub(units);
        self.units = left.unwrap_or_default();
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_has_what_came_and_was_earned_and_no_more_than_it_holds() {
        let now = Instant::now();
        let mut bucket = Bucket::full(1, 10, now);
        assert!(bucket.pay(10) && !bucket.pay(1));
        bucket.refill(now + Duration::from_millis(3));
        assert!(bucket.pay(3) && !bucket.pay(1));
        bucket.earn(2);
        assert!(bucket.pay(2));
        bucket.earn(100);
        bucket.refill(now + Duration::from_secs(9));
        assert!(bucket.pay(10) && !bucket.pay(1));
    }

    #[test]
    fn a_bucket_that_is_often_looked_at_gets_all_that_comes() {
        let now = Instant::now();
        let mut bucket = Bucket::full(3, 3000, now);
        assert!(bucket.pay(3000));
        (1..=500).for_each(|step| bucket.refill(now + Duration::from_micros(1900) * step));
        assert!(bucket.pay(3 * 950) && !bucket.pay(1));
    }

    /// How many of `tries` pieces may come at `now`.
    fn come(due: &mut u64, now: u64, tries: u32) -> u32 {
        let mut came = 0;
        for _ in 0..tries {
            if let Ok(next) = spend(*due, now, SECOND / 10, 2 * SECOND) {
                (*due, came) = (next, came + 1);
            }
        }
        came
    }

    #[test]
    fn a_burst_comes_at_once_and_then_so_many_a_second() {
        let mut due = 0;
        assert_eq!(come(&mut due, 0, 100), 20);
        assert_eq!(come(&mut due, 0, 1), 0);
        assert_eq!(come(&mut due, SECOND, 100), 10);
        assert_eq!(come(&mut due, 100 * SECOND, 100), 20);
    }

    #[test]
    fn what_has_come_in_any_case_waits_until_the_burst_has_room_for_it() {
        let charged = [0, 1, 2].map(|after| charge(2 * SECOND + after * SECOND, 0, SECOND, 3 * SECOND).1);
        assert_eq!(charged, [0, SECOND, 2 * SECOND]);
        assert_eq!(charge(0, 5 * SECOND, SECOND, 0), (6 * SECOND, SECOND));
        assert_eq!(charge(0, 1, u64::MAX, 0), (u64::MAX, u64::MAX - 1));
    }

    #[test]
    fn who_has_to_wait_is_told_for_how_long_exactly() {
        let due = 5 * SECOND;
        let wait = spend(due, 0, SECOND, 2 * SECOND).unwrap_err();
        assert!(spend(due, wait - 1, SECOND, 2 * SECOND).is_err());
        assert_eq!(spend(due, wait, SECOND, 2 * SECOND), Ok(due + SECOND));
        // What is larger than the burst comes, and then its time has to pass.
        assert_eq!(spend(0, 0, 50 * SECOND, 2 * SECOND), Ok(50 * SECOND));
        assert_eq!(spend(0, 0, u64::MAX, 1), Ok(u64::MAX));
    }
}
