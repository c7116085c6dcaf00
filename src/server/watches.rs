//! How many calls watch the health of a port: none of them ends by itself, and none needs a token. It does not know the
//! health.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The watches of a connection, or of a port. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Watches(Arc<AtomicUsize>);

/// A watch, until this is dropped.
#[derive(Debug)]
pub(super) struct Watch(Watches);

impl Watches {
    /// One more, if there are fewer than `most`.
    pub(super) fn begin(&self, most: usize) -> Option<Watch> {
        let one_more = |count: usize| (count < most).then_some(count + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Watch(self.clone()))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
