//! When this process stood still: it was stopped, or its machine was frozen, moved to another or so busy that nothing ran. What
//! callers sent meanwhile has not been read, so that time is not to be held against them. It must not know who waits for what.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the clock is looked at.
const BEAT: Duration = Duration::from_secs(1);

/// By how much later it is looked at where the process is taken for having stood still.
const LATE: Duration = Duration::from_secs(1);

/// How many times of standing still are remembered. An upload that waits for longer than all of them is not helped by the
/// ones before.
const REMEMBERED: usize = 64;

/// Looks at the clock again and again, and remembers when it could not.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    last: Option<Instant>,
    absences: VecDeque<Absence>,
}

#[derive(Clone, Copy, Debug)]
struct Absence {
    from: Instant,
    to: Instant,
}

impl Presence {
    /// Looks at the clock for as long as it is driven. Before that nobody was ever away.
    pub(super) async fn keep(&self) {
        loop {
            self.seen().look(Instant::now());
            sleep(BEAT).await;
        }
    }

    /// For how long the process has stood still since then. Nothing where that is no longer ago than what counts as that.
    pub(super) fn missed(&self, since: Instant) -> Duration {
        let now = Instant::now();
        if now.saturating_duration_since(since) <= BEAT + LATE {
            return Duration::ZERO;
        }
        self.seen().missed(since, now)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn look(&mut self, now: Instant) {
        if let Some(absence) = self.absence(now) {
            self.absences.truncate(REMEMBERED - 1);
            self.absences.push_front(absence);
        }
        self.last = Some(now);
    }

    /// The absence that ends now. Whoever wakes up first need not be who looks at the clock.
    fn absence(&self, now: Instant) -> Option<Absence> {
        let from = self.last.filter(|last| now.saturating_duration_since(*last) > BEAT + LATE)?;
        Some(Absence { from, to: now })
    }

    fn missed(&self, since: Instant, now: Instant) -> Duration {
        let absences = self.absence(now).into_iter().chain(self.absences.iter().copied());
        absences.map(|Absence { from, to }| to.saturating_duration_since(from.max(since))).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn what_was_missed_is_the_time_in_which_nobody_looked() {
        let start = Instant::now();
        let mut seen = Seen::default();
        let at = |second| start + seconds(second);
        assert_eq!(seen.missed(start, at(100)), Duration::ZERO, "nobody has begun to look");
        for second in [0, 1, 3, 43, 44, 50] {
            seen.look(at(second));
        }
        assert_eq!(seen.missed(at(0), at(50)), seconds(40 + 6));
        assert_eq!(seen.missed(at(3), at(50)), seconds(40 + 6));
        assert_eq!(seen.missed(at(23), at(50)), seconds(20 + 6));
        assert_eq!(seen.missed(at(43), at(52)), seconds(6));
        assert_eq!(seen.missed(at(50), at(52)), Duration::ZERO);
        assert_eq!(seen.missed(at(50), at(53)), seconds(3), "the one that has not been noticed yet");
        assert_eq!(seen.missed(at(52), at(53)), seconds(1));
    }

    #[test]
    fn no_more_is_remembered_than_can_be() {
        let start = Instant::now();
        let mut seen = Seen::default();
        for times in 0..100 {
            seen.look(start + seconds(10) * times);
        }
        assert_eq!(seen.absences.len(), REMEMBERED);
        assert_eq!(seen.missed(start, start + seconds(990)), seconds(10 * 64));
    }
}
