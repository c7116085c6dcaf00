//! The connections of a port: how many there may be, and which of them give way to new ones. A connection that gives way is
//! chosen by its state and its age, and by how many connections its address has. This module does not know what is served.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::time::sleep;

use super::limits::{LEAST_REST, NO_VICTIM_PAUSE, SETTLING};
use super::prefix::Prefix;
use super::pressure::Pressure;
use super::standing::{Standing, State};
use super::victims::{Candidate, in_order};
use crate::origin::Network;
use crate::telemetry::{Eviction, Metrics, Port};

/// How many connections are chosen at once, at most, so that not every new connection costs a search.
const CHOSEN: usize = 64;

/// For how long a choice is used.
const FRESH: Duration = Duration::from_millis(100);

/// How many connections may be closing, at most, while their places are taken already.
const LEAVING: usize = 64;

/// Which part of the places must be silent so that idle connections do not give way.
const PART_OF_SILENT: usize = 8;

/// What the connections of a port may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// How many there may be.
    pub(super) connections: usize,
    /// How many an address may have. 0 sets no limit.
    pub(super) of_address: usize,
    /// How long a connection may be silent or idle.
    pub(super) idle: Duration,
    /// How long a TLS handshake may take.
    pub(super) handshake: Duration,
    /// How long a client may take nothing of a response.
    pub(super) write: Duration,
}

/// The connections of a port.
#[derive(Debug)]
pub(super) struct Crowd {
    port: Port,
    room: Room,
    /// Their connections count as if each were the only one of its address.
    trusted_proxies: Vec<Network>,
    metrics: Metrics,
    members: Mutex<Members>,
    /// Told when a place becomes free.
    left: Notify,
}

#[derive(Debug, Default)]
struct Members {
    next: u64,
    all: HashMap<u64, Member>,
    of_address: HashMap<Prefix, usize>,
    /// How many are closing and have given up their places.
    leaving: usize,
    chosen: VecDeque<(u64, State, Instant)>,
    chosen_at: Option<Instant>,
    pressure: Pressure,
}

#[derive(Debug)]
struct Member {
    address: Prefix,
    exempt: bool,
    standing: Arc<Standing>,
}

/// The place of a connection, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    id: u64,
    standing: Arc<Standing>,
}

/// What became of a connection that wants a place.
#[derive(Debug)]
enum Entry {
    Placed(Place),
    /// Its address has as many as it may have.
    Refused,
    /// Neither is a place free, nor can another connection give way.
    Full,
}

impl Crowd {
    /// A port without connections.
    pub(super) fn new(port: Port, room: Room, trusted_proxies: Vec<Network>, metrics: Metrics) -> Crowd {
        Crowd { port, room, trusted_proxies, metrics, members: Mutex::default(), left: Notify::new() }
    }

