//! What attachd says of itself: the log, and in the modules below what is told of a request when it ends, metrics and traces.
//! It knows what requests and storage operations are, and not what they are for.

use std::io;
use std::time::Duration;

use bytesize::ByteSize;
use opentelemetry_sdk::trace::SdkTracerProvider;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, LevelFilter};
use tracing_subscriber::layer::{Context, Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use queue::Lines;

use crate::units;

mod catalogue;
mod exposition;
mod filter;
mod flood;
mod labels;
mod metrics;
mod process;
mod queue;
mod refused;
mod request;
mod textfile;
mod traces;
mod words;

pub use catalogue::markdown as metrics_reference;
pub use exposition::{Exposition, KeySet, Snapshot};
pub use flood::{permits_audit, permits_certificate};
pub use labels::{Eviction, HeadFault, Limit, Operation, Outcome, Port, Rejection};
pub use metrics::{Metrics, Timing};
pub use process::memory_limit;
pub use queue::{Room, flush, is_stuck};
pub use request::{Exit, REQUEST_ID, RequestId, Trail, method};
pub use textfile::TextFile;
pub use traces::{Config as TracesConfig, TraceHeaders};
pub use words::{Method, Protocol, SPANS};

/// How the log is written.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// `text` for people, `json` for machines. Default `text`.
    pub format: Format,
    /// Which events: `off`, `error`, `warn`, `info`, `debug` or `trace`, or levels for targets, such as `info,attachd=debug`.
    /// The audit trail is `attachd::audit=info`. Default `info`.
    pub filter: String,
    /// How many bytes of log may wait until standard error takes them, 64 KiB to 1 GiB. Past it lines are dropped and counted,
    /// other than those of the audit trail about changes. Of these, one for each KiB may wait. Default 4 MiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub queue: ByteSize,
    /// How long an upload, registration, deletion or undeletion waits for room for its line of the audit trail. Past it the request
    /// gets 503 / UNAVAILABLE, nothing is changed, and the process is not ready until the log is read again. Default 5 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub audit_timeout: Duration,
    /// How many lines a second the log, and how many the audit trail has of requests that were refused for the same reason, or whose
    /// client went away. Ten times as many may come at once. A line every 10 s says how many were left out. 0 sets no limit.
    /// Default 50.
    pub refusals_per_second: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            format: Format::Text,
            filter: "info".to_owned(),
            queue: ByteSize::mib(4),
            audit_timeout: Duration::from_secs(5),
            refusals_per_second: 50,
        }
    }
}

/// What [`Config::queue`] may be, in bytes.
const QUEUE: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);

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
    /// Checks the sizes and times. An error is a key with what is wrong with it.
    pub(crate) fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        if !QUEUE.contains(&self.queue.as_u64()) {
            return Err(("log.queue", "must be from 64 KiB to 1 GiB"));
        }
        if self.audit_timeout.is_zero() {
            return Err(("log.audit_timeout", "must be more than zero"));
        }
        Ok(())
    }

    /// Reads the filter.
    ///
    /// # Errors
    /// What is wrong with it, in words for the operator.
    pub fn parse_filter(&self) -> Result<EnvFilter, String> {
        filter::parse(&self.filter)
    }

    /// Whether the log has the audit trail. A filter that cannot be read leaves it out.
    pub fn shows_audit(&self) -> bool {
        self.parse_filter().is_ok_and(filter::shows_audit)
    }
}

/// What a process says of itself while it runs.
#[derive(Debug)]
pub struct Telemetry {
    /// What it counts.
    pub metrics: Metrics,
    traces: Option<SdkTracerProvider>,
}

/// Why it cannot.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter of the log is wrong.
    #[error("log.filter: {0}")]
    Filter(String),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] traces::ExportError),
    /// There is no thread that could write the log.
    #[error("the thread that writes the log could not be started: {0}")]
    Thread(#[from] io::Error),
}

