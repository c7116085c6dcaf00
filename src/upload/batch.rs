//! What is gathered of a content for one write, and the memory that was taken for it. It must not know when it is written.

use bytes::{Bytes, BytesMut};

use crate::budget::Reservation;

/// The most pieces that one write gathers: tiny ones cost more than their bytes.
const PIECES: usize = 1024;

/// The size of a piece, in bytes, up to which it is copied to the ones before it: a slice keeps the whole buffer that it came in
/// from being freed, and to copy a little costs less than that.
pub(super) const COPIED: usize = 16 << 10;

/// The size up to which the first piece is copied as well, though it may be all that there is: of those who send a little now and
/// then each would keep a read buffer of 8 KiB until that is written.
const TINY: usize = 1 << 10;

/// Some bytes that follow one another, and their memory.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pieces: Vec<Bytes>,
    /// The end, which was copied.
    copied: BytesMut,
    size: usize,
    /// The memory of what is there, and of what is likely to come.
    memory: Reservation,
}

impl Batch {
    /// How many bytes it has.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// How many bytes there is memory for, those that it has included.
    pub(super) fn memory(&self) -> usize {
        self.memory.bytes()
    }

    /// How much memory is missing for so many bytes more.
    pub(super) fn short(&self, length: usize) -> usize {
        (self.size + length).saturating_sub(self.memory())
    }

    /// Adds memory.
    pub(super) fn extend(&mut self, memory: Reservation) {
        self.memory.merge(memory);
    }

    /// Adds the next bytes.
    pub(super) fn push(&mut self, bytes: Bytes) {
        let length = bytes.len();
        if length <= TINY || length <= COPIED && self.size > 0 {
            self.copied.extend_from_slice(&bytes);
        } else {
            self.end_copied();
            self.pieces.push(bytes);
        }
        self.size += length;
    }

    /// Whether it is to be written, where a write should have `most` bytes.
    pub(super) fn is_full(&self, most: usize) -> bool {
        self.size >= most || self.pieces.len() >= PIECES
    }

    /// Takes out what it has, with the memory of that. What it has beyond is given back.
    pub(super) fn take(&mut self) -> (Vec<Bytes>, Reservation) {
        self.end_copied();
        let Batch { pieces, size, mut memory, .. } = std::mem::take(self);
        memory.shrink(size);
        (pieces, memory)
    }

    fn end_copied(&mut self) {
        if !self.copied.is_empty() {
            self.pieces.push(std::mem::take(&mut self.copied).freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytesize::ByteSize;

    use super::*;
    use crate::budget::{Budget, Config};

    fn budget() -> Budget {
        let (memory_budget, max_wait) = (ByteSize::kib(512), Duration::from_secs(1));
        Budget::new(Config { memory_budget, max_waiting_uploads: 1, max_wait, kept: 0, useful: None })
    }

    #[test]
    fn small_pieces_are_put_together_and_large_ones_are_left_as_they_are() {
        let mut batch = Batch::default();
        let (large, least_large, small) = (vec![1; COPIED + 1], vec![2; COPIED + 1], vec![3; COPIED]);
        for piece in [&large, &small, &small, &least_large, &small] {
            batch.push(piece.clone().into());
        }
        assert_eq!(batch.size(), 2 * (COPIED + 1) + 3 * COPIED);
        let (pieces, _) = batch.take();
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [COPIED + 1, 2 * COPIED, COPIED + 1, COPIED]);
        assert_eq!(pieces.concat(), [large, small.clone(), small.clone(), least_large, small].concat());
        assert_eq!((batch.size(), batch.memory()), (0, 0));
    }

    #[test]
    fn a_first_piece_that_is_tiny_does_not_keep_the_buffer_that_it_came_in() {
        for (length, copied) in [(TINY - 1, true), (TINY, true), (TINY + 1, false)] {
            let buffer = Bytes::from(vec![7; 8 << 10]);
            let mut batch = Batch::default();
            batch.push(buffer.slice(..length));
            assert_eq!(buffer.is_unique(), copied, "{length}");
            assert_eq!(batch.take().0.concat(), vec![7; length]);
        }
    }

    #[test]
    fn what_was_taken_for_more_than_came_is_given_back() {
        let (budget, mut batch) = (budget(), Batch::default());
        assert_eq!(batch.short(100), 100);
        batch.extend(budget.try_take(256 << 10).unwrap());
        assert_eq!((batch.short(256 << 10), batch.short((256 << 10) + 1)), (0, 1));
        batch.push(vec![0; 100 << 10].into());
        assert_eq!((batch.short(156 << 10), batch.short((156 << 10) + 1)), (0, 1));
        let (_, memory) = batch.take();
        assert_eq!((memory.bytes(), budget.used_bytes()), (100 << 10, 100 << 10));
        drop(memory);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn it_is_full_at_its_size_or_with_as_many_pieces_as_one_write_takes() {
        let mut batch = Batch::default();
        batch.push(vec![0; 99].into());
        assert!(!batch.is_full(100));
        batch.push(vec![0; 1].into());
        assert!(batch.is_full(100));
        let piece = Bytes::from(vec![0; COPIED + 1]);
        let mut batch = Batch::default();
        for _ in 1..PIECES {
            batch.push(piece.clone());
        }
        assert!(!batch.is_full(usize::MAX));
        batch.push(piece);
        assert!(batch.is_full(usize::MAX));
    }
}
