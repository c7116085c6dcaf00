//! In which order the uploads of one client get memory that they wait for. If all got a little in turn, a thousand uploads would end
//! together after a long time, and a client that gives up after a minute would have none of them. So the oldest go first, and
//! end. An upload that has taken a stretch of memory while others wait counts as new: a large one does not stop small ones for as long as
//! it lasts.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much an upload takes before it counts as new, in bytes.
const STRETCH: usize = 16 << 20;

/// Hands out ranks, in ascending order.
#[derive(Debug, Default)]
pub(super) struct Ranks(AtomicU64);

/// The rank of one upload. The lowest goes first.
#[derive(Debug)]
pub struct Rank {
    number: u64,
    /// Of the stretch, in bytes.
    left: usize,
}

impl Ranks {
    /// The highest rank so far.
    pub(super) fn next(&self) -> Rank {
        Rank { number: self.0.fetch_add(1, Ordering::Relaxed), left: STRETCH }
    }

    /// Where an upload that takes so many bytes stands in the queue.
    pub(super) fn place(&self, rank: &mut Rank, bytes: usize) -> u64 {
        if rank.left == 0 {
            *rank = self.next();
        }
        rank.left = rank.left.saturating_sub(bytes);
        rank.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_keeps_its_rank_for_a_stretch_and_is_new_after_it() {
        let ranks = Ranks::default();
        let (mut first, mut second) = (ranks.next(), ranks.next());
        assert_eq!([STRETCH - 1, 1].map(|bytes| ranks.place(&mut first, bytes)), [0, 0]);
        assert_eq!(ranks.place(&mut second, STRETCH + 1), 1);
        assert_eq!([1, STRETCH - 2, 1, 1].map(|bytes| ranks.place(&mut first, bytes)), [2, 2, 2, 3]);
        assert_eq!(ranks.place(&mut second, 1), 4);
    }
}
