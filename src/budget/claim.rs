//! Memory that one upload keeps to its end, such as the parts of an object that is not complete. Where it is known how much that
//! comes to, it is taken whole before the first byte. Where it is not, an upload takes what it needs as it grows, and the most that it
//! may come to once it cannot grow any more.
//!
//! All could wait for each other if each held a little and needed more. So those that may come to need more than they hold
//! share a quarter of the memory at most, and leave as much as one of them may need. Whoever does not get its next bytes from that waits
//! until it has all that it may ever need, and waits for nothing after that.

use std::sync::{Mutex, PoisonError};

use super::pool::{Pool, QUARTERS, Reservation, UNIT};
use crate::attachment::Id;

/// The memory that uploads keep.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) all: Pool,
    /// Of it, what those may hold that may come to need more.
    pub(super) open: Pool,
    /// The most that one upload may keep, in units.
    most: usize,
}

/// What one upload keeps. It holds nothing at first; dropping it gives back what it holds.
#[derive(Debug)]
pub struct Claim {
    /// For whom.
    client: Id,
    /// The most that it may come to, in bytes.
    most: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    memory: Reservation,
    /// As much of what is open, as long as more may be needed.
    open: Reservation,
}

impl Kept {
    /// So many units for uploads that keep `most` of them each.
    pub(super) fn new(units: usize, most: usize) -> Kept {
        Kept { all: Pool::new(units), open: Pool::new((units / QUARTERS).min(units.saturating_sub(most))), most }
    }

    /// The most that one upload may keep, in bytes.
    pub(super) fn most_bytes(&self) -> usize {
        self.most * UNIT
    }

    /// Bytes that there are.
    pub(super) fn total_bytes(&self) -> usize {
        self.all.total_bytes()
    }

    /// Bytes that are taken now.
    pub(super) fn used_bytes(&self) -> usize {
        self.all.used_bytes()
    }
}

impl Claim {
    /// A claim that holds nothing and may come to so many bytes.
    pub(super) fn up_to(client: Id, most: usize) -> Claim {
        Claim { client, most, held: Mutex::default() }
    }

    /// For whom it is.
    pub(super) fn client(&self) -> Id {
        self.client
    }

    /// The most that it may come to, in bytes.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// How many bytes are kept.
    pub fn bytes(&self) -> usize {
        self.held().memory.bytes()
    }

