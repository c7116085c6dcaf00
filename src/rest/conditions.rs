//! The preconditions of an upload over HTTP (RFC 9110 s13). A condition that cannot be evaluated is refused: to ignore it would
//! store what the client asked not to store.

use std::borrow::Cow;

use http::header::IF_UNMODIFIED_SINCE;
use http::{HeaderMap, HeaderValue};

use crate::attachment::Tags;
use crate::error::{Error, Result};
use crate::rpc::Conditions;

/// Reads the preconditions.
pub(super) fn read(headers: &HeaderMap) -> Result<Conditions> {
    let conditions =
        Conditions { if_match: tags("If-Match", headers)?, if_none_match: tags("If-None-Match", headers)? };
    // If-Match takes its place (RFC 9110 s13.1.4). If-Modified-Since has no meaning for a method that stores (s13.1.3).
    if conditions.if_match.is_none() && headers.contains_key(IF_UNMODIFIED_SINCE) {
        let mend = "cannot be evaluated, send the entity tag of the expected content in If-Match";
        return Err(Error::invalid_field("If-Unmodified-Since", mend));
    }
    for name in ["Range", "If-Range"] {
        if headers.contains_key(name) {
            return Err(Error::invalid_field(name, "is not supported for an upload, send the whole file without it"));
        }
    }
    Ok(conditions)
}

/// The value of a header that is a list, from all lines of its name.
pub(super) fn tags(name: &'static str, headers: &HeaderMap) -> Result<Option<Tags>> {
    let lines = headers.get_all(name).iter().map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    let lines: Vec<Cow<'_, str>> = lines.collect();
    if lines.is_empty() {
        return Ok(None);
    }
    Tags::parse(name, &lines.join(", ")).map(Some)
}
