//! A bearer token becomes a [`Principal`]: who calls, and what that caller may touch. This is the only place that knows
//! token formats and keys, and the only place where a `Principal` can be made. This module must not know how a token
//! arrived (HTTP, gRPC), what is uploaded, where it is stored, or what a right is used for.
//!
//! Tokens are JWTs in the compact JWS form (RFC 7515, RFC 7519), checked by the rules of RFC 8725. The token's text, or
//! any part of it, is in no [`Error`](crate::error::Error), no `Debug` and no `Display`: the reasons given to the log
//! name the configuration and the issuer's key set alone.

mod certificate;
mod check;
mod claims;
mod config;
mod fetch;
mod grants;
mod inspect;
mod issuer;
mod json;
mod keyring;
mod keys;
mod load_error;
mod mint;
mod misses;
mod principal;
mod seen;
mod subject;
mod times;
mod token;
mod verifier;

pub use certificate::{Certificates, Peer};
pub use check::{Caller, Refused};
pub use config::{Config, IssuerConfig};
pub use inspect::{Report, Verdict};
pub use keyring::{Freshness, KeysState};
pub use load_error::LoadError;
pub use mint::{Claims, Minter};
pub use principal::{Ids, Principal, Scope};
pub use token::{bearer, www_authenticate};
pub use verifier::Verifier;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/auth.rs"]
pub mod fuzzing;

#[cfg(test)]
mod tests;
