//! How many uploads wait for memory, of each client.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::attachment::Id;
use crate::fair::Tally;

/// The uploads that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Tally>);

/// One that waits, until this is dropped.
pub(super) struct Place<'a> {
    waiting: &'a Waiting,
    client: Id,
}

impl Waiting {
    /// Counts one more.
    pub(super) fn enter(&self, client: Id) -> Place<'_> {
        self.lock().add(client, 1);
        Place { waiting: self, client }
    }

    /// How many wait.
    pub(super) fn count(&self) -> u64 {
        self.lock().all()
    }

    /// Whether `most` wait, and as many of the client as is its share among those that wait.
    pub(super) fn is_full_for(&self, client: Id, most: u64) -> bool {
        let waiting = self.lock();
        let own = waiting.of(client);
        let clients = waiting.clients() + u64::from(own == 0);
        waiting.all() >= most && own >= most.div_ceil(clients)
    }

    fn lock(&self) -> MutexGuard<'_, Tally> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.waiting.lock().remove(self.client, 1);
    }
}
