//! How the numbers are asked for: every metric with its name and its meaning, in the two text formats that Prometheus reads,
//! and as the reference that docs/metrics.md is. What is read from other parts at that moment is handed in as plain numbers,
//! so this module knows none of them.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Metric, Registry, Unit};

use super::catalogue::{CATALOGUE, Entry, Kind, WALKS};
use super::metrics::Metrics;
use super::process;

/// The media type of OpenMetrics.
pub const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What other parts of the process count or hold, at the moment of asking.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The memory budget, in bytes.
    pub budget_bytes: usize,
    /// Bytes of it that are taken.
    pub budget_used_bytes: usize,
    /// Uploads that wait for memory.
    pub budget_waiting: u64,
    /// How often an upload had to wait for memory.
    pub budget_waits: u64,
    /// How many uploads were refused since too many waited.
    pub budget_refused: u64,
    /// Downloads that are under way.
    pub downloads_in_flight: usize,
    /// The memory of downloads, in bytes.
    pub download_budget_bytes: usize,
    /// Bytes of it that are taken.
    pub download_budget_used_bytes: usize,
    /// Uploads that are begun and neither committed nor taken back.
    pub uploads_in_flight: usize,
    /// Storage operations that go on past their time.
    pub late_operations: usize,
    /// Bytes that are free in the storage, where it has an end.
    pub storage_free_bytes: Option<u64>,
    /// Inodes that are free in the storage, where it has a fixed number of them.
    pub storage_free_inodes: Option<u64>,
    /// How many wait in each queue and how many are at work, by its name.
    pub queues: Vec<(&'static str, usize, usize)>,
    /// Whether the process was told to end.
    pub draining: bool,
    /// Tokens whose signatures were verified.
    pub tokens_verified: u64,
    /// Tokens that were remembered from another request.
    pub tokens_remembered: u64,
    /// The keys of each issuer.
    pub key_sets: Vec<KeySet>,
}

/// The keys of an issuer.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// The issuer, as it is configured.
    pub issuer: String,
    /// Whether its tokens can be judged.
    pub usable: bool,
    /// When the keys were last found to be the right ones, if ever.
    pub confirmed: Option<SystemTime>,
    /// How often they were asked for.
    pub attempts: u64,
    /// How often that failed.
    pub failures: u64,
    /// How many there are.
    pub keys: usize,
}

/// All metrics of a process, ready to be asked for.
#[derive(Debug)]
pub struct Exposition(Registry);

impl Exposition {
    /// What `metrics` counts, and what `read` says at the moment of asking.
    pub fn new(metrics: &Metrics, read: impl Fn() -> Snapshot + Send + Sync + 'static) -> Exposition {
        let mut registry = Registry::default();
        let all = &metrics.0;
        register(&mut registry, "attachd_requests_total", all.requests.clone());
        register(&mut registry, "attachd_request_duration_seconds", all.request_seconds.clone());
        register(&mut registry, "attachd_requests_in_flight", all.requests_in_flight.clone());
        register(&mut registry, "attachd_upload_received_bytes_total", all.received_bytes.clone());
        register(&mut registry, "attachd_upload_size_bytes", all.sizes.clone());
        register(&mut registry, "attachd_download_sent_bytes_total", all.sent_bytes.clone());
        register(&mut registry, "attachd_damaged_reads_total", all.damaged.clone());
        register(&mut registry, "attachd_commit_duration_seconds", all.commit_seconds.clone());
        register(&mut registry, "attachd_storage_operations_total", all.operations.clone());
        register(&mut registry, "attachd_storage_operation_duration_seconds", all.operation_seconds.clone());
        register(&mut registry, "attachd_authentications_total", all.authentications.clone());
        register(&mut registry, "attachd_connections_accepted_total", all.accepted.clone());
        register(&mut registry, "attachd_connections_open", all.open.clone());
        register(&mut registry, "attachd_connections_refused_total", all.refused.clone());
        register(&mut registry, "attachd_connections_evicted_total", all.evicted.clone());
        register(&mut registry, "attachd_heads_refused_total", all.heads_refused.clone());
        register(&mut registry, "attachd_trace_spans_total", all.spans.clone());
        register(&mut registry, "attachd_log_bytes_total", all.log_bytes.clone());
        register(&mut registry, "attachd_log_dropped_lines_total", all.log_dropped.clone());
        register(&mut registry, "attachd_limited_total", all.limited.clone());
        registry.register_collector(Box::new(Reading(Arc::new(read))));
        Exposition(registry)
    }

