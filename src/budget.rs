//! The memory budget: one number of bytes that all upload buffers share. Who cannot get memory waits, which stops the
//! reading of its socket; when too many wait, newcomers are refused, and when nobody gets any for too long, so are those who wait. This
//! module does not know what the bytes are for.
//!
//! Where uploads keep memory to their end, three quarters of the budget are for that ([`Claim`]) and one quarter is for what passes
//! through. Whoever waits for what it keeps holds nothing that passes through, and what passes through is given back without waiting for
//! more, so all cannot wait for each other.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::timeout;

use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use claim::Kept;
use pool::{Pool, QUARTERS, UNIT, units};
use rank::Ranks;
use waiting::Waiting;

pub use claim::Claim;
pub use pool::Reservation;
pub use rank::Rank;
pub use reading::{Downloads, Reading};

mod claim;
mod pool;
mod rank;
pub mod reading;
mod waiting;

/// The smallest budget that is accepted, in bytes: one gRPC message and one storage write must fit.
pub const LEAST: u64 = 8 << 20;

/// How many quarters of the budget are for what uploads keep.
const QUARTERS_KEPT: usize = 3;

/// The smallest budget, in bytes, for uploads that each keep as many as `kept` to their end.
pub fn least(kept: u64) -> u64 {
    if kept == 0 { LEAST } else { kept.div_ceil(3).max(LEAST) * 4 }
}

/// How many bytes of a budget are for what uploads keep.
pub fn for_kept(memory_budget: ByteSize) -> u64 {
    (units_kept(units(memory_budget)) * UNIT) as u64
}

fn units_kept(all: usize) -> usize {
    all / QUARTERS * QUARTERS_KEPT
}

/// How much memory uploads may hold.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that all upload buffers together may hold, [`LEAST`] or more. Past it uploads wait.
    pub memory_budget: ByteSize,
    /// How many uploads may wait for memory. Past it new ones are refused with 503 / UNAVAILABLE.
    pub max_waiting_uploads: usize,
    /// How long one waits for memory that passes through while nobody gets any: the storage does not get on.
    pub max_wait: Duration,
    /// How many bytes an upload may keep to its end.
    pub kept: u64,
    /// How many bytes that pass through the storage can make use of, where more would only wait for it. What the budget has
    /// beyond that is not used.
    pub useful: Option<u64>,
}

/// The budget of one process.
#[derive(Debug)]
pub struct Budget {
    passing: Pool,
    kept: Kept,
    waiting: Waiting,
    ranks: Ranks,
    max_waiting: usize,
    max_wait: Duration,
    waits: AtomicU64,
    /// How often someone who waited has got memory that passes through.
    granted: AtomicU64,
    refused: AtomicU64,
}