    fn members(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from an address, which is waited for. None if the address has as many as it may have.
    pub(super) async fn enter(self: &Arc<Self>, from: SocketAddr) -> Option<Place> {
        loop {
            match self.try_enter(from.ip()) {
                Entry::Placed(place) => return Some(place),
                Entry::Refused => return None,
                Entry::Full => tokio::select! {
                    () = self.left.notified() => {}
                    () = sleep(NO_VICTIM_PAUSE) => {}
                },
            }
        }
    }

    /// A place for a connection from an address, even if there are none.
    pub(super) fn enter_anyway(self: &Arc<Self>, from: SocketAddr) -> Place {
        let address = from.ip();
        self.seat(&mut self.members(), address, self.is_exempt(address))
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        self.trusted_proxies.iter().any(|network| network.holds(address))
    }

    fn try_enter(self: &Arc<Self>, address: IpAddr) -> Entry {
        let exempt = self.is_exempt(address);
        let members = &mut *self.members();
        let has = members.of_address.get(&Prefix::from(address)).copied().unwrap_or_default();
        if !exempt && self.room.of_address > 0 && has >= self.room.of_address {
            return Entry::Refused;
        }
        let is_full = members.all.len() >= self.room.connections;
        let leaves_in_time = members.leaving < LEAVING.min(self.room.connections);
        if is_full && !(leaves_in_time && self.evict_one(members)) {
            members.pressure.waits(self.port, self.room.connections);
            return Entry::Full;
        }
        Entry::Placed(self.seat(members, address, exempt))
    }

    fn seat(self: &Arc<Self>, members: &mut Members, address: IpAddr, exempt: bool) -> Place {
        let (id, address) = (members.next, Prefix::from(address));
        members.next += 1;
        let standing = Arc::new(Standing::new(self.room.write / 2));
        members.all.insert(id, Member { address, exempt, standing: Arc::clone(&standing) });
        *members.of_address.entry(address).or_default() += 1;
        Place { crowd: Arc::clone(self), id, standing }
    }

    /// Closes one connection, if one can give way.
    fn evict_one(&self, members: &mut Members) -> bool {
        let now = Instant::now();
        if members.chosen_at.is_some_and(|at| now.duration_since(at) >= FRESH) {
            members.chosen.clear();
        }
        for search in [false, true] {
            if search {
                members.chosen = self.choose(members, now);
                members.chosen_at = Some(now);
            }
            while let Some((id, state, since)) = members.chosen.pop_front() {
                if self.evict(members, id, state, since) {
                    return true;
                }
            }
        }
        false
    }

    /// Connections that can give way, all of the state that does so first.
    fn choose(&self, members: &Members, now: Instant) -> VecDeque<(u64, State, Instant)> {
        let (mut silent, mut idle, mut stalled, mut all_silent) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (id, member) in &members.all {
            let (state, since) = member.standing.state(now);
            let candidates = match state {
                State::Silent | State::Handshaking => &mut silent,
                State::Idle => &mut idle,
                State::Stalled => &mut stalled,
                State::Active => continue,
            };
            all_silent += usize::from(matches!(state, State::Silent | State::Handshaking));
            if now.saturating_duration_since(since) >= SETTLING {
                let address = (!member.exempt).then_some(member.address);
                candidates.push(Candidate { address, since, what: (*id, state, since) });
            }
        }
        // Many silent ones that have just come are waited for. They would have all others closed before them.
        let enough = (self.room.connections / PART_OF_SILENT).max(1);
        let candidates = match () {
            () if !silent.is_empty() || all_silent >= enough => silent,
            () if !idle.is_empty() => idle,
            () => stalled,
        };
        in_order(candidates, |address| members.of_address.get(&address).copied().unwrap_or_default(), CHOSEN)
    }

    /// Closes a connection if it still is in this state since then. Its place is free at once.
    fn evict(&self, members: &mut Members, id: u64, state: State, since: Instant) -> bool {
        let eviction = match state {
            State::Silent => Eviction::Silent,
            State::Handshaking => Eviction::Handshaking,
            State::Idle => Eviction::Idle,
            State::Stalled => Eviction::Stalled,
            State::Active => return false,
        };
        if !members.all.get(&id).is_some_and(|member| member.standing.evict(state, since)) {
            return false;
        }
        members.remove(id);
        members.leaving += 1;
        self.metrics.evicted(self.port, eviction);
        members.pressure.closed(state);
        self.tell(members);
        true
    }

    fn tell(&self, members: &mut Members) {
        let Members { all, of_address, pressure, .. } = members;
        let most = || of_address.iter().max_by_key(|(_, count)| **count).map(|(address, count)| (*address, *count));
        pressure.tell(self.port, all.len(), self.room.connections, most);
    }

    /// Whether [`Crowd::sweep`] has something to do from time to time.
    pub(super) fn is_crowded(&self) -> bool {
        let members = self.members();
        members.all.len() > self.room.connections / 2 || members.pressure.pends()
    }

    /// Closes connections that have been silent or idle for longer than they may while there are so many, the oldest first.
    pub(super) fn sweep(&self) {
        let members = &mut *self.members();
        let (now, limit) = (Instant::now(), self.room.connections);
        if members.all.len() > limit / 2 {
            let rests = members.all.iter().filter_map(|(id, member)| {
                let (state, since) = member.standing.state(now);
                let most = match state {
                    State::Silent | State::Idle => self.room.idle,
                    State::Handshaking => self.room.handshake,
                    State::Active | State::Stalled => return None,
                };
                Some((since, *id, state, most))
            });
            let mut rests: Vec<_> = rests.collect();
            rests.sort_unstable_by_key(|(since, ..)| *since);
            for (since, id, state, most) in rests {
                if now.saturating_duration_since(since) >= shortened(most, members.all.len(), limit) {
                    self.evict(members, id, state, since);
                }
            }
        }
        self.tell(members);
    }
}

/// How long a connection may be silent or idle if `open` of `limit` places are taken. Up to half of the places it is `most`, and
/// from there on it falls, to [`LEAST_REST`] when all places are taken.
fn shortened(most: Duration, open: usize, limit: usize) -> Duration {
    let least = LEAST_REST.min(most);
    let half = limit / 2;
    let (taken, all) = (open.saturating_sub(half).min(limit - half), limit - half);
    let [taken, all] = [taken, all].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    most - (most - least) / all.max(1) * taken
}

impl Members {
    fn remove(&mut self, id: u64) -> bool {
        let Some(member) = self.all.remove(&id) else { return false };
        if let Some(count) = self.of_address.get_mut(&member.address) {
            *count -= 1;
            if *count == 0 {
                self.of_address.remove(&member.address);
            }
        }
        true
    }
}

impl Place {
    /// The state of the connection.
    pub(super) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut members = self.crowd.members();
        if !members.remove(self.id) {
            members.leaving -= 1;
        }
        drop(members);
        self.crowd.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::server::standing::Exchange;