/// Writes the log to standard error, and sends traces, from now on. Where a log is written already, that stays as it is.
pub fn start(log: &Config, traces: &TracesConfig) -> Result<Telemetry, StartError> {
    let metrics = Metrics::default();
    let provider = traces.provider(&metrics)?;
    let size = usize::try_from(log.queue.as_u64()).unwrap_or(usize::MAX);
    queue::start(size, log.audit_timeout, &metrics)?;
    flood::start(log.refusals_per_second, &metrics);
    let _already =
        tracing_subscriber::registry().with(layers(log, provider.as_ref()).map_err(StartError::Filter)?).try_init();
    Ok(Telemetry { metrics, traces: provider })
}

/// Looks at what [`start`] would read, and starts nothing. To be called within a runtime.
pub fn check(log: &Config, traces: &TracesConfig) -> Result<(), StartError> {
    log.parse_filter().map_err(StartError::Filter)?;
    traces.exporter().map(drop).map_err(StartError::Traces)
}

/// Runs `speak`, and writes its events to the log whatever the filter says.
pub fn regardless(log: &Config, speak: impl FnOnce()) {
    tracing::subscriber::with_default(tracing_subscriber::registry().with(lines(log)), speak);
}

type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What listens. All of it is filtered and says which levels it never asks for: otherwise each span of the libraries, which
/// have one for each frame of HTTP/2, is made for nobody.
fn layers(log: &Config, provider: Option<&SdkTracerProvider>) -> Result<Vec<BoxedLayer>, String> {
    let lines = lines(log).with_filter(log.parse_filter()?.and(Discretion)).boxed();
    Ok([Some(lines), provider.map(|provider| traces::layer(provider).boxed())].into_iter().flatten().collect())
}

/// What writes lines to standard error. Nothing is said of a line that could not be written, since it would be said there too.
fn lines(log: &Config) -> BoxedLayer {
    let lines = tracing_subscriber::fmt::layer().with_writer(Lines).log_internal_errors(false);
    match log.format {
        Format::Text => lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        Format::Json => lines.json().boxed(),
    }
}

impl Telemetry {
    /// Sends what is left of the traces, for a bounded time.
    pub async fn end(self) {
        if let Some(provider) = self.traces {
            // It waits as a thread does. That it should panic is no reason to end otherwise than well.
            let _ = tokio::task::spawn_blocking(move || traces::end(&provider)).await;
        }
    }
}

/// What is not in the log whatever its filter says: spans, which are traces; what signs requests to storage, which writes
/// secrets; and the most talkative level of all libraries, which may write whatever crosses a connection.
struct Discretion;

impl Discretion {
    fn permits(metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == "attachd" || target.starts_with("attachd::");
        metadata.is_event() && !target.starts_with("reqsign") && (ours || *metadata.level() <= Level::DEBUG)
    }
}

impl<S> Filter<S> for Discretion {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Discretion::permits(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Discretion::permits(metadata) { Interest::always() } else { Interest::never() }
    }

    /// None that another filter has not: without a word it would be taken to ask for all.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::with_default;

    use super::*;

    #[test]
    fn what_nobody_asks_for_is_not_made() {
        let provider = SdkTracerProvider::builder().build();
        for (filter, traced, level) in [
            ("info", false, LevelFilter::INFO),
            ("info", true, LevelFilter::INFO),
            ("off", false, LevelFilter::OFF),
            ("off", true, LevelFilter::INFO),
            ("warn,attachd=debug", false, LevelFilter::DEBUG),
            ("warn,attachd=debug", true, LevelFilter::DEBUG),
        ] {
            let log = Config { filter: filter.to_owned(), ..Config::default() };
            let subscriber = tracing_subscriber::registry().with(layers(&log, traced.then_some(&provider)).unwrap());
            assert_eq!(tracing::Subscriber::max_level_hint(&subscriber), Some(level), "{filter}, {traced}");
            with_default(subscriber, || {
                assert_eq!(!tracing::info_span!(target: SPANS, "ours").is_none(), traced, "{filter}, {traced}");
                assert!(tracing::info_span!(target: "h2", "of a library").is_none(), "{filter}, {traced}");
            });
        }
    }
}
