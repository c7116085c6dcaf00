//! Every metric by name: what it says, in which unit, and which values its labels have. It is what the HELP lines and
//! docs/metrics.md are made of; a metric that is not here, or that is here and nowhere else, fails a test.

use std::fmt::Write as _;

use crate::operation::{names_over_grpc_only, names_over_rest};
use Kind::{Counter, Gauge, Histogram};

/// What a metric does over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only rises, until the process ends.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It counts by size, in `_bucket`, `_sum` and `_count`.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name, as it is asked for.
    pub name: &'static str,
    /// What it does over time.
    pub kind: Kind,
    /// Its labels, each with its values.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it says.
    pub help: &'static str,
}

const DOOR: (&str, &str) = ("door", "rest, grpc");
const PORT: (&str, &str) = ("port", "rest, grpc, admin");
const METHOD: (&str, &str) = (
    "method",
    concat!(
        names_over_rest!(),
        ", other (no such route or method, or a preflight); gRPC only: ",
        names_over_grpc_only!(),
        ", Health, ServerReflection"
    ),
);
const OPERATION: (&str, &str) = (
    "operation",
    "stat, read, list, write, close, abort, delete; on a local file system put (of a record), commit (of a content, with its record)",
);
const QUEUE: (&str, &str) = (
    "queue",
    "processors (turns of requests, while several clients ask), download_memory, and with the service `fs` \
     commit_threads, read_threads",
);
const ISSUER: (&str, &str) = ("issuer", "the issuers of the configuration");

const fn entry(
    name: &'static str,
    kind: Kind,
    labels: &'static [(&'static str, &'static str)],
    help: &'static str,
) -> Entry {
    Entry { name, kind, labels, help }
}

