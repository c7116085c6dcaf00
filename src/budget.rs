//! The memory budget: one number of bytes that all upload buffers share. Who cannot get memory waits, which stops the
//! reading of its socket; when too many wait, newcomers are refused. This module does not know what the bytes are for.
//!
//! Where an upload keeps memory to its end, such as the part of an object that is not complete, three quarters of the budget
//! are for that and one quarter is for what passes through. Whoever keeps memory has taken it before it held any, and what
//! passes through is given back without waiting for more, so all cannot wait for each other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytesize::ByteSize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Kind, Result};

/// The unit in which memory is handed out, in bytes: the semaphore counts in 32 bits, and a budget may pass 4 GiB.
const UNIT: usize = 1024;

/// The smallest budget that is accepted, in bytes: one gRPC message and one storage write must fit.
pub const LEAST: u64 = 8 << 20;

/// How many quarters of the budget are for what uploads keep.
const QUARTERS_KEPT: usize = 3;

/// The smallest budget, in bytes, for uploads that each keep as many as `kept` to their end.
pub fn least(kept: u64) -> u64 {
    if kept == 0 { LEAST } else { kept.div_ceil(3).max(LEAST) * 4 }
}

/// How much memory uploads may hold.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that all upload buffers together may hold, [`LEAST`] or more. Past it uploads wait.
    pub memory_budget: ByteSize,
    /// How many uploads may wait for memory. Past it new ones are refused with 503 / UNAVAILABLE.
    pub max_waiting_uploads: usize,
    /// Whether uploads keep memory to their end.
    pub kept: bool,
}

/// The budget of one process.
#[derive(Debug)]
pub struct Budget {
    passing: Pool,
    kept: Pool,
    waiting: AtomicUsize,
    max_waiting: usize,
    waits: AtomicU64,
    refused: AtomicU64,
}

/// Memory that was taken from the budget; dropping it gives it back.
#[derive(Debug)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

impl Reservation {
    /// Joins another reservation to this one.
    pub fn merge(&mut self, other: Reservation) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// A reservation of nothing.
    pub fn none() -> Reservation {
        Reservation(None)
    }
}

impl Budget {
    /// A budget with all of its memory free.
    pub fn new(config: Config) -> Budget {
        let bytes = usize::try_from(config.memory_budget.as_u64()).unwrap_or(usize::MAX);
        let units = (bytes / UNIT).min(Semaphore::MAX_PERMITS);
        let kept = if config.kept { units / 4 * QUARTERS_KEPT } else { 0 };
        Budget {
            passing: Pool::new(units - kept),
            kept: Pool::new(kept),
            waiting: AtomicUsize::new(0),
            max_waiting: config.max_waiting_uploads,
            waits: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_take(&self, bytes: usize) -> Option<Reservation> {
        let Pool { free, .. } = &self.passing;
        let permit = Arc::clone(free).try_acquire_many_owned(self.passing.units_of(bytes));
        permit.ok().map(|permit| Reservation(Some(permit)))
    }

    /// Takes `bytes`, waiting for them in the order of arrival.
    pub async fn take(&self, bytes: usize) -> Result<Reservation> {
        self.take_from(&self.passing, bytes).await
    }

    /// Takes `bytes` that an upload keeps to its end, waiting for them in the order of arrival. It must hold none yet.
    pub async fn keep(&self, bytes: usize) -> Result<Reservation> {
        if bytes == 0 {
            return Ok(Reservation::none());
        }
        self.take_from(&self.kept, bytes).await
    }

    async fn take_from(&self, pool: &Pool, bytes: usize) -> Result<Reservation> {
        let units = pool.units_of(bytes);
        if let Ok(permit) = Arc::clone(&pool.free).try_acquire_many_owned(units) {
            return Ok(Reservation(Some(permit)));
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting::enter(&self.waiting);
        let permit = Arc::clone(&pool.free).acquire_many_owned(units).await;
        permit.map(|permit| Reservation(Some(permit))).map_err(Error::internal)
    }

    /// Refuses a newcomer where as many wait already as may.
    ///
    /// # Errors
    /// [`Kind::Overloaded`].
    pub fn admit(&self) -> Result<()> {
        if self.waiting.load(Ordering::Relaxed) >= self.max_waiting {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Error::new(Kind::Overloaded));
        }
        Ok(())
    }

    /// Bytes that there are.
    pub fn total_bytes(&self) -> usize {
        (self.passing.units + self.kept.units) * UNIT
    }

    /// How many wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How often someone had to wait.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// How many newcomers were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes that are taken now.
    pub fn used_bytes(&self) -> usize {
        self.passing.used_bytes() + self.kept.used_bytes()
    }
}

/// Memory that is for one use.
#[derive(Debug)]
struct Pool {
    free: Arc<Semaphore>,
    units: usize,
}

impl Pool {
    fn new(units: usize) -> Pool {
        Pool { free: Arc::new(Semaphore::new(units)), units }
    }

    fn used_bytes(&self) -> usize {
        (self.units - self.free.available_permits().min(self.units)) * UNIT
    }

    /// A request for more than there is would wait for ever, so it is cut to the whole pool.
    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT).min(self.units)).unwrap_or(u32::MAX)
    }
}