impl Budget {
    /// A budget with all of its memory free.
    pub fn new(config: Config) -> Budget {
        let units = units(config.memory_budget);
        let kept = if config.kept > 0 { units_kept(units) } else { 0 };
        let most = usize::try_from(config.kept).map_or(kept, |bytes| bytes.div_ceil(UNIT).min(kept));
        let useful =
            config.useful.and_then(|bytes| usize::try_from(bytes).ok()).map_or(usize::MAX, |bytes| bytes / UNIT);
        Budget {
            passing: Pool::new((units - kept).min(useful)),
            kept: Kept::new(kept, most),
            waiting: Waiting::default(),
            ranks: Ranks::default(),
            max_waiting: config.max_waiting_uploads,
            max_wait: config.max_wait,
            waits: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Takes `bytes` if they are free now.
    pub fn try_take(&self, bytes: usize) -> Option<Reservation> {
        self.passing.try_take(bytes)
    }

    /// Whether less than half of the memory that passes through is free, so that others may soon wait for what is held.
    pub fn is_scarce(&self) -> bool {
        self.passing.is_scarce()
    }

    /// The rank of an upload that begins.
    pub fn rank(&self) -> Rank {
        self.ranks.next()
    }

    /// Takes `bytes` for an upload of a client, waiting for its turn.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] where nobody who waits got any for [`Config::max_wait`].
    pub async fn take(&self, client: Id, rank: &mut Rank, bytes: usize) -> Result<Reservation> {
        match self.try_take(bytes) {
            Some(taken) => Ok(taken),
            None => self.wait_while_others_get_some(client, self.ranks.place(rank, bytes), bytes).await,
        }
    }

    /// Waits for as long as memory is given back to others at least: then the turn comes.
    async fn wait_while_others_get_some(&self, client: Id, rank: u64, bytes: usize) -> Result<Reservation> {
        let mut taken = pin!(self.wait_for(&self.passing, client, rank, bytes));
        loop {
            let granted = self.granted.load(Ordering::Relaxed);
            match timeout(self.max_wait, &mut taken).await {
                Ok(taken) => {
                    self.granted.fetch_add(1, Ordering::Relaxed);
                    return taken;
                }
                Err(_) if self.granted.load(Ordering::Relaxed) == granted => return self.refuse(),
                Err(_) => {}
            }
        }
    }

    async fn wait_for(&self, pool: &Pool, client: Id, rank: u64, bytes: usize) -> Result<Reservation> {
        self.waits.fetch_add(1, Ordering::Relaxed);
        let _place = self.waiting.enter(client);
        pool.take(client, rank, bytes).await
    }

    /// A claim of a client to the most that one upload may keep.
    pub fn claim(&self, client: Id) -> Claim {
        Claim::up_to(client, self.kept.most_bytes())
    }

    /// Takes all that an upload of a client will ever keep, waiting for its turn.
    ///
    /// # Errors
    /// None that is expected.
    pub async fn keep(&self, client: Id, bytes: usize) -> Result<Claim> {
        let claim = Claim::up_to(client, bytes);
        claim.add(self.take_of(&self.kept.all, client, bytes).await?, None);
        Ok(claim)
    }

    /// Whether a claim holds `bytes`, or the most that it may come to, after more was taken if that is free now.
    pub fn try_grow(&self, claim: &Claim, bytes: usize) -> bool {
        let more = bytes.min(claim.most()).saturating_sub(claim.bytes());
        if more == 0 {
            return true;
        }
        let Some(open) = self.kept.open.try_take_all(more) else { return false };
        let Some(memory) = self.kept.all.try_take_all(more) else { return false };
        claim.add(memory, Some(open));
        true
    }

    /// Sees to it that a claim holds `bytes`, or the most that it may come to, and waits for them. Nothing that passes through may
    /// be held meanwhile.
    ///
    /// # Errors
    /// None that is expected.
    pub async fn grow(&self, claim: &Claim, bytes: usize) -> Result<()> {
        if self.try_grow(claim, bytes) {
            return Ok(());
        }
        let (first, held) = (bytes.min(claim.most()), claim.bytes());
        if held == 0 && self.kept.open.has(first) {
            let open = self.take_of(&self.kept.open, claim.client(), first).await?;
            let memory = self.take_of(&self.kept.all, claim.client(), first).await?;
            claim.add(memory, Some(open));
        } else {
            claim.add(self.take_of(&self.kept.all, claim.client(), claim.most() - held).await?, None);
        }
        Ok(())
    }

    async fn take_of(&self, pool: &Pool, client: Id, bytes: usize) -> Result<Reservation> {
        match pool.try_take(bytes) {
            Some(taken) => Ok(taken),
            None => self.wait_for(pool, client, 0, bytes).await,
        }
    }

    /// Refuses a newcomer if as many uploads wait as may, unless its client has less than its share of them. Then more wait,
    /// but never twice as many.
    ///
    /// # Errors
    /// [`Kind::Overloaded`].
    pub fn check_queue(&self, client: Id) -> Result<()> {
        if self.waiting.is_full_for(client, self.max_waiting as u64) {
            return self.refuse();
        }
        Ok(())
    }

    fn refuse<T>(&self) -> Result<T> {
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(Error::new(Kind::Overloaded))
    }

    /// Bytes that uploads may hold.
    pub fn total_bytes(&self) -> usize {
        self.passing.total_bytes() + self.kept.total_bytes()
    }

    /// How many wait now.
    pub fn waiting(&self) -> u64 {
        self.waiting.count()
    }

    /// How often someone had to wait.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// How many uploads were refused, since as many waited as may or since nobody got any memory for too long.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Bytes that are taken now.
    pub fn used_bytes(&self) -> usize {
        self.passing.used_bytes() + self.kept.used_bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn client(number: i64) -> Id {
        Id::try_from(number).unwrap()
    }

    fn config(bytes: u64, max_waiting_uploads: usize) -> Config {
        let max_wait = Duration::from_secs(60);
        Config { memory_budget: ByteSize::b(bytes), max_waiting_uploads, max_wait, kept: 0, useful: None }
    }

    fn budget(bytes: u64, max_waiting_uploads: usize) -> Budget {
        Budget::new(config(bytes, max_waiting_uploads))
    }

    #[tokio::test]
    async fn what_is_kept_leaves_a_quarter_for_what_passes_through() {
        let budget = Budget::new(Config { kept: 1, ..config(8192, 1) });
        let kept = budget.keep(client(1), 6 << 10).await.unwrap();
        assert_eq!(budget.used_bytes(), 6 << 10);
        let passing = budget.take(client(1), &mut budget.rank(), 2 << 10).await.unwrap();
        assert_eq!(budget.used_bytes(), 8 << 10);
        assert!(budget.try_take(1).is_none());
        let more = timeout(Duration::from_millis(1), budget.keep(client(1), 1)).await;
        assert!(more.is_err(), "it waits although there is none");
        drop((kept, passing));
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.keep(client(1), 1).await.is_ok());
        assert!(budget.keep(client(1), 0).await.is_ok());
    }

    #[tokio::test]
    async fn no_more_is_handed_out_than_the_storage_can_make_use_of() {
        for (useful, there) in [(None, 8), (Some(4 << 10), 4), (Some(8 << 10), 8), (Some(9 << 10), 8)] {
            let budget = Budget::new(Config { useful, ..config(8192, 1) });
            assert_eq!(budget.total_bytes(), there << 10);
            let all = budget.try_take(there << 10).unwrap();
            assert!(budget.try_take(1).is_none());
            drop(all);
        }
    }

    #[test]
    fn memory_is_scarce_where_less_than_half_of_it_is_free() {
        let budget = budget(8192, 1);
        let half = budget.try_take(4096).unwrap();
        assert!(!budget.is_scarce());
        let more = budget.try_take(1).unwrap();
        assert!(budget.is_scarce());
        drop((half, more));
        assert!(!budget.is_scarce());
    }

    #[tokio::test]
    async fn what_is_not_needed_of_a_reservation_is_given_back_at_once() {
        let budget = budget(8192, 1);
        let mut taken = budget.take(client(1), &mut budget.rank(), 8192).await.unwrap();
        taken.shrink(4097);
        assert_eq!((taken.bytes(), budget.used_bytes()), (5120, 5120));
        taken.shrink(6000);
        assert_eq!((taken.bytes(), budget.used_bytes()), (5120, 5120));
        taken.shrink(0);
        assert_eq!((taken.bytes(), budget.used_bytes()), (0, 0));
        taken.merge(budget.try_take(8192).unwrap());
        assert_eq!(taken.bytes(), 8192);
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
        assert!(budget.take(client(1), &mut budget.rank(), 1).await.is_ok());
        drop(most);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn newcomers_are_refused_when_as_many_wait_as_may() {
        let budget = Arc::new(budget(1024, 2));
        let all = budget.try_take(1024).unwrap();
        let wait = |budget: Arc<Budget>| {
            tokio::spawn(async move { budget.take(client(1), &mut budget.rank(), 1024).await.map(drop) })
        };
        let mut waiting = vec![wait(Arc::clone(&budget))];
        while budget.waiting() < 1 {
            tokio::task::yield_now().await;
        }
        assert!(budget.check_queue(client(1)).is_ok());
        waiting.push(wait(Arc::clone(&budget)));
        while budget.waiting() < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(budget.check_queue(client(1)).unwrap_err().kind(), Kind::Overloaded);
        drop(all);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert!(budget.check_queue(client(1)).is_ok());
    }

    #[tokio::test]
    async fn a_full_queue_takes_newcomers_of_clients_that_have_less_than_their_share_of_it() {
        let budget = Arc::new(budget(1024, 4));
        let all = budget.try_take(1024).unwrap();
        let mut waiting = Vec::new();
        let mut wait = |who| {
            let theirs = Arc::clone(&budget);
            waiting
                .push(tokio::spawn(async move { theirs.take(client(who), &mut theirs.rank(), 1024).await.map(drop) }));
        };
        let settled = async |count| {
            while budget.waiting() < count {
                tokio::task::yield_now().await;
            }
        };
        for _ in 0..3 {
            wait(1);
        }
        settled(3).await;
        assert!(budget.check_queue(client(1)).is_ok());
        wait(1);
        settled(4).await;
        assert!(budget.check_queue(client(1)).is_err());
        for waits in [1, 2] {
            assert!(budget.check_queue(client(2)).is_ok());
            wait(2);
            settled(4 + waits).await;
        }
        assert!(budget.check_queue(client(2)).is_err());
        assert!(budget.check_queue(client(3)).is_ok());
        drop(all);
        for task in waiting {
            task.await.unwrap().unwrap();
        }
        assert_eq!(budget.waiting(), 0);
    }

    #[tokio::test]
    async fn who_waits_is_refused_where_nobody_gets_memory_for_too_long_unless_it_is_to_be_kept() {
        let budget = Budget::new(Config { kept: 1, max_wait: Duration::from_millis(1), ..config(8192, 1) });
        let all = (
            budget.keep(client(1), 6 << 10).await.unwrap(),
            budget.take(client(1), &mut budget.rank(), 2 << 10).await.unwrap(),
        );
        assert_eq!(budget.take(client(1), &mut budget.rank(), 1).await.unwrap_err().kind(), Kind::Overloaded);
        assert_eq!((budget.refused(), budget.waiting()), (1, 0));
        assert!(timeout(Duration::from_millis(50), budget.keep(client(1), 1)).await.is_err());
        drop(all);
        assert!(budget.take(client(1), &mut budget.rank(), 1).await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_goes_on_waiting_while_others_get_memory() {
        let budget = Arc::new(Budget::new(Config { max_wait: Duration::from_secs(1), ..config(1024, 9) }));
        let mut held = budget.take(client(1), &mut budget.rank(), 1024).await.unwrap();
        let mut waiting = Vec::new();
        for number in 1..=5 {
            let theirs = Arc::clone(&budget);
            waiting.push(tokio::spawn(async move { theirs.take(client(1), &mut theirs.rank(), 1024).await }));
            while budget.waiting() < number {
                tokio::task::yield_now().await;
            }
        }
        // The last one waits for five times of 300 ms.
        for task in waiting {
            tokio::time::sleep(Duration::from_millis(300)).await;
            drop(held);
            held = task.await.unwrap().unwrap();
        }
        assert_eq!(budget.refused(), 0);
    }

    #[tokio::test]
    async fn the_oldest_upload_that_waits_gets_memory_first_for_as_long_as_it_is_the_oldest() {
        let budget = Arc::new(budget(1024, 9));
        let [mut old, mut new] = [(); 2].map(|()| budget.rank());
        let order = async |first: &mut Rank, second: &mut Rank, bytes| {
            let held = budget.try_take(1024).unwrap();
            let served = std::sync::Mutex::new(Vec::new());
            let take = async |rank: &mut Rank, name| {
                drop(budget.take(client(1), rank, bytes).await.unwrap());
                served.lock().unwrap().push(name);
            };
            tokio::join!(take(first, "first"), take(second, "second"), async { drop(held) });
            served.into_inner().unwrap()
        };
        // Whoever asks first, and whatever it asks for.
        assert_eq!(order(&mut new, &mut old, 1).await, ["second", "first"]);
        assert_eq!(order(&mut old, &mut new, 1 << 40).await, ["first", "second"]);
        assert_eq!(order(&mut old, &mut new, 1).await, ["first", "second"], "both are new again, in their order");
        let mut newer = budget.rank();
        assert_eq!(order(&mut newer, &mut new, 1).await, ["second", "first"]);
    }

    #[tokio::test]
    async fn a_request_for_more_than_there_is_takes_all_and_does_not_wait_for_ever() {
        let budget = budget(4096, 1);
        assert!(budget.take(client(1), &mut budget.rank(), 1 << 40).await.is_ok());
    }
}