/// What `/metrics` serves.
pub const CATALOGUE: &[Entry] = &[
    entry("attachd_build_info", Gauge, &[("version", "the version")], "Always 1. The version is the label."),
    entry("attachd_draining", Gauge, &[], "1 once the process was told to end, else 0."),
    // Requests.
    entry(
        "attachd_requests_total",
        Counter,
        &[DOOR, METHOD, ("outcome", "OK, CLIENT_GONE, or the reason of the table of errors")],
        "Requests that ended, by how.",
    ),
    entry(
        "attachd_request_duration_seconds",
        Histogram,
        &[DOOR, METHOD, ("result", "ok, refused (4xx), failed (5xx), gone (the client went away)")],
        "How long requests took, from their headers to the reply, or to the last byte of a download. It includes the time \
         that the client took to send or to receive.",
    ),
    entry("attachd_requests_in_flight", Gauge, &[DOOR], "Requests that have begun and not ended."),
    // Uploads.
    entry("attachd_uploads_in_flight", Gauge, &[], "Uploads that have begun and are neither committed nor taken back."),
    entry(
        "attachd_upload_received_bytes_total",
        Counter,
        &[DOOR],
        "Bytes of content that arrived, whether they were stored in the end or not.",
    ),
    entry(
        "attachd_upload_size_bytes",
        Histogram,
        &[DOOR],
        "Sizes of the files that were stored. The sum is the number of bytes stored.",
    ),
    entry(
        "attachd_commit_duration_seconds",
        Histogram,
        &[("result", "ok, refused (the attachment is not as it was when the upload began), failed")],
        "How long commits took: from the closing of the content to the durable record.",
    ),
    // Downloads.
    entry("attachd_downloads_in_flight", Gauge, &[], "Downloads that have begun and not ended."),
    entry(
        "attachd_download_sent_bytes_total",
        Counter,
        &[DOOR],
        "Bytes of content that were handed to connections, whether the download came to its end or not.",
    ),
    entry(
        "attachd_damaged_reads_total",
        Counter,
        &[],
        "Reads that ended since the stored bytes are not what the record says. The log names the object.",
    ),
    entry(
        "attachd_download_budget_bytes",
        Gauge,
        &[],
        "What all downloads together may hold: `limits.download_budget`.",
    ),
    entry("attachd_download_budget_used_bytes", Gauge, &[], "What they hold."),
    // Memory.
    entry(
        "attachd_memory_budget_bytes",
        Gauge,
        &[],
        "What all upload buffers together may hold: `limits.memory_budget`, of which the service `fs` takes 8 MiB at most.",
    ),
    entry("attachd_memory_budget_used_bytes", Gauge, &[], "What they hold."),
    entry("attachd_memory_budget_waiting_uploads", Gauge, &[], "Uploads that wait for memory."),
    entry("attachd_memory_budget_waits_total", Counter, &[], "How often an upload had to wait for memory."),
    entry(
        "attachd_memory_budget_refused_total",
        Counter,
        &[],
        "Uploads that were refused since `limits.max_waiting_uploads` waited for memory, or since none that \
         waited got any for `storage.timeout`.",
    ),
    // Storage.
    entry(
        "attachd_storage_operations_total",
        Counter,
        &[
            OPERATION,
            (
                "outcome",
                "ok; not_found, condition (both may be what was asked for); rate_limited, denied, unavailable (may be \
                 tried again), failed; abandoned (its time had passed)",
            ),
        ],
        "Operations that were sent to the storage, each try of its own.",
    ),
    entry(
        "attachd_storage_operation_duration_seconds",
        Histogram,
        &[OPERATION],
        "How long they took, however they ended.",
    ),
    entry(
        "attachd_storage_late_operations",
        Gauge,
        &[],
        "Operations that nobody waits for: those that go on past `storage.timeout` or after their caller went away, and those that tidy up.",
    ),
    entry(
        "attachd_storage_free_bytes",
        Gauge,
        &[],
        "Bytes that are free on the file system of the storage, when it was last asked. Service `fs` only.",
    ),
    entry(
        "attachd_storage_free_inodes",
        Gauge,
        &[],
        "Inodes that are free there. Absent if the file system has no fixed number of them.",
    ),
    // Queues.
    entry("attachd_queue_waiting", Gauge, &[QUEUE], "How many wait in each of the queues in which clients take turns."),
    entry(
        "attachd_queue_active",
        Gauge,
        &[QUEUE],
        "How many have left the queue and are at work: turns that are taken, uploads and downloads that are under way, work on threads.",
    ),
    // Limits.
    entry(
        "attachd_limited_total",
        Counter,
        &[(
            "limit",
            "storage.min_free, limits.max_uploads, limits.max_downloads, limits.max_waiting_uploads, \
             limits.max_drains, limits.drain_bytes_per_second, limits.refusals_per_second, and those of limits.per_client",
        )],
        "Requests that were refused by a limit, by its configuration key, or refused before and, because of it, not read to their end or \
         not answered at once. Limits of connections have counters of their own.",
    ),
    // Tokens.
    entry(
        "attachd_authentications_total",
        Counter,
        &[("outcome", "OK, TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, KEYS_UNAVAILABLE")],
        "Requests by what became of their token, or of their client certificate where there is none.",
    ),
    entry(
        "attachd_jwks_last_success_timestamp_seconds",
        Gauge,
        &[ISSUER],
        "When the keys of an issuer were last found to be the right ones, by its provider or in their file, in seconds since 1970. Absent until then.",
    ),
    entry(
        "attachd_jwks_fetches_total",
        Counter,
        &[ISSUER, ("outcome", "ok, failed")],
        "How often they were asked for.",
    ),
    entry("attachd_jwks_keys", Gauge, &[ISSUER], "How many there are."),
    entry(
        "attachd_jwks_usable",
        Gauge,
        &[ISSUER],
        "1 where the tokens of the issuer can be judged, 0 where they are answered 503.",
    ),
    entry(
        "attachd_token_checks_total",
        Counter,
        &[("how", "verified (by their signature), remembered (from another request)")],
        "Tokens that were checked.",
    ),
    // Connections.
    entry("attachd_connections_accepted_total", Counter, &[PORT], "Connections that were accepted."),
    entry("attachd_connections_open", Gauge, &[PORT], "Connections that are open."),
    entry(
        "attachd_connections_refused_total",
        Counter,
        &[
            PORT,
            (
                "reason",
                "tls (the handshake failed), silent (it said nothing in time), address (its address had \
                 `limits.max_connections_per_address`)",
            ),
        ],
        "Connections that were closed before they had asked for anything.",
    ),
    entry(
        "attachd_connections_evicted_total",
        Counter,
        &[
            PORT,
            (
                "state",
                "silent (nothing was requested yet), handshaking (the TLS handshake was not complete), idle (no request was \
                 in progress; over HTTP/2 also for `limits.idle_timeout`), stalled (the client took nothing; for \
                 `limits.write_timeout`, or less), flooding (too many HTTP/2 frames for what they carried)",
            ),
        ],
        "Connections that were closed to make room for others, or because their client did nothing.",
    ),
    entry(
        "attachd_heads_refused_total",
        Counter,
        &[
            PORT,
            (
                "cause",
                "method, target, version, header (a malformed line), length (Content-Length), encoding (Transfer-Encoding), \
                 large (more than 64 KiB or 100 headers), slow (not complete within `limits.idle_timeout`), http2 (the \
                 connection broke the protocol)",
            ),
        ],
        "Request heads that could not be read. Their connections were closed.",
    ),
    // The log.
    entry("attachd_log_bytes_total", Counter, &[], "Bytes of log lines that were taken to be written."),
    entry(
        "attachd_log_dropped_lines_total",
        Counter,
        &[(
            "kind",
            "audit, request, other: the queue was full, since the reader of standard error did not keep up, or standard error \
             could not be written; refusal: a request was \
             refused, and `log.refusals_per_second` was exceeded",
        )],
        "Log lines that were not written.",
    ),
    // Traces.
    entry(
        "attachd_trace_spans_total",
        Counter,
        &[("outcome", "exported, failed (the collector did not take them)")],
        "Spans of traces, by what became of them.",
    ),
    // The process, by the names that all programs use.
    entry("process_cpu_seconds_total", Counter, &[], "Processor time that the process has used."),
    entry("process_resident_memory_bytes", Gauge, &[], "Memory that the process holds."),
    entry("process_virtual_memory_bytes", Gauge, &[], "Address space that the process holds."),
    entry("process_open_fds", Gauge, &[], "File descriptors that are open."),
    entry("process_max_fds", Gauge, &[], "File descriptors that may be open."),
    entry("process_threads", Gauge, &[], "Threads of the process."),
    entry("process_start_time_seconds", Gauge, &[], "When the process began, in seconds since 1970."),
];

