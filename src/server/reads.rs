//! How much connections of HTTP/1.1 read at once. Where few read much each may read as much as is fastest; where many do, all
//! of them read less, so that what they have read ahead stays within a bound together. It must not know what is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::limits::{HTTP1_BUFFER, HTTP1_BUFFERS, HTTP1_FEW, HTTP1_LEAST, HTTP1_MANY};

/// What is much to read at once, in bytes. Clients that send small files or little at a time do not.
const MUCH: usize = 8 << 10;

/// The connections of a port that read much at the moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Reads(Arc<AtomicUsize>);

/// One connection, and what it has read lately.
#[derive(Debug)]
pub(super) struct Reader {
    all: Reads,
    /// Whether it counts among those that read much.
    counts: bool,
    /// Whether the last read was of little. The end of a piece is, and says nothing by itself.
    little: bool,
}

impl Reads {
    /// One more connection.
    pub(super) fn reader(&self) -> Reader {
        Reader { all: self.clone(), counts: false, little: true }
    }

    fn most(&self) -> usize {
        let many = self.0.load(Ordering::Relaxed);
        if many <= HTTP1_FEW {
            return HTTP1_BUFFER;
        }
        let share = (HTTP1_BUFFERS / many).clamp(HTTP1_LEAST, HTTP1_MANY);
        // hyper doubles a buffer that a read has filled, and halves it after two reads that a half would have held.
        (1 << share.ilog2()) - 1
    }
}

impl Reader {
    /// How many bytes the next read may have, at least one.
    pub(super) fn most(&self) -> usize {
        self.all.most()
    }

    /// Says how many bytes a read had.
    pub(super) fn has_read(&mut self, bytes: usize) {
        let little = bytes < MUCH;
        if !little {
            self.count(true);
        } else if self.little {
            self.count(false);
        }
        self.little = little;
    }

    fn count(&mut self, counts: bool) {
        match (std::mem::replace(&mut self.counts, counts), counts) {
            (false, true) => self.all.0.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.all.0.fetch_sub(1, Ordering::Relaxed),
            _ => return,
        };
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.count(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_read_much_share_what_there_is_of_buffers() {
        let reads = Reads::default();
        let mut readers = Vec::new();
        let mut most_with = |many: usize| {
            while readers.len() < many {
                let mut reader = reads.reader();
                reader.has_read(MUCH);
                readers.push(reader);
            }
            reads.most()
        };
        assert_eq!((HTTP1_FEW, HTTP1_BUFFERS / HTTP1_MANY), (16, 128));
        let kib = |kib: usize| (kib << 10) - 1;
        assert_eq!([1, 15, 16].map(&mut most_with), [HTTP1_BUFFER; 3]);
        assert_eq!([17, 64, 127, 128].map(&mut most_with), [kib(64); 4]);
        assert_eq!([129, 255, 256].map(&mut most_with), [kib(32); 3]);
        assert_eq!([257, 511, 512, 513, 4096].map(&mut most_with), [kib(16); 5]);
        drop(readers);
        assert_eq!(reads.most(), HTTP1_BUFFER);
        assert_eq!(reads.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_that_reads_little_does_not_count_and_one_that_reads_much_does_until_it_has_read_little_twice() {
        let reads = Reads::default();
        let mut reader = reads.reader();
        let mut counts = |bytes| {
            reader.has_read(bytes);
            reads.0.load(Ordering::Relaxed) == 1
        };
        assert!(!counts(MUCH - 1));
        assert!(counts(MUCH));
        assert!(counts(MUCH + 1));
        assert!(counts(1));
        assert!(!counts(MUCH - 1));
        assert!(counts(MUCH));
        assert!(counts(0));
        assert!(counts(MUCH));
        assert!(counts(0));
        assert!(!counts(0));
        drop(reader);
        assert_eq!(reads.0.load(Ordering::Relaxed), 0);
    }
}
