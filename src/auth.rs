//! A bearer token becomes a [`Principal`]: who calls, and what that caller may touch. This is the only place that knows
//! token formats and keys, and the only place where a `Principal` can be made. This module must not know how a token
//! arrived (HTTP, gRPC), what is uploaded, where it is stored, or what a right is used for.
//!
//! Tokens are JWTs in the compact JWS form (RFC 7515, RFC 7519), checked by the rules of RFC 8725. The token's text, or
//! any part of it, is in no [`Error`], no `Debug` and no `Display`: the reasons given to the log are fixed sentences.

mod check;
mod claims;
mod config;
mod issuer;
mod keys;
mod mint;
mod principal;
mod token;

use std::time::{Duration, SystemTime};

pub use config::{Config, IssuerConfig, LoadError};
pub use mint::{Claims, Minter};
pub use principal::{Ids, Principal, Scope};
pub use token::{MAX_TOKEN_BYTES, bearer, www_authenticate};

use crate::error::{Error, Result};
use check::{Check, Refusal};
use issuer::Issuer;
use serde_json::Value;
use token::{Members, Parts};

/// Turns tokens into principals: the configured issuers with their keys. `Debug` shows issuers, algorithms and key ids, and
/// no key material.
#[derive(Debug)]
pub struct Verifier {
    leeway: Duration,
    issuers: Vec<Issuer>,
}

impl Verifier {
    /// Reads every key file that the configuration names. Relative paths are relative to the working directory.
    ///
    /// # Errors
    /// A [`LoadError`] names the first configuration key that is wrong and says what is wrong with it: a value out of
    /// range, zero or several key sources, a file that cannot be read, or a key that does not fit the algorithms.
    pub fn load(config: &Config) -> Result<Verifier, LoadError> {
        config.check()?;
        let mut issuers = Vec::with_capacity(config.issuers.len());
        for (index, issuer) in config.issuers.iter().enumerate() {
            issuers.push(Issuer::load(issuer, &format!("auth.issuers[{index}]"))?);
        }
        Ok(Verifier { leeway: config.leeway, issuers })
    }

    /// Checks `token` as of `now` and says whose it is. The clock is an argument so that a request is judged by one
    /// instant, and so that tests can choose it.
    ///
    /// The rules, in order: at most [`MAX_TOKEN_BYTES`]; three parts, the first two of them JSON objects in which no
    /// name comes twice (stricter than RFC 7515 §4 and RFC 7519 §4 demand); `iss` names a configured issuer; no `crit`,
    /// for there is no extension that we understand (RFC 7515 §4.1.11); `typ` is one of the issuer's types, where it has
    /// any (RFC 8725 §3.11); `alg` is configured for a key of that issuer (RFC 8725 §3.1); `kid`, where the keys have
    /// ids, names one of them; the signature holds; `aud` names us (RFC 8725 §3.9); the subject and the rights are
    /// well-formed; `exp` is there; `nbf` has come and `exp` has not passed, with the configured leeway. Header members
    /// that bring a key along (`jku`, `jwk`, `x5u`, `x5c`) are ignored.
    ///
    /// # Errors
    /// [`Kind::TokenExpired`](crate::error::Kind::TokenExpired) for a token that was good once: everything but its age
    /// was checked before. [`Kind::TokenInvalid`](crate::error::Kind::TokenInvalid) for every other token that does not
    /// hold, with a reason for the log alone. [`Kind::Internal`](crate::error::Kind::Internal) when `now` is before 1970,
    /// for then no time can be judged.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Principal> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::internal("the clock of this machine is before 1970"))?;
        Ok(self.judge(token, now)?)
    }

    fn judge(&self, token: &str, now: Duration) -> Result<Principal, Refusal> {
        let form = |why| Refusal::new(Check::Form, why);
        if token.len() > MAX_TOKEN_BYTES {
            return Err(form("the token is longer than 16 KiB"));
        }
        let parts = Parts::of(token).ok_or(form("the token does not have three parts"))?;
        let header = Members::decode(parts.header).ok_or(form("the token's header is not a JSON object"))?;
        let claims = Members::decode(parts.claims).ok_or(form("the token's claims are not a JSON object"))?;

        // Unverified until the signature is: good for nothing but the choice of keys.
        let name =
            claims.string("iss").ok_or(Refusal::new(Check::Issuer, "the token's iss is missing or no string"))?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == name);
        let issuer = issuer.ok_or(Refusal::new(Check::Issuer, "the token's issuer is not configured"))?;
        issuer.check_header(&header)?;
        issuer.check_signature(&header, &parts)?;
        let principal = issuer.read(&claims)?;
        Window::of(&claims)?.check(now, self.leeway)?;
        Ok(principal)
    }
}

/// When a token holds, in time since 1970.
#[derive(Clone, Copy, Debug)]
struct Window {
    not_before: Duration,
    expires: Duration,
}

impl Window {
    fn of(claims: &Members) -> Result<Window, Refusal> {
        // Whole seconds only: RFC 7519 §2 would allow a fraction, but a float beyond 2^53 is not the number it was.
        let seconds = |value: &Value| value.as_u64().map(Duration::from_secs);
        let expires = claims.get("exp").and_then(seconds);
        let expires = expires.ok_or(Refusal::new(Check::Times, "the token's exp is missing or no unsigned integer"))?;
        let not_before = claims.get("nbf").map_or(Some(Duration::ZERO), seconds);
        let not_before = not_before.ok_or(Refusal::new(Check::Times, "the token's nbf is no unsigned integer"))?;
        Ok(Window { not_before, expires })
    }

    /// "Expired" comes last, so that it is only ever said of a token that was good.
    fn check(self, now: Duration, leeway: Duration) -> Result<(), Refusal> {
        if now.saturating_add(leeway) < self.not_before {
            return Err(Refusal::new(Check::Times, "the token is not valid yet"));
        }
        if now >= self.expires.saturating_add(leeway) { Err(Refusal::expired()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