    /// The metrics, in the format that the values of the request header `Accept` prefer, and the format's media type.
    pub fn encode(&self, accept: &str) -> Result<(&'static str, String), fmt::Error> {
        let mut body = String::new();
        if prefers_open_metrics(accept) {
            text::encode(&mut body, &self.0)?;
            Ok((OPEN_METRICS, body))
        } else {
            prometheus_text::encode(&mut body, &self.0)?;
            Ok((prometheus_text::CONTENT_TYPE, body))
        }
    }
}

/// Whether OpenMetrics is asked for, and not less than plain text (RFC 9110 §12.5.1).
fn prefers_open_metrics(accept: &str) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        match name.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => open = open.max(quality),
            "text/plain" | "text/*" => plain = plain.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// A name without what the formats add by themselves, and its unit.
fn parts(entry: &Entry) -> (&'static str, Option<Unit>) {
    let name = entry.name.strip_suffix("_total").unwrap_or(entry.name);
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let unit = units.into_iter().find_map(|(suffix, unit)| Some((name.strip_suffix(suffix)?, Some(unit))));
    unit.unwrap_or((name, None))
}

/// What the catalogue says of a name. One that it does not have is a defect that a test finds.
fn entry(name: &'static str) -> Entry {
    let known = CATALOGUE.iter().chain(WALKS).find(|entry| entry.name == name).copied();
    known.unwrap_or(Entry { name, kind: Kind::Gauge, labels: &[], help: "" })
}

pub(super) fn register(registry: &mut Registry, name: &'static str, metric: impl Metric) {
    let entry = entry(name);
    let help = entry.help.trim_end_matches('.');
    match parts(&entry) {
        (name, Some(unit)) => registry.register_with_unit(name, help, unit, metric),
        (name, None) => registry.register(name, help, metric),
    }
}

/// What is read at the moment of asking.
struct Reading(Arc<dyn Fn() -> Snapshot + Send + Sync>);

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reading")
    }
}

impl Collector for Reading {
    #[expect(clippy::cast_precision_loss, reason = "2^53 bytes are more than any of these numbers")]
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = (self.0)();
        let mut out = Out(encoder);
        out.one("attachd_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0)?;
        out.one("attachd_draining", &[], f64::from(u8::from(read.draining)))?;
        out.one("attachd_uploads_in_flight", &[], read.uploads_in_flight as f64)?;
        out.one("attachd_downloads_in_flight", &[], read.downloads_in_flight as f64)?;
        out.one("attachd_download_budget_bytes", &[], read.download_budget_bytes as f64)?;
        out.one("attachd_download_budget_used_bytes", &[], read.download_budget_used_bytes as f64)?;
        out.one("attachd_memory_budget_bytes", &[], read.budget_bytes as f64)?;
        out.one("attachd_memory_budget_used_bytes", &[], read.budget_used_bytes as f64)?;
        out.one("attachd_memory_budget_waiting_uploads", &[], read.budget_waiting as f64)?;
        out.one("attachd_memory_budget_waits_total", &[], read.budget_waits as f64)?;
        out.one("attachd_memory_budget_refused_total", &[], read.budget_refused as f64)?;
        out.one("attachd_storage_late_operations", &[], read.late_operations as f64)?;
        let of = |name: &str, count: usize| (vec![("queue", name.to_owned())], count as f64);
        let queues = &read.queues;
        out.all("attachd_queue_waiting", queues.iter().map(|(name, waiting, _)| of(name, *waiting)))?;
        out.all("attachd_queue_active", queues.iter().map(|(name, _, active)| of(name, *active)))?;
        let free = [
            ("attachd_storage_free_bytes", read.storage_free_bytes),
            ("attachd_storage_free_inodes", read.storage_free_inodes),
        ];
        for (name, free) in free {
            out.all(name, free.into_iter().map(|free| (Vec::new(), free as f64)))?;
        }
        let sets = &read.key_sets;
        let by_issuer = |set: &KeySet, value: f64| (vec![("issuer", set.issuer.clone())], value);
        let confirmed = sets.iter().filter_map(|set| {
            let since = set.confirmed?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(by_issuer(set, since.as_secs_f64()))
        });
        out.all("attachd_jwks_last_success_timestamp_seconds", confirmed)?;
        let fetches = sets.iter().flat_map(|set| {
            [("ok", set.attempts.saturating_sub(set.failures)), ("failed", set.failures)].map(|(outcome, count)| {
                (vec![("issuer", set.issuer.clone()), ("outcome", outcome.to_owned())], count as f64)
            })
        });
        out.all("attachd_jwks_fetches_total", fetches)?;
        out.all("attachd_jwks_keys", sets.iter().map(|set| by_issuer(set, set.keys as f64)))?;
        out.all("attachd_jwks_usable", sets.iter().map(|set| by_issuer(set, f64::from(u8::from(set.usable)))))?;
        let how = [("verified", read.tokens_verified), ("remembered", read.tokens_remembered)];
        out.all(
            "attachd_token_checks_total",
            how.iter().map(|(how, count)| (vec![("how", (*how).to_owned())], *count as f64)),
        )?;
        for (name, value) in process::read() {
            out.one(name, &[], value)?;
        }
        Ok(())
    }
}

