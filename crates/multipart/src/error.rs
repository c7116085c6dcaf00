//! Why a body was refused: one type for every rule, in words that can be sent to the client.

use std::borrow::Cow;
use std::fmt;

/// The result of reading a form.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Which side an [`Error`] concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The body or the content type breaks a rule of the format, or exceeds a limit.
    Invalid,
    /// The body ends before its closing delimiter line. The client may send it again.
    Incomplete,
    /// The program that drives the parser pushed a frame, or finished the body, before it had taken all events.
    Misuse,
}

/// Why a form was refused.
///
/// The text is written for the client that sent the form: lower case, without a full stop. It may quote the boundary, the
/// first line of the body and the limits, and never more of the content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    parameter: Option<&'static str>,
    reason: Cow<'static, str>,
}

impl Error {
    pub(crate) fn invalid(reason: impl Into<Cow<'static, str>>) -> Self {
        Error { kind: ErrorKind::Invalid, parameter: None, reason: reason.into() }
    }

    /// A broken rule about one parameter of a Content-Disposition.
    pub(crate) fn of_parameter(parameter: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Error { parameter: Some(parameter), ..Error::invalid(reason) }
    }

    pub(crate) fn incomplete() -> Self {
        let reason = Cow::Borrowed("the body ends before the closing delimiter line");
        Error { kind: ErrorKind::Incomplete, parameter: None, reason }
    }

    pub(crate) fn misuse() -> Self {
        let reason = Cow::Borrowed("a frame was not used up before the next one or the end");
        Error { kind: ErrorKind::Misuse, parameter: None, reason }
    }

    /// Which side the error concerns.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The parameter of a part's Content-Disposition that the error is about: `name` or `filename`. `None` if it is about
    /// something else.
    pub fn parameter(&self) -> Option<&'static str> {
        self.parameter
    }

    /// What is wrong, without the name of the parameter.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The reason, owned, for an error type that has a place for the parameter.
    pub fn into_reason(self) -> Cow<'static, str> {
        self.reason
    }
}

/// The parameter, if there is one, and the reason: `filename: has no closing quote`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parameter {
            Some(parameter) => write!(f, "{parameter}: {}", self.reason),
            None => f.write_str(&self.reason),
        }
    }
}

impl std::error::Error for Error {}
