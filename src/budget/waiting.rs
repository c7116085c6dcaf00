//! How many uploads wait for memory, of each client.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::attachment::Id;

/// The uploads that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    /// Of each client of which any wait.
    clients: HashMap<Id, usize>,
}

/// One that waits, until this is dropped.
pub(super) struct Place<'a> {
    waiting: &'a Waiting,
    client: Id,
}

impl Waiting {
    /// Counts one more.
    pub(super) fn enter(&self, client: Id) -> Place<'_> {
        let mut counts = self.lock();
        counts.all += 1;
        *counts.clients.entry(client).or_default() += 1;
        Place { waiting: self, client }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.lock().all
    }

    /// Whether `most` wait, and as many of the client as is its share among those that wait.
    pub(super) fn is_full_for(&self, client: Id, most: usize) -> bool {
        let counts = self.lock();
        let own = counts.clients.get(&client).copied().unwrap_or_default();
        let clients = counts.clients.len() + usize::from(own == 0);
        counts.all >= most && own >= most.div_ceil(clients)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut counts = self.waiting.lock();
        counts.all -= 1;
        if let Some(own) = counts.clients.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                counts.clients.remove(&self.client);
            }
        }
    }
}
