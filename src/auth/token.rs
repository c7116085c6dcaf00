//! The text of a token, taken apart: the field that brings it, its three parts, their JSON. Nothing here is verified. This
//! file must not know keys, or what a claim means.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{Error, Kind, Result};

/// The longest token that is looked at, in bytes: 16 KiB. A longer one is refused before any of it is decoded.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// A token in the compact form (RFC 7515 §7.1).
pub(super) struct Parts<'a> {
    /// What was signed: header and claims with the dot between them.
    pub(super) message: &'a str,
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> Parts<'a> {
    /// Takes a token apart; `None` where it has another number of parts than three.
    pub(super) fn of(token: &'a str) -> Option<Parts<'a>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        (!claims.contains('.')).then_some(Parts { message, header, claims, signature })
    }
}

/// The members of a token's header or claims. A name that comes twice, at whatever depth, is an error: two readers of one
/// token must not be able to read it differently. That is stricter than RFC 7515 §4 and RFC 7519 §4 demand.
#[derive(Debug)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Decodes one part of a token: base64url without padding, then one JSON object.
    pub(super) fn decode(part: &str) -> Option<Members> {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        match serde_json::from_slice(&json) {
            Ok(Strict(Value::Object(members))) => Some(Members(members)),
            _ => None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn string(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

/// A JSON value in which no object names a member twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Strict;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Strict, E> {
                Ok(Strict(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Strict, E> {
                Ok(Strict(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Strict, A::Error> {
                let mut array = Vec::new();
                while let Some(Strict(item)) = items.next_element()? {
                    array.push(item);
                }
                Ok(Strict(array.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
                let mut members = Map::new();
                while let Some((name, Strict(value))) = map.next_entry::<String, Strict>()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a member comes twice"));
                    }
                }
                Ok(Strict(members.into()))
            }
        }
        deserializer.deserialize_any(Any)
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
    let invalid = |why: &'static str| Error::new(Kind::TokenInvalid).because(why);
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