    /// A port with so many places, at which connections are stalled after a millisecond.
    fn crowd(connections: usize, of_address: usize, trusted: &[&str]) -> Arc<Crowd> {
        let seconds = Duration::from_secs;
        let write = Duration::from_millis(2);
        let room = Room { connections, of_address, idle: seconds(30), handshake: seconds(10), write };
        let trusted = trusted.iter().map(|network| Network::try_from((*network).to_owned()).unwrap()).collect();
        Arc::new(Crowd::new(Port::Rest, room, trusted, Metrics::default()))
    }

    fn enter(crowd: &Arc<Crowd>, address: &str) -> Place {
        match crowd.try_enter(address.parse().unwrap()) {
            Entry::Placed(place) => place,
            other => panic!("{other:?}"),
        }
    }

    /// The connections that would give way after some time, the first one first.
    fn order(crowd: &Crowd, after: Duration) -> Vec<u64> {
        crowd.choose(&crowd.members(), Instant::now() + after).into_iter().map(|(id, ..)| id).collect()
    }

    fn is_closed(place: &Place) -> bool {
        place.standing().evicted().now_or_never().is_some()
    }

    fn asks(place: &Place) -> Exchange {
        place.standing().begin()
    }

    #[test]
    fn the_silent_give_way_before_the_idle_and_those_before_the_stalled() {
        let crowd = crowd(100, 0, &[]);
        let [active, stalled, idle, handshaking, silent] = [1, 2, 3, 4, 5].map(|_| enter(&crowd, "192.0.2.1"));
        let _request = asks(&active);
        let mut response = asks(&stalled);
        response.offers();
        drop(asks(&idle));
        handshaking.standing().handshaking();
        assert_eq!(order(&crowd, SETTLING / 2), [] as [u64; 0], "all have just come");
        assert_eq!(order(&crowd, SETTLING * 2), [silent.id, handshaking.id]);
        drop((silent, handshaking));
        assert_eq!(order(&crowd, SETTLING * 2), [idle.id]);
        drop(idle);
        assert_eq!(order(&crowd, SETTLING * 2), [stalled.id]);
        response.waits();
        assert_eq!(order(&crowd, SETTLING * 2), [] as [u64; 0], "those with requests that get on stay");
    }

    #[test]
    fn the_idle_stay_while_many_silent_ones_have_just_come() {
        let crowd = crowd(16, 0, &[]);
        let idle = enter(&crowd, "192.0.2.1");
        drop(asks(&idle));
        let age = SETTLING - Duration::from_millis(100);
        let since = Instant::now() - age;
        let mut silent = Vec::new();
        for (count, order_of_idle) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
            while silent.len() < count {
                silent.push(enter(&crowd, "192.0.2.2"));
            }
            // The idle one is older than those that are silent.
            idle.standing().rested_since(since);
            assert_eq!(order(&crowd, SETTLING / 2).len(), order_of_idle, "{count} of 16");
        }
    }

    #[test]
    fn a_full_port_takes_a_new_connection_for_the_oldest_of_the_address_with_the_most() {
        let crowd = crowd(4, 0, &["192.0.2.9"]);
        let since = Instant::now() - 10 * SETTLING;
        let of = |address| enter(&crowd, address);
        let (one, proxy, first, second) = (of("192.0.2.1"), of("192.0.2.9"), of("192.0.2.2"), of("192.0.2.2"));
        assert!(matches!(crowd.try_enter("192.0.2.3".parse().unwrap()), Entry::Full), "all have just come");
        for (place, age) in [(&one, 4), (&proxy, 5), (&first, 3), (&second, 2)] {
            place.standing().rested_since(since - Duration::from_secs(age));
        }
        crowd.members().chosen_at = None;
        let newest = enter(&crowd, "192.0.2.3");
        let closed = |places: &[&Place]| places.iter().map(|place| is_closed(place)).collect::<Vec<_>>();
        assert_eq!(closed(&[&one, &proxy, &first, &second, &newest]), [false, false, true, false, false]);
        // Then all have one, and the proxy is the oldest.
        let _another = enter(&crowd, "192.0.2.4");
        assert_eq!(closed(&[&one, &proxy, &second, &newest]), [false, true, false, false]);
        assert_eq!(crowd.members().all.len(), 4);
        assert_eq!(crowd.members().leaving, 2);
        drop((one, proxy, first, second));
        assert_eq!(crowd.members().leaving, 0);
        assert_eq!(crowd.members().all.len(), 2);
        assert_eq!(crowd.members().of_address.len(), 2);
    }

