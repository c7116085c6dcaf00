//! A bearer token becomes a [`Principal`]: who calls, and what that caller may touch. This is the only place that knows
//! token formats and keys, and the only place where a `Principal` can be made. This module must not know how a token
//! arrived (HTTP, gRPC), what is uploaded, where it is stored, or what a right is used for.
//!
//! Tokens are JWTs in the compact JWS form (RFC 7515, RFC 7519), checked by the rules of RFC 8725. The token's text, or
//! any part of it, is in no [`Error`], no `Debug` and no `Display`: the reasons given to the log are fixed sentences.

mod config;
mod keys;
mod mint;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

pub use config::{ClaimNames, Config, IssuerConfig, LoadError};
pub use mint::{Claims, Minter};

use crate::error::{Error, Kind, Result};
use keys::Key;

/// The longest token that is looked at, in bytes: 16 KiB. A longer one is refused before any of it is decoded.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// The longest subject, in bytes of UTF-8.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// What a caller may do, as it is written in the token's scopes claim (RFC 6749 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `attachments:write`: upload content.
    Write,
    /// `attachments:read`: read records and content.
    Read,
    /// `attachments:manage`: register and remove attachments.
    Manage,
}

impl Scope {
    /// Every scope that attachd knows.
    pub const ALL: [Scope; 3] = [Scope::Write, Scope::Read, Scope::Manage];

    /// The scope as a token names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Write => "attachments:write",
            Scope::Read => "attachments:read",
            Scope::Manage => "attachments:manage",
        }
    }

    /// The scope of this exact name, if attachd knows it. Names are case-sensitive (RFC 6749 §3.3).
    pub fn from_name(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of ids that a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Every id: `"*"` in the token.
    All,
    /// These ids, each at least 1, in any order. Empty grants nothing.
    Only(Vec<i64>),
}

impl Default for Ids {
    /// Nothing: what is not granted is not allowed.
    fn default() -> Self {
        Ids::Only(Vec::new())
    }
}

impl Ids {
    /// Reads a claim: an array of integers from 1 to 2^63−1, `"*"`, or `["*"]`. Numeric strings are not accepted, so
    /// that an id has one spelling. An absent claim grants nothing; any other shape, `null` included, is `None`.
    fn from_claim(claim: Option<&Value>) -> Option<Ids> {
        match claim {
            None => Some(Ids::default()),
            Some(Value::String(star)) if star == "*" => Some(Ids::All),
            Some(Value::Array(items)) => match items.as_slice() {
                [Value::String(star)] if star == "*" => Some(Ids::All),
                items => {
                    let mut ids =
                        items.iter().map(|id| id.as_i64().filter(|id| *id >= 1)).collect::<Option<Vec<i64>>>()?;
                    ids.sort_unstable();
                    Some(Ids::Only(ids))
                }
            },
            Some(_) => None,
        }
    }

    /// Whether a *sorted* set holds `id`: a token may list thousands of ids and is asked several times per request.
    fn holds(&self, id: i64) -> bool {
        match self {
            Ids::All => true,
            Ids::Only(ids) => ids.binary_search(&id).is_ok(),
        }
    }
}

/// Whoever holds a token that verified: proof that the caller was authenticated. Only [`Verifier::verify`] makes one.
#[derive(Clone, Debug)]
pub struct Principal {
    issuer: String,
    subject: String,
    scopes: Vec<Scope>,
    clients: Ids,
    projects: Ids,
    portfolios: Ids,
}