    /// Says that no more than `bytes` will be needed to the end, and gives back what is held beyond that.
    pub fn settle(&self, bytes: usize) {
        let mut held = self.held();
        held.memory.shrink(bytes);
        held.open = Reservation::default();
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds memory. `open` is its share of what is open; without one, no more will be needed.
    pub(super) fn add(&self, memory: Reservation, open: Option<Reservation>) {
        let mut held = self.held();
        held.memory.merge(memory);
        match open {
            Some(open) => held.open.merge(open),
            None => held.open = Reservation::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use bytesize::ByteSize;
    use tokio::time::timeout;

    use super::super::{Budget, Config};
    use super::*;

    /// The unit, in bytes: a test is small in its numbers.
    const KIB: usize = 1024;

    fn client() -> Id {
        Id::try_from(1).unwrap()
    }

    /// A budget with `kept` KiB for what uploads keep, and `most` for each.
    fn budget(kept: u64, most: u64) -> Arc<Budget> {
        let (memory_budget, max_wait) = (ByteSize::kib(kept / 3 * 4), Duration::from_secs(1));
        Arc::new(Budget::new(Config {
            memory_budget,
            max_waiting_uploads: 9,
            max_wait,
            kept: most << 10,
            useful: None,
        }))
    }

    async fn waits(work: impl Future) -> bool {
        timeout(Duration::from_millis(20), work).await.is_err()
    }

    #[tokio::test]
    async fn an_upload_that_grows_takes_what_it_needs_and_no_more_than_the_most() {
        let budget = budget(96, 16);
        let claim = budget.claim(client());
        assert_eq!(budget.used_bytes(), 0);
        for (asked, held) in
            [(1, 1), (KIB, 1), (KIB + 1, 2), (KIB, 2), (15 * KIB, 15), (16 * KIB + 1, 16), (1 << 30, 16)]
        {
            budget.grow(&claim, asked).await.unwrap();
            assert_eq!((claim.bytes(), budget.used_bytes()), (held * KIB, held * KIB), "{asked}");
        }
        drop(claim);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[tokio::test]
    async fn those_that_may_need_more_hold_a_quarter_and_who_goes_beyond_it_has_all_that_it_may_ever_need() {
        let budget = budget(96, 16);
        let open: Vec<Claim> = (0..24).map(|_| budget.claim(client())).collect();
        for claim in &open {
            assert!(budget.try_grow(claim, KIB));
        }
        assert!(!budget.try_grow(&open[0], 2 * KIB));
        let newcomer = budget.claim(client());
        assert!(waits(budget.grow(&newcomer, 1)).await, "a quarter is full");
        budget.grow(&open[0], 2 * KIB).await.unwrap();
        assert_eq!(open[0].bytes(), 16 * KIB);
        // It is not among those any more.
        budget.grow(&newcomer, 1).await.unwrap();
        assert_eq!(newcomer.bytes(), KIB);
        for claim in &open[1..4] {
            budget.grow(claim, 9 * KIB).await.unwrap();
            assert_eq!(claim.bytes(), 16 * KIB);
        }
        assert!(
            budget.try_grow(&budget.claim(client()), 3 * KIB) && !budget.try_grow(&budget.claim(client()), 4 * KIB)
        );
        assert!(waits(budget.grow(&open[4], 9 * KIB)).await, "less is free than it may need");
        drop(open);
        drop(newcomer);
        assert_eq!((budget.used_bytes(), budget.waiting()), (0, 0));
    }

    #[tokio::test]
    async fn what_is_known_is_taken_whole_and_waits_in_the_order_of_arrival() {
        let budget = budget(24, 16);
        let first = budget.keep(client(), 16 * KIB).await.unwrap();
        assert_eq!(first.bytes(), 16 * KIB);
        let theirs = Arc::clone(&budget);
        let second = tokio::spawn(async move { theirs.keep(client(), 16 * KIB).await });
        while budget.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        assert!(waits(budget.keep(client(), KIB)).await, "it would overtake");
        first.settle(4 * KIB);
        assert_eq!(first.bytes(), 4 * KIB);
        let second = second.await.unwrap().unwrap();
        assert_eq!((second.bytes(), budget.used_bytes()), (16 * KIB, 20 * KIB));
    }

    #[tokio::test]
    async fn who_has_settled_is_not_among_those_that_may_need_more() {
        let budget = budget(24, 16);
        let (settled, other) = (budget.claim(client()), budget.claim(client()));
        budget.grow(&settled, 6 * KIB).await.unwrap();
        assert!(!budget.try_grow(&other, KIB));
        settled.settle(6 * KIB);
        assert_eq!(settled.bytes(), 6 * KIB);
        assert!(budget.try_grow(&other, 6 * KIB));
        assert_eq!(budget.used_bytes(), 12 * KIB);
    }

    #[tokio::test]
    async fn where_there_is_room_for_one_each_takes_all_at_once() {
        let budget = budget(24, 24);
        let (one, other) = (budget.claim(client()), budget.claim(client()));
        budget.grow(&one, 1).await.unwrap();
        assert_eq!(one.bytes(), 24 * KIB);
        assert!(waits(budget.grow(&other, 1)).await);
        drop(one);
        budget.grow(&other, 1).await.unwrap();
    }

    #[tokio::test]
    async fn uploads_of_all_sizes_come_to_their_end_however_little_memory_there_is() {
        for (kept, most) in [(24, 16), (24, 24), (48, 15), (96, 16)] {
            let budget = budget(kept, most);
            let uploads = (0..200_usize).map(|number| {
                let budget = Arc::clone(&budget);
                tokio::spawn(async move {
                    let size = (number * 7919 % 31 + 1) * KIB;
                    if number % 5 == 0 {
                        let kept = budget.keep(client(), size.min(usize::try_from(most).unwrap() * KIB)).await.unwrap();
                        tokio::task::yield_now().await;
                        return drop(kept);
                    }
                    let claim = budget.claim(client());
                    for grown in (0..size).step_by(KIB * (number % 3 + 1)) {
                        budget.grow(&claim, grown + 1).await.unwrap();
                        // What passes through is taken after it, and given back before the next.
                        drop(budget.take(client(), &mut budget.rank(), KIB).await.unwrap());
                        tokio::task::yield_now().await;
                    }
                    claim.settle(size);
                    tokio::task::yield_now().await;
                })
            });
            let uploads: Vec<_> = uploads.collect();
            for upload in uploads {
                let ended = timeout(Duration::from_secs(20), upload).await;
                ended.unwrap_or_else(|_| panic!("all wait for each other with {kept} KiB for {most} each")).unwrap();
            }
            assert_eq!((budget.used_bytes(), budget.waiting()), (0, 0));
        }
    }

    #[tokio::test]
    async fn who_goes_away_while_it_waits_takes_nothing_along() {
        let budget = budget(24, 16);
        let (all, claim) = (budget.keep(client(), 24 * KIB).await.unwrap(), budget.claim(client()));
        assert!(waits(budget.grow(&claim, KIB)).await);
        assert_eq!(claim.bytes(), 0);
        drop(all);
        assert_eq!((budget.used_bytes(), budget.waiting()), (0, 0));
        let others: Vec<Claim> = (0..6).map(|_| budget.claim(client())).collect();
        assert!(others.iter().all(|other| budget.try_grow(other, KIB)), "a quarter is free again");
    }

    #[tokio::test]
    async fn it_is_waited_for_as_long_as_it_takes() {
        let budget = budget(24, 16);
        let all = budget.keep(client(), 24 * KIB).await.unwrap();
        let theirs = Arc::clone(&budget);
        let waits = tokio::spawn(async move { theirs.grow(&theirs.claim(client()), 1).await });
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert!(!waits.is_finished());
        assert_eq!(budget.refused(), 0);
        drop(all);
        waits.await.unwrap().unwrap();
    }
}
