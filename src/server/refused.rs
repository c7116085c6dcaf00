//! Heads that the HTTP library refuses: why, in words for the client, the log and the metrics. This module does not know what
//! becomes of the connection.

use hyper::Error;

use crate::error::Kind;
use crate::request::Unreadable;
use crate::telemetry::HeadFault;

/// What the library says of its refusals. Its kinds are not public, and a test holds these texts.
const TEXTS: [(&str, HeadFault); 6] = [
    ("invalid HTTP method parsed", HeadFault::Method),
    ("invalid URI", HeadFault::Target),
    ("invalid HTTP version parsed", HeadFault::Version),
    ("invalid content-length parsed", HeadFault::Length),
    ("invalid transfer-encoding parsed", HeadFault::Encoding),
    ("unexpected transfer-encoding parsed", HeadFault::Encoding),
];

/// Why the head of an HTTP/1 request was refused, if that is how its connection ended. `begun` says whether a part of a head
/// was read.
pub(super) fn http1(error: &Error, begun: bool) -> Option<HeadFault> {
    if error.is_parse_too_large() {
        return Some(HeadFault::Large);
    }
    if error.is_timeout() {
        return begun.then_some(HeadFault::Slow);
    }
    let said = error.to_string();
    let fault = TEXTS.iter().find(|(text, _)| *text == said).map(|(_, fault)| *fault);
    error.is_parse().then(|| fault.unwrap_or(HeadFault::Header))
}

/// Whether an HTTP/2 connection ended because its client broke the protocol. Single requests that do are answered by the
/// library, and are not seen here.
pub(super) fn http2(error: &Error) -> Option<HeadFault> {
    (error.to_string() == "http2 error").then_some(HeadFault::Http2)
}

/// What the client reads.
pub(super) fn reply(fault: HeadFault) -> Unreadable {
    let (kind, why) = match fault {
        HeadFault::Method => {
            (Kind::Invalid, "the method must be a word such as POST, at the beginning of the first line")
        }
        HeadFault::Target => {
            (Kind::Invalid, "the first line must have one target, a path without spaces or control characters")
        }
        HeadFault::Version => (Kind::Invalid, "the first line must end with HTTP/1.1 or HTTP/1.0"),
        HeadFault::Header => (
            Kind::Invalid,
            "a header line must be a name, a colon right after it, and a value on the same line without control characters",
        ),
        HeadFault::Length => (Kind::Invalid, "Content-Length must be one decimal number"),
        HeadFault::Encoding => (Kind::Invalid, "Transfer-Encoding must be chunked, over HTTP/1.1"),
        HeadFault::Large => (Kind::HeadTooLarge, "at most 64 KiB and 100 headers are permitted"),
        HeadFault::Slow => (Kind::ClientTooSlow, "the head was not complete in time"),
        HeadFault::Http2 => (Kind::Invalid, "the connection broke the rules of HTTP/2"),
    };
    Unreadable { kind, why }
}
