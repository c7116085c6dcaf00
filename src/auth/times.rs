//! When a token is valid: `exp`, `nbf` and `iat` as numbers of seconds since 1970 that may have a fraction (RFC 7519 §2),
//! and how long a token may be valid for. This file must not know who the token is for.

use std::time::Duration;

use humantime::format_duration;

use super::check::{Check, TokenRefusal};
use super::token::Members;

/// The latest time that is taken for one in seconds: the year 5138. Times in milliseconds have been later since 1973.
const MAX_SECONDS: f64 = 1e11;

/// The latest time that is taken for one in milliseconds: the same year.
const MAX_MILLISECONDS: f64 = 1e14;

/// What is configured about times.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeLimits {
    /// How far the clocks of issuer and service may differ.
    pub(super) leeway: Duration,
    /// How long a token may be valid for, if that is limited.
    pub(super) lifetime: Option<Duration>,
}

/// When a token is valid, in time since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    pub(super) issued: Option<Duration>,
    pub(super) not_before: Duration,
    pub(super) expires: Duration,
}

impl Window {
    /// Reads the times of a token.
    pub(super) fn of(claims: &Members) -> Result<Window, TokenRefusal> {
        let wrong = |why: String| TokenRefusal::new(Check::Times, why);
        let expires = seconds(claims, "exp").map_err(wrong)?;
        let expires = expires.ok_or_else(|| wrong("the token's exp is missing".to_owned()))?;
        let not_before = seconds(claims, "nbf").map_err(wrong)?.unwrap_or_default();
        Ok(Window { issued: seconds(claims, "iat").map_err(wrong)?, not_before, expires })
    }

    /// "Expired" comes last, so that it is only ever said of a token that was good.
    pub(super) fn check(self, now: Duration, limits: TimeLimits) -> Result<(), TokenRefusal> {
        let Window { issued, not_before, expires } = self;
        let wrong = |why: String| Err(TokenRefusal::new(Check::Times, why));
        if now.saturating_add(limits.leeway) < not_before {
            return wrong("the token's nbf has not come: it is not valid yet".to_owned());
        }
        if let Some(most) = limits.lifetime {
            let name = format!("auth.max_token_lifetime ({})", format_duration(most));
            if expires.saturating_sub(now) > most.saturating_add(limits.leeway) {
                return wrong(format!("the token's exp is further away than {name}"));
            }
            if issued.is_some_and(|issued| expires.saturating_sub(issued) > most) {
                return wrong(format!("the token's exp is further from its iat than {name}"));
            }
        }
        if now >= expires.saturating_add(limits.leeway) { Err(TokenRefusal::expired()) } else { Ok(()) }
    }
}

/// The time in a claim, if the token has it.
///
/// # Errors
/// Why it is no time, in words for the log.
pub(super) fn seconds(claims: &Members, name: &str) -> Result<Option<Duration>, String> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let time = match value.as_f64() {
        Some(number) if number > MAX_MILLISECONDS => {
            return Err(format!("the token's {name} is past the year 5138: it must be in seconds since 1970"));
        }
        Some(number) if number > MAX_SECONDS => {
            return Err(format!("the token's {name} is in milliseconds: it must be in seconds since 1970"));
        }
        Some(number) if number.is_sign_positive() => Duration::try_from_secs_f64(number).ok(),
        _ => None,
    };
    time.map(Some).ok_or_else(|| format!("the token's {name} is not a number of seconds since 1970"))
}
