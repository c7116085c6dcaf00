//! What each client may do at most: uploads at once, requests and bytes a second. A client that asks for more is refused, and
//! told when to come back, even if nobody else asks for anything. This module must not know what a request does.
//!
//! Bytes are counted when they have passed, since nobody knows before how many come. A client that has had more than its rate is
//! refused new requests until the rate has caught up; what is under way goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use crate::rate::{SECOND, charge, cost, spend};
use crate::telemetry::{Limit, Metrics};

use config::Allowance;
pub use config::Config;

mod config;

/// From how many clients on those are forgotten that have used nothing up.
const FORGET_AT: usize = 1024;

/// In how many seconds a client is to try again that has too many uploads under way, at the latest. When one of them ends is not
/// known.
const UPLOADS_END: u64 = 5;

/// The limits of all clients. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Throttle(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    general: Allowance,
    named: HashMap<Id, Allowance>,
    /// In nanoseconds.
    burst: u64,
    began: Instant,
    metrics: Metrics,
    clients: Mutex<Clients>,
}

#[derive(Debug)]
struct Clients {
    known: HashMap<Id, Used>,
    forget_at: usize,
}

/// When the next request of a client would be due, and its next byte.
#[derive(Debug, Default)]
struct Used {
    request_due: u64,
    byte_due: u64,
}

/// Counts the content of one client.
#[derive(Clone, Debug)]
pub struct Meter(Option<(Arc<Inner>, Id)>);

impl Throttle {
    /// The limits that are configured. What they refuse is counted in `metrics`.
    pub fn new(config: &Config, metrics: &Metrics) -> Throttle {
        let (general, named) = (config.general(), config.named());
        let limits_nothing = named.values().chain([&general]).all(|allowance| *allowance == Allowance::default());
        Throttle((!limits_nothing).then(|| {
            Arc::new(Inner {
                general,
                named,
                burst: config.burst(),
                began: Instant::now(),
                metrics: metrics.clone(),
                clients: Mutex::new(Clients { known: HashMap::new(), forget_at: FORGET_AT }),
            })
        }))
    }

    /// Counts a request of a client that may make it.
    ///
    /// # Errors
    /// [`Kind::RateLimited`] if the client has made more requests than it may, or has sent and received more.
    pub fn request(&self, client: Id) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |inner| inner.request_at(client, inner.now()))
    }

    /// Permits one more upload to a client that has `under_way`.
    ///
    /// # Errors
    /// [`Kind::RateLimited`] if the client may not have more.
    pub fn upload(&self, client: Id, under_way: u64) -> Result<()> {
        self.0.as_ref().map_or(Ok(()), |inner| inner.upload(client, under_way))
    }

    /// Counts the content of a client.
    pub fn meter(&self, client: Id) -> Meter {
        Meter(self.0.clone().map(|inner| (inner, client)))
    }
}

impl Meter {
    /// So many bytes have passed.
    pub fn passed(&self, bytes: usize) {
        if let Some((inner, client)) = &self.0 {
            inner.passed_at(*client, bytes as u64, inner.now());
        }
    }
}

impl Inner {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn allows(&self, client: Id) -> Allowance {
        self.named.get(&client).copied().unwrap_or(self.general)
    }

    fn request_at(&self, client: Id, now: u64) -> Result<()> {
        let Allowance { requests, bytes, .. } = self.allows(client);
        if requests == 0 && bytes == 0 {
            return Ok(());
        }
        let mut clients = self.lock();
        let used = clients.of(client, now);
        if bytes > 0
            && let Err(wait) = spend(used.byte_due, now, 0, self.burst)
        {
            drop(clients);
            let what = format!("the client may send and receive {bytes} bytes a second");
            return Err(self.refused(Limit::ClientBytes, client, what, wait.div_ceil(SECOND)));
        }
        if requests > 0 {
            match spend(used.request_due, now, SECOND / u64::from(requests), self.burst) {
                Ok(due) => used.request_due = due,
                Err(wait) => {
                    drop(clients);
                    let what = format!("the client may make {requests} requests a second");
                    return Err(self.refused(Limit::ClientRequests, client, what, wait.div_ceil(SECOND)));
                }
            }
        }
        Ok(())
    }

    fn upload(&self, client: Id, under_way: u64) -> Result<()> {
        let most = self.allows(client).uploads;
        if most == 0 || under_way < most as u64 {
            return Ok(());
        }
        let what = format!("the client may have {most} uploads under way");
        Err(self.refused(Limit::ClientUploads, client, what, 1))
    }

