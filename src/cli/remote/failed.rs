//! Why a request failed, in words for the person at the command line, and whether the same request may succeed later. The
//! libraries' own words name neither the mistake nor the mend: a port that speaks something else is "a frame with an invalid
//! size" to them, so it is asked what it speaks.

use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::super::failure::Failure;
use crate::tls::{self, Credentials};

/// How long a port may take to show what it speaks.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);

/// What a gRPC library says of a reply that is none, before the HTTP status.
const NOT_GRPC: [&str; 2] = ["mapped from HTTP status code ", "while receiving response with status: "];

/// What the HTTP library says of a server that gives no sign of life.
const NO_SIGN_OF_LIFE: &str = "keep-alive timed out";

/// Why a request failed.
#[derive(Debug)]
pub struct Failed {
    words: String,
    /// The reason that a server gave, such as `NOT_FOUND`; empty if there was none.
    reason: String,
    retriable: bool,
    asked_for: Option<Duration>,
    /// Whether there was no answer, so that it is unknown what the server did.
    lost: bool,
    /// What the server says is stored, if it refused to replace it.
    stored: Option<Vec<u8>>,
}

impl Failed {
    /// A failure on this side, which trying again does not mend.
    pub fn here(words: String) -> Failed {
        Failed { words, reason: String::new(), retriable: false, asked_for: None, lost: false, stored: None }
    }

    /// A server gave no sign of life.
    pub fn silent(to: &str) -> Failed {
        let words = format!("{to}: the server stopped answering, or the network between is broken");
        Failed { retriable: true, lost: true, ..Failed::here(words) }
    }

    /// No connection could be made.
    pub async fn to_connect(to: &str, error: &(dyn Error + 'static)) -> Failed {
        let kind = find::<io::Error>(error).map(io::Error::kind);
        let text = with_causes(error);
        let (words, retriable) = match tls::explain(error) {
            Some(why) => (format!("{to}: {why}"), false),
            None if text.contains("dns error") => {
                (format!("{to}: the name of the host cannot be resolved; check how it is spelt"), false)
            }
            None if text.contains("HTTP/2 was not negotiated") => {
                (format!("{to}: the port speaks TLS and no HTTP/2, which gRPC needs; --to takes the gRPC port"), false)
            }
            None if kind == Some(io::ErrorKind::ConnectionRefused) => {
                (format!("{to}: connection refused: nothing listens on this port"), true)
            }
            None if text.contains("timed out") || text.contains("deadline has elapsed") => {
                (format!("{to}: no answer; check the address, and whether a firewall is between"), true)
            }
            None if to.starts_with("https://") && shows_no_tls(&text) => match speaks(authority(to), 443).await {
                Speaks::Http1 | Speaks::Http2 => (
                    format!("{to}: the port does not speak TLS; write http:// in --to if plain text is intended"),
                    false,
                ),
                Speaks::Tls | Speaks::Unknown => (format!("{to}: the server cut off the TLS handshake"), true),
            },
            None => (format!("{to}: {}", find::<io::Error>(error).map_or(text, io::Error::to_string)), true),
        };
        Failed { retriable, ..Failed::here(words) }
    }

    /// A server refused the request, or there was no answer. `fresh` says whether there was none before either.
    pub async fn from_status(to: &str, status: Status, fresh: bool, credentials: &Credentials) -> Failed {
        if with_causes(&status).contains(NO_SIGN_OF_LIFE) {
            return Failed::silent(to);
        }
        if let Some(cause) = status.source() {
            return Failed::without_answer(to, cause, fresh, credentials).await;
        }
        let code = status.code();
        let http = NOT_GRPC.iter().find_map(|before| status.message().split_once(before)?.1.get(..3));
        if let Some(http) = http {
            // A proxy that has no server at the moment answers like this.
            let retriable = ["429", "502", "503", "504"].contains(&http);
            let words = if retriable {
                format!("{to}: answered HTTP status {http} in place of gRPC: the server behind it is unavailable")
            } else {
                format!(
                    "{to}: answered HTTP status {http} in place of gRPC; --to takes the gRPC port (50051 by default), not \
                     the REST port"
                )
            };
            return Failed { retriable, ..Failed::here(words) };
        }
        let details = status.get_error_details();
        let info = details.error_info();
        let reason = info.map(|info| info.reason.as_str()).unwrap_or_default();
        let asked_for = details.retry_info().and_then(|info| info.retry_delay);
        let retriable = code == Code::Unavailable || asked_for.is_some() || reason == "RATE_LIMITED";
        let mut words = format!("{code:?}");
        if !reason.is_empty() {
            words.push_str(&format!(" {reason}"));
        }
        words.push_str(&format!(": {}", status.message()));
        if let Some(id) = status.metadata().get("x-request-id").and_then(|id| id.to_str().ok()) {
            words.push_str(&format!(" (request id {id})"));
        }
        let stored = info.and_then(|info| info.metadata.get("sha256")).and_then(|digest| from_hex(digest));
        Failed { words, reason: reason.to_owned(), retriable, asked_for, lost: false, stored }
    }

    async fn without_answer(to: &str, cause: &(dyn Error + 'static), fresh: bool, credentials: &Credentials) -> Failed {
        if let Some(why) = tls::explain(cause) {
            return Failed { lost: true, ..Failed::here(format!("{to}: {why}")) };
        }
        if fresh && let Some(why) = refused_by_tls(to, credentials).await {
            return Failed { lost: true, ..Failed::here(format!("{to}: {why}")) };
        }
        let spoken = if to.starts_with("http://") { speaks(authority(to), 80).await } else { Speaks::Unknown };
        let (words, retriable) = match spoken {
            Speaks::Tls => (format!("{to}: the port speaks TLS; write https:// in --to"), false),
            Speaks::Http1 => (
                format!(
                    "{to}: the port speaks HTTP/1.1 and not gRPC; --to takes the gRPC port of attachd (50051 by default)"
                ),
                false,
            ),
            Speaks::Http2 | Speaks::Unknown => {
                let why = find::<io::Error>(cause).map(|error| format!(" ({error})")).unwrap_or_default();
                (format!("{to}: the connection was lost{why}"), true)
            }
        };
        Failed { retriable, lost: true, ..Failed::here(words) }
    }

    /// Whether there was no answer.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(&self) -> bool {
        self.retriable
    }

    /// The pause that the server asks for.
    pub fn asked_for(&self) -> Option<Duration> {
        self.asked_for
    }

    /// Whether the server refused to replace content of this SHA-256 digest.
    pub fn has_stored(&self, digest: &[u8]) -> bool {
        self.stored.as_deref() == Some(digest)
    }

    /// The reason that the server gave, such as `NOT_FOUND`; empty if it gave none.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// The same failure, as one after which the request may succeed later.
    #[must_use]
    pub fn passing(self) -> Failed {
        Failed { retriable: true, ..self }
    }

    /// The same failure, with more words.
    #[must_use]
    pub fn and(mut self, words: &str) -> Failed {
        self.words.push_str(words);
        self
    }

    /// The failure of a command. `name` is what the request was about.
    #[must_use]
    pub fn of(self, name: &str) -> Failure {
        Failure { code: if self.retriable { 3 } else { 1 }, why: Some(format!("{name}: {self}")) }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// An error with what it comes from, in one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text.push_str(&format!(": {more}"));
        }
        cause = error.source();
    }
    text
}

