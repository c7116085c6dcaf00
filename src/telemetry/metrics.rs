//! What is counted and timed while attachd works. The values of labels are words of this module and of the error table, so
//! nothing that a caller chose can become one. What is counted for each chunk of an upload is one addition; everything else
//! happens once a request, a connection or a storage operation. How the numbers are asked for stands in `exposition`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use tracing::{Span, field};

use super::labels::{Eviction, HeadFault, Limit, LogLine, Operation, Outcome, Port, Rejection};
use super::refused::Refused;
use super::words::{Method, Protocol, SPANS};
use crate::attachment::Id;
use crate::error::{Error, Kind, Result};

/// Names and values of the labels of one series.
type Labels<const N: usize> = [(&'static str, &'static str); N];
pub(super) type Counters<const N: usize> = Family<Labels<N>, Counter>;
pub(super) type Gauges<const N: usize> = Family<Labels<N>, Gauge>;
pub(super) type Histograms<const N: usize> = Family<Labels<N>, Histogram, fn() -> Histogram>;

/// The outcome of a request that was served, beside the reasons of the error table.
pub const SERVED: &str = "OK";

/// The outcome of a request whose client went away.
pub const CLIENT_GONE: &str = "CLIENT_GONE";

/// The counters and timers of one process. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub(super) Arc<Families>);

/// All families, as they are registered.
#[derive(Debug)]
pub(super) struct Families {
    pub requests: Counters<3>,
    pub request_seconds: Histograms<3>,
    pub requests_in_flight: Gauges<1>,
    pub received_bytes: Counters<1>,
    pub sent_bytes: Counters<1>,
    pub damaged: Counter,
    pub sizes: Histograms<1>,
    pub commit_seconds: Histograms<1>,
    pub operations: Counters<2>,
    pub operation_seconds: Histograms<1>,
    pub authentications: Counters<1>,
    pub accepted: Counters<1>,
    pub open: Gauges<1>,
    pub refused: Counters<2>,
    pub evicted: Counters<2>,
    pub heads_refused: Counters<2>,
    pub spans: Counters<1>,
    pub log_bytes: Counter,
    pub log_dropped: Counters<1>,
    pub limited: Counters<1>,
    /// By client, for the log.
    pub refusals: Refused,
}

impl Default for Families {
    /// All families, and in them every counter that can ever be: one that is not there yet looks the same as one that is
    /// not counted, and the first event of its kind would be no increase.
    fn default() -> Self {
        let families = Families {
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(|| Histogram::new(REQUEST_SECONDS)),
            requests_in_flight: Family::default(),
            received_bytes: Family::default(),
            sent_bytes: Family::default(),
            damaged: Counter::default(),
            sizes: Family::new_with_constructor(|| Histogram::new(SIZES)),
            commit_seconds: Family::new_with_constructor(|| Histogram::new(STORAGE_SECONDS)),
            operations: Family::default(),
            operation_seconds: Family::new_with_constructor(|| Histogram::new(STORAGE_SECONDS)),
            authentications: Family::default(),
            accepted: Family::default(),
            open: Family::default(),
            refused: Family::default(),
            evicted: Family::default(),
            heads_refused: Family::default(),
            spans: Family::default(),
            log_bytes: Counter::default(),
            log_dropped: Family::default(),
            limited: Family::default(),
            refusals: Refused::default(),
        };
        for protocol in Protocol::ALL {
            drop(families.requests_in_flight.get_or_create(&[("door", protocol.as_str())]));
            drop(families.received_bytes.get_or_create(&[("door", protocol.as_str())]));
            drop(families.sent_bytes.get_or_create(&[("door", protocol.as_str())]));
            drop(families.sizes.get_or_create(&[("door", protocol.as_str())]));
            for method in protocol.methods() {
                let reasons = Kind::ALL.map(|kind| kind.row().reason);
                for outcome in reasons.into_iter().chain([SERVED, CLIENT_GONE]) {
                    drop(families.requests.get_or_create(&request(protocol, method, outcome)));
                }
            }
        }
        for operation in Operation::ALL {
            drop(families.operation_seconds.get_or_create(&[("operation", operation.as_str())]));
            for outcome in Outcome::ALL {
                drop(families.operations.get_or_create(&storage(operation, outcome)));
            }
        }
        for kind in [Kind::TokenMissing, Kind::TokenInvalid, Kind::TokenExpired, Kind::KeysUnavailable]
            .map(Some)
            .into_iter()
            .chain([None])
        {
            drop(families.authentications.get_or_create(&[("outcome", outcome(kind))]));
        }
        for outcome in ["exported", "failed"] {
            drop(families.spans.get_or_create(&[("outcome", outcome)]));
        }
        for limit in Limit::ALL {
            drop(families.limited.get_or_create(&[("limit", limit.as_str())]));
        }
        for kind in LogLine::ALL {
            drop(families.log_dropped.get_or_create(&[("kind", kind.as_str())]));
        }
        for port in Port::ALL {
            drop(families.accepted.get_or_create(&[("port", port.as_str())]));
            drop(families.open.get_or_create(&[("port", port.as_str())]));
            for reason in Rejection::ALL {
                drop(families.refused.get_or_create(&[("port", port.as_str()), ("reason", reason.as_str())]));
            }
            for state in Eviction::ALL {
                drop(families.evicted.get_or_create(&[("port", port.as_str()), ("state", state.as_str())]));
            }
            for cause in port.head_faults() {
                drop(families.heads_refused.get_or_create(&[("port", port.as_str()), ("cause", cause.as_str())]));
            }
        }
        families
    }
}

