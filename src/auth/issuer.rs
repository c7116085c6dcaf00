//! One trusted issuer: its keys, which are never tried on a token that names another, and what its claims mean. This file
//! must not know the clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::check::{Check, TokenRefusal};
use super::claims::{Path, Paths};
use super::config::{ALGORITHMS, IssuerConfig, KeysConfig};
use super::grants::Holder;
use super::keyring::{Held, Keyring};
use super::keys::{self, VerificationKey};
use super::load_error::LoadError;
use super::principal::{Principal, Rights, Scope};
use super::token::{Members, TokenParts};

/// What a media type begins with that a token's `typ` may leave out (RFC 7515 §4.1.9).
const APPLICATION: &str = "application/";

/// An issuer as it is configured, with its keys.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) name: String,
    pub(super) audience: Vec<String>,
    pub(super) types: Vec<String>,
    pub(super) paths: Paths,
    pub(super) audience_claim: Path,
    scope_names: BTreeMap<String, Scope>,
    grants: Vec<(Holder, Rights)>,
    /// Whether `kid` selects among the keys: true of a JWKS, where keys have names.
    named: bool,
    pub(super) ring: Arc<Keyring>,
}

/// Why no key holds.
#[derive(Debug)]
pub(super) enum Unsigned {
    /// No key of this issuer could make it hold.
    Refused(TokenRefusal),
    /// No key that is known. It may have been signed with a newer one.
    Unknown(TokenRefusal),
    /// Not the key that has the token's `kid`. That key may have been replaced under the same `kid`.
    Replaced(TokenRefusal),
}

impl Issuer {
    /// Reads the keys of one issuer, where they are in a file; `at` is the configuration key of its table.
    pub(super) fn load(config: &IssuerConfig, keys: KeysConfig, at: &str) -> Result<Issuer, LoadError> {
        let (source, algorithms) = config.check(at)?;
        let grants = config.grants.iter().enumerate();
        let grants = grants.map(|(index, grant)| Ok((grant.holder(&format!("{at}.grants[{index}]"))?, grant.rights())));
        let grants = grants.collect::<Result<Vec<_>, LoadError>>()?;
        Ok(Issuer {
            name: config.issuer.clone(),
            audience: config.audience.clone(),
            types: config.types.iter().map(|name| plain_type(name).to_ascii_lowercase()).collect(),
            paths: Paths::parse(&config.claims, &format!("{at}.claims"))?,
            audience_claim: config.audience_path(at)?,
            scope_names: config.scope_names.clone(),
            grants,
            named: source.form().has_key_ids(),
            ring: Keyring::load(&config.issuer, &source, algorithms, keys, at)?,
        })
    }

    /// Checks what the header demands, but for the key.
    pub(super) fn check_header(&self, header: &Members) -> Result<(), TokenRefusal> {
        // There is no extension that we understand (RFC 7515 §4.1.11).
        if header.get("crit").is_some() {
            return Err(TokenRefusal::new(Check::Header, "the token's header has crit"));
        }
        // So that a token of one kind is not taken for one of another (RFC 8725 §3.11).
        let is_ours = |name: &str| self.types.iter().any(|ours| plain_type(name).eq_ignore_ascii_case(ours));
        if !self.types.is_empty() && !header.string("typ").is_some_and(is_ours) {
            return Err(TokenRefusal::new(
                Check::Header,
                "the token's typ is missing or not one of the configured types",
            ));
        }
        Ok(())
    }

