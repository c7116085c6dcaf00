//! What is written of a request: one line at its end, with the same fields on both doors. A failure is logged here, once,
//! with its cause; nowhere else. No token, no header value that a caller chose but its request id, ever gets here.

use std::fmt;
use std::io;
use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use uuid::Uuid;

use crate::error::{Error, Kind};

mod process;

pub use process::memory_limit;

/// The header and metadata key of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest request id that is accepted from a caller, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// How the log is written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `text` for people, `json` for machines. Default `text`.
    pub format: Format,
    /// Which events: a level, or directives such as `info,attachd=debug`. Default `info`.
    pub filter: String,
}

impl Default for Config {
    fn default() -> Self {
        Config { format: Format::Text, filter: "info".to_owned() }
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One line of text an event.
    Text,
    /// One JSON object an event.
    Json,
}

impl Config {
    /// Reads the filter.
    pub fn parse_filter(&self) -> Result<EnvFilter, ParseError> {
        self.filter.parse()
    }
}

/// Writes the log to standard error from now on. Does nothing where a log is written already.
pub fn start(config: &Config) -> Result<(), ParseError> {
    let log = tracing_subscriber::fmt().with_env_filter(config.parse_filter()?).with_writer(io::stderr);
    let _already = match config.format {
        Format::Text => log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        Format::Json => log.json().try_init(),
    };
    Ok(())
}

/// The id by which a request is found again in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Takes the caller's id where it is 1 to 128 letters, digits and `-_.:/+=@`, else makes one (UUIDv7).
    pub fn accept_or_make(sent: Option<&[u8]>) -> RequestId {
        let sane = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
        match sent.and_then(|sent| std::str::from_utf8(sent).ok()) {
            Some(sent) if (1..=REQUEST_ID_BYTES).contains(&sent.len()) && sent.as_bytes().iter().all(sane) => {
                RequestId(sent.to_owned())
            }
            _ => RequestId(Uuid::now_v7().to_string()),
        }
    }

    /// The id: ASCII that may stand in a header.
    pub fn to_ascii(&self) -> String {
        self.0.clone()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which port a request came through.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    /// The REST port.
    Rest,
    /// The gRPC port.
    Grpc,
}

/// The line that is written when a request ends. A request that is dropped before it ends has lost its client.
#[derive(Debug)]
pub struct Exit {
    door: Door,
    id: RequestId,
    method: String,
    path: String,
    began: Instant,
    written: bool,
}

impl Exit {
    /// Begins to time a request.
    pub fn new(door: Door, id: RequestId, method: impl Into<String>, path: impl Into<String>) -> Self {
        Exit { door, id, method: method.into(), path: path.into(), began: Instant::now(), written: false }
    }

    /// The request's id.
    pub fn request_id(&self) -> &RequestId {
        &self.id
    }

    /// The request was served.
    pub fn succeeded(mut self) {
        self.write(None);
    }

    /// The request was refused or failed.
    pub fn failed(mut self, error: &Error) {
        self.write(Some((error.kind(), error.to_string())));
    }

    /// The request was refused or failed, with what [`Error`]'s `Display` said of it.
    pub fn failed_with(mut self, kind: Kind, error: String) {
        self.write(Some((kind, error)));
    }

    fn write(&mut self, failure: Option<(Kind, String)>) {
        self.written = true;
        let Exit { door, id, method, path, began, .. } = self;
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match failure {
            None => tracing::info!(request_id = %id, ?door, method, path, outcome = "OK", elapsed_ms, "request"),
            Some((kind, error)) => {
                let (outcome, status) = (kind.row().reason, kind.row().status.as_u16());
                if status >= 500 {
                    tracing::error!(request_id = %id, ?door, method, path, outcome, status, error, elapsed_ms, "request");
                } else {
                    tracing::info!(request_id = %id, ?door, method, path, outcome, status, error, elapsed_ms, "request");
                }
            }
        }
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        if !self.written {
            let Exit { door, id, method, path, .. } = self;
            tracing::debug!(request_id = %id, ?door, method, path, outcome = "CLIENT_GONE", "request");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_request_id_is_kept_and_any_other_is_replaced() {
        let kept = |sent: &str| RequestId::accept_or_make(Some(sent.as_bytes())).to_ascii() == sent;
        assert!(kept("a"));
        assert!(kept("018f-Trace.1:2/3+4=@_"));
        assert!(kept(&"a".repeat(REQUEST_ID_BYTES - 1)));
        assert!(kept(&"a".repeat(REQUEST_ID_BYTES)));
        assert!(!kept(&"a".repeat(REQUEST_ID_BYTES + 1)));
        assert!(!kept(""));
        assert!(!kept("a b"));
        assert!(!kept("a\r\nx: y"));
        assert_ne!(RequestId::accept_or_make(None), RequestId::accept_or_make(None));
    }
}
