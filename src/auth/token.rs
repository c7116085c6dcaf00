//! The text of a token, taken apart: the field that brings it, its three parts, their JSON. Nothing here is verified. This
//! file must not know keys, or what a claim means.

use serde_json::{Map, Value};

use super::json::{self, Fault};
use crate::error::{Error, Kind, Result};

/// The longest token that is looked at, in bytes: 16 KiB. A longer one is refused before any of it is decoded.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Why a token with `=` before its last part is refused.
const PADDED: &str = "the token has a part that is base64url with padding (`=`), and RFC 7515 wants it without";

/// A token in the compact form (RFC 7515 §7.1).
pub(super) struct TokenParts<'a> {
    /// What was signed: header and claims with the dot between them.
    pub(super) message: &'a str,
    pub(super) header: &'a str,
    pub(super) claims: &'a str,
    pub(super) signature: &'a str,
}

impl<'a> TokenParts<'a> {
    /// Takes a token apart; `None` where it has another number of parts than three.
    pub(super) fn of(token: &'a str) -> Option<TokenParts<'a>> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        (!claims.contains('.')).then_some(TokenParts { message, header, claims, signature })
    }
}

/// Why a text that does not have three parts is no token that can be checked.
pub(super) fn other_form(token: &str) -> &'static str {
    match token.matches('.').count() {
        0 => "the token is opaque, not a JWT: have the provider issue JWT access tokens",
        4 => "the token is encrypted (JWE): have the provider issue access tokens that are signed JWTs",
        _ => "the token does not have three parts",
    }
}

/// The members of a token's header or claims.
#[derive(Debug)]
pub(super) struct Members(Map<String, Value>);

impl Members {
    /// Decodes one part of a token: base64url without padding, then one JSON object.
    pub(super) fn decode(part: &str) -> std::result::Result<Members, Fault> {
        json::object(&json::decode(part)?).map(Members)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn string(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

/// Takes the token out of the values of all `Authorization` fields of a request (RFC 6750 §2.1, RFC 9110 §11.4): one
/// value, the scheme `Bearer` in any case, one or more spaces, and a token68. Spaces and tabs around the value do not belong
/// to it (RFC 9110 §5.5); HTTP/1.1 has no others. What the token says is not looked at.
///
/// # Errors
/// [`Kind::TokenMissing`] when there is no value, another scheme, or no token after the scheme. [`Kind::TokenInvalid`]
/// when there are several values, or when something is there that cannot be a token: a tab in front of it, text after it,
/// bytes that are not ASCII.
pub fn bearer<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Result<&'a str> {
    let invalid = |why: &'static str| Error::new(Kind::TokenInvalid).because(why);
    let Some(value) = values.next() else { return Err(Error::new(Kind::TokenMissing)) };
    if values.next().is_some() {
        return Err(invalid("there are several authorization fields"));
    }
    let value = trim(value, |byte| matches!(byte, b' ' | b'\t'));
    let is_tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let (scheme, rest) = value.split_at(value.iter().position(|byte| !is_tchar(byte)).unwrap_or(value.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") || rest.is_empty() {
        return Err(Error::new(Kind::TokenMissing));
    }
    let token = trim(rest, |byte| byte == b' ');
    if token.len() == rest.len() {
        return Err(invalid("the scheme Bearer is not followed by a space"));
    }
    let is_token_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let body = token.iter().take_while(|byte| is_token_byte(byte)).count();
    match token.split_at(body) {
        ([_, ..], padding) if padding.iter().all(|byte| *byte == b'=') => {}
        ([_, ..], rest) if rest.iter().all(|byte| is_token_byte(byte) || *byte == b'=') => {
            return Err(invalid(PADDED));
        }
        _ => return Err(invalid("the text after the scheme Bearer is not a token")),
    }
    // Every byte was just seen to be ASCII.
    std::str::from_utf8(token).map_err(|_| invalid("the text after the scheme Bearer is not a token"))
}

/// `bytes` without those at both ends that `is_space` names.
fn trim(bytes: &[u8], is_space: impl Fn(u8) -> bool) -> &[u8] {
    let begin = bytes.iter().position(|byte| !is_space(*byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(*byte)).map_or(begin, |last| last + 1);
    bytes.get(begin..end).unwrap_or_default()
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
