//! The places among the TLS handshakes of a port. A connection asks for one when its ClientHello is complete. Addresses that
//! wait get places in turn, so that one with many connections does not keep the others waiting. This module does not know TLS.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::limits::SLOW_HANDSHAKE;
use super::prefix::Prefix;
use super::standing::{Standing, State};
use super::victims::{Candidate, in_order};
use crate::telemetry::{Eviction, Metrics, Port};

/// How long a connection waits before a slow handshake of another address is closed for it.
const IMPATIENCE: Duration = Duration::from_millis(100);

/// The handshakes of a port.
#[derive(Debug)]
pub(super) struct Handshakes {
    port: Port,
    most: usize,
    metrics: Metrics,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    under_way: HashMap<u64, Holder>,
    of_address: HashMap<Prefix, usize>,
    /// The addresses that wait. The first one is next.
    turns: VecDeque<Prefix>,
    waiting: HashMap<Prefix, VecDeque<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    standing: Arc<Standing>,
    told: oneshot::Sender<Turn>,
}

#[derive(Debug)]
struct Holder {
    address: Prefix,
    standing: Arc<Standing>,
}

/// A place among the handshakes, until this is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    handshakes: Arc<Handshakes>,
    id: u64,
}

impl Handshakes {
    /// Room for so many handshakes.
    pub(super) fn new(port: Port, most: usize, metrics: Metrics) -> Handshakes {
        Handshakes { port, most, metrics, queue: Mutex::default() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection whose ClientHello is complete, which is waited for.
    pub(super) async fn turn(self: &Arc<Self>, address: Prefix, standing: &Arc<Standing>) -> Option<Turn> {
        standing.handshaking();
        let told = {
            let mut queue = self.queue();
            if queue.under_way.len() < self.most {
                return Some(self.begin(&mut queue, address, Arc::clone(standing)));
            }
            queue.wait(address, Arc::clone(standing))
        };
        let mut told = pin!(told);
        loop {
            tokio::select! {
                biased;
                // It fails only if nobody could tell any more.
                turn = told.as_mut() => return turn.ok(),
                () = sleep(IMPATIENCE) => self.make_way(address),
            }
        }
    }

    fn begin(self: &Arc<Self>, queue: &mut Queue, address: Prefix, standing: Arc<Standing>) -> Turn {
        // The time in the queue is not the client's.
        standing.handshaking();
        let id = queue.next;
        queue.next += 1;
        queue.under_way.insert(id, Holder { address, standing });
        *queue.of_address.entry(address).or_default() += 1;
        Turn { handshakes: Arc::clone(self), id }
    }

    /// Gives the places that are free to those that wait.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut queue = self.queue();
            if queue.under_way.len() >= self.most {
                return;
            }
            let Some((address, Waiter { standing, told })) = queue.next_waiter() else { return };
            let turn = self.begin(&mut queue, address, standing);
            drop(queue);
            // A connection that has just gone gives the place back.
            let _ = told.send(turn);
        }
    }

    /// Closes the slowest handshake of the address with the most of them, if that has more than `address`, which waits.
    fn make_way(&self, address: Prefix) {
        let queue = self.queue();
        let now = Instant::now();
        let connections = |address: Prefix| queue.of_address.get(&address).copied().unwrap_or_default();
        let own = connections(address);
        let slow = queue.under_way.values().filter_map(|Holder { address, standing }| {
            let (state, since) = standing.state(now);
            let is_slow = state == State::Handshaking && now.saturating_duration_since(since) >= SLOW_HANDSHAKE;
            (is_slow && connections(*address) > own).then(|| Candidate {
                address: Some(*address),
                since,
                what: (Arc::clone(standing), since),
            })
        });
        for (standing, since) in in_order(slow.collect(), connections, 1) {
            if standing.evict(State::Handshaking, since) {
                self.metrics.evicted(self.port, Eviction::Handshaking);
            }
        }
    }
}

impl Queue {
    fn wait(&mut self, address: Prefix, standing: Arc<Standing>) -> oneshot::Receiver<Turn> {
        let (told, waits) = oneshot::channel();
        let waiting = self.waiting.entry(address).or_default();
        if waiting.is_empty() {
            self.turns.push_back(address);
        }
        waiting.push_back(Waiter { standing, told });
        waits
    }

