//! One request, from its first byte to its end: what is learnt of it on the way, and what is told of it when it ends. There
//! is one line in the log, with the same fields on both doors, one count and one duration. A failure is logged here, once,
//! with its cause; nowhere else. No token, no header value that a caller chose but its request id, ever gets here.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use opentelemetry::TraceId;
use prometheus_client::metrics::counter::Counter;
use tracing::Span;
use tracing::field::{self, Empty};
use uuid::Uuid;

use super::flood;
use super::metrics::{End, Metrics};
use super::traces::{self, TraceHeaders};
use super::words::{Method, Protocol, SPANS};
use crate::attachment::{Id, Key, UploadId};
use crate::error::{Error, Kind};

/// The header and metadata key of the request id.
pub const REQUEST_ID: &str = "x-request-id";

/// The longest request id that is accepted from a caller, in bytes.
const REQUEST_ID_BYTES: usize = 128;

/// How much of a method and of a path the log and the traces have, in bytes.
const METHOD_BYTES: usize = 16;
const PATH_BYTES: usize = 256;

/// The HTTP method as the log and the traces have it: its beginning, if it is longer than any that there is.
pub fn method(method: &str) -> String {
    shortened(method, METHOD_BYTES)
}

/// The beginning of a text that a caller chose. `…` stands for what is left out.
fn shortened(text: &str, most: usize) -> String {
    match text.get(..text.floor_char_boundary(most)) {
        Some(kept) if kept.len() < text.len() => format!("{kept}…"),
        _ => text.to_owned(),
    }
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

/// What is learnt of a request on its way. It goes along with the request, and what holds it may outlive that.
#[derive(Clone, Debug)]
pub struct Trail(Arc<Facts>);

#[derive(Debug)]
struct Facts {
    protocol: Protocol,
    id: RequestId,
    /// As the caller wrote it: it is in the log alone.
    method: String,
    path: String,
    began: Instant,
    span: Span,
    trace: Option<TraceId>,
    /// The client and the attachment that the request names.
    client: OnceLock<Id>,
    attachment: OnceLock<Id>,
    upload: OnceLock<UploadId>,
    asked: OnceLock<Method>,
    bytes: AtomicU64,
    received: Counter,
    sent_bytes: AtomicU64,
    sent: Counter,
    metrics: Metrics,
    change: Mutex<Change>,
}

/// How a change of the storage ended.
/// A failure is kept as its kind, its text, and whether a resource is used up.
type Outcome = Result<(), (Kind, String, bool)>;

/// Whether a request changes the storage. Its change goes on if the request is dropped.
#[derive(Debug)]
enum Change {
    /// Not yet.
    None,
    /// The change has begun. `left`: the request was dropped, so its end is reported with the end of the change.
    UnderWay { left: bool },
    /// The change has ended.
    Ended(Outcome),
    /// The end of the request was reported with it.
    Reported,
}

impl Trail {
    /// The request's id.
    pub fn request_id(&self) -> &RequestId {
        &self.0.id
    }

    /// The protocol that the request came over.
    pub fn protocol(&self) -> Protocol {
        self.0.protocol
    }

    /// What the request asks for. Until that is known it is [`Method::Other`].
    pub fn asks_for(&self, method: Method) {
        // A second word on it would be a mistake that changes nothing.
        let _ = self.0.asked.set(method);
    }

    /// Whose attachment the request is about, as it was parsed.
    pub fn names(&self, target: Key) {
        self.names_client(target.client);
        let _ = self.0.attachment.set(target.attachment);
    }

    /// Whose attachments the request is about, as it was parsed.
    pub fn names_client(&self, client: Id) {
        let _ = self.0.client.set(client);
    }

    /// Under which id the content is stored.
    pub fn writes(&self, upload: UploadId) {
        let _ = self.0.upload.set(upload);
    }

    /// So many bytes of content arrived.
    pub fn received(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.received.inc_by(bytes as u64);
    }

    /// So many bytes of content were handed to the connection.
    pub fn sent(&self, bytes: usize) {
        self.0.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.0.sent.inc_by(bytes as u64);
    }

    /// The counters of the process.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The storage is being changed. From now on the outcome of the change is the outcome of the request.
    pub fn changing(&self) {
        *self.change() = Change::UnderWay { left: false };
    }

    /// The change has ended. If the request was dropped meanwhile, it is reported now.
    pub fn changed(&self, outcome: Result<(), &Error>) {
        let outcome = outcome.map_err(|error| (error.kind(), error.to_string(), error.is_at_limit()));
        let mut change = self.change();
        if let Change::UnderWay { left: true } = *change {
            *change = Change::Reported;
            drop(change);
            self.0.tell_of(Some(outcome));
        } else {
            *change = Change::Ended(outcome);
        }
    }

    /// Whether a change of the storage has begun.
    pub fn has_begun_to_change(&self) -> bool {
        !matches!(*self.change(), Change::None)
    }

    fn change(&self) -> MutexGuard<'_, Change> {
        self.0.change.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request was dropped before it was answered.
    fn left(&self) {
        let mut change = self.change();
        let outcome = match std::mem::replace(&mut *change, Change::Reported) {
            Change::UnderWay { .. } => {
                *change = Change::UnderWay { left: true };
                return;
            }
            Change::Ended(outcome) => Some(outcome),
            Change::None | Change::Reported => None,
        };
        drop(change);
        self.0.tell_of(outcome);
    }
}

/// The end of a request, which is reported once: its outcome where it is answered. A request that is dropped has lost its
/// client. If it had begun to change the storage, the outcome of the change is reported all the same.
#[derive(Debug)]
pub struct Exit {
    trail: Trail,
    told: bool,
}

impl Exit {
    /// Begins to time a request. `caller` says to which trace it belongs.
    pub fn new(
        protocol: Protocol,
        id: RequestId,
        method: impl Into<String>,
        path: &str,
        metrics: &Metrics,
        caller: &TraceHeaders<'_>,
    ) -> Self {
        metrics.begun(protocol);
        let began = Instant::now();
        let (method, path) = (method.into(), shortened(path, PATH_BYTES));
        let span = tracing::info_span!(
            target: SPANS, "request", otel.kind = "server", otel.name = Empty, otel.status_code = Empty,
            request_id = %id, door = protocol.as_str(), method, path, client_id = Empty, attachment_id = Empty,
            upload_id = Empty, size_bytes = Empty, sent_bytes = Empty, outcome = Empty,
        );
        let trace = traces::join(&span, caller);
        let facts = Facts {
            protocol,
            id,
            method,
            path,
            began,
            span,
            trace,
            client: OnceLock::new(),
            attachment: OnceLock::new(),
            upload: OnceLock::new(),
            asked: OnceLock::new(),
            bytes: AtomicU64::new(0),
            received: metrics.received(protocol),
            sent_bytes: AtomicU64::new(0),
            sent: metrics.sent(protocol),
            metrics: metrics.clone(),
            change: Mutex::new(Change::None),
        };
        Exit { trail: Trail(Arc::new(facts)), told: false }
    }

    /// The span in which the request is to run.
    pub fn span(&self) -> &Span {
        &self.trail.0.span
    }

    /// The request's id.
    pub fn request_id(&self) -> &RequestId {
        &self.trail.0.id
    }

    /// Where the request's way is written down.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The request was served.
    pub fn succeeded(mut self) {
        self.tell(End::Served, None, false);
    }

    /// The request was refused or failed.
    pub fn failed(mut self, error: &Error) {
        self.tell(End::Failed(error.kind()), Some(error.to_string()), error.is_at_limit());
    }

    /// The request was refused or failed, with what [`Error`]'s `Display` said of it. `at_limit`: a resource is used up.
    pub fn failed_with(mut self, kind: Kind, error: String, at_limit: bool) {
        self.tell(End::Failed(kind), Some(error), at_limit);
    }

    fn tell(&mut self, end: End, error: Option<String>, at_limit: bool) {
        self.told = true;
        self.trail.0.tell(end, error, at_limit, false);
    }
}

impl Facts {
    /// Reports a request that was dropped: the outcome of its change, if there is one.
    fn tell_of(&self, outcome: Option<Outcome>) {
        match outcome {
            Some(Ok(())) => self.tell(End::Served, None, false, true),
            Some(Err((kind, error, at_limit))) => self.tell(End::Failed(kind), Some(error), at_limit, true),
            None => self.tell(End::Gone, None, false, true),
        }
    }

    fn tell(&self, end: End, error: Option<String>, at_limit: bool, client_gone: bool) {
        let Facts { protocol, id, method, path, began, span, trace, .. } = self;
        let elapsed = began.elapsed();
        let asked = self.asked.get().copied().unwrap_or(Method::Other);
        let size_bytes = self.bytes.load(Ordering::Relaxed);
        self.metrics.ended(*protocol, asked, end, elapsed);
        if end == End::Served && asked.takes_content() {
            self.metrics.stored(*protocol, size_bytes);
        }
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let (client_id, attachment_id) =
            (self.client.get().map(|id| id.get()), self.attachment.get().map(|id| id.get()));
        let upload_id = self.upload.get().map(field::display);
        let size_bytes = asked.takes_content().then_some(size_bytes);
        let sent_bytes = asked.gives_content().then(|| self.sent_bytes.load(Ordering::Relaxed));
        let status = match end {
            End::Failed(kind) => Some(kind.row().status.as_u16()),
            End::Served | End::Gone => None,
        };
        span.record("otel.name", asked.as_str());
        span.record("outcome", end.outcome());
        span.record("client_id", client_id);
        span.record("attachment_id", attachment_id);
        span.record("upload_id", upload_id.clone());
        span.record("size_bytes", size_bytes);
        span.record("sent_bytes", sent_bytes);
        if end.result() == "failed" {
            span.record("otel.status_code", "ERROR");
        }
        let trace_id = trace.map(field::display);
        let client_gone = client_gone.then_some(true);
        // A macro, since the level of an event is a constant.
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    request_id = %id, door = protocol.as_str(), method, path, client_id, attachment_id, upload_id,
                    outcome = end.outcome(), status, error, size_bytes, sent_bytes, elapsed_ms, client_gone, trace_id, "request"
                )
            };
        }
        let is_logged = match end {
            End::Failed(kind) if end.result() == "refused" || at_limit => flood::permits_request(Some(kind)),
            End::Gone => flood::permits_request(None),
            End::Served | End::Failed(_) => true,
        };
        if !is_logged {
            // It is counted there.
        } else if end.result() == "failed" && !at_limit {
            line!(error);
        } else if end == End::Served && asked == Method::Health {
            // Load balancers ask all the time.
            line!(debug);
        } else {
            line!(info);
        }
    }
}

impl Drop for Exit {
    fn drop(&mut self) {
        if !self.told {
            self.trail.left();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_method_or_path_the_log_has_the_beginning() {
        for most in [METHOD_BYTES, PATH_BYTES] {
            for length in [0, most - 1, most] {
                assert_eq!(shortened(&"a".repeat(length), most), "a".repeat(length));
            }
            assert_eq!(shortened(&"a".repeat(most + 1), most), "a".repeat(most) + "…");
            assert_eq!(shortened(&("a".repeat(most - 1) + "é"), most), "a".repeat(most - 1) + "…");
        }
    }

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
