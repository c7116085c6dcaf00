//! How fast requests are answered that a limit has refused. An impatient client repeats at once what was refused, and a server that
//! refuses as fast as it can has time for nothing else. So only so many refusals a second are answered at once. Each further one waits
//! for its turn, while nothing is read of it. This module must not know which limit has refused.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::rate::{SECOND, charge, cost};
use crate::telemetry::{Limit, Metrics};

/// How long a refusal waits at most, in nanoseconds. Clients and proxies wait longer for a response.
const MOST: u64 = 5 * SECOND;

/// The refusals of a process. Clones are the same.
#[derive(Clone, Debug)]
pub struct Refusals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    per_second: u64,
    began: Instant,
    /// When the next one is due, in nanoseconds since the beginning.
    due: Mutex<u64>,
    metrics: Metrics,
}

impl Refusals {
    /// So many a second are answered at once, and as many in a burst. 0 sets no limit. Those that wait are counted in `metrics`.
    pub fn new(per_second: u64, metrics: &Metrics) -> Refusals {
        Refusals(Arc::new(Shared {
            per_second,
            began: Instant::now(),
            due: Mutex::default(),
            metrics: metrics.clone(),
        }))
    }

    /// Waits until a refusal may be answered.
    pub(super) async fn pace(&self) {
        let now = u64::try_from(self.0.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait = self.wait_at(now);
        if !wait.is_zero() {
            self.0.metrics.limited(Limit::RefusalsPerSecond, None);
            tokio::time::sleep(wait).await;
        }
    }

    /// How long a refusal waits that comes at `now`.
    fn wait_at(&self, now: u64) -> Duration {
        if self.0.per_second == 0 {
            return Duration::ZERO;
        }
        let mut due = self.0.due.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, wait) = charge(*due, now, cost(1, self.0.per_second), SECOND);
        // Those that wait longest are answered together: then more come than can be answered one by one.
        *due = next.min(now.saturating_add(SECOND + MOST));
        Duration::from_nanos(wait.min(MOST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(refusals: &Refusals, count: u64, now: u64) -> Vec<u64> {
        (0..count).map(|_| u64::try_from(refusals.wait_at(now).as_millis()).unwrap()).collect()
    }

    #[test]
    fn a_burst_is_answered_at_once_and_then_each_waits_for_its_turn() {
        let refusals = Refusals::new(10, &Metrics::default());
        assert_eq!(waits(&refusals, 10, 0), [0; 10]);
        assert_eq!(waits(&refusals, 3, 0), [100, 200, 300]);
        assert_eq!(waits(&refusals, 2, SECOND), [0, 0], "those before have had their turns");
        assert_eq!(waits(&refusals, 12, 60 * SECOND), [vec![0; 10], vec![100, 200]].concat());
    }

    #[test]
    fn none_waits_longer_than_5_s_and_a_flood_is_soon_forgotten() {
        let refusals = Refusals::new(100, &Metrics::default());
        let waited = waits(&refusals, 100_000, 0);
        assert_eq!(waited.iter().max(), Some(&5000));
        assert_eq!(waits(&refusals, 1, 0), [5000]);
        assert_eq!(waits(&refusals, 1, 6 * SECOND), [0]);
    }

    #[test]
    fn with_no_limit_none_waits() {
        assert_eq!(waits(&Refusals::new(0, &Metrics::default()), 1000, 0), [0; 1000]);
    }
}
