//! The checks of a token, in their order: form, issuer, algorithm, signature, claims, time. This file must not know how a token
//! is explained to people.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use futures_util::future;

use super::check::{Check, TokenRefusal};
use super::config::Config;
use super::issuer::{Issuer, Unsigned};
use super::json::{self, Fault};
use super::keyring::{Freshness, KeysState, NoneNewer};
use super::load_error::LoadError;
use super::principal::Principal;
use super::seen::{Fingerprint, Found, Seen};
use super::times::{TimeLimits, Window};
use super::token::{self, MAX_TOKEN_BYTES, Members, TokenParts};
use crate::error::{Error, Kind, Result};

const TOO_LONG: &str = "the token is longer than 16 KiB";

/// Turns tokens into principals: the configured issuers with their keys, and the tokens that were verified before.
/// `Debug` shows issuers, algorithms and key ids, and no key material.
#[derive(Debug)]
pub struct Verifier {
    pub(super) limits: TimeLimits,
    pub(super) issuers: Vec<Issuer>,
    seen: Seen,
    remembered: AtomicU64,
    verified: AtomicU64,
}

/// How often tokens were verified, and how often that was spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verifications {
    /// Tokens that were looked at from the beginning.
    pub made: u64,
    /// Tokens that were remembered.
    pub spared: u64,
}

impl Verifier {
    /// Reads every key file that the configuration names. Relative paths are relative to the working directory. Providers are
    /// asked for their keys when [`keep_fresh`](Verifier::keep_fresh) runs, or when the first of their tokens arrives.
    ///
    /// # Errors
    /// A [`LoadError`] names the first configuration key that is wrong and says what is wrong with it: a value out of
    /// range, zero or several key sources, a file that cannot be read, or a key that does not fit the algorithms.
    pub fn load(config: &Config) -> Result<Verifier, LoadError> {
        config.check()?;
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for (index, issuer) in config.issuers.iter().enumerate() {
            issuers.push(Issuer::load(issuer, config.keys, &format!("auth.issuers[{index}]"))?);
        }
        let most = usize::try_from(config.token_cache.as_u64()).unwrap_or(usize::MAX);
        let (remembered, verified) = (AtomicU64::new(0), AtomicU64::new(0));
        let limits = TimeLimits { leeway: config.leeway, lifetime: config.max_token_lifetime };
        Ok(Verifier { limits, issuers, seen: Seen::new(most), remembered, verified })
    }

    /// Keeps the keys of all issuers up to date for as long as it is polled.
    pub async fn keep_fresh(&self) {
        future::join_all(self.issuers.iter().map(|issuer| issuer.ring.keep_fresh())).await;
    }

    /// Asks for the keys of all issuers now.
    ///
    /// # Errors
    /// The first issuer whose keys are not available, and why.
    pub async fn fetch_keys(&self) -> Result<(), LoadError> {
        for (index, issuer) in self.issuers.iter().enumerate() {
            let asked = issuer.ring.refresh().await;
            asked.map_err(|what| LoadError::new(format!("auth.issuers[{index}]"), what))?;
        }
        Ok(())
    }

    /// The state of the keys of each issuer, in the order of the configuration.
    pub fn keys(&self) -> Vec<KeysState> {
        self.issuers.iter().map(|issuer| issuer.ring.state()).collect()
    }

    /// How often tokens were verified, and how often that was spared.
    pub fn verifications(&self) -> Verifications {
        let (made, spared) = (self.verified.load(Ordering::Relaxed), self.remembered.load(Ordering::Relaxed));
        Verifications { made, spared }
    }

    /// Whether tokens can be judged: the keys of every issuer have been there, and those of one at least can be used. A
    /// provider that goes down later is no reason to turn away the callers of another.
    pub fn is_ready(&self) -> bool {
        let states = self.keys();
        states.iter().all(|state| state.confirmed.is_some())
            && states.iter().any(|state| state.freshness != Freshness::Unusable)
    }