/// One place in the queue, given up on drop, so that a request that goes away while it waits is not counted for ever.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(bytes: u64, max_waiting_uploads: usize) -> Budget {
        Budget::new(Config { memory_budget: ByteSize::b(bytes), max_waiting_uploads, kept: false })
    }

    #[tokio::test]
    async fn what_is_kept_leaves_a_quarter_for_what_passes_through() {
        let budget = Budget::new(Config { memory_budget: ByteSize::kib(8), max_waiting_uploads: 1, kept: true });
        let kept = budget.keep(6 << 10).await.unwrap();
        assert_eq!(budget.used_bytes(), 6 << 10);
        let passing = budget.take(2 << 10).await.unwrap();
        assert_eq!(budget.used_bytes(), 8 << 10);
        assert!(budget.try_take(1).is_none());
        let more = tokio::time::timeout(std::time::Duration::from_millis(1), budget.keep(1)).await;
        assert!(more.is_err(), "it waits although there is none");
        drop((kept, passing));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.keep(1).await.is_ok());
        assert!(budget.keep(0).await.is_ok());
    }

    #[test]
    fn the_least_budget_has_room_for_what_one_upload_keeps_and_for_what_passes_through() {
        assert_eq!(least(0), LEAST);
        for kept in [1, 16 << 20, 24 << 20, 3 << 30] {
            assert!(least(kept) / 4 * 3 >= kept && least(kept) / 4 >= LEAST, "{kept}");
        }
    }

    #[tokio::test]
    async fn all_of_the_budget_can_be_taken_and_one_byte_more_waits_until_some_is_given_back() {
        let budget = budget(8192, 1);
        let most = budget.try_take(7168).unwrap();
        assert!(budget.try_take(1025).is_none());
        let rest = budget.try_take(1024).unwrap();
        assert_eq!(budget.used_bytes(), 8192);
        assert!(budget.try_take(1).is_none());
        drop(rest);
        assert!(budget.take(1).await.is_ok());
        drop(most);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn newcomers_are_refused_when_as_many_wait_as_may() {
        let budget = Arc::new(budget(1024, 2));
        let all = budget.try_take(1024).unwrap();
        let wait = |budget: Arc<Budget>| tokio::spawn(async move { budget.take(1024).await.map(drop) });
        let mut waiting = vec![wait(Arc::clone(&budget))];
        while budget.waiting.load(Ordering::Relaxed) < 1 {
            tokio::task::yield_now().await;
        }
        assert!(budget.admit().is_ok());
        waiting.push(wait(Arc::clone(&budget)));
        while budget.waiting.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budget.admit().unwrap_err().kind(), Kind::Overloaded);
        drop(all);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert!(budget.admit().is_ok());
    }

    #[tokio::test]
    async fn a_request_for_more_than_there_is_takes_all_and_does_not_wait_for_ever() {
        let budget = budget(4096, 1);
        assert!(budget.take(1 << 40).await.is_ok());
    }
}
