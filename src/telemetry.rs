//! What attachd says of itself: the log, and in the modules below what is told of a request when it ends, and the metrics.
//! It knows what requests and storage operations are, and not what they are for.

use std::io;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::Metadata;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterFn, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

mod catalogue;
mod exposition;
mod metrics;
mod process;
mod request;
mod textfile;

pub use catalogue::markdown as metrics_reference;
pub use exposition::{Exposition, KeySet, Snapshot};
pub use metrics::{Metrics, Operation, Outcome, Port, Rejection, Timing};
pub use process::memory_limit;
pub use request::{Door, Exit, Method, REQUEST_ID, RequestId, Trail};
pub use textfile::TextFile;

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
        Format::Text => {
            log.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).finish().with(without_secrets()).try_init()
        }
        Format::Json => log.json().finish().with(without_secrets()).try_init(),
    };
    Ok(())
}

/// Keeps the library that signs requests to storage out of the log, whatever the filter says: it writes the keys.
fn without_secrets() -> FilterFn {
    fn speaks(metadata: &Metadata<'_>) -> bool {
        !metadata.target().starts_with("reqsign")
    }
    filter_fn(speaks)
}