/// The bounds of what requests take, in seconds: from a refusal to the upload of a large file over a slow line.
const REQUEST_SECONDS: [f64; 16] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];

/// The bounds of what one storage operation takes, in seconds: from a local disk to the time that an operation has.
const STORAGE_SECONDS: [f64; 16] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The bounds of sizes, in bytes: 1 KiB to 16 GiB.
const SIZES: [f64; 10] = [
    1024.0,
    16_384.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
    1_073_741_824.0,
    17_179_869_184.0,
];

/// The outcome of what ended so, in one word.
fn outcome(failure: Option<Kind>) -> &'static str {
    failure.map_or(SERVED, |kind| kind.row().reason)
}

fn request(protocol: Protocol, method: Method, outcome: &'static str) -> Labels<3> {
    [("door", protocol.as_str()), ("method", method.as_str()), ("outcome", outcome)]
}

fn storage(operation: Operation, outcome: Outcome) -> Labels<2> {
    [("operation", operation.as_str()), ("outcome", outcome.as_str())]
}

/// How a request ended, in few words: what a caller got, or whose fault it is that it got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was served.
    Served,
    /// It was refused or failed.
    Failed(Kind),
    /// Its client went away.
    Gone,
}

impl End {
    /// The word for the outcome: `OK`, `CLIENT_GONE`, or the reason of the error table.
    pub fn outcome(self) -> &'static str {
        match self {
            End::Served => SERVED,
            End::Failed(kind) => kind.row().reason,
            End::Gone => CLIENT_GONE,
        }
    }

    /// The word for whose fault it was.
    pub(super) fn result(self) -> &'static str {
        match self {
            End::Served => "ok",
            End::Failed(kind) if kind.row().status.is_server_error() => "failed",
            End::Failed(_) => "refused",
            End::Gone => "gone",
        }
    }
}

impl Metrics {
    /// A request began.
    pub(super) fn begun(&self, protocol: Protocol) {
        self.0.requests_in_flight.get_or_create(&[("door", protocol.as_str())]).inc();
    }