impl Principal {
    /// Who calls, as its issuer names it: 1 to 255 bytes without control characters. Unique only together with
    /// [`issuer`](Principal::issuer).
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The configured issuer that vouches for the caller.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether the token names `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// Whether the token grants the client of this id.
    pub fn holds_client(&self, id: i64) -> bool {
        self.clients.holds(id)
    }

    /// Whether the token grants the project of this id.
    pub fn holds_project(&self, id: i64) -> bool {
        self.projects.holds(id)
    }

    /// Whether the token grants the portfolio of this id.
    pub fn holds_portfolio(&self, id: i64) -> bool {
        self.portfolios.holds(id)
    }
}

/// Turns tokens into principals: the configured issuers with their keys. Holds no mutable state, so that one is shared
/// by all requests. `Debug` shows issuers, algorithms and key ids, and no key material.
#[derive(Debug)]
pub struct Verifier {
    leeway: Duration,
    issuers: Vec<Issuer>,
}

/// One trusted issuer. Its keys are never tried on a token that names another.
#[derive(Debug)]
struct Issuer {
    name: String,
    audience: Vec<String>,
    claims: ClaimNames,
    /// Whether `kid` selects among the keys: true of a JWKS, where keys have names.
    named: bool,
    keys: Vec<Key>,
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
    /// for there is no extension that we understand (RFC 7515 §4.1.11); `alg` is configured for a key of that issuer
    /// (RFC 8725 §3.1); `kid`, where the keys have ids, names one of them; the signature holds; `aud` names us (RFC
    /// 8725 §3.9); the subject and the rights are well-formed; `exp` is there; `nbf` has come and `exp` has not passed,
    /// with the configured leeway. Header members that bring a key along (`jku`, `jwk`, `x5u`, `x5c`) are ignored.
    ///
    /// # Errors
    /// [`Kind::TokenExpired`] for a token that was good once: everything but its age was checked before.
    /// [`Kind::TokenInvalid`] for every other token that does not hold, with a reason for the log alone.
    /// [`Kind::Internal`] when `now` is before 1970, for then no time can be judged.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Principal> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(invalid("the token is longer than 16 KiB"));
        }
        let parts = token.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            (!claims.contains('.')).then_some((message, header, claims, signature))
        });
        let Some((message, header, claims, signature)) = parts else {
            return Err(invalid("the token does not have three parts"));
        };
        let header = Members::decode(header).ok_or_else(|| invalid("the token's header is not a JSON object"))?;
        let claims = Members::decode(claims).ok_or_else(|| invalid("the token's claims are not a JSON object"))?;

        // Unverified until the signature is: good for nothing but the choice of keys.
        let name = claims.string("iss").ok_or_else(|| invalid("the token's iss is missing or no string"))?;
        let issuer = self.issuers.iter().find(|issuer| issuer.name == name);
        let issuer = issuer.ok_or_else(|| invalid("the token's issuer is not configured"))?;
        issuer.check_signature(&header, message, signature)?;

        self.check_claims(issuer, &claims, now)
    }

    /// Reads the claims of a token whose signature held.
    fn check_claims(&self, issuer: &Issuer, claims: &Members, now: SystemTime) -> Result<Principal> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::internal("the clock of this machine is before 1970"))?;
        if !issuer.is_addressed_by(claims.get("aud")) {
            return Err(invalid("the token's aud is missing, malformed or not ours"));
        }
        let names = &issuer.claims;
        let subject = claims.string(&names.subject).filter(|subject| is_subject(subject));
        let principal = Principal {
            issuer: issuer.name.clone(),
            subject: subject.ok_or_else(|| invalid("the token's subject is missing or malformed"))?.to_owned(),
            scopes: scopes_from_claim(claims.get(&names.scopes))
                .ok_or_else(|| invalid("the token's scopes claim is malformed"))?,
            clients: Ids::from_claim(claims.get(&names.clients))
                .ok_or_else(|| invalid("the token's clients claim is malformed"))?,
            projects: Ids::from_claim(claims.get(&names.projects))
                .ok_or_else(|| invalid("the token's projects claim is malformed"))?,
            portfolios: Ids::from_claim(claims.get(&names.portfolios))
                .ok_or_else(|| invalid("the token's portfolios claim is malformed"))?,
        };
        // Whole seconds only: RFC 7519 §2 would allow a fraction, but a float beyond 2^53 is not the number it was.
        let seconds = |value: &Value| value.as_u64().map(Duration::from_secs);
        let expires = claims.get("exp").and_then(seconds);
        let expires = expires.ok_or_else(|| invalid("the token's exp is missing or no unsigned integer"))?;
        if let Some(not_before) = claims.get("nbf") {
            let not_before = seconds(not_before).ok_or_else(|| invalid("the token's nbf is no unsigned integer"))?;
            if now.saturating_add(self.leeway) < not_before {
                return Err(invalid("the token is not valid yet"));
            }
        }
        // Last, so that "expired" is only ever said of a token that was good.
        if now >= expires.saturating_add(self.leeway) {
            return Err(Error::new(Kind::TokenExpired));
        }
        Ok(principal)
    }
}

impl Issuer {
    /// Reads the keys of one issuer; `at` is the configuration key of its table.
    fn load(config: &IssuerConfig, at: &str) -> Result<Issuer, LoadError> {
        let (source, algorithms) = config.check(at)?;
        Ok(Issuer {
            name: config.issuer.clone(),
            audience: config.audience.clone(),
            claims: config.claims.clone(),
            named: source.has_key_ids(),
            keys: keys::load(&source, &algorithms, at)?,
        })
    }

    /// Checks the header's demands and the signature over `message`, with the keys that are pinned to its `alg`.
    fn check_signature(&self, header: &Members, message: &str, signature: &str) -> Result<()> {
        if header.get("crit").is_some() {
            return Err(invalid("the token's header has crit"));
        }
        // `none`, in any spelling, is no `Algorithm` at all.
        let algorithm = header.string("alg").and_then(|name| Algorithm::from_str(name).ok());
        let algorithm = algorithm.ok_or_else(|| invalid("the token's alg is missing or unknown"))?;
        let kid = match header.get("kid") {
            None => None,
            Some(Value::String(kid)) => Some(kid.as_str()),
            Some(_) => return Err(invalid("the token's kid is no string")),
        };
        // An unknown kid selects no key, rather than every key. A single key without a name has nothing to select.
        let wanted = |key: &&Key| !self.named || kid.is_none() || key.kid.as_deref() == kid;
        let mut keys = self.keys.iter().filter(wanted).filter(|key| key.algorithms.contains(&algorithm)).peekable();
        if keys.peek().is_none() {
            return Err(invalid("no configured key has the token's alg and kid"));
        }
        // `jsonwebtoken::decode` would read header, claims and clock a second time, by rules laxer than ours, and put
        // what it read into its errors. Only the primitive is used; its errors mean no more than "does not hold".
        let holds = |key: &Key| {
            jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.decoding, algorithm).unwrap_or(false)
        };
        if keys.any(holds) { Ok(()) } else { Err(invalid("the token's signature does not hold")) }
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

/// Reads a scopes claim: names between spaces, or an array of names. Names that attachd does not know are skipped, for
/// the same token may serve other services. An absent claim allows nothing; any other shape is `None`.
fn scopes_from_claim(claim: Option<&Value>) -> Option<Vec<Scope>> {
    match claim {
        None => Some(Vec::new()),
        Some(Value::String(names)) => Some(names.split(' ').filter_map(Scope::from_name).collect()),
        Some(Value::Array(names)) => {
            let names = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            Some(names.into_iter().filter_map(Scope::from_name).collect())
        }
        Some(_) => None,
    }
}

/// Whether `subject` can stand in records and logs: 1 to [`MAX_SUBJECT_BYTES`] bytes, no control characters.
fn is_subject(subject: &str) -> bool {
    (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && !subject.chars().any(char::is_control)
}

/// A refusal with its reason for the log. A fixed text, so that no part of a token can be in it.
fn invalid(why: &'static str) -> Error {
    Error::new(Kind::TokenInvalid).because(why)
}

/// The members of a token's header or claims. A name that comes twice is an error: two readers of one token must not be
/// able to read it differently.
struct Members(BTreeMap<String, Value>);

impl Members {
    /// Decodes one part of a token: base64url without padding, then one JSON object.
    fn decode(part: &str) -> Option<Members> {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        serde_json::from_slice(&json).ok()
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn string(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member comes twice"));
                    }
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Takes the token out of the values of all `Authorization` fields of a request (RFC 6750 §2.1, RFC 9110 §11.4): one
/// value, the scheme `Bearer` in any case, exactly one space, and a token68. What the token says is not looked at.
///
/// # Errors
/// [`Kind::TokenMissing`] when there is no value, another scheme, or no token after the scheme. [`Kind::TokenInvalid`]
/// when there are several values, or when something is there that cannot be a token: two spaces, text after the token,
/// bytes that are not ASCII.
pub fn bearer<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<&'a str> {
    let Some(value) = values.next() else { return Err(Error::new(Kind::TokenMissing)) };
    if values.next().is_some() {
        return Err(invalid("there are several authorization fields"));
    }
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let (scheme, rest) = value.split_at(value.iter().position(|byte| !is_tchar(byte)).unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(Error::new(Kind::TokenMissing));
    }
    let token = match rest {
        [] | [b' '] => return Err(Error::new(Kind::TokenMissing)),
        [b' ', token @ ..] => token,
        _ => return Err(invalid("the scheme is not followed by one space")),
    };
    let body = token.iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte)).count();
    if body == 0 || token.iter().skip(body).any(|byte| *byte != b'=') {
        return Err(invalid("what follows the scheme is no token68"));
    }
    // Every byte was just seen to be ASCII.
    std::str::from_utf8(token).map_err(|_| invalid("what follows the scheme is no token68"))
}

/// The `WWW-Authenticate` challenge that goes with `error` (RFC 6750 §3): without an error code where no token was
/// sent, `invalid_token` where one was. `None` for an error that is not about the token.
pub fn www_authenticate(error: &Error) -> Option<String> {
    let description = match error.kind() {
        Kind::TokenMissing => return Some(r#"Bearer realm="attachd""#.to_owned()),
        Kind::TokenInvalid => "The token is invalid",
        Kind::TokenExpired => "The token expired",
        _ => return None,
    };
    Some(format!(r#"Bearer realm="attachd", error="invalid_token", error_description="{description}""#))
}

#[cfg(test)]
mod tests;
