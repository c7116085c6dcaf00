//! Traces: what a request spent its time on, sent to a collector over OTLP. Where no collector is configured there are no
//! spans, and what would make one costs a look at a flag. A collector that is slow or gone costs spans and nothing else: they
//! wait in a queue of a bounded length, and a thread of its own sends them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry::{Context, KeyValue, TraceId};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider, SpanData, SpanExporter,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::metrics::Metrics;
use super::words::SPANS;
use crate::{tls, units};

/// How many spans wait to be sent. Past it they are dropped.
const QUEUE: usize = 4096;

/// How many are sent at once.
const BATCH: usize = 512;

/// How long the last ones are waited for at the end of the process.
const FLUSH: Duration = Duration::from_secs(3);

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Nothing that sends traces could be made.
    #[error("traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// The authorities that vouch for the collector cannot be read.
    #[error("traces.ca_file: {0}")]
    Authorities(String),
}

/// Where traces are sent, and which.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The OTLP/gRPC port of a collector, such as `https://otel-collector:4317`. With `http://` it is plain text, and belongs on
    /// this machine or in a network that encrypts. Without it nothing is traced.
    pub endpoint: Option<String>,
    /// A PEM file of the authorities that vouch for a collector with `https://`, in place of those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Which part of the traces that begin here is sent, from 0 to 1. A trace that began elsewhere is sent as it says by the
    /// flag of its `traceparent`. Default 1.
    pub sample_ratio: f64,
    /// The name of the service, `service.name`. Default `attachd`.
    pub service_name: String,
    /// More attributes of the resource, by name, such as `deployment.environment.name`. Default none.
    pub resource: BTreeMap<String, String>,
    /// How long spans are gathered before they are sent, from 10 ms to 60 s. Default 5 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub interval: Duration,
    /// How long the collector may take for one batch, from 100 ms to 60 s. Past it its spans are dropped. Default 10 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            endpoint: None,
            ca_file: None,
            sample_ratio: 1.0,
            service_name: "attachd".to_owned(),
            resource: BTreeMap::new(),
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}

impl Config {
    /// Says what is wrong with it: the key, and why.
    pub fn validate(&self) -> Result<(), (&'static str, String)> {
        if let Some(endpoint) = &self.endpoint
            && ["http://", "https://"].iter().find_map(|scheme| endpoint.strip_prefix(scheme)).is_none_or(str::is_empty)
        {
            return Err((
                "traces.endpoint",
                format!("`{endpoint}` is not an address such as `https://collector:4317`"),
            ));
        }
        if self.ca_file.is_some() && self.authorities().is_none() {
            return Err(("traces.ca_file", "goes with an endpoint that begins with `https://`".to_owned()));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            return Err(("traces.sample_ratio", "must be from 0 to 1".to_owned()));
        }
        if !(Duration::from_millis(10)..=Duration::from_secs(60)).contains(&self.interval) {
            return Err(("traces.interval", "must be from 10ms to 60s".to_owned()));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.timeout) {
            return Err(("traces.timeout", "must be from 100ms to 60s".to_owned()));
        }
        Ok(())
    }

    /// Takes the name of the file as seen from `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        if let Some(file) = &mut self.ca_file {
            *file = folder.join(&*file);
        }
    }

    /// Whose certificates are trusted: a file, or the system. None where the way is plain text.
    fn authorities(&self) -> Option<Option<&Path>> {
        let secure = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("https://"));
        secure.then_some(self.ca_file.as_deref())
    }

    /// What sends spans, if they are to be sent. It must be made within a runtime, which sends for it.
    pub(super) fn exporter(&self) -> Result<Option<opentelemetry_otlp::SpanExporter>, ExportError> {
        let Some(endpoint) = &self.endpoint else {
            return Ok(None);
        };
        let mut builder =
            opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(self.timeout);
        if let Some(file) = self.authorities() {
            builder = builder.with_tls_config(match file {
                None => ClientTlsConfig::new().with_native_roots(),
                Some(file) => {
                    let refusal = |why| ExportError::Authorities(format!("{}: {why}", file.display()));
                    let pem = std::fs::read(file).map_err(|error| refusal(error.to_string()))?;
                    tls::certificates(&pem).map_err(refusal)?;
                    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
                }
            });
        }
        Ok(Some(builder.build()?))
    }

    /// What makes and sends spans, likewise.
    pub(super) fn provider(&self, metrics: &Metrics) -> Result<Option<SdkTracerProvider>, ExportError> {
        let Some(exporter) = self.exporter()? else {
            return Ok(None);
        };
        let exporter = Counted { exporter, metrics: metrics.clone(), fails: AtomicBool::new(false) };
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(self.interval)
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .build();
        let attributes = self.resource.iter().map(|(name, value)| KeyValue::new(name.clone(), value.clone()));
        let resource = Resource::builder_empty()
            .with_attribute(KeyValue::new("service.name", self.service_name.clone()))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attributes(attributes)
            .build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batches).build())
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.sample_ratio))))
            .with_resource(resource)
            .build();
        Ok(Some(provider))
    }
}

