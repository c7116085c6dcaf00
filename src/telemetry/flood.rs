//! How many lines of refused requests the log has. Anybody can have requests refused, as many as a connection carries. So of
//! each kind of refusal there are only so many lines a second. The others are counted, and their number is logged every ten
//! seconds. Metrics count all requests.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::labels::LogLine;
use super::metrics::{CLIENT_GONE, Metrics};
use crate::error::Kind;
use crate::rate::{SECOND, spend};

/// How often the number of lines that were left out is logged.
pub(super) const SUMMARY: Duration = Duration::from_secs(10);

/// How many seconds' worth of lines may come at once, in nanoseconds.
const BURST: u64 = 10 * SECOND;

/// The limits of this process.
static LIMITS: OnceLock<Limits> = OnceLock::new();

#[derive(Debug)]
struct Limits {
    /// Nanoseconds for each line. 0 limits nothing.
    interval: u64,
    began: Instant,
    metrics: Metrics,
    /// For each kind of refusal, and at the end for clients that went away.
    requests: Vec<Limit>,
    audits: Vec<Limit>,
    certificates: Limit,
}

/// When the next line would be due if all came at their rate, in nanoseconds.
#[derive(Debug, Default)]
struct Limit {
    due: AtomicU64,
    left_out: AtomicU64,
}

impl Limit {
    fn permits(&self, now: u64, interval: u64) -> bool {
        let next = |due| spend(due, now, interval, BURST).ok();
        let permitted = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if permitted.is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
        permitted.is_ok()
    }
}

impl Limits {
    fn new(lines_a_second: u32, metrics: &Metrics) -> Limits {
        let all = || std::iter::repeat_with(Limit::default).take(Kind::ALL.len() + 1).collect();
        Limits {
            interval: SECOND.checked_div(lines_a_second.into()).unwrap_or_default(),
            began: Instant::now(),
            metrics: metrics.clone(),
            requests: all(),
            audits: all(),
            certificates: Limit::default(),
        }
    }

    fn permits(&self, limit: Option<&Limit>) -> bool {
        self.permits_at(u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX / 2), limit)
    }

    fn permits_at(&self, now: u64, limit: Option<&Limit>) -> bool {
        let permitted = self.interval == 0 || limit.is_none_or(|limit| limit.permits(now, self.interval));
        if !permitted {
            self.metrics.log_dropped(LogLine::Refusal, 1);
        }
        permitted
    }

    /// Which limit is for refusals of a kind, or for clients that went away.
    fn place(refusal: Option<Kind>) -> usize {
        let place = |kind| Kind::ALL.iter().position(|known| *known == kind);
        refusal.and_then(place).unwrap_or(Kind::ALL.len())
    }
}

/// Limits the lines of refusals from now on, so many a second of each kind; 0 limits nothing.
pub(super) fn start(lines_a_second: u32, metrics: &Metrics) {
    // Where a log is written already, that stays as it is.
    let _already = LIMITS.set(Limits::new(lines_a_second, metrics));
}

fn permits(limit: impl FnOnce(&Limits) -> Option<&Limit>) -> bool {
    LIMITS.get().is_none_or(|limits| limits.permits(limit(limits)))
}

/// Whether the log has a line for a request that ended so. `None`: its client went away.
pub(super) fn permits_request(refusal: Option<Kind>) -> bool {
    permits(|limits| limits.requests.get(Limits::place(refusal)))
}

/// Whether the audit trail has a line for a request that ended so, and that changed nothing.
pub fn permits_audit(refusal: Option<Kind>) -> bool {
    permits(|limits| limits.audits.get(Limits::place(refusal)))
}

/// Whether the log has a line for a client certificate that was refused.
pub fn permits_certificate() -> bool {
    permits(|limits| Some(&limits.certificates))
}

/// Logs how many lines were left out since the last time.
pub(super) fn tell() {
    let Some(limits) = LIMITS.get() else { return };
    let outcomes = Kind::ALL.iter().map(|kind| kind.row().reason).chain([CLIENT_GONE]);
    for ((requests, audits), outcome) in limits.requests.iter().zip(&limits.audits).zip(outcomes) {
        let take = |limit: &Limit| limit.left_out.swap(0, Ordering::Relaxed);
        let (requests, audits) = (take(requests), take(audits));
        if requests + audits > 0 {
            tracing::warn!(outcome, requests, audits, "lines of refused requests were left out");
        }
    }
    let certificates = limits.certificates.left_out.swap(0, Ordering::Relaxed);
    if certificates > 0 {
        tracing::warn!(certificates, "lines of refused client certificates were left out");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_seconds_worth_come_at_once_and_then_so_many_a_second() {
        let (limit, interval) = (Limit::default(), SECOND / 50);
        let permitted = |now| (0..1000).filter(|_| limit.permits(now, interval)).count();
        assert_eq!(permitted(0), 500);
        assert_eq!(limit.left_out.load(Ordering::Relaxed), 500);
        assert_eq!(permitted(SECOND), 50);
        assert_eq!(permitted(100 * SECOND), 500);
    }

    #[test]
    fn each_kind_has_a_limit_of_its_own_and_0_limits_nothing() {
        let limits = Limits::new(1, &Metrics::default());
        for place in [Limits::place(None), Limits::place(Some(Kind::NotFound)), Limits::place(Some(Kind::TokenMissing))]
        {
            let permitted = (0..100).filter(|_| limits.permits_at(0, limits.requests.get(place))).count();
            assert_eq!(permitted, 10, "{place}");
        }
        let unlimited = Limits::new(0, &Metrics::default());
        assert!((0..10_000).all(|_| unlimited.permits(unlimited.requests.first())));
    }
}
