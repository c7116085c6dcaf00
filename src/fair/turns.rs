//! Turns at the processors. If more than one client asks for something, few requests at a time are worked on, and the others
//! wait in a fair queue. Without that they would all be in the runtime's queue of tasks, which knows no clients: a client with
//! 500 connections would get 100 times as much as one with 5.
//!
//! A turn lasts from one wait for the client to the next, or for one batch. One that lasts longer, because a storage does not
//! answer for example, no longer keeps others from theirs. A client that is alone does not wait for turns.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::load::Load;
use super::queue::{Queue, Ticket};
use crate::attachment::Id;

/// How long a turn keeps others from theirs.
const LASTS: Duration = Duration::from_millis(2);

/// How long a client counts as one of several after another has asked for a turn.
const ALONE_AFTER: Duration = Duration::from_secs(1);

/// Turns of which so many are taken at once. Clones are the same.
#[derive(Clone, Debug)]
pub struct Turns(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    at_once: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The turns that keep others from theirs, by number, and since when.
    taken: Vec<(u64, Instant)>,
    next: u64,
    waiting: Queue<oneshot::Sender<Turn>>,
    /// Who asked last.
    last: Option<Id>,
    /// When two clients were last seen one after the other.
    mixed: Option<Instant>,
    /// Whether somebody looks for turns that last too long.
    watched: bool,
}

/// A turn. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn(Option<(Turns, u64)>);

/// A place among those who wait, given up on drop.
struct Place<'a> {
    turns: &'a Turns,
    ticket: Ticket,
}

impl Turns {
    /// Turns of which so many are taken at once, if there is more than one client.
    pub fn new(at_once: usize) -> Turns {
        Turns(Arc::new(Inner { at_once: at_once.max(1), state: Mutex::default() }))
    }

    /// Waits for a client's turn, which is for about so many bytes.
    pub async fn take(&self, client: Id, bytes: usize) -> Turn {
        let (ticket, granted) = {
            let now = Instant::now();
            let mut state = self.lock();
            if state.is_alone(client, now) {
                return Turn(None);
            }
            if state.waiting.is_empty() && state.taken.len() < self.0.at_once {
                return self.begin(&mut state, now);
            }
            if !std::mem::replace(&mut state.watched, true) {
                tokio::spawn(self.clone().watch());
            }
            let (grant, granted) = oneshot::channel();
            (state.waiting.push(client, 0, bytes, grant), granted)
        };
        let _place = Place { turns: self, ticket };
        // It is granted or given up: the queue never drops one.
        granted.await.unwrap_or(Turn(None))
    }

    /// What waits for turns, and how many turns are taken. A client that is alone takes none.
    pub fn load(&self) -> Load {
        let state = self.lock();
        Load { waiting: state.waiting.len(), active: state.taken.len() }
    }

    fn begin(&self, state: &mut State, now: Instant) -> Turn {
        let number = state.next;
        state.next += 1;
        state.taken.push((number, now));
        Turn(Some((self.clone(), number)))
    }

    /// Gives turns to those who wait, as many as are free.
    fn grant(&self) {
        loop {
            let mut state = self.lock();
            if state.taken.len() >= self.0.at_once {
                return;
            }
            let Some(grant) = state.waiting.pop() else { return };
            let turn = self.begin(&mut state, Instant::now());
            drop(state);
            // If nobody takes it any more, it ends here, which takes the lock.
            drop(grant.send(turn));
        }
    }

    /// Lets others in instead of those whose turn lasts too long, for as long as somebody waits.
    async fn watch(self) {
        loop {
            tokio::time::sleep(LASTS / 2).await;
            {
                let mut state = self.lock();
                if state.waiting.is_empty() {
                    state.watched = false;
                    return;
                }
                state.taken.retain(|(_, since)| since.elapsed() < LASTS);
            }
            self.grant();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether no other client than this one, which asks now, has asked for a while.
    fn is_alone(&mut self, client: Id, now: Instant) -> bool {
        if self.last.replace(client).is_some_and(|last| last != client) {
            self.mixed = Some(now);
        }
        self.mixed.is_none_or(|mixed| now.duration_since(mixed) >= ALONE_AFTER) && self.waiting.is_empty()
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((turns, number)) = self.0.take() {
            turns.lock().taken.retain(|(other, _)| *other != number);
            turns.grant();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.turns.lock().waiting.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    fn client(number: i64) -> Id {
        Id::try_from(number).unwrap()
    }

    async fn waits(work: impl Future) -> bool {
        timeout(Duration::from_millis(1), work).await.is_err()
    }

    #[tokio::test]
    async fn a_client_that_is_alone_does_not_wait_and_among_others_it_does() {
        let turns = Turns::new(2);
        let mut alone = Vec::new();
        for _ in 0..10 {
            alone.push(turns.take(client(1), 0).await);
        }
        let other = turns.take(client(2), 0).await;
        let (_second, mut third) = (turns.take(client(1), 0).await, Box::pin(turns.take(client(1), 0)));
        assert!(waits(&mut third).await);
        assert_eq!(turns.load(), Load { waiting: 1, active: 2 });
        drop(other);
        third.await;
    }

    #[tokio::test]
    async fn a_turn_that_lasts_too_long_no_longer_keeps_others_from_theirs() {
        let turns = Turns::new(1);
        drop(turns.take(client(1), 0).await);
        let _stuck = turns.take(client(2), 0).await;
        for _ in 0..3 {
            let _stuck = timeout(Duration::from_secs(30), turns.take(client(1), 0)).await.expect("a turn comes");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn no_more_turns_are_taken_at_once_than_may_be_and_nobody_is_forgotten() {
        let turns = Turns::new(3);
        let tasks = (0..200_i64).map(|number| {
            let turns = turns.clone();
            tokio::spawn(async move {
                for turn in 0..50 {
                    let taken = turns.take(client(number % 3 + 1), 0);
                    if (number + turn) % 4 == 0 {
                        drop(timeout(Duration::from_micros(50), taken).await);
                    } else {
                        let _turn = taken.await;
                        assert!(turns.lock().taken.len() <= 3);
                        tokio::task::yield_now().await;
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            timeout(Duration::from_secs(60), task).await.expect("somebody was forgotten").unwrap();
        }
        let state = turns.lock();
        assert!(state.taken.is_empty() && state.waiting.is_empty());
    }
}
