//! What is before the first delimiter of a form. It is discarded, but a little of it is kept until the first delimiter is
//! found: it tells a body without any delimiter from one whose first delimiter is damaged.

use std::fmt::Write;

use memchr::memmem;

use crate::delimiter::Line;
use crate::error::Error;

/// The longest text of the body in an error text, in bytes: the longest boundary and its two dashes.
const QUOTED: usize = 72;

/// The bytes before the first delimiter.
#[derive(Default)]
pub(crate) struct Preamble {
    /// How many there were.
    pub(crate) bytes: usize,
    /// The first of them.
    kept: Vec<u8>,
}

impl Preamble {
    /// Counts `data` and keeps what is within the first `limit` bytes.
    pub(crate) fn add(&mut self, data: &[u8], limit: usize) {
        let room = limit.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&data[..data.len().min(room)]);
        self.bytes += data.len();
    }

    /// The refusal of a form whose first delimiter is not at the beginning of a line, if that is so: to discard it would be to
    /// discard the part that it begins. `opening` is two dashes and the boundary.
    pub(crate) fn misplaced(&self, opening: &[u8]) -> Option<Error> {
        let is_line = |at: &usize| match &self.kept[at + opening.len()..] {
            // A line end follows, or the end of the body.
            b"-" => false,
            tail => Line::of(tail) != Line::Data,
        };
        let at = memmem::find_iter(&self.kept, opening).find(is_line)?;
        let what = match &self.kept[..at] {
            b"\xef\xbb\xbf" | b"\xfe\xff" | b"\xff\xfe" => "a byte order mark precedes the first delimiter line",
            [.., b'\n' | b'\r'] => {
                return Some(Error::invalid(
                    "the line before the first delimiter line does not end in CRLF; lines must end in CRLF",
                ));
            }
            [.., b' ' | b'\t'] => "white space precedes the boundary in the first delimiter line",
            _ => "other bytes precede the boundary in the first delimiter line",
        };
        Some(Error::invalid(format!("{what}; it must begin with {}", quoted(opening))))
    }

    /// The refusal of a body in which no part begins. `place` says where no delimiter was found.
    pub(crate) fn refusal(&self, opening: &[u8], place: &str) -> Error {
        if let Some(error) = self.misplaced(opening) {
            return error;
        }
        let opening = quoted(opening);
        if self.kept.is_empty() {
            return Error::invalid(format!("the body is empty; a form begins with the line {opening}"));
        }
        let first = self.kept.split(|&byte| byte == b'\n').next().unwrap_or_default().trim_ascii_end();
        if first.len() > 2 && first.len() <= QUOTED && first.starts_with(b"--") && first.is_ascii() {
            return Error::invalid(format!(
                "no delimiter line found {place}: it begins with {}, but the boundary of the content type makes it {opening}",
                quoted(first)
            ));
        }
        Error::invalid(format!("no delimiter line found {place}; a form begins with the line {opening}"))
    }
}

/// ASCII bytes in quotes, whatever is not printable escaped.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{}", byte.escape_ascii());
    }
    text + "\""
}
