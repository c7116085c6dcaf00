//! The memory of downloads: a pool of its own, so that slow readers cannot keep uploads waiting. What was read for a caller is
//! taken from the pool until it is sent. The more downloads there are, the smaller are the pieces that each reads at once, so
//! that many slow readers hold little and a few fast ones are not held up. It must not know what is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::timeout;

use super::pool::{Pool, Reservation, units};
use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use crate::fair::Load;

/// The smallest pool that is accepted, in bytes.
pub const LEAST: u64 = 1 << 20;

/// The smallest piece, in bytes.
const SMALLEST: usize = 8 << 10;

/// The largest piece, in bytes.
pub const LARGEST: usize = 256 << 10;

/// The largest piece of a download that begins, in bytes.
const FIRST: usize = 32 << 10;

/// A piece has at most this part of what its download has read, or [`FIRST`]. A slow reader looks fast until the buffers of its
/// connection are full, which is after some MiB, and its pieces are still small then.
const GROWS: u64 = 32;

/// The share of a download below which it holds one piece at a time, in bytes.
const CROWDED: usize = 16 << 10;

/// Into how many pieces the pool is divided for each download.
const SHARES: usize = 8;

/// The memory of all downloads of one process.
#[derive(Debug)]
pub struct Downloads {
    pool: Pool,
    active: AtomicUsize,
    /// How long a download waits for memory.
    max_wait: Duration,
}

/// One download, for as long as it reads.
#[derive(Debug)]
pub struct Reading {
    downloads: Arc<Downloads>,
    client: Id,
}

impl Downloads {
    /// Memory of so many bytes. A download that gets none for `max_wait` is refused.
    pub fn new(bytes: ByteSize, max_wait: Duration) -> Downloads {
        Downloads { pool: Pool::new(units(bytes)), active: AtomicUsize::new(0), max_wait }
    }

    /// Begins a download of what a client has.
    pub fn begin(self: &Arc<Self>, client: Id) -> Reading {
        self.active.fetch_add(1, Ordering::Relaxed);
        Reading { downloads: Arc::clone(self), client }
    }

    /// How many there are now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
    }

    /// How many wait for memory, and how many there are.
    pub fn load(&self) -> Load {
        Load { waiting: self.pool.waiting(), active: self.active() }
    }

    /// Bytes that downloads may hold.
    pub fn total_bytes(&self) -> usize {
        self.pool.total_bytes()
    }

    /// Bytes that they hold now.
    pub fn used_bytes(&self) -> usize {
        self.pool.used_bytes()
    }
}

impl Reading {
    /// How many bytes to read next, after so many. It is a power of two, so that freed memory fits the next piece.
    pub fn piece(&self, read: u64, is_slow: bool) -> usize {
        let grown = usize::try_from(read / GROWS).unwrap_or(LARGEST).max(FIRST);
        let most = if is_slow { SMALLEST } else { self.share().min(grown) };
        1 << most.clamp(SMALLEST, LARGEST).ilog2()
    }

    /// Whether so many downloads are active that each is to hold one piece at a time.
    pub fn is_crowded(&self) -> bool {
        self.share() < CROWDED
    }

    fn share(&self) -> usize {
        self.downloads.pool.total_bytes() / (SHARES * self.downloads.active().max(1))
    }

    /// Takes memory for a piece, waiting for the client's turn.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if there is none for too long.
    pub async fn take(&self, bytes: usize) -> Result<Reservation> {
        let taken = timeout(self.downloads.max_wait, self.downloads.pool.take(self.client, 0, bytes)).await;
        taken.unwrap_or_else(|_| Err(Error::new(Kind::Overloaded)))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.downloads.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_smaller_the_more_downloads_there_are() {
        const LATER: u64 = 1 << 30;
        let downloads = Arc::new(Downloads::new(ByteSize::mib(4), Duration::from_millis(1)));
        let mut readings: Vec<Reading> = Vec::new();
        let mut with = |active: usize| {
            readings.truncate(active);
            readings.resize_with(active, || downloads.begin(Id::try_from(1).unwrap()));
            let reading = readings.last().unwrap();
            assert_eq!(reading.piece(LATER, true), SMALLEST);
            (reading.piece(LATER, false), reading.is_crowded())
        };
        assert_eq!([1, 2].map(&mut with), [(LARGEST, false); 2]);
        assert_eq!([3, 4, 5].map(&mut with), [(128 << 10, false), (128 << 10, false), (64 << 10, false)]);
        assert_eq!([16, 32, 33].map(&mut with), [(32 << 10, false), (16 << 10, false), (SMALLEST, true)]);
        assert_eq!([1000, 1].map(&mut with), [(SMALLEST, true), (LARGEST, false)]);
    }

    #[tokio::test]
    async fn pieces_grow_with_what_a_download_has_read() {
        let downloads = Arc::new(Downloads::new(ByteSize::mib(32), Duration::from_millis(1)));
        let reading = downloads.begin(Id::try_from(1).unwrap());
        let after = |read: u64| reading.piece(read, false);
        assert_eq!([0, (2 << 20) - 1, 2 << 20].map(after), [FIRST, FIRST, 64 << 10]);
        assert_eq!([(8 << 20) - 1, 8 << 20, u64::MAX].map(after), [128 << 10, LARGEST, LARGEST]);
    }

    #[tokio::test]
    async fn a_download_waits_for_memory_and_is_refused_when_there_is_none_for_too_long() {
        let downloads = Arc::new(Downloads::new(ByteSize::mib(1), Duration::from_millis(1)));
        let reading = downloads.begin(Id::try_from(1).unwrap());
        let all = reading.take(1 << 20).await.unwrap();
        assert_eq!(downloads.used_bytes(), downloads.total_bytes());
        assert_eq!(reading.take(1).await.unwrap_err().kind(), Kind::Overloaded);
        drop(all);
        assert!(reading.take(1).await.is_ok());
        assert_eq!(downloads.used_bytes(), 0);
    }
}