/// An error of this type among those that an error comes from.
fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        link = error.source();
    }
    None
}

/// Whether a handshake ended as it does at a port without TLS.
fn shows_no_tls(text: &str) -> bool {
    ["eof", "reset", "broken pipe"].iter().any(|word| text.to_lowercase().contains(word))
}

/// Why a server that speaks TLS refuses this client, if it says so within a bounded time.
async fn refused_by_tls(to: &str, credentials: &Credentials) -> Option<String> {
    let uri = to.parse::<tonic::transport::Uri>().ok().filter(|uri| uri.scheme_str() == Some("https"))?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let refusal = tls::refusal(host, uri.port_u16().unwrap_or(443), credentials);
    timeout(SHOWN_WITHIN, refusal).await.ok().flatten()
}

/// What a port speaks.
enum Speaks {
    Tls,
    Http1,
    Http2,
    Unknown,
}

/// The host and the port of a URL, as it writes them.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Finds out what a port speaks: greets it in TLS, then asks it in HTTP/1.1 for nothing.
async fn speaks(authority: &str, usual_port: u16) -> Speaks {
    let authority = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:{usual_port}")
    };
    let greeted = ask(&authority, &tls::hello().unwrap_or_default()).await;
    // A handshake or an alert (RFC 8446 §5.1), and a version of TLS.
    if matches!(greeted.as_slice(), [21 | 22, 3, ..]) {
        return Speaks::Tls;
    }
    let question = format!("OPTIONS * HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    let answer = ask(&authority, question.as_bytes()).await;
    let text = String::from_utf8_lossy(&answer).to_uppercase();
    match answer.as_slice() {
        // SETTINGS, with which a server begins (RFC 9113 §3.4): a length, the type 4, no flags, stream 0.
        [0, _, _, 4, 0, 0, 0, 0, 0, ..] => Speaks::Http2,
        _ if text.starts_with("HTTP/") && text.contains("HTTPS") => Speaks::Tls,
        _ if text.starts_with("HTTP/") => Speaks::Http1,
        _ => Speaks::Unknown,
    }
}

/// What a port answers to these bytes at first, within a bounded time. What arrives before a reset counts.
async fn ask(authority: &str, question: &[u8]) -> Vec<u8> {
    let mut answer = vec![0; 1024];
    let mut filled = 0;
    let asked = async {
        let mut socket = TcpStream::connect(authority).await?;
        socket.write_all(question).await?;
        while filled < answer.len() {
            match socket.read(&mut answer[filled..]).await? {
                0 => break,
                read => filled += read,
            }
            if matches!(answer[0], 21 | 22) {
                break;
            }
        }
        io::Result::Ok(())
    };
    let _ = timeout(SHOWN_WITHIN, asked).await;
    answer.truncate(filled);
    answer
}

/// The bytes of a digest in hexadecimal digits.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks_exact(2);
    if !digits.remainder().is_empty() {
        return None;
    }
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}