    /// Checks `token` as of `now` and says whose it is. The clock is an argument so that a request is judged by one
    /// instant, and so that tests can choose it.
    ///
    /// The rules, in order: at most [`MAX_TOKEN_BYTES`]; three parts, the first two of them JSON objects in which no
    /// name comes twice (stricter than RFC 7515 §4 and RFC 7519 §4 demand); `iss` names a configured issuer; no `crit`,
    /// for there is no extension that we understand (RFC 7515 §4.1.11); `typ` is one of the issuer's types, where it has
    /// any (RFC 8725 §3.11); `alg` is configured for a key of that issuer (RFC 8725 §3.1); `kid`, where the keys have
    /// ids, names one of them; the signature holds; `aud` names us (RFC 8725 §3.9); the subject and the rights are
    /// well-formed; `exp` is there, and `nbf` and `iat` are numbers where they are; `nbf` has come, `exp` is not further
    /// away than permitted and has not passed, with the configured leeway. Header members that bring a key along (`jku`, `jwk`, `x5u`, `x5c`) are ignored.
    ///
    /// A token that no known key goes with waits until its issuer was asked for newer ones.
    ///
    /// # Errors
    /// [`Kind::TokenExpired`] for a token that was good once: everything but its age was checked before.
    /// [`Kind::TokenInvalid`] for every other token that is invalid. The reason is for the log alone.
    /// [`Kind::KeysUnavailable`] if the keys of the issuer are not available.
    /// [`Kind::Internal`] when `now` is before 1970, for then no time can be judged.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Principal> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::internal("the clock of this machine is before 1970"))?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::new(Check::Form, TOO_LONG).into());
        }
        let fingerprint = Fingerprint::of(token);
        if let Some(found) = self.seen.get(&fingerprint).filter(|found| self.stands(found)) {
            self.remembered.fetch_add(1, Ordering::Relaxed);
            found.check(now, self.limits)?;
            return Ok(found.principal);
        }
        self.verified.fetch_add(1, Ordering::Relaxed);
        let found = self.judge(token).await.map_err(Error::from)?;
        found.check(now, self.limits)?;
        self.seen.insert(fingerprint, found.clone());
        Ok(found.principal)
    }

    /// Whether what was found of a token was found with the keys that its issuer has now.
    fn stands(&self, found: &Found) -> bool {
        self.issuers.get(found.issuer).is_some_and(|issuer| {
            let held = issuer.ring.held();
            held.generation == found.generation && issuer.ring.is_usable(&held)
        })
    }

    /// All that can be said of a token without a clock.
    pub(super) async fn judge(&self, token: &str) -> Result<Found, Unjudged> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenRefusal::new(Check::Form, TOO_LONG).into());
        }
        let parts = TokenParts::of(token).ok_or_else(|| TokenRefusal::new(Check::Form, token::other_form(token)))?;
        let of = |part: &'static str| {
            move |fault: Fault| TokenRefusal::new(Check::Form, format!("the token's {part} {}", fault.as_str()))
        };
        let header = Members::decode(parts.header).map_err(of("header"))?;
        let claims = Members::decode(parts.claims).map_err(of("claims set"))?;
        json::decode(parts.signature).map_err(of("signature"))?;

        // Unverified until the signature is: good for nothing but the choice of keys.
        let name =
            claims.string("iss").ok_or(TokenRefusal::new(Check::Issuer, "the token's iss is missing or no string"))?;
        let index = self.issuers.iter().position(|issuer| issuer.name == name);
        let unknown = TokenRefusal::new(Check::Issuer, "the token's issuer is not configured");
        let (index, issuer) = index.and_then(|index| Some((index, self.issuers.get(index)?))).ok_or(unknown)?;
        issuer.check_header(&header)?;
        let generation = self.signed(issuer, &header, &parts).await?;
        let read = || Ok((issuer.read(&claims)?, Window::of(&claims)?));
        let (principal, window) =
            read().map_err(|refusal: TokenRefusal| refusal.of(&issuer.name, issuer.subject(&claims)))?;
        Ok(Found { principal, window, issuer: index, generation })
    }

    /// Looks for a key under which the signature holds, among those that are known, and then among newer ones.
    async fn signed(&self, issuer: &Issuer, header: &Members, parts: &TokenParts<'_>) -> Result<u64, Unjudged> {
        let ring = &issuer.ring;
        let (mark, kid) = (ring.mark(), header.string("kid"));
        let mut held = ring.held();
        loop {
            let checked = issuer.check_signature(&held, header, parts);
            let is_usable = ring.is_usable(&held);
            let (refusal, is_known) = match checked {
                Ok(()) if is_usable => return Ok(held.generation),
                Err(Unsigned::Refused(refusal)) => return Err(refusal.into()),
                Ok(()) => (None, false),
                Err(Unsigned::Unknown(refusal)) => (Some(refusal), false),
                Err(Unsigned::Replaced(refusal)) => (Some(refusal), true),
            };
            if let Some(refusal) = refusal.clone().filter(|_| is_usable && ring.has_missed(kid)) {
                return Err(refusal.into());
            }
            match (ring.newer(&held, mark).await, refusal) {
                (Ok(newer), _) => held = newer,
                (Err(NoneNewer::Told), Some(refusal)) if is_usable => {
                    ring.missed(kid, is_known || refusal.check == Check::Signature);
                    return Err(refusal.into());
                }
                // The key that it names is there and does not verify it. That it was replaced just now is the rare case.
                (Err(NoneNewer::Untold), Some(refusal)) if is_usable && is_known => return Err(refusal.into()),
                (Err(_), _) => return Err(Unjudged::WithoutKeys(issuer.name.clone())),
            }
        }
    }
}

impl Found {
    /// Checks the token as of `now`.
    pub(super) fn check(&self, now: Duration, limits: TimeLimits) -> Result<(), TokenRefusal> {
        let of = |refusal: TokenRefusal| refusal.of(self.principal.issuer(), Some(self.principal.subject()));
        self.window.check(now, limits).map_err(of)
    }
}

/// Why nothing was found of a token.
#[derive(Debug)]
pub(super) enum Unjudged {
    /// It is invalid.
    Refused(TokenRefusal),
    /// The keys of this issuer are not available.
    WithoutKeys(String),
}

impl From<TokenRefusal> for Unjudged {
    fn from(refusal: TokenRefusal) -> Unjudged {
        Unjudged::Refused(refusal)
    }
}

impl From<Unjudged> for Error {
    fn from(unjudged: Unjudged) -> Error {
        match unjudged {
            Unjudged::Refused(refusal) => refusal.into(),
            Unjudged::WithoutKeys(issuer) => {
                Error::new(Kind::KeysUnavailable).because(format!("the keys of {issuer} are not available"))
            }
        }
    }
}
