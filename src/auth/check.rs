//! What is looked at in a token, in order, and why one is refused. The reasons are sentences for the log. They may name what
//! the configuration and the issuer's key set say, and no part of a token.

use std::borrow::Cow;
use std::fmt;

use crate::error::{Error, Kind};

/// The checks of a token, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Three parts of at most [`MAX_TOKEN_BYTES`](super::token::MAX_TOKEN_BYTES) together, the first two JSON objects.
    Form,
    /// `iss` names a configured issuer.
    Issuer,
    /// The header asks for nothing that is not understood, and is of a type that is accepted.
    Header,
    /// A key of the issuer goes with the header's `alg` and `kid`.
    Key,
    /// The signature holds under that key.
    Signature,
    /// `aud` names this service.
    Audience,
    /// The token says who calls.
    Subject,
    /// The claims that grant rights are well-formed.
    Claims,
    /// `exp`, `nbf` and `iat` are well-formed, `nbf` has come, and `exp` is not further away than permitted.
    Times,
    /// `exp` has not passed.
    Expiry,
}

impl Check {
    /// Every check, in order.
    pub const ALL: [Check; 10] = [
        Check::Form,
        Check::Issuer,
        Check::Header,
        Check::Key,
        Check::Signature,
        Check::Audience,
        Check::Subject,
        Check::Claims,
        Check::Times,
        Check::Expiry,
    ];

    const fn name(self) -> &'static str {
        match self {
            Check::Form => "form",
            Check::Issuer => "issuer",
            Check::Header => "header",
            Check::Key => "key",
            Check::Signature => "signature",
            Check::Audience => "audience",
            Check::Subject => "subject",
            Check::Claims => "claims",
            Check::Times => "times",
            Check::Expiry => "expiry",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TokenRefusal {
    pub(super) kind: Kind,
    /// The first check that failed.
    pub(super) check: Check,
    pub(super) why: Cow<'static, str>,
    /// Who sent the token, if its signature is valid.
    pub(super) caller: Option<Caller>,
}

/// Who sent a token whose signature is valid and which is refused all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The configured issuer.
    pub issuer: String,
    /// The subject, if the token has one.
    pub subject: Option<String>,
}

/// The source of the error that a refused token becomes: why it is refused, for the log, and by whom it was sent.
#[derive(Debug)]
pub struct Refused {
    why: Cow<'static, str>,
    caller: Option<Caller>,
}

impl Refused {
    /// Who sent the token, if `error` is about one whose signature is valid.
    pub fn caller(error: &Error) -> Option<&Caller> {
        error.source_as::<Refused>()?.caller.as_ref()
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

impl std::error::Error for Refused {}

impl TokenRefusal {
    /// The token fails a check.
    pub(super) fn new(check: Check, why: impl Into<Cow<'static, str>>) -> TokenRefusal {
        TokenRefusal { kind: Kind::TokenInvalid, check, why: why.into(), caller: None }
    }

    /// The same, of a token that this caller sent.
    pub(super) fn of(self, issuer: &str, subject: Option<&str>) -> TokenRefusal {
        let caller = Caller { issuer: issuer.to_owned(), subject: subject.map(str::to_owned) };
        TokenRefusal { caller: Some(caller), ..self }
    }

    /// The token was good once.
    pub(super) fn expired() -> TokenRefusal {
        TokenRefusal {
            kind: Kind::TokenExpired,
            check: Check::Expiry,
            why: "the token has expired".into(),
            caller: None,
        }
    }
}

impl From<TokenRefusal> for Error {
    fn from(refusal: TokenRefusal) -> Error {
        let TokenRefusal { kind, why, caller, .. } = refusal;
        Error::new(kind).because(Refused { why, caller })
    }
}