/// Writes single values under names of the catalogue.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn one(&mut self, name: &'static str, labels: &[(&'static str, &str)], value: f64) -> fmt::Result {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.all(name, std::iter::once((labels, value)))
    }

    fn all(
        &mut self,
        name: &'static str,
        values: impl Iterator<Item = (Vec<(&'static str, String)>, f64)>,
    ) -> fmt::Result {
        let entry = entry(name);
        let (short, unit) = parts(&entry);
        let kind = if entry.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
        let help = format!("{}.", entry.help.trim_end_matches('.'));
        let mut values = values.peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut encoder = self.0.encode_descriptor(short, &help, unit.as_ref(), kind)?;
        for (labels, value) in values {
            let series = encoder.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(series)?,
                _ => ConstGauge::new(value).encode(series)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::super::labels::{Operation, Outcome, Port, Rejection};
    use super::super::metrics::End;
    use super::super::words::{Method, Protocol};
    use super::*;
    use crate::error;
    use crate::operation::Rpc;

    /// All that there is, of a process in which everything has happened.
    fn busy() -> Exposition {
        let metrics = Metrics::default();
        metrics.begun(Protocol::Rest);
        metrics.ended(Protocol::Rest, Method::Rpc(Rpc::UploadAttachment), End::Served, Duration::from_millis(3));
        metrics.stored(Protocol::Rest, 5);
        metrics.committed(Some(error::Kind::Internal), Duration::from_millis(2));
        metrics.authenticated(None);
        metrics.operation(Operation::Write).end(Outcome::Ok);
        drop(metrics.operation(Operation::Close));
        metrics.refused(Port::Grpc, Rejection::Tls);
        drop(metrics.connected(Port::Admin));
        let key_set = |issuer: &str, confirmed| KeySet {
            issuer: issuer.to_owned(),
            usable: true,
            confirmed,
            attempts: 3,
            failures: 1,
            keys: 3,
        };
        let key_sets = vec![key_set("https://a", Some(SystemTime::UNIX_EPOCH)), key_set("say \"b\"\n", None)];
        Exposition::new(&metrics, move || Snapshot {
            draining: true,
            storage_free_bytes: Some(1 << 30),
            queues: vec![("processors", 3, 2)],
            storage_free_inodes: Some(1 << 20),
            key_sets: key_sets.clone(),
            ..Snapshot::default()
        })
    }

    /// The series of a text, each without its value.
    fn series(text: &str) -> Vec<(&str, &str)> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let series = lines.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series);
        series.map(|series| series.split_once('{').unwrap_or((series, ""))).collect()
    }

    #[test]
    fn the_catalogue_has_every_metric_and_no_other_with_its_labels() {
        let (_, text) = busy().encode("").unwrap();
        let base = |name: &str| {
            let entry = CATALOGUE.iter().find(|entry| {
                let rest = name.strip_prefix(entry.name);
                rest == Some("")
                    || entry.kind == Kind::Histogram
                        && rest.is_some_and(|rest| ["_bucket", "_sum", "_count"].contains(&rest))
            });
            entry.unwrap_or_else(|| panic!("{name} is not in the catalogue"))
        };
        let mut seen = BTreeSet::new();
        for (name, labels) in series(&text) {
            let entry = base(name);
            seen.insert(entry.name);
            let labels: Vec<_> = labels.split("=\"").filter_map(|label| label.rsplit([',', '{', ' ']).next()).collect();
            let labels =
                labels.iter().filter(|label| !label.is_empty() && !label.contains(['}', '"']) && **label != "le");
            for label in labels {
                assert!(entry.labels.iter().any(|(known, _)| known == label), "{name} has the label {label}");
            }
        }
        let all: BTreeSet<_> = CATALOGUE.iter().map(|entry| entry.name).collect();
        assert_eq!(seen, all);
        for entry in CATALOGUE.iter().chain(WALKS) {
            assert!(entry.help.ends_with('.'), "{}", entry.name);
            assert_eq!(entry.kind == Kind::Counter, entry.name.ends_with("_total"), "{}", entry.name);
        }
    }

    #[test]
    fn both_formats_say_the_same_in_their_own_way() {
        let exposition = busy();
        let (plain_type, plain) = exposition.encode("text/plain").unwrap();
        let (open_type, open) = exposition.encode("application/openmetrics-text;version=1.0.0").unwrap();
        assert!(plain_type.starts_with("text/plain; version=0.0.4") && open_type == OPEN_METRICS);
        assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF"));
        assert!(plain.contains("# TYPE attachd_requests_total counter\n"), "{plain}");
        assert!(open.contains("# TYPE attachd_requests counter\n"), "{open}");
        assert!(open.contains("# UNIT attachd_request_duration_seconds seconds\n"), "{open}");
        // Labels may stand in any order, a number may be written in several ways, and the process goes on between the two.
        let stable = |text: &str| -> Vec<(String, f64)> {
            let number = |text: &str| text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| number.to_string());
            let lines = text.lines().filter(|line| line.starts_with("attachd_"));
            let mut said: Vec<_> = lines
                .map(|line| {
                    let (series, value) = line.rsplit_once(' ').unwrap();
                    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                    let mut labels: Vec<_> = labels.trim_end_matches('}').split("\",").map(str::to_owned).collect();
                    for label in &mut labels {
                        if let Some(le) = label.strip_prefix("le=\"") {
                            *label = format!("le=\"{}", number(le.trim_end_matches('"')));
                        }
                        *label = label.trim_end_matches('"').to_owned();
                    }
                    labels.sort();
                    (format!("{name}{labels:?}"), value.parse().unwrap())
                })
                .collect();
            said.sort_by(|one, other| one.0.cmp(&other.0));
            said
        };
        assert_eq!(stable(&plain), stable(&open));
    }

    #[test]
    fn what_is_counted_is_said() {
        let (_, text) = busy().encode("").unwrap();
        for line in [
            "attachd_requests_total{door=\"rest\",method=\"UploadAttachment\",outcome=\"OK\"} 1",
            "attachd_requests_total{door=\"grpc\",method=\"UploadAttachment\",outcome=\"INTERNAL\"} 0",
            "attachd_requests_in_flight{door=\"rest\"} 0",
            "attachd_storage_operations_total{operation=\"write\",outcome=\"ok\"} 1",
            "attachd_storage_operations_total{operation=\"close\",outcome=\"abandoned\"} 1",
            "attachd_connections_refused_total{port=\"grpc\",reason=\"tls\"} 1",
            "attachd_connections_open{port=\"admin\"} 0",
            "attachd_connections_accepted_total{port=\"admin\"} 1",
            "attachd_commit_duration_seconds_count{result=\"failed\"} 1",
            "attachd_upload_size_bytes_bucket{door=\"rest\",le=\"1024\"} 1",
            "attachd_jwks_keys{issuer=\"say \\\"b\\\"\\n\"} 3",
        ] {
            assert!(text.lines().any(|said| said == line || said == format!("{line}.0")), "{line}\n{text}");
        }
    }

    #[test]
    fn the_format_that_is_preferred_is_sent() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        assert!(prefers_open_metrics(prometheus));
        assert!(prefers_open_metrics("Application/OpenMetrics-Text"));
        assert!(prefers_open_metrics("text/plain;q=0.4, application/openmetrics-text; q=0.4"));
        assert!(!prefers_open_metrics("text/plain;q=0.5,application/openmetrics-text;q=0.4"));
        assert!(!prefers_open_metrics("application/openmetrics-text;q=0"));
        assert!(!prefers_open_metrics("*/*"));
        assert!(!prefers_open_metrics(""));
    }
}
