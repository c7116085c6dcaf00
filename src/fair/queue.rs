//! A queue that serves clients by deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing Using Deficit Round
//! Robin", 1995). Clients take turns. A turn gives a client a credit in bytes, and items are served while the credit pays for
//! them; what is left is kept for the next turn. The items of one client are served in the order of their ranks, and those of the same
//! rank in the order of their arrival.
//!
//! A client that comes anew has its first turn before those that have had one, as a flow does in FQ-CoDel (RFC 8290 §4.1), so
//! one that asks for little seldom waits. A client of which nothing waits any more keeps its place until its turn comes, so
//! that nobody is new again and again.

use std::collections::{HashMap, VecDeque};

use crate::attachment::Id;

/// The credit of one turn, in bytes.
const TURN: u64 = 32 << 10;

/// What an item costs beside its bytes, in bytes: a request without content is work too.
const ITEM: u64 = 16 << 10;

/// The most that an item costs, in bytes, which bounds how many turns pass before one is served.
const MOST: u64 = 1 << 20;

/// Items that wait, by client.
#[derive(Debug)]
pub struct Queue<T> {
    clients: HashMap<Id, Waiting<T>>,
    /// The clients that have not had their first turn, and then the others. The turn is with the first of all.
    new: VecDeque<Id>,
    old: VecDeque<Id>,
    /// Whose item is the next one, once that was asked. It is the first of one of the two.
    chosen: Option<Id>,
    length: usize,
    next: u64,
}

/// What waits of one client, if anything does.
#[derive(Debug)]
struct Waiting<T> {
    items: VecDeque<Item<T>>,
    credit: u64,
}

#[derive(Debug)]
struct Item<T> {
    /// The rank, and a number in the order of arrival.
    place: (u64, u64),
    cost: u64,
    item: T,
}

/// A place in a queue.
#[derive(Debug)]
pub struct Ticket {
    client: Id,
    /// The rank, and a number in the order of arrival.
    place: (u64, u64),
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue { clients: HashMap::new(), new: VecDeque::new(), old: VecDeque::new(), chosen: None, length: 0, next: 0 }
    }
}

impl<T> Queue<T> {
    /// How many items wait.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an item of a client, which is about so many bytes of work. It comes before the items of its client that have a higher
    /// rank.
    pub fn push(&mut self, client: Id, rank: u64, bytes: usize, item: T) -> Ticket {
        let place = (rank, self.next);
        self.next += 1;
        self.length += 1;
        let cost = u64::try_from(bytes).unwrap_or(MOST).saturating_add(ITEM).min(MOST);
        let waiting = self.clients.entry(client).or_insert_with(|| {
            self.new.push_back(client);
            Waiting { items: VecDeque::new(), credit: TURN }
        });
        let at = waiting.items.partition_point(|item| item.place < place);
        waiting.items.insert(at, Item { place, cost, item });
        if at == 0 && self.chosen == Some(client) {
            self.chosen = None;
        }
        Ticket { client, place }
    }

    /// The item that is served next. It stays the next one until it is taken or removed, or one of its client with a lower rank is added.
    pub fn front(&mut self) -> Option<&T> {
        let client = self.turn()?;
        self.clients.get(&client)?.items.front().map(|front| &front.item)
    }

    /// Takes the item that is served next.
    pub fn pop(&mut self) -> Option<T> {
        let client = self.turn()?;
        let waiting = self.clients.get_mut(&client)?;
        let Item { cost, item, .. } = waiting.items.pop_front()?;
        waiting.credit -= cost;
        self.length -= 1;
        self.chosen = None;
        Some(item)
    }

    /// Takes an item out of its place, unless it was taken already.
    pub fn remove(&mut self, ticket: &Ticket) -> Option<T> {
        let waiting = self.clients.get_mut(&ticket.client)?;
        let at = waiting.items.binary_search_by_key(&ticket.place, |item| item.place).ok()?;
        let removed = waiting.items.remove(at)?;
        self.length -= 1;
        if at == 0 && self.chosen == Some(ticket.client) {
            self.chosen = None;
        }
        Some(removed.item)
    }