    #[test]
    fn a_connection_with_a_request_is_not_closed_for_another() {
        let crowd = crowd(1, 0, &[]);
        let place = enter(&crowd, "192.0.2.1");
        place.standing().rested_since(Instant::now() - 10 * SETTLING);
        let request = asks(&place);
        assert!(matches!(crowd.try_enter("192.0.2.3".parse().unwrap()), Entry::Full));
        drop(request);
        place.standing().rested_since(Instant::now() - 10 * SETTLING);
        crowd.members().chosen_at = None;
        drop(enter(&crowd, "192.0.2.3"));
        assert!(is_closed(&place));
    }

    #[test]
    fn only_so_many_connections_are_closing_while_their_places_are_taken() {
        let crowd = crowd(2, 0, &[]);
        let old = Instant::now() - 10 * SETTLING;
        let mut places = Vec::new();
        for _ in 0..4 {
            places.push(enter(&crowd, "192.0.2.1"));
            places.iter().for_each(|place| place.standing().rested_since(old));
            crowd.members().chosen_at = None;
        }
        assert!(matches!(crowd.try_enter("192.0.2.1".parse().unwrap()), Entry::Full));
        let closed = places.iter().position(is_closed).unwrap();
        drop(places.remove(closed));
        drop(enter(&crowd, "192.0.2.1"));
    }

    #[test]
    fn an_address_has_as_many_connections_as_it_may_and_a_trusted_proxy_more() {
        let crowd = crowd(100, 2, &["192.0.2.9", "2001:db8:9::/48"]);
        let refused = |address: &str| matches!(crowd.try_enter(address.parse().unwrap()), Entry::Refused);
        for (one, same, other) in
            [("192.0.2.1", "::ffff:192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2", "::1")]
        {
            let (first, _second) = (enter(&crowd, one), enter(&crowd, same));
            assert!(refused(one) && refused(same));
            assert!(!refused(other));
            drop(first);
            drop(enter(&crowd, same));
        }
        for proxy in ["192.0.2.9", "2001:db8:9::1"] {
            let places: Vec<_> = (0..5).map(|_| enter(&crowd, proxy)).collect();
            assert!(!refused(proxy));
            drop(places);
        }
        assert_eq!(crowd.members().all.len(), 0);
        assert_eq!(crowd.members().of_address.len(), 0);
    }

    #[test]
    fn the_oldest_is_closed_until_those_that_are_left_may_rest_for_longer() {
        let crowd = crowd(10, 0, &[]);
        let places: Vec<_> = (0..10).map(|_| enter(&crowd, "192.0.2.1")).collect();
        // At 10, 9, 8 and so on of 10 places they may rest for 1 s, 6.8 s, 12.6 s, 18.4 s, 24.2 s and 30 s.
        let rested = |age| {
            let since = Instant::now() - Duration::from_secs(age);
            places.iter().for_each(|place| place.standing().rested_since(since));
            crowd.sweep();
            crowd.members().all.len()
        };
        assert_eq!([0, 2, 7, 13, 20, 29, 300].map(rested), [10, 9, 8, 7, 6, 5, 5]);
    }

    #[test]
    fn from_half_full_on_connections_may_rest_for_less_time() {
        let seconds = Duration::from_secs;
        for (open, time) in [(0, 31), (49, 31), (50, 31), (60, 25), (75, 16), (99, 1), (100, 1), (200, 1)] {
            let shortened = shortened(seconds(31), open, 100).as_secs_f64();
            assert!((f64::from(time)..f64::from(time) + 0.7).contains(&shortened), "{open}: {shortened}");
        }
        assert_eq!(shortened(seconds(31), 1, 1), LEAST_REST);
        assert_eq!(shortened(LEAST_REST / 2, 100, 100), LEAST_REST / 2);
    }
}
