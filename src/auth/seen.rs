//! Tokens that were found to hold, so that the same token is not verified for each request that brings it. A token is
//! known by its digest, and only ones whose signature held are remembered. This file must not know what makes a token hold.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};

use super::principal::Principal;
use super::times::Window;

/// What an entry takes beside its principal, in bytes, about: key and value in a table that is half full.
const ENTRY_BYTES: usize = 256;

/// The digest of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a token's text.
    pub(super) fn of(token: &str) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Fingerprint(bytes)
    }
}

/// What a token was found to be.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) principal: Principal,
    pub(super) window: Window,
    /// The place of its issuer in the configuration.
    pub(super) issuer: usize,
    /// The keys of the issuer with which it was verified. With others it has to be verified again.
    pub(super) generation: u64,
}

/// The tokens that were seen lately, within a number of bytes. `Debug` shows how many.
pub(super) struct Seen {
    most: usize,
    generations: Mutex<Generations>,
}

/// Those that were asked for since the last turn, and those that were not. When the young fill half of the space the old are
/// forgotten and the young become old: who is asked for again stays, at the price of one move.
#[derive(Default)]
struct Generations {
    young: HashMap<Fingerprint, Found>,
    young_bytes: usize,
    old: HashMap<Fingerprint, Found>,
}

impl Seen {
    /// Remembers tokens within `most` bytes, about; none where it is 0.
    pub(super) fn new(most: usize) -> Seen {
        Seen { most, generations: Mutex::new(Generations::default()) }
    }

    /// What the token of this fingerprint was found to be, if that is remembered.
    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<Found> {
        if self.most == 0 {
            return None;
        }
        let mut all = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = all.young.get(fingerprint) {
            return Some(found.clone());
        }
        let found = all.old.remove(fingerprint)?;
        self.put(&mut all, *fingerprint, found.clone());
        Some(found)
    }

    /// Remembers what a token was found to be.
    pub(super) fn insert(&self, fingerprint: Fingerprint, found: Found) {
        let mut all = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(&mut all, fingerprint, found);
    }

    fn put(&self, all: &mut Generations, fingerprint: Fingerprint, found: Found) {
        let half = self.most / 2;
        let more = bytes(&found);
        if more > half {
            return;
        }
        if all.young_bytes + more > half {
            all.old = std::mem::take(&mut all.young);
            all.young_bytes = 0;
        }
        match all.young.insert(fingerprint, found) {
            None => all.young_bytes += more,
            Some(before) => all.young_bytes = all.young_bytes + more - bytes(&before),
        }
    }
}

fn bytes(found: &Found) -> usize {
    ENTRY_BYTES + found.principal.weight()
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        f.debug_struct("Seen").field("tokens", &(all.young.len() + all.old.len())).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::principal::{Ids, Rights};
    use super::*;

    fn found(subject: &str, ids: usize) -> Found {
        let clients = Ids::Only((1..=i64::try_from(ids).unwrap()).collect());
        let principal = Principal::new("https://id.example", subject, Rights { clients, ..Rights::default() });
        let window = Window { issued: None, not_before: Duration::ZERO, expires: Duration::from_secs(1) };
        Found { principal, window, issuer: 0, generation: 1 }
    }

    fn size(seen: &Seen) -> (usize, usize) {
        let all = seen.generations.lock().unwrap();
        let held = all.young.values().chain(all.old.values()).map(bytes).sum();
        (all.young.len() + all.old.len(), held)
    }

    fn subject(seen: &Seen, token: &str) -> Option<String> {
        seen.get(&Fingerprint::of(token)).map(|found| found.principal.subject().to_owned())
    }

    #[test]
    fn each_token_has_its_own_answer() {
        let seen = Seen::new(1 << 20);
        for token in ["a", "b", "c"] {
            seen.insert(Fingerprint::of(token), found(token, 1));
        }
        assert_eq!(subject(&seen, "a").as_deref(), Some("a"));
        assert_eq!(subject(&seen, "c").as_deref(), Some("c"));
        assert_eq!(subject(&seen, "d"), None);
        seen.insert(Fingerprint::of("a"), found("another", 1));
        assert_eq!(subject(&seen, "a").as_deref(), Some("another"));
    }

    #[test]
    fn many_tokens_and_large_ones_stay_within_the_bytes() {
        let most = 100_000;
        let seen = Seen::new(most);
        for number in 0..10_000 {
            seen.insert(Fingerprint::of(&number.to_string()), found("a", number % 400));
            let (tokens, held) = size(&seen);
            assert!(held <= most && tokens <= most / ENTRY_BYTES, "{tokens} tokens of {held} bytes");
        }
        assert!(size(&seen).0 > 10, "what was seen last is remembered");
        // One that takes more than half is not remembered at all, and pushes nothing out.
        let before = size(&seen);
        seen.insert(Fingerprint::of("huge"), found("a", most / 8));
        assert_eq!((size(&seen), subject(&seen, "huge")), (before, None));
    }

    #[test]
    fn a_token_that_is_asked_for_again_stays_while_others_come_and_go() {
        let seen = Seen::new(50_000);
        seen.insert(Fingerprint::of("kept"), found("kept", 1));
        seen.insert(Fingerprint::of("once"), found("once", 1));
        for number in 0..10_000 {
            seen.insert(Fingerprint::of(&number.to_string()), found("a", 1));
            assert_eq!(subject(&seen, "kept").as_deref(), Some("kept"), "{number}");
        }
        assert_eq!(subject(&seen, "once"), None);
    }

    #[test]
    fn with_no_bytes_nothing_is_remembered() {
        let seen = Seen::new(0);
        seen.insert(Fingerprint::of("a"), found("a", 0));
        assert_eq!(subject(&seen, "a"), None);
    }
}