    /// The client whose turn it is, of which something waits that its credit pays for. None if nothing waits; then all is
    /// forgotten.
    fn turn(&mut self) -> Option<Id> {
        if self.length == 0 {
            self.clients.clear();
            self.new.clear();
            self.old.clear();
            return None;
        }
        if self.chosen.is_some() {
            return self.chosen;
        }
        loop {
            let is_new = !self.new.is_empty();
            let turns = if is_new { &mut self.new } else { &mut self.old };
            let client = *turns.front()?;
            let waiting = self.clients.get_mut(&client)?;
            match waiting.items.front() {
                Some(front) if front.cost <= waiting.credit => {
                    self.chosen = Some(client);
                    return self.chosen;
                }
                Some(_) => waiting.credit += TURN,
                None if is_new => {}
                None => {
                    turns.pop_front();
                    self.clients.remove(&client);
                    continue;
                }
            }
            turns.pop_front();
            self.old.push_back(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: i64) -> Id {
        Id::try_from(number).unwrap()
    }

    fn all<T>(queue: &mut Queue<T>) -> Vec<T> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn one_client_is_served_in_the_order_of_arrival() {
        let mut queue = Queue::default();
        for (number, bytes) in [0, 1 << 30, 5, 100_000].into_iter().enumerate() {
            queue.push(client(1), 0, bytes, number);
        }
        assert_eq!(all(&mut queue), [0, 1, 2, 3]);
        assert!(queue.is_empty() && queue.clients.is_empty());
    }

    #[test]
    fn a_client_that_comes_late_has_its_first_turn_at_once() {
        let mut queue = Queue::default();
        for who in [1, 2] {
            for _ in 0..1000 {
                queue.push(client(who), 0, 4 << 10, who);
            }
        }
        for _ in 0..4 {
            queue.pop();
        }
        queue.push(client(3), 0, 4 << 10, 3);
        let served = all(&mut queue);
        assert_eq!(served[0], 3, "a new client waits for nobody");
    }

    #[test]
    fn clients_get_the_same_number_of_bytes_whatever_their_items_have() {
        let mut queue = Queue::default();
        let sizes = [(1, 4 << 10), (2, 256 << 10), (3, 900 << 10)];
        for (who, size) in sizes {
            for _ in 0..10_000 {
                queue.push(client(who), 0, size, (who, size as u64 + ITEM));
            }
        }
        let mut served = [0; 3];
        while served.iter().sum::<u64>() < 60 << 20 {
            let (who, cost) = queue.pop().unwrap();
            served[usize::try_from(who).unwrap() - 1] += cost;
        }
        for bytes in served {
            assert!(bytes.abs_diff(20 << 20) <= MOST + TURN, "{served:?}");
        }
    }

    #[test]
    fn a_client_that_is_away_for_a_moment_is_not_new_again() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            queue.push(client(1), 0, 0, 1);
        }
        let mut served = Vec::new();
        for _ in 0..40 {
            queue.push(client(2), 0, 0, 2);
            served.extend(queue.pop());
        }
        let of_second = served.iter().filter(|who| **who == 2).count();
        assert!((19..=21).contains(&of_second), "{served:?}");
    }

    #[test]
    fn a_client_that_was_away_has_saved_no_credit() {
        let mut queue = Queue::default();
        for _ in 0..100 {
            queue.push(client(1), 0, 0, 1);
            queue.pop();
        }
        for who in [1, 2] {
            for _ in 0..100 {
                queue.push(client(who), 0, 0, who);
            }
        }
        let ahead = all(&mut queue).into_iter().take_while(|who| *who == 1).count() as u64;
        assert!(ahead <= TURN / ITEM, "{ahead}");
    }

    #[test]
    fn the_next_item_stays_the_next_until_it_is_taken_or_removed() {
        let mut queue = Queue::default();
        let large = queue.push(client(1), 0, 1 << 30, "large");
        assert_eq!(queue.front(), Some(&"large"));
        queue.push(client(2), 0, 0, "small");
        assert_eq!(queue.front(), Some(&"large"));
        assert_eq!(queue.remove(&large), Some("large"));
        assert_eq!((queue.remove(&large), queue.front()), (None, Some(&"small")));
        assert_eq!((queue.pop(), queue.pop(), queue.is_empty()), (Some("small"), None, true));
    }

    #[test]
    fn the_items_of_a_client_are_served_by_rank_and_other_clients_are_not_concerned() {
        let mut queue = Queue::default();
        for (who, rank) in [(1, 5), (1, 3), (2, 0), (1, 5), (1, 4), (2, 9)] {
            queue.push(client(who), rank, 0, (who, rank, queue.len()));
        }
        let served = all(&mut queue);
        let of = |who| served.iter().copied().filter(|item| item.0 == who).collect::<Vec<_>>();
        assert_eq!(of(1), [(1, 3, 1), (1, 4, 4), (1, 5, 0), (1, 5, 3)]);
        assert_eq!(of(2), [(2, 0, 2), (2, 9, 5)]);
        assert_eq!(served[0].0, 1, "the first client has its turn first");
    }

    #[test]
    fn an_item_that_is_added_before_the_next_one_is_paid_for_like_any_other() {
        let mut queue = Queue::default();
        let small = queue.push(client(1), 5, 0, "small");
        queue.push(client(2), 0, 0, "other");
        assert_eq!(queue.front(), Some(&"small"));
        let large = queue.push(client(1), 3, 1 << 30, "large");
        assert_eq!(queue.front(), Some(&"other"), "its client has no credit for it yet");
        assert_eq!(all(&mut queue), ["other", "large", "small"]);
        assert_eq!([small, large].map(|ticket| queue.remove(&ticket)), [None, None]);
    }

    #[test]
    fn what_is_removed_anywhere_leaves_the_others_in_their_order() {
        let mut queue = Queue::default();
        let mut tickets: Vec<Ticket> = (0..9).map(|number| queue.push(client(number % 3 + 1), 0, 0, number)).collect();
        for at in [8, 4, 0] {
            assert!(queue.remove(&tickets.remove(at)).is_some());
        }
        let served = all(&mut queue);
        let of = |who: i64| served.iter().copied().filter(|number| number % 3 == who).collect::<Vec<_>>();
        assert_eq!([of(0), of(1), of(2)], [vec![3, 6], vec![1, 7], vec![2, 5]]);
    }
}