/// What `attachd gc` and `attachd verify` write with `--metrics-file`, each under its own name.
pub const WALKS: &[Entry] = &[
    entry("attachd_gc_last_run_timestamp_seconds", Gauge, &[], "When the last run ended, in seconds since 1970."),
    entry("attachd_gc_duration_seconds", Gauge, &[], "How long it took."),
    entry("attachd_gc_complete", Gauge, &[], "1 if it came to its end, 0 if it was stopped."),
    entry("attachd_gc_attachments", Gauge, &[], "Attachments that it looked at."),
    entry("attachd_gc_objects", Gauge, &[], "Objects that it looked at."),
    entry("attachd_gc_garbage_objects", Gauge, &[], "Objects past the grace that no record names."),
    entry("attachd_gc_garbage_bytes", Gauge, &[], "Their size, where the storage told it."),
    entry(
        "attachd_gc_deleted_attachments",
        Gauge,
        &[],
        "Deleted attachments past the grace of which something was kept.",
    ),
    entry("attachd_gc_deletes", Gauge, &[], "1 if it deleted them, 0 if it only looked."),
    entry("attachd_gc_errors", Gauge, &[], "What could not be looked at or deleted."),
    entry("attachd_verify_last_run_timestamp_seconds", Gauge, &[], "When the last run ended, in seconds since 1970."),
    entry("attachd_verify_duration_seconds", Gauge, &[], "How long it took."),
    entry("attachd_verify_complete", Gauge, &[], "1 if it came to its end, 0 if it was stopped."),
    entry("attachd_verify_attachments", Gauge, &[], "Attachments that it read back."),
    entry("attachd_verify_bytes", Gauge, &[], "Bytes that it read back."),
    entry(
        "attachd_verify_findings",
        Gauge,
        &[("finding", "missing, damaged, unreadable, orphaned, failed, link")],
        "What is not as it should be.",
    ),
];

/// The reference, in Markdown.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    table(&mut text, CATALOGUE);
    text.push_str(WALK);
    table(&mut text, WALKS);
    text
}

const HEAD: &str = "# Metrics
<!-- Made from the code by `attachd reference metrics`. -->
The admin port serves them at `/metrics`: in OpenMetrics 1.0 where the scraper asks for it (`Accept:
application/openmetrics-text`), else in the Prometheus text format. Times are in seconds, sizes in bytes. The values of labels
are words of the program and of its configuration; nothing that a caller sends becomes one. Every counter is there from the
start, at 0.

";

const WALK: &str = "
## Of `attachd gc` and `attachd verify`
These are commands that end, so nothing can scrape them. With `--metrics-file FILE` they write what follows when they end, in
one step, for the textfile collector of the Prometheus node exporter. Where they run as a CronJob of Kubernetes, the metrics of
kube-state-metrics on the CronJob say whether they succeed.

";

fn table(text: &mut String, entries: &[Entry]) {
    text.push_str("| name | type | labels | meaning |\n|---|---|---|---|\n");
    for Entry { name, kind, labels, help } in entries {
        let labels: Vec<_> = labels.iter().map(|(label, values)| format!("`{label}`: {values}")).collect();
        let kind = match kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        };
        let _ = writeln!(text, "| `{name}` | {kind} | {} | {help} |", labels.join("<br>"));
    }
}
