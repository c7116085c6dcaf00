//! Keys that tokens asked for and that their provider did not have when it was asked, so that a token that cannot be verified
//! does not make its provider be asked, nor its request wait, again and again. This file must not know what a key is.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many are remembered. Tokens can name any number of keys.
const MOST: usize = 1024;

/// What was asked for lately and not found.
#[derive(Debug, Default)]
pub(super) struct Misses {
    hasher: RandomState,
    known: Mutex<HashMap<u64, Miss>>,
}

#[derive(Clone, Copy, Debug)]
struct Miss {
    until: Instant,
    pause: Duration,
}

impl Misses {
    /// Whether the key of this `kid` was asked for so lately that it is not to be asked for again.
    pub(super) fn has(&self, kid: Option<&str>) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&self.hasher.hash_one(kid)).is_some_and(|miss| miss.until > Instant::now())
    }

    /// The provider was asked for the key of this `kid` and does not have it. It is not asked again for `least`; after each
    /// further time for twice as long, up to `most`.
    pub(super) fn insert(&self, kid: Option<&str>, least: Duration, most: Duration) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, miss| miss.until > now);
        }
        if known.len() >= MOST {
            known.clear();
        }
        let id = self.hasher.hash_one(kid);
        let pause = known.get(&id).map_or(least, |miss| (miss.pause * 2).min(most).max(least));
        known.insert(id, Miss { until: now + pause, pause });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(1000);

    #[test]
    fn a_key_that_was_missed_is_known_for_a_while_and_no_other_is() {
        let misses = Misses::default();
        misses.insert(Some("a"), LONG, LONG);
        assert!(misses.has(Some("a")) && !misses.has(Some("b")) && !misses.has(None));
        misses.insert(None, Duration::ZERO, LONG);
        assert!(!misses.has(None), "the pause is over");
    }

    #[test]
    fn each_further_miss_doubles_the_pause_up_to_the_longest() {
        let misses = Misses::default();
        let pause = || misses.known.lock().unwrap().values().next().map(|miss| miss.pause.as_secs());
        for expected in [1, 2, 4, 8, 10, 10] {
            misses.insert(Some("a"), Duration::from_secs(1), Duration::from_secs(10));
            assert_eq!(pause(), Some(expected));
        }
    }

    #[test]
    fn any_number_of_names_takes_bounded_room() {
        let misses = Misses::default();
        for name in 0..10 * MOST {
            misses.insert(Some(&name.to_string()), LONG, LONG);
            assert!(misses.known.lock().unwrap().len() <= MOST);
        }
        assert!(misses.has(Some(&(10 * MOST - 1).to_string())));
    }
}
