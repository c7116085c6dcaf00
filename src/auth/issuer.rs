//! One trusted issuer: its keys, which are never tried on a token that names another, and what its claims mean. This file
//! must not know the clock.

use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::Algorithm;
use serde_json::Value;

use super::check::{Check, Refusal};
use super::claims::Paths;
use super::config::{Grant, IssuerConfig, KeysConfig, LoadError};
use super::keyring::Keyring;
use super::keys::Key;
use super::principal::{Principal, Rights};
use super::token::{Members, Parts};

/// What a media type begins with that a token's `typ` may leave out (RFC 7515 §4.1.9).
const APPLICATION: &str = "application/";

/// An issuer as it is configured, with its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: String,
    pub(super) audience: Vec<String>,
    pub(super) types: Vec<String>,
    paths: Paths,
    grants: Vec<Grant>,
    /// Whether `kid` selects among the keys: true of a JWKS, where keys have names.
    named: bool,
    pub(super) ring: Arc<Keyring>,
}

/// Why no key holds.
#[derive(Debug)]
pub(super) enum Unsigned {
    /// No key of this issuer could make it hold.
    Refused(Refusal),
    /// None of the keys that are known. It may have been signed with a newer one.
    Unknown(Refusal),
}

impl Issuer {
    /// Reads the keys of one issuer, where they are in a file; `at` is the configuration key of its table.
    pub(super) fn load(config: &IssuerConfig, keys: KeysConfig, at: &str) -> Result<Issuer, LoadError> {
        let (source, algorithms) = config.check(at)?;
        Ok(Issuer {
            name: config.issuer.clone(),
            audience: config.audience.clone(),
            types: config.types.iter().map(|name| plain_type(name).to_ascii_lowercase()).collect(),
            paths: Paths::parse(&config.claims, &format!("{at}.claims"))?,
            grants: config.grants.clone(),
            named: source.form().has_key_ids(),
            ring: Keyring::load(&config.issuer, &source, algorithms, keys, at)?,
        })
    }

    /// Checks what the header demands, but for the key.
    pub(super) fn check_header(&self, header: &Members) -> Result<(), Refusal> {
        // There is no extension that we understand (RFC 7515 §4.1.11).
        if header.get("crit").is_some() {
            return Err(Refusal::new(Check::Header, "the token's header has crit"));
        }
        // So that a token of one kind is not taken for one of another (RFC 8725 §3.11).
        let is_ours = |name: &str| self.types.iter().any(|ours| plain_type(name).eq_ignore_ascii_case(ours));
        if !self.types.is_empty() && !header.string("typ").is_some_and(is_ours) {
            return Err(Refusal::new(Check::Header, "the token's typ is missing or not one of the configured types"));
        }
        Ok(())
    }

    /// Checks the signature, with those of `keys` that are pinned to the header's `alg` and have its `kid`.
    pub(super) fn check_signature(&self, keys: &[Key], header: &Members, parts: &Parts<'_>) -> Result<(), Unsigned> {
        let refused = |check, why| Err(Unsigned::Refused(Refusal::new(check, why)));
        // `none`, in any spelling, is no `Algorithm` at all.
        let Some(algorithm) = header.string("alg").and_then(|name| Algorithm::from_str(name).ok()) else {
            return refused(Check::Key, "the token's alg is missing or unknown");
        };
        if !self.ring.algorithms().contains(&algorithm) {
            return refused(Check::Key, "the token's alg is not configured for its issuer");
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return refused(Check::Key, "the token's kid is no string"),
        };
        // An unknown kid selects no key, rather than every key. A single key without a name has nothing to select.
        let kid = kid.filter(|_| self.named);
        let mut named = keys.iter().filter(|key| kid.is_none() || key.kid.as_deref() == kid).peekable();
        if named.peek().is_none() {
            return Err(Unsigned::Unknown(Refusal::new(Check::Key, "no key of the issuer has the token's kid")));
        }
        let mut keys = named.filter(|key| key.algorithms.contains(&algorithm)).peekable();
        if keys.peek().is_none() {
            return refused(Check::Key, "no key of the issuer with the token's kid is for its alg");
        }
        // `jsonwebtoken::decode` would read header, claims and clock a second time, by rules laxer than ours, and put
        // what it read into its errors. Only the primitive is used; its errors mean no more than "does not hold".
        let Parts { message, signature, .. } = parts;
        let holds = |key: &Key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
        };
        let refusal = Refusal::new(Check::Signature, "the token's signature does not hold");
        match (keys.any(holds), kid) {
            (true, _) => Ok(()),
            (false, Some(_)) => Err(Unsigned::Refused(refusal)),
            (false, None) => Err(Unsigned::Unknown(refusal)),
        }
    }

    /// Reads the claims of a token whose signature held, but for its times.
    pub(super) fn read(&self, claims: &Members) -> Result<Principal, Refusal> {
        if !self.is_addressed_by(claims.get("aud")) {
            return Err(Refusal::new(Check::Audience, "the token's aud is missing, malformed or not ours"));
        }
        let subject = self.subject(claims);
        let subject = subject.ok_or(Refusal::new(Check::Subject, "the token's subject is missing or malformed"))?;
        Ok(Principal::new(&self.name, subject, self.rights(subject, claims)?))
    }

    /// Who the caller is, if the claims say so in a way that can be used.
    pub(super) fn subject<'a>(&self, claims: &'a Members) -> Option<&'a str> {
        self.paths.subject(claims)
    }

    /// Whether the configuration says what this subject may do.
    pub(super) fn has_grant(&self, subject: &str) -> bool {
        self.grants.iter().any(|grant| grant.subject == subject)
    }

    /// What the configuration grants to this subject by name, or else what the claims grant.
    fn rights(&self, subject: &str, claims: &Members) -> Result<Rights, Refusal> {
        match self.grants.iter().find(|grant| grant.subject == subject) {
            Some(grant) => Ok(grant.rights()),
            None => self.paths.rights(claims).map_err(|why| Refusal::new(Check::Claims, why)),
        }
    }

    /// Whether an `aud` claim (a string or an array of nothing but strings, RFC 7519 §4.1.3) names one of our
    /// audiences.
    fn is_addressed_by(&self, audience: Option<&Value>) -> bool {
        let ours = |name: &str| self.audience.iter().any(|audience| audience == name);
        match audience {
            Some(Value::String(name)) => ours(name),
            Some(Value::Array(names)) => {
                names.iter().all(Value::is_string) && names.iter().filter_map(Value::as_str).any(ours)
            }
            _ => false,
        }
    }
}

fn plain_type(name: &str) -> &str {
    let (lead, rest) = name.split_at_checked(APPLICATION.len()).unwrap_or(("", name));
    if lead.eq_ignore_ascii_case(APPLICATION) { rest } else { name }
}
