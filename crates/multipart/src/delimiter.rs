//! What the bytes after a boundary make of it: a delimiter line, a broken one, or content.

use crate::error::Error;

/// The most spaces and tabs that may be between a boundary and the end of its line (RFC 2046 s5.1.1 calls it
/// transport padding and sets no limit), in bytes.
const MAX_PADDING: usize = 64;
/// The longest rest of a delimiter line that decides what it is: two dashes, padding and one byte more, CRLF.
pub(crate) const MAX_TAIL: usize = 2 + MAX_PADDING + 1 + 2;

/// What the bytes after a boundary make of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Too few to tell.
    Open,
    /// A part begins after so many bytes.
    Part(usize),
    /// The form is closed; the epilogue begins after so many bytes.
    Close(usize),
    /// A delimiter line that breaks a rule. It is never content: another parser might read it as a delimiter.
    Broken(Flaw),
    /// A longer token than the boundary: content.
    Data,
}

/// Which rule a delimiter line breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Its line ends in LF.
    BareLf,
    /// A CR is not followed by LF.
    BareCr,
    /// There is more padding than [`MAX_PADDING`].
    Padding,
    /// Something other than a line end follows.
    Garbage,
}

impl Flaw {
    /// The refusal of a delimiter line.
    pub(crate) fn refusal(self) -> Error {
        const WHAT: &str = "malformed delimiter line";
        Error::invalid(match self {
            Flaw::BareLf => format!("{WHAT}: the line ends in LF; lines must end in CRLF"),
            Flaw::BareCr => format!("{WHAT}: a CR is not followed by LF; lines must end in CRLF"),
            Flaw::Padding => format!("{WHAT}: more than {MAX_PADDING} spaces and tabs follow the boundary"),
            Flaw::Garbage => format!("{WHAT}: only spaces, tabs and CRLF may follow the boundary"),
        })
    }
}

impl Line {
    pub(crate) fn of(tail: &[u8]) -> Self {
        let (closing, rest) = match tail {
            [] | [b'-'] => return Line::Open,
            [b'-', b'-', rest @ ..] => (true, rest),
            [b'\r' | b'\n' | b' ' | b'\t', ..] => (false, tail),
            _ => return Line::Data,
        };
        let padding = rest.iter().take(MAX_PADDING + 1).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &rest[padding..] {
            _ if padding > MAX_PADDING => Line::Broken(Flaw::Padding),
            [] | [b'\r'] => Line::Open,
            [b'\r', b'\n', after @ ..] if closing => Line::Close(tail.len() - after.len()),
            [b'\r', b'\n', after @ ..] => Line::Part(tail.len() - after.len()),
            [b'\n', ..] => Line::Broken(Flaw::BareLf),
            [b'\r', ..] => Line::Broken(Flaw::BareCr),
            _ => Line::Broken(Flaw::Garbage),
        }
    }
}
