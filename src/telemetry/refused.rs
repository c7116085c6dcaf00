//! Which client each limit refuses most. Metrics have no label for a client, since there is no end of them, so the log names the
//! one that asks for too much, every ten seconds while there is one.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::labels::Limit;
use crate::attachment::Id;

/// Of how many clients the refusals are counted between two lines, for each limit. Those of others are counted in the sum alone.
const CLIENTS: usize = 1024;

/// What was refused since the last line.
#[derive(Debug, Default)]
pub(super) struct Refused(Mutex<HashMap<Limit, Counts>>);

#[derive(Debug, Default)]
struct Counts {
    all: u64,
    clients: HashMap<Id, u64>,
}

/// A client, and how many of its requests a limit refused.
#[derive(Debug, PartialEq, Eq)]
struct Most {
    limit: Limit,
    client: Id,
    refused: u64,
    /// Of how many.
    all: u64,
}

impl Refused {
    fn lock(&self) -> MutexGuard<'_, HashMap<Limit, Counts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A limit refused a request of a client.
    pub(super) fn count(&self, limit: Limit, client: Id) {
        let mut limits = self.lock();
        let counts = limits.entry(limit).or_default();
        counts.all += 1;
        if counts.clients.len() < CLIENTS || counts.clients.contains_key(&client) {
            *counts.clients.entry(client).or_default() += 1;
        }
    }

    /// The client that each limit refused most since the last time.
    fn take(&self) -> Vec<Most> {
        let limits = std::mem::take(&mut *self.lock());
        let most = limits.into_iter().filter_map(|(limit, Counts { all, clients })| {
            let (client, refused) = clients.into_iter().max_by_key(|(_, refused)| *refused)?;
            Some(Most { limit, client, refused, all })
        });
        most.collect()
    }

    /// Logs the client that each limit refused most since the last time.
    pub(super) fn tell(&self) {
        for Most { limit, client, refused, all } in self.take() {
            let (limit, client_id) = (limit.as_str(), client.get());
            tracing::warn!(
                limit,
                client_id,
                refused,
                of = all,
                "a limit refused requests, most of them of this client"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_limit_the_client_is_named_that_was_refused_most() {
        let refused = Refused::default();
        let client = |id: i64| Id::try_from(id).unwrap();
        for (limit, id, times) in [(Limit::MaxUploads, 1, 3), (Limit::MaxUploads, 2, 5), (Limit::ClientBytes, 1, 1)] {
            (0..times).for_each(|_| refused.count(limit, client(id)));
        }
        let mut named = refused.take();
        named.sort_by_key(|most| most.all);
        let most = |limit, id, refused, all| Most { limit, client: client(id), refused, all };
        assert_eq!(named, [most(Limit::ClientBytes, 1, 1, 1), most(Limit::MaxUploads, 2, 5, 8)]);
        assert!(refused.take().is_empty());
    }

    #[test]
    fn so_many_clients_are_counted_and_no_more() {
        let refused = Refused::default();
        for id in 1..=2 * CLIENTS {
            refused.count(Limit::MaxUploads, Id::try_from(i64::try_from(id).unwrap()).unwrap());
        }
        assert_eq!(refused.lock()[&Limit::MaxUploads].clients.len(), CLIENTS);
        assert_eq!(refused.take()[0].all, 2 * CLIENTS as u64);
    }
}
