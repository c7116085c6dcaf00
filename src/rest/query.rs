//! The query of a request as text: its pairs, and how an error quotes them. It must not know which keys there are.

use std::borrow::Cow;

use super::near_miss::Names;
use crate::error::{Error, Result};

/// How much of a caller's text is quoted in an error, in characters.
const QUOTED: usize = 64;

/// Refuses a value that swallowed a pair with a known name, because `;` or a second `?` was written for `&`. A value with a slash
/// is an address, which may have a query of its own.
pub(super) fn separated(names: &Names, value: &str) -> Result<()> {
    if value.contains('/') {
        return Ok(());
    }
    let swallowed = value.split([';', '?']).skip(1).filter_map(|pair| pair.split_once('='));
    match swallowed.filter_map(|(key, _)| names.near_miss(&decoded(key)).map(str::to_owned)).next() {
        Some(field) => {
            Err(Error::invalid_field(field, "must be separated by & from what stands before it in the query"))
        }
        None => Ok(()),
    }
}

/// A text without its percent-encoding.
pub(super) fn decoded(text: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy()
}

/// The beginning of a caller's text in quotes, with what cannot be seen escaped.
pub(super) fn quoted(text: &str) -> String {
    format!("\"{}\"", text.chars().take(QUOTED).flat_map(char::escape_debug).collect::<String>())
}
