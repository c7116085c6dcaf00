//! How much of something there is, of each client and in all.

use std::collections::HashMap;

use crate::attachment::Id;

/// A sum for each client that has any.
#[derive(Debug, Default)]
pub struct Tally {
    all: u64,
    clients: HashMap<Id, u64>,
}

impl Tally {
    /// Adds to what a client has.
    pub fn add(&mut self, client: Id, amount: u64) {
        if amount > 0 {
            self.all += amount;
            *self.clients.entry(client).or_default() += amount;
        }
    }

    /// Takes from what a client has, which is as much at least.
    pub fn remove(&mut self, client: Id, amount: u64) {
        if let Some(own) = self.clients.get_mut(&client) {
            self.all -= amount;
            *own -= amount;
            if *own == 0 {
                self.clients.remove(&client);
            }
        }
    }

    /// How much there is in all.
    pub fn all(&self) -> u64 {
        self.all
    }

    /// How much a client has.
    pub fn of(&self, client: Id) -> u64 {
        self.clients.get(&client).copied().unwrap_or_default()
    }

    /// How many clients have any.
    pub fn clients(&self) -> u64 {
        self.clients.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_has_none_any_more_is_forgotten() {
        let (first, second) = (Id::try_from(1).unwrap(), Id::try_from(2).unwrap());
        let mut tally = Tally::default();
        for (client, amount) in [(first, 2), (second, 1), (first, 5), (second, 0)] {
            tally.add(client, amount);
        }
        assert_eq!((tally.all(), tally.of(first), tally.of(second), tally.clients()), (8, 7, 1, 2));
        tally.remove(first, 7);
        assert_eq!((tally.all(), tally.of(first), tally.of(second), tally.clients()), (1, 0, 1, 1));
    }
}
