//! The order in which connections of one state give way: those of the address with the most connections first, and of one
//! address the oldest first. This module does not know what they are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::Instant;

use super::prefix::Prefix;

/// One that may give way.
#[derive(Debug)]
pub(super) struct Candidate<T> {
    /// Its address. None: however many connections it has, it counts as if it had one.
    pub(super) address: Option<Prefix>,
    /// Since when it is in its state.
    pub(super) since: Instant,
    pub(super) what: T,
}

/// The first `most` of the candidates in their order, if `connections` says how many connections an address has.
pub(super) fn in_order<T>(
    mut candidates: Vec<Candidate<T>>,
    connections: impl Fn(Prefix) -> usize,
    most: usize,
) -> VecDeque<T> {
    candidates.sort_by_key(|candidate| candidate.since);
    let mut of_address: HashMap<Option<Prefix>, VecDeque<Candidate<T>>> = HashMap::new();
    for candidate in candidates {
        of_address.entry(candidate.address).or_default().push_back(candidate);
    }
    let mut heap: BinaryHeap<_> = of_address
        .iter()
        .filter_map(|(address, candidates)| {
            let weight = address.map_or(1, &connections);
            Some((weight, Reverse(candidates.front()?.since), *address))
        })
        .collect();
    let mut chosen = VecDeque::new();
    while chosen.len() < most
        && let Some((weight, _, address)) = heap.pop()
    {
        let Some(candidates) = of_address.get_mut(&address) else { continue };
        chosen.extend(candidates.pop_front().map(|candidate| candidate.what));
        if let Some(next) = candidates.front() {
            let weight = if address.is_some() { weight.saturating_sub(1) } else { weight };
            heap.push((weight, Reverse(next.since), address));
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use super::*;

    fn address(last: u8) -> Prefix {
        Prefix::from(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)))
    }

    /// The order of candidates, each with its address (0: exempt) and its age in seconds.
    fn order(candidates: &[(u8, u64)], more: usize, most: usize) -> Vec<(u8, u64)> {
        let now = Instant::now() + Duration::from_secs(1000);
        let of = |last| candidates.iter().filter(|(other, _)| *other == last).count() + more;
        let counts: HashMap<Prefix, usize> = (1..10).map(|last| (address(last), of(last))).collect();
        let candidates = candidates.iter().map(|(last, age)| Candidate {
            address: (*last > 0).then(|| address(*last)),
            since: now - Duration::from_secs(*age),
            what: (*last, *age),
        });
        in_order(candidates.collect(), |prefix| counts[&prefix], most).into()
    }

    #[test]
    fn of_one_address_the_oldest_gives_way_first() {
        assert_eq!(order(&[(1, 5), (1, 9), (1, 7)], 0, 10), [(1, 9), (1, 7), (1, 5)]);
        assert_eq!(order(&[(1, 5), (1, 9), (1, 7)], 0, 2), [(1, 9), (1, 7)]);
        assert_eq!(order(&[], 0, 2), []);
    }

    #[test]
    fn the_address_with_the_most_connections_gives_way_until_another_has_as_many() {
        let candidates = [(1, 1), (1, 2), (1, 3), (2, 50), (2, 40), (3, 30)];
        let expected = [(1, 3), (2, 50), (1, 2), (2, 40), (3, 30), (1, 1)];
        assert_eq!(order(&candidates, 0, 10), expected);
        // The connections in other states count as well.
        assert_eq!(order(&candidates, 7, 10), expected);
    }

    #[test]
    fn an_exempt_address_gives_way_as_one_with_a_single_connection() {
        let candidates = [(0, 60), (0, 50), (0, 40), (1, 2), (1, 1), (2, 55)];
        assert_eq!(order(&candidates, 0, 10), [(1, 2), (0, 60), (2, 55), (0, 50), (0, 40), (1, 1)]);
    }
}