    /// The one that is next of those that still wait.
    fn next_waiter(&mut self) -> Option<(Prefix, Waiter)> {
        while let Some(address) = self.turns.pop_front() {
            let Some(mut waiting) = self.waiting.remove(&address) else { continue };
            let waiter = std::iter::from_fn(|| waiting.pop_front()).find(|waiter| !waiter.told.is_closed());
            if !waiting.is_empty() {
                self.turns.push_back(address);
                self.waiting.insert(address, waiting);
            }
            if let Some(waiter) = waiter {
                return Some((address, waiter));
            }
        }
        None
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut queue = self.handshakes.queue();
        if let Some(Holder { address, .. }) = queue.under_way.remove(&self.id)
            && let Some(count) = queue.of_address.get_mut(&address)
        {
            *count -= 1;
            if *count == 0 {
                queue.of_address.remove(&address);
            }
        }
        drop(queue);
        self.handshakes.grant();
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::pin::Pin;

    use futures_util::FutureExt;

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Option<Turn>>>>;

    fn handshakes(most: usize) -> Arc<Handshakes> {
        Arc::new(Handshakes::new(Port::Rest, most, Metrics::default()))
    }

    fn address(last: u8) -> Prefix {
        Prefix::from(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)))
    }

    fn connection() -> Arc<Standing> {
        Arc::new(Standing::new(Duration::from_secs(10)))
    }

    fn waits(handshakes: &Arc<Handshakes>, last: u8, standing: &Arc<Standing>) -> Waiting {
        let (handshakes, standing) = (Arc::clone(handshakes), Arc::clone(standing));
        let mut waiting: Waiting = Box::pin(async move { handshakes.turn(address(last), &standing).await });
        assert!(waiting.as_mut().now_or_never().is_none());
        waiting
    }

    async fn taken(handshakes: &Arc<Handshakes>, last: u8) -> Turn {
        handshakes.turn(address(last), &connection()).now_or_never().flatten().expect("a place is free")
    }

    #[tokio::test]
    async fn one_address_may_have_all_places_and_the_next_connection_waits() {
        let handshakes = handshakes(3);
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.push(taken(&handshakes, 1).await);
        }
        let mut fourth = waits(&handshakes, 1, &connection());
        drop(turns.pop());
        let fourth = fourth.as_mut().now_or_never().flatten();
        assert!(fourth.is_some());
        drop((turns, fourth));
        let queue = handshakes.queue();
        assert_eq!((queue.under_way.len(), queue.of_address.len(), queue.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn addresses_that_wait_get_places_in_turn() {
        let handshakes = handshakes(1);
        let mut turn = Some(taken(&handshakes, 1).await);
        let mut waiting: Vec<_> =
            [1, 1, 1, 2, 2, 3].into_iter().map(|last| (last, waits(&handshakes, last, &connection()))).collect();
        let mut order = Vec::new();
        while !waiting.is_empty() {
            drop(turn.take());
            waiting.retain_mut(|(last, waiting)| match waiting.as_mut().now_or_never() {
                Some(given) => {
                    turn = given;
                    order.push(*last);
                    false
                }
                None => true,
            });
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 1]);
    }

    #[tokio::test]
    async fn one_that_no_longer_waits_is_left_out() {
        let handshakes = handshakes(1);
        let first = taken(&handshakes, 1).await;
        let gone: Vec<_> = (0..1000).map(|_| waits(&handshakes, 1, &connection())).collect();
        let mut last = waits(&handshakes, 1, &connection());
        drop(gone);
        drop(first);
        assert!(last.as_mut().now_or_never().flatten().is_some());
        assert_eq!(handshakes.queue().under_way.len(), 0);
    }

    #[tokio::test]
    async fn a_slow_handshake_makes_way_for_an_address_that_has_fewer() {
        let handshakes = handshakes(3);
        let held = [1, 1, 2].map(|last| (last, connection()));
        let mut turns = Vec::new();
        for (last, standing) in &held {
            turns.push(handshakes.turn(address(*last), standing).now_or_never().flatten().expect("a place"));
        }
        let closed = || held.each_ref().map(|(_, standing)| standing.evicted().now_or_never().is_some());
        handshakes.make_way(address(3));
        assert_eq!(closed(), [false; 3], "none is slow");
        let slow = Instant::now() - SLOW_HANDSHAKE;
        held.iter().for_each(|(_, standing)| standing.rested_since(slow));
        handshakes.make_way(address(1));
        assert_eq!(closed(), [false; 3], "none has more");
        held[1].1.rested_since(slow - Duration::from_secs(1));
        handshakes.make_way(address(3));
        assert_eq!(closed(), [false, true, false]);
    }
}