/// The layer that makes traces of spans.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("attachd"))
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false)
        .with_tracked_inactivity(false)
        .with_filter(
            filter_fn(|metadata: &Metadata<'_>| metadata.is_span() && metadata.target() == SPANS)
                .with_max_level_hint(LevelFilter::INFO),
        )
}

/// Sends what is left.
pub(super) fn end(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
        tracing::warn!(%error, "the last spans could not be sent");
    }
}

/// An exporter that counts, and says once when it begins to fail and once when it succeeds again.
struct Counted {
    exporter: opentelemetry_otlp::SpanExporter,
    metrics: Metrics,
    fails: AtomicBool,
}

impl fmt::Debug for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counted")
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        self.metrics.traced(sent.is_ok(), count);
        match &sent {
            Ok(()) if self.fails.swap(false, Ordering::Relaxed) => tracing::info!("spans are sent again"),
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "spans cannot be sent, and are dropped until they can");
            }
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Where a caller says which trace its request belongs to (W3C Trace Context): a header by its name.
pub struct TraceHeaders<'a>(pub &'a dyn Fn(&str) -> Option<&'a str>);

impl Extractor for TraceHeaders<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (self.0)(key).filter(|value| key != "traceparent" || is_well_formed(value))
    }

    fn keys(&self) -> Vec<&str> {
        // Nothing that is read looks at them.
        Vec::new()
    }
}

/// Whether the fields of a `traceparent` are as long as W3C Trace Context §3.2.2 says. The library takes shorter ones for
/// numbers, and would put an id into our log that the caller's does not have.
fn is_well_formed(traceparent: &str) -> bool {
    let mut fields = traceparent.split('-').map(str::len);
    [2, 32, 16, 2].into_iter().all(|length| fields.next() == Some(length))
}

/// Joins a span to the trace of the caller, if it names one, and returns the id of the trace: the caller's also where nothing
/// is traced here, so that its log and ours are found together.
pub(super) fn join(span: &Span, caller: &TraceHeaders<'_>) -> Option<TraceId> {
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), caller);
    let theirs = parent.span().span_context().clone();
    if !span.is_disabled() {
        // It fails for a span that has begun, which this one has not.
        let _ = span.set_parent(parent);
    }
    let ours = span.context().span().span_context().clone();
    [ours, theirs].into_iter().find(|context| context.is_valid()).map(|context| context.trace_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_of_each_key_hold() {
        let config = |change: &dyn Fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.validate().map_err(|(key, _)| key)
        };
        for (ratio, holds) in [(0.0, true), (1.0, true), (-0.01, false), (1.01, false), (f64::NAN, false)] {
            assert_eq!(config(&|config| config.sample_ratio = ratio).is_ok(), holds, "{ratio}");
        }
        for (millis, holds) in [(99, false), (100, true), (101, true), (60_000, true), (60_001, false)] {
            assert_eq!(config(&|config| config.timeout = Duration::from_millis(millis)).is_ok(), holds, "{millis}");
        }
        for (millis, holds) in [(9, false), (10, true), (11, true), (60_000, true), (60_001, false)] {
            assert_eq!(config(&|config| config.interval = Duration::from_millis(millis)).is_ok(), holds, "{millis}");
        }
        for (endpoint, holds) in
            [("http://a:1", true), ("https://a:1", true), ("ftp://a:1", false), ("a:1", false), ("http://", false)]
        {
            assert_eq!(config(&|config| config.endpoint = Some(endpoint.to_owned())).is_ok(), holds, "{endpoint}");
        }
        for (endpoint, holds) in [(Some("https://a:1"), true), (Some("http://a:1"), false), (None, false)] {
            let with_file = config(&|config| {
                config.endpoint = endpoint.map(str::to_owned);
                config.ca_file = Some("ca.pem".into());
            });
            assert_eq!(with_file, if holds { Ok(()) } else { Err("traces.ca_file") }, "{endpoint:?}");
        }
    }

    #[test]
    fn authorities_that_are_not_there_or_are_none_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty.pem");
        std::fs::write(&empty, "").unwrap();
        for (file, why) in [(empty, "holds no certificate in PEM"), (folder.path().join("none"), "No such file")] {
            let endpoint = Some("https://localhost:4317".to_owned());
            let config = Config { endpoint, ca_file: Some(file.clone()), ..Config::default() };
            let error = config.provider(&Metrics::default()).map(drop).unwrap_err().to_string();
            assert!(error.starts_with(&format!("traces.ca_file: {}: ", file.display())), "{error}");
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn the_trace_of_a_caller_is_known_where_nothing_is_traced_and_a_broken_one_is_none() {
        let id = |header: &'static str| {
            let get = move |name: &str| (name == "traceparent").then_some(header);
            join(&Span::none(), &TraceHeaders(&get)).map(|id| id.to_string())
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(id("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(), Some(trace));
        for broken in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "secret",
        ] {
            assert_eq!(id(broken), None, "{broken}");
        }
    }
}
