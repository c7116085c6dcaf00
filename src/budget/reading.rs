//! The memory of downloads: a pool of its own, so that slow readers cannot keep uploads waiting. What was read for a caller is
//! taken from the pool until it is sent. The more downloads there are, the smaller are the pieces that each reads at once, so
//! that many slow readers hold little and a few fast ones are not held up. It must not know what is read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytesize::ByteSize;
use tokio::time::timeout;

use super::pool::{Pool, Reservation, units};
use crate::error::{Error, Kind, Result};

/// The smallest pool that is accepted, in bytes.
pub const LEAST: u64 = 1 << 20;

/// The smallest piece, in bytes.
const SMALLEST: usize = 16 << 10;

/// The largest piece, in bytes. Two of them are less than hyper buffers for one connection of HTTP/1.1, so a caller that reads
/// nothing is noticed.
pub const LARGEST: usize = 128 << 10;

/// Into how many pieces the pool is divided for each download.
const SHARES: usize = 16;

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
pub struct Reading(Arc<Downloads>);

impl Downloads {
    /// Memory of so many bytes. A download that gets none for `max_wait` is refused.
    pub fn new(bytes: ByteSize, max_wait: Duration) -> Downloads {
        Downloads { pool: Pool::new(units(bytes)), active: AtomicUsize::new(0), max_wait }
    }

    /// Begins a download.
    pub fn begin(self: &Arc<Self>) -> Reading {
        self.active.fetch_add(1, Ordering::Relaxed);
        Reading(Arc::clone(self))
    }

    /// How many there are now.
    pub fn active(&self) -> usize {
        self.active.load(Ordering::Relaxed)
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
    /// How many bytes to read next.
    pub fn piece(&self) -> usize {
        let fair = self.0.pool.total_bytes() / (SHARES * self.0.active().max(1));
        fair.clamp(SMALLEST, LARGEST)
    }

    /// Takes memory for a piece, waiting for it in the order of arrival.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if there is none for too long.
    pub async fn take(&self, bytes: usize) -> Result<Reservation> {
        let taken = timeout(self.0.max_wait, self.0.pool.take(bytes)).await;
        taken.unwrap_or_else(|_| Err(Error::new(Kind::Overloaded)))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_are_smaller_the_more_downloads_there_are() {
        let downloads = Arc::new(Downloads::new(ByteSize::mib(4), Duration::from_millis(1)));
        let mut readings = vec![downloads.begin()];
        assert_eq!(readings[0].piece(), LARGEST);
        readings.push(downloads.begin());
        assert_eq!(readings[0].piece(), LARGEST);
        readings.extend([downloads.begin(), downloads.begin()]);
        assert_eq!(readings[0].piece(), 64 << 10);
        readings.extend((0..96).map(|_| downloads.begin()));
        assert_eq!((downloads.active(), readings[0].piece()), (100, SMALLEST));
        readings.truncate(1);
        assert_eq!((downloads.active(), readings[0].piece()), (1, LARGEST));
    }

    #[tokio::test]
    async fn a_download_waits_for_memory_and_is_refused_when_there_is_none_for_too_long() {
        let downloads = Arc::new(Downloads::new(ByteSize::mib(1), Duration::from_millis(1)));
        let reading = downloads.begin();
        let all = reading.take(1 << 20).await.unwrap();
        assert_eq!(downloads.used_bytes(), downloads.total_bytes());
        assert_eq!(reading.take(1).await.unwrap_err().kind(), Kind::Overloaded);
        drop(all);
        assert!(reading.take(1).await.is_ok());
        assert_eq!(downloads.used_bytes(), 0);
    }
}