    /// Checks the signature, with those of the keys that are pinned to the header's `alg` and have its `kid`.
    pub(super) fn check_signature(
        &self,
        held: &Held,
        header: &Members,
        parts: &TokenParts<'_>,
    ) -> Result<(), Unsigned> {
        let refused = |why: String| Err(Unsigned::Refused(TokenRefusal::new(Check::Key, why)));
        // `none`, in any spelling, is no `Algorithm` at all.
        let Some(name) = header.string("alg") else {
            return refused("the token's alg is missing or not text".to_owned());
        };
        let Some(algorithm) = keys::algorithm(name) else {
            return refused(match keys::unsupported(name) {
                Some(why) => format!("the token's alg {why}"),
                None => format!("the token's alg is not one of {ALGORITHMS}"),
            });
        };
        let configured = self.ring.algorithms();
        if !configured.contains(&algorithm) {
            let configured: Vec<_> = configured.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            let configured = configured.join(", ");
            return refused(format!("the token's alg is {algorithm:?}, and the issuer's algorithms are {configured}"));
        }
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return refused("the token's kid is not text".to_owned()),
        };
        // A single key without a name has nothing to select. In a set an unknown kid selects the keys that have none
        // (RFC 7517 §4.5 leaves it to the issuer to give them one), and never one that has another.
        let kid = kid.filter(|_| self.named);
        let with = |kid: Option<&str>| held.keys.iter().filter(|key| key.kid.as_deref() == kid).collect::<Vec<_>>();
        let named = match kid {
            None => held.keys.iter().collect(),
            Some(kid) => Some(with(Some(kid))).filter(|own| !own.is_empty()).unwrap_or_else(|| with(None)),
        };
        let is_own = named.iter().any(|key| key.kid.is_some() && kid.is_some());
        let refusal = |check, why: &str| match held.why_unusable(kid) {
            None => TokenRefusal::new(check, why.to_owned()),
            Some(unusable) => TokenRefusal::new(
                check,
                format!("{why}; the issuer's key set has a key that cannot be used: {unusable}"),
            ),
        };
        let unsigned = if is_own { Unsigned::Replaced } else { Unsigned::Unknown };
        if named.is_empty() {
            return Err(Unsigned::Unknown(refusal(Check::Key, "no key of the issuer has the token's kid")));
        }
        let keys: Vec<_> = named.into_iter().filter(|key| key.algorithms.contains(&algorithm)).collect();
        if keys.is_empty() {
            return Err(unsigned(refusal(Check::Key, "no key of the issuer with the token's kid is for its alg")));
        }
        // `jsonwebtoken::decode` would read header, claims and clock a second time, by rules laxer than ours, and put
        // what it read into its errors. Only the primitive is used; its errors mean no more than "does not hold".
        let TokenParts { message, signature, .. } = parts;
        let verifies = |key: &&VerificationKey| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
        };
        if keys.iter().any(verifies) {
            return Ok(());
        }
        let refusal = refusal(Check::Signature, "the token's signature is invalid under the issuer's keys");
        Err(unsigned(refusal))
    }

    /// Reads the claims of a token whose signature held, but for its times.
    pub(super) fn read(&self, claims: &Members) -> Result<Principal, TokenRefusal> {
        if !self.is_addressed_by(self.audience_claim.find(claims)) {
            let name = self.audience_claim.as_str();
            return Err(TokenRefusal::new(
                Check::Audience,
                format!("the token's {name} is missing, malformed or not ours"),
            ));
        }
        let subject = self.subject(claims);
        let subject =
            subject.ok_or(TokenRefusal::new(Check::Subject, "the token's subject is missing or malformed"))?;
        Ok(Principal::new(&self.name, subject, self.rights(subject, claims)?))
    }

    /// Who the caller is, if the claims say so in a way that can be used.
    pub(super) fn subject<'a>(&self, claims: &'a Members) -> Option<&'a str> {
        self.paths.subject(claims)
    }

    /// Whether the configuration says what this caller may do.
    pub(super) fn has_grant(&self, subject: &str, claims: &Members) -> bool {
        self.granted(subject, claims).next().is_some()
    }

    /// What the grants of the configuration permit this caller.
    fn granted<'a>(&'a self, subject: &'a str, claims: &'a Members) -> impl Iterator<Item = &'a Rights> {
        let is_held = move |holder: &Holder| match holder {
            Holder::Subject(name) => name == subject,
            Holder::Value(path, value) => path.has(claims, value),
        };
        self.grants.iter().filter(move |(holder, _)| is_held(holder)).map(|(_, rights)| rights)
    }

    /// What the configuration grants to this caller, or else what the claims grant.
    fn rights(&self, subject: &str, claims: &Members) -> Result<Rights, TokenRefusal> {
        match self.granted(subject, claims).cloned().reduce(Rights::and) {
            Some(rights) => Ok(rights),
            None => self.paths.rights(claims, &self.scope_names).map_err(|why| TokenRefusal::new(Check::Claims, why)),
        }
    }

    /// Whether an `aud` claim, or the one in its place (a string or an array of nothing but strings, RFC 7519 §4.1.3) names one of our
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
