//! A semaphore whose permits go to those who wait in the order of a fair queue. A request for many permits is not overtaken by
//! requests for few.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::queue::{Queue, Ticket};
use crate::attachment::Id;

/// Permits, of which each is held by one at a time.
#[derive(Debug)]
pub struct Semaphore {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    waiting: Queue<Waiter>,
}

#[derive(Debug)]
struct Waiter {
    permits: usize,
    grant: oneshot::Sender<Permit>,
}

/// Some permits. Dropping it gives them back.
#[derive(Debug)]
pub struct Permit {
    semaphore: Arc<Semaphore>,
    permits: usize,
}

/// A place among those who wait, given up on drop.
struct Place<'a> {
    semaphore: &'a Arc<Semaphore>,
    ticket: Ticket,
}

impl Semaphore {
    /// A semaphore with so many permits.
    pub fn new(permits: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore { state: Mutex::new(State { free: permits, waiting: Queue::default() }) })
    }

    /// How many permits are free.
    pub fn free(&self) -> usize {
        self.lock().free
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Takes permits if they are free and nobody waits.
    pub fn try_acquire(self: &Arc<Self>, permits: usize) -> Option<Permit> {
        let mut state = self.lock();
        if !state.waiting.is_empty() || state.free < permits {
            return None;
        }
        state.free -= permits;
        Some(Permit { semaphore: Arc::clone(self), permits })
    }

    /// Takes permits for a client, after those whose turn is before, and after those of the client with a lower rank. They stand for
    /// so many bytes of work.
    ///
    /// # Errors
    /// None that is expected.
    pub async fn acquire(
        self: &Arc<Self>,
        client: Id,
        rank: u64,
        bytes: usize,
        permits: usize,
    ) -> Result<Permit, oneshot::error::RecvError> {
        let (ticket, granted) = {
            let mut state = self.lock();
            if state.waiting.is_empty() && state.free >= permits {
                state.free -= permits;
                return Ok(Permit { semaphore: Arc::clone(self), permits });
            }
            let (grant, granted) = oneshot::channel();
            (state.waiting.push(client, rank, bytes, Waiter { permits, grant }), granted)
        };
        let _place = Place { semaphore: self, ticket };
        granted.await
    }

    /// Gives permits to those who wait, as many as are free.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut state = self.lock();
            let Some(permits) = state.waiting.front().map(|waiter| waiter.permits) else { return };
            if permits > state.free {
                return;
            }
            let Some(waiter) = state.waiting.pop() else { return };
            state.free -= permits;
            drop(state);
            // If nobody waits any more, they are given back, which takes the lock.
            drop(waiter.grant.send(Permit { semaphore: Arc::clone(self), permits }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// How many permits it is of.
    pub fn permits(&self) -> usize {
        self.permits
    }

    /// Adds those of another of the same semaphore.
    pub fn merge(&mut self, mut other: Permit) {
        self.permits += std::mem::take(&mut other.permits);
    }

    /// Gives back all but `permits`.
    pub fn shrink(&mut self, permits: usize) {
        let more = self.permits.saturating_sub(permits);
        self.permits -= more;
        self.release(more);
    }

    fn release(&self, permits: usize) {
        if permits > 0 {
            self.semaphore.lock().free += permits;
            self.semaphore.grant();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.release(self.permits);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let removed = self.semaphore.lock().waiting.remove(&self.ticket);
        if removed.is_some() {
            // The next one may need less.
            self.semaphore.grant();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn client(number: i64) -> Id {
        Id::try_from(number).unwrap()
    }

    async fn waits(work: impl Future) -> bool {
        timeout(Duration::from_millis(20), work).await.is_err()
    }

    #[tokio::test]
    async fn a_request_for_many_is_not_overtaken_and_permits_that_are_back_are_granted() {
        let semaphore = Semaphore::new(3);
        let mut held = semaphore.try_acquire(2).unwrap();
        let many = semaphore.acquire(client(1), 0, 0, 3);
        tokio::pin!(many);
        assert!(waits(&mut many).await);
        assert!(semaphore.try_acquire(1).is_none());
        let few = semaphore.acquire(client(2), 0, 0, 1);
        tokio::pin!(few);
        assert!(waits(&mut few).await);
        held.shrink(1);
        assert!(waits(&mut many).await && waits(&mut few).await);
        assert!(waits(semaphore.acquire(client(3), 0, 0, 0)).await);
        drop(held);
        let many = many.await.unwrap();
        assert_eq!((many.permits(), semaphore.free()), (3, 0));
        assert!(waits(&mut few).await);
        drop(many);
        assert!(few.await.is_ok());
        assert_eq!(semaphore.free(), 3);
    }

    #[tokio::test]
    async fn a_place_that_is_given_up_lets_those_behind_it_on() {
        let semaphore = Semaphore::new(2);
        let held = semaphore.try_acquire(1).unwrap();
        let mut few = Box::pin(semaphore.acquire(client(2), 0, 0, 1));
        {
            let mut many = Box::pin(semaphore.acquire(client(1), 0, 0, 2));
            assert!(waits(&mut many).await && waits(&mut few).await);
        }
        drop(few.await.unwrap());
        drop(held);
        assert_eq!(semaphore.free(), 2);
    }

    #[tokio::test]
    async fn permits_that_were_granted_to_one_who_left_are_free_again() {
        let semaphore = Semaphore::new(1);
        let held = semaphore.try_acquire(1).unwrap();
        let mut gone = Box::pin(semaphore.acquire(client(1), 0, 0, 1));
        assert!(waits(&mut gone).await);
        drop(held);
        assert_eq!(semaphore.free(), 0);
        drop(gone);
        assert_eq!(semaphore.free(), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_is_forgotten_however_many_come_and_go() {
        let semaphore = Semaphore::new(5);
        let tasks = (0..400_usize).map(|number| {
            let semaphore = Arc::clone(&semaphore);
            tokio::spawn(async move {
                for turn in 0..50 {
                    let permits = (number + turn) % 5 + 1;
                    let asked = semaphore.acquire(client((number % 7) as i64 + 1), 0, number * 100, permits);
                    if (number + turn).is_multiple_of(3) {
                        let left = timeout(Duration::from_micros(50), asked).await;
                        tokio::task::yield_now().await;
                        drop(left);
                    } else {
                        let mut permit = asked.await.unwrap();
                        tokio::task::yield_now().await;
                        permit.shrink(permits / 2);
                    }
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            timeout(Duration::from_secs(60), task).await.expect("somebody was forgotten").unwrap();
        }
        assert_eq!(semaphore.free(), 5);
        assert!(semaphore.lock().waiting.is_empty());
    }
}