    /// A request ended.
    pub(super) fn ended(&self, protocol: Protocol, method: Method, end: End, elapsed: Duration) {
        self.0.requests_in_flight.get_or_create(&[("door", protocol.as_str())]).dec();
        self.0.requests.get_or_create(&request(protocol, method, end.outcome())).inc();
        let labels = [("door", protocol.as_str()), ("method", method.as_str()), ("result", end.result())];
        self.0.request_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// The counter of content that arrives through a door.
    pub(super) fn received(&self, protocol: Protocol) -> Counter {
        self.0.received_bytes.get_or_create_owned(&[("door", protocol.as_str())])
    }

    /// The counter of content that is sent through a door.
    pub(super) fn sent(&self, protocol: Protocol) -> Counter {
        self.0.sent_bytes.get_or_create_owned(&[("door", protocol.as_str())])
    }

    /// Content was read that is not what its record says.
    pub fn damaged(&self) {
        self.0.damaged.inc();
    }

    /// A file of this size was stored.
    #[expect(clippy::cast_precision_loss, reason = "a sum of sizes may be off by one in 2^53")]
    pub(super) fn stored(&self, protocol: Protocol, size: u64) {
        self.0.sizes.get_or_create(&[("door", protocol.as_str())]).observe(size as f64);
    }

    /// A commit was tried: from the closing of the content to the durable record.
    pub fn committed(&self, failure: Option<Kind>, elapsed: Duration) {
        let end = failure.map_or(End::Served, End::Failed);
        self.0.commit_seconds.get_or_create(&[("result", end.result())]).observe(elapsed.as_secs_f64());
    }

    /// A token was looked at.
    pub fn authenticated(&self, failure: Option<Kind>) {
        self.0.authentications.get_or_create(&[("outcome", outcome(failure))]).inc();
    }

    /// Spans were sent, or were not.
    pub(super) fn traced(&self, sent: bool, count: usize) {
        let outcome = if sent { "exported" } else { "failed" };
        self.0.spans.get_or_create(&[("outcome", outcome)]).inc_by(count as u64);
    }

    /// A limit refused a request, of a client where that is known.
    pub fn limited(&self, limit: Limit, client: Option<Id>) {
        self.0.limited.get_or_create(&[("limit", limit.as_str())]).inc();
        if let Some(client) = client {
            self.0.refusals.count(limit, client);
        }
    }

    /// Logs which client each limit refused most since the last time.
    pub(super) fn tell_refusals(&self) {
        self.0.refusals.tell();
    }

    /// A line of the log of so many bytes is to be written.
    pub(super) fn logged(&self, bytes: usize) {
        self.0.log_bytes.inc_by(bytes as u64);
    }

    /// So many lines of the log were left out.
    pub(super) fn log_dropped(&self, kind: LogLine, count: u64) {
        self.0.log_dropped.get_or_create(&[("kind", kind.as_str())]).inc_by(count);
    }

    /// A storage operation begins.
    pub fn operation(&self, operation: Operation) -> Timing {
        // An upload has as many writes as it has megabytes.
        let span = match operation {
            Operation::Write => Span::none(),
            _ => tracing::info_span!(
                target: SPANS, "storage", otel.name = format!("storage.{}", operation.as_str()), otel.kind = "client",
                outcome = field::Empty,
            ),
        };
        Timing { metrics: self.clone(), operation, began: Some(Instant::now()), outcome: Outcome::Abandoned, span }
    }

    /// A storage operation took so long, which is counted elsewhere.
    pub fn took(&self, operation: Operation, time: Duration) {
        self.0.operation_seconds.get_or_create(&[("operation", operation.as_str())]).observe(time.as_secs_f64());
    }

    /// Times a storage operation whose failure is one of ours.
    pub async fn time<T>(&self, operation: Operation, work: impl Future<Output = Result<T>>) -> Result<T> {
        let timing = self.operation(operation);
        let done = work.await;
        timing.end(Outcome::of(done.as_ref().err().map(Error::kind)));
        done
    }

    /// A connection was accepted. It is open as long as what is returned lives.
    pub fn connected(&self, port: Port) -> OpenConnection {
        self.0.accepted.get_or_create(&[("port", port.as_str())]).inc();
        let open = self.0.open.get_or_create_owned(&[("port", port.as_str())]);
        open.inc();
        OpenConnection(open)
    }

    /// A connection was accepted and closed without having served anything.
    pub fn refused(&self, port: Port, reason: Rejection) {
        self.0.refused.get_or_create(&[("port", port.as_str()), ("reason", reason.as_str())]).inc();
    }

    /// A connection was ended since its client did nothing.
    pub fn evicted(&self, port: Port, state: Eviction) {
        self.0.evicted.get_or_create(&[("port", port.as_str()), ("state", state.as_str())]).inc();
    }

    /// The head of a request could not be read, and its connection was closed.
    pub fn head_refused(&self, port: Port, cause: HeadFault) {
        self.0.heads_refused.get_or_create(&[("port", port.as_str()), ("cause", cause.as_str())]).inc();
    }
}

/// A storage operation that goes on. One that is dropped was abandoned.
#[derive(Debug)]
pub struct Timing {
    metrics: Metrics,
    operation: Operation,
    /// Absent where something else says how long it takes.
    began: Option<Instant>,
    outcome: Outcome,
    span: Span,
}

impl Timing {
    /// The same, whose time is not to be seen.
    pub fn untimed(mut self) -> Timing {
        self.began = None;
        self
    }

    /// The operation ended.
    pub fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome.as_str());
        self.metrics.0.operations.get_or_create(&storage(self.operation, self.outcome)).inc();
        if let Some(began) = self.began {
            self.metrics.took(self.operation, began.elapsed());
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