    fn passed_at(&self, client: Id, bytes: u64, now: u64) {
        let rate = self.allows(client).bytes;
        if rate == 0 {
            return;
        }
        let mut clients = self.lock();
        let used = clients.of(client, now);
        (used.byte_due, _) = charge(used.byte_due, now, cost(bytes, rate), self.burst);
    }

    /// Callers that were refused come back after `seconds`, and not all at once.
    fn refused(&self, limit: Limit, client: Id, what: String, seconds: u64) -> Error {
        self.metrics.limited(limit, Some(client));
        let spread = (seconds / 2).clamp(UPLOADS_END - 1, 60);
        let error =
            Error::new(Kind::RateLimited).detail(what).because(format!("{} of client {client}", limit.as_str()));
        error.at_limit().retry_within(seconds..=seconds.saturating_add(spread))
    }
}

impl Clients {
    /// What a client has used up. It is remembered until that is nothing any more.
    fn of(&mut self, client: Id, now: u64) -> &mut Used {
        if self.known.len() >= self.forget_at && !self.known.contains_key(&client) {
            self.known.retain(|_, used| used.request_due > now || used.byte_due > now);
            self.forget_at = (2 * self.known.len()).max(FORGET_AT);
        }
        self.known.entry(client).or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn throttle(config: Config) -> Arc<Inner> {
        Throttle::new(&config, &Metrics::default()).0.expect("it limits something")
    }

    fn client(id: i64) -> Id {
        Id::try_from(id).unwrap()
    }

    #[test]
    fn as_many_requests_come_at_once_as_the_burst_has_and_one_more_is_told_when() {
        let inner = throttle(Config { requests_per_second: 5, burst: Duration::from_secs(2), ..Config::default() });
        for number in 0..10 {
            assert!(inner.request_at(client(1), 0).is_ok(), "{number}");
        }
        let refused = inner.request_at(client(1), 0).unwrap_err();
        assert_eq!((refused.kind(), refused.is_at_limit()), (Kind::RateLimited, true));
        assert!((1..=6).contains(&refused.retry_after().unwrap().as_secs()), "{refused:?}");
        // Another client has a rate of its own, and after 200 ms there is one more.
        assert!(inner.request_at(client(2), 0).is_ok());
        assert!(inner.request_at(client(1), SECOND / 5).is_ok());
        assert!(inner.request_at(client(1), SECOND / 5).is_err());
    }

    #[test]
    fn a_client_that_had_too_many_bytes_is_refused_until_the_rate_has_caught_up() {
        let bytes_per_second = bytesize::ByteSize::b(1000);
        let inner = throttle(Config { bytes_per_second, burst: Duration::from_secs(10), ..Config::default() });
        inner.passed_at(client(1), 9_999, 0);
        assert!(inner.request_at(client(1), 0).is_ok());
        inner.passed_at(client(1), 1, 0);
        assert!(inner.request_at(client(1), 0).is_err());
        assert!(inner.request_at(client(1), 1).is_ok());
        // Ten times the burst was under way.
        inner.passed_at(client(1), 100_000, SECOND);
        let refused = inner.request_at(client(1), SECOND).unwrap_err();
        let seconds = refused.retry_after().unwrap().as_secs();
        assert!((99..=150).contains(&seconds), "{seconds}");
        assert!(inner.request_at(client(1), (1 + seconds) * SECOND).is_ok());
    }

    #[test]
    fn as_many_uploads_are_under_way_as_a_client_may_have() {
        let config = Config { max_uploads: 2, ..Config::default() };
        let throttle = Throttle::new(&config, &Metrics::default());
        assert!(throttle.upload(client(1), 1).is_ok());
        assert_eq!(throttle.upload(client(1), 2).unwrap_err().kind(), Kind::RateLimited);
        assert!(Throttle::default().upload(client(1), u64::MAX).is_ok());
    }

    #[test]
    fn nothing_is_kept_of_clients_that_have_used_nothing_up() {
        let inner = throttle(Config { requests_per_second: 1, ..Config::default() });
        for id in 1..=100_000 {
            inner.request_at(client(id), id.cast_unsigned() * SECOND).unwrap();
        }
        assert!(inner.lock().known.len() <= FORGET_AT);
        // One that has is not forgotten.
        let now = 100_000 * SECOND;
        (0..10).for_each(|_| drop(inner.request_at(client(1), now)));
        (2..=5000).for_each(|id| inner.request_at(client(id), now).unwrap());
        assert!(inner.request_at(client(1), now).is_err());
    }

    #[test]
    fn without_a_limit_nothing_is_counted() {
        assert!(Throttle::new(&Config::default(), &Metrics::default()).0.is_none());
    }
}
