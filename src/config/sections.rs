//! The tables and keys of the configuration as types, with their defaults. Each part owns its own `Config`; this file is their
//! sum. It must not know how they are read.

use std::net::SocketAddr;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::address;
use crate::edge::drains;
use crate::origin::Network;
use crate::store::Sizing;
use crate::{auth, budget, edge, reads, rest, store, telemetry, throttle, tls, units, upload};

/// All that `attachd serve` is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The REST port. Default `0.0.0.0:8080`.
    #[serde(default)]
    pub rest: Rest,
    /// The gRPC port. Default `0.0.0.0:50051`.
    #[serde(default)]
    pub grpc: Grpc,
    /// The admin port. Default `0.0.0.0:9090`.
    #[serde(default)]
    pub admin: Listen,
    /// Where the bytes go.
    pub storage: store::Config,
    /// What becomes of unknown, deleted and replaced attachments.
    #[serde(default)]
    pub attachments: Attachments,
    /// How downloads over REST are answered.
    #[serde(default)]
    pub download: rest::DownloadConfig,
    /// Sizes and times.
    #[serde(default)]
    pub limits: Limits,
    /// Whose tokens are accepted.
    pub auth: auth::Config,
    /// How the log is written.
    #[serde(default)]
    pub log: telemetry::Config,
    /// Where traces are sent, and which.
    #[serde(default)]
    pub traces: telemetry::TracesConfig,
    /// How the process ends.
    #[serde(default)]
    pub shutdown: Shutdown,
}

/// The REST port.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Rest {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    #[serde(deserialize_with = "address::read")]
    pub listen: SocketAddr,
    /// The certificate. Without it the port speaks plain text.
    pub tls: Option<tls::Config>,
    /// The proxies whose `X-Forwarded-For` is believed, in the audit trail and nowhere else: networks or addresses. The last
    /// address in it that is none of theirs is where a request comes from. `limits.max_connections_per_address` does not apply to
    /// them. Default none: it is the address of the connection.
    pub trusted_proxies: Vec<Network>,
    /// Which pages may call the port from a browser.
    pub cors: edge::cors::Config,
    /// Whether `GET /openapi.json` answers with the description of the port in OpenAPI 3.1, without a token. Default `true`.
    pub openapi: bool,
    /// Whether `GET /` answers, without a token, with a page on which a person who has a token uploads, lists, downloads and deletes
    /// files. `attachd dev` turns it on. Default false.
    pub page: bool,
}

impl Rest {
    /// A port that speaks plain text, and that no page may call.
    pub fn plain(listen: SocketAddr) -> Rest {
        let cors = edge::cors::Config::default();
        Rest { listen, tls: None, trusted_proxies: Vec::new(), cors, openapi: true, page: false }
    }

    /// What is served beside the operations.
    pub(crate) fn beside(&self) -> rest::Beside {
        rest::Beside { description: self.openapi, page: self.page }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Rest::plain(SocketAddr::from(([0, 0, 0, 0], 8080)))
    }
}

/// The gRPC port.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grpc {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    #[serde(deserialize_with = "address::read")]
    pub listen: SocketAddr,
    /// The certificate. Without it the port speaks plain text.
    pub tls: Option<tls::Config>,
    /// The proxies whose `X-Forwarded-For` is believed, in the audit trail and nowhere else: networks or addresses. The last
    /// address in it that is none of theirs is where a request comes from. `limits.max_connections_per_address` does not apply to
    /// them. Default none: it is the address of the connection.
    pub trusted_proxies: Vec<Network>,
    /// Whether clients without a token may ask for the proto (gRPC server reflection). An answer is up to 200 times as large as its
    /// question. `attachd dev` turns it on. Default false.
    pub reflection: bool,
}

impl Grpc {
    /// A port that speaks plain text.
    pub fn plain(listen: SocketAddr) -> Grpc {
        Grpc { listen, tls: None, trusted_proxies: Vec::new(), reflection: false }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        Grpc::plain(SocketAddr::from(([0, 0, 0, 0], 50051)))
    }
}

/// The admin port, which speaks plain text.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Listen {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    #[serde(deserialize_with = "address::read")]
    pub listen: SocketAddr,
}

impl Default for Listen {
    fn default() -> Self {
        Listen { listen: SocketAddr::from(([0, 0, 0, 0], 9090)) }
    }
}

/// What becomes of unknown, deleted and replaced attachments.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attachments {
    /// What becomes of an upload to an attachment that was never registered. Default `reject`.
    pub on_unknown: OnUnknown,
    /// How long a deletion can be undone, 0 s to 365 days. Until then the content stays in the storage; after that `attachd gc`
    /// deletes it, at the earliest when `--grace` has passed. A deletion keeps the window with which it was made. With 0 s it
    /// cannot be undone, and the content is deleted at once. Default 0 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub undelete_window: Duration,
    /// How long content that was replaced or deleted stays for the downloads that are reading it, 0 s to 1 h. A download that
    /// takes longer may be cut off, and never gets bytes of other content. If the process ends before, `attachd gc` deletes it. A
    /// reader of the service `fs` keeps its open file, so there content is deleted at once. Default 60 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub read_grace: Duration,
}

impl Default for Attachments {
    fn default() -> Self {
        Attachments {
            on_unknown: OnUnknown::Reject,
            undelete_window: Duration::ZERO,
            read_grace: Duration::from_secs(60),
        }
    }
}

/// The longest that [`Attachments::undelete_window`] may be.
pub(crate) const LONGEST_UNDELETE_WINDOW: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The longest that [`Attachments::read_grace`] may be.
pub(crate) const LONGEST_READ_GRACE: Duration = Duration::from_secs(60 * 60);

/// What becomes of an upload to an unknown attachment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnUnknown {
    /// It is answered 404 / NOT_FOUND.
    #[default]
    Reject,
    /// It makes the attachment known.
    Create,
}

/// What the window of an HTTP/2 stream may be, in bytes. Below it frames do not fit; above it the window of a connection, which
/// has room for those of all its streams, would pass what HTTP/2 can say (RFC 9113 §6.9.1).
pub(crate) const HTTP2_WINDOW: std::ops::RangeInclusive<u64> = (64 << 10)..=(8 << 20);

/// Up to which window a fast client on the same network gains by it, in bytes.
const FAST_WINDOW: u64 = 256 << 10;

/// Sizes and times.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest content, in bytes. Past it 413 / RESOURCE_EXHAUSTED. Default 5 GiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub max_upload_size: ByteSize,
    /// Bytes that all upload buffers together may hold, 8 MiB or more. Past it uploads wait, and where none that waits gets any
    /// for `storage.timeout` they get 503 / UNAVAILABLE; what keeps the parts of an object waits on. The service `fs` takes no
    /// more than 8 MiB of it, which keep its threads busy. Default 256 MiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub memory_budget: ByteSize,
    /// Bytes that all downloads together may hold, beside `memory_budget`, 1 MiB or more. Past it downloads wait, and one that
    /// gets none for `storage.timeout` gets 503 / UNAVAILABLE. Default 32 MiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub download_budget: ByteSize,
    /// How much may have arrived of each request over HTTP/2 before it is read, from 64 KiB to 8 MiB: the window of a stream, beside
    /// `memory_budget`. An upload over HTTP/2 comes no faster than so much in the time that a packet takes to the client and
    /// back. 0 takes the 1024th part of `memory_budget`, but 64 KiB at least and 256 KiB at most. Default 0.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub http2_window: ByteSize,
    /// How many uploads may be under way. Past it new ones get 503 / UNAVAILABLE before their content is read. So do those of a
    /// client that has 3 under way for each place that is free: a client that is alone gets 75 %. 0 takes twice
    /// `max_connections`, or as many as the file descriptors permit, if that is less: an upload takes up to 3 with the service `fs`, 2 with an
    /// object store. Where the descriptors do not suffice for what is written here, in `max_downloads` and in `max_connections`, all
    /// three are lowered, with a warning. Default 0.
    pub max_uploads: usize,
    /// How many downloads may be under way, likewise. Past it new ones get 503 / UNAVAILABLE. A download takes one file descriptor.
    /// Default 0.
    pub max_downloads: usize,
    /// How many uploads may wait for memory, 1 or more. Past it, a client with its share of them or more gets 503 / UNAVAILABLE
    /// for new ones. A client with fewer may still have some wait, so up to twice as many can wait in all. Default 1024.
    pub max_waiting_uploads: usize,
    /// How long a client may send nothing, in the headers or in the content. Past it 408 / DEADLINE_EXCEEDED. A connection over HTTP/2
    /// without a request for as long is closed. In the content
    /// a time in which the process itself stood still for more than 2 s does not count. A download whose client reads nothing for
    /// as long is cut off. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub idle_timeout: Duration,
    /// The least number of bytes a second that a client must send, over each `min_rate_window` of waiting for it, without what
    /// `idle_timeout` does not count. Below it 408 / DEADLINE_EXCEEDED. A download whose client reads less is cut off. 0 asks for
    /// none. Default 256 B.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub min_rate: ByteSize,
    /// Over which time the rate is averaged, and which it has at the beginning. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub min_rate_window: Duration,
    /// How many connections each port may have open, 1 or more. For a further one, attachd closes a connection without a request
    /// in progress, or one whose client takes nothing of its response. Without such a connection, the further one waits to be
    /// accepted. While more than half are open, connections may be silent or idle for less time: 1 s if all are open. The admin
    /// port has at most 128. Fewer are accepted if the file descriptors do not suffice, with a warning. Default 4096.
    pub max_connections: usize,
    /// How many of them one address may have: an IPv4 address, or an IPv6 network of 64 bits. Further ones are closed at once.
    /// The limit does not apply to `trusted_proxies`. 0 sets no limit. Many clients can share one address. Default 0.
    pub max_connections_per_address: usize,
    /// How many TLS handshakes each port may have under way, 1 or more. A handshake counts from its complete ClientHello on. Further
    /// ones wait, and the addresses get places in turn. Default 256.
    pub max_handshakes: usize,
    /// How long a TLS handshake may take, the waiting included. Past it the connection is closed. Default 10 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub handshake_timeout: Duration,
    /// How long a client may take nothing of what is sent to it. Past it the connection is closed, or only the stream of HTTP/2 is
    /// reset if the connection takes bytes. A stream gets on when its client has taken a part of the response, up to 16 KiB,
    /// and has besides the time that the part takes at `min_rate`. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub write_timeout: Duration,
    /// How long one upload may take. Past it 408 / DEADLINE_EXCEEDED. Default 6 h.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub max_upload_time: Duration,
    /// How much of a refused request is read so that its client can read the reply. Past it the connection is closed, or the
    /// stream of HTTP/2 reset. Default 256 MiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub drain_bytes: ByteSize,
    /// For how long it is read, likewise. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub drain_time: Duration,
    /// How many refused requests all ports together read likewise at once, 1 or more. For a further one, the one that has been
    /// read longest is given up: its connection is closed, or its stream of HTTP/2 reset. Default 256.
    pub max_drains: usize,
    /// How many bytes a second of refused requests all ports together read likewise. Past it they are read more slowly. 0 sets no
    /// limit. Default 64 MiB.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub drain_bytes_per_second: ByteSize,
    /// How many requests a second that a limit refuses, with 503 or 429, are answered at once on all ports together. Past it
    /// each waits for its turn, up to 5 s, so that clients that repeat at once what was refused do not take all of the server's time.
    /// 0 sets no limit. Default 100.
    pub refusals_per_second: u64,
    /// What each client may do.
    pub per_client: throttle::Config,
}

impl Limits {
    /// What uploads there may be.
    pub fn sizing(&self) -> Sizing {
        Sizing { largest: self.max_upload_size.as_u64(), memory: budget::for_kept(self.memory_budget) }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_upload_size: ByteSize::gib(5),
            memory_budget: ByteSize::mib(256),
            download_budget: ByteSize::mib(32),
            http2_window: ByteSize::b(0),
            max_uploads: 0,
            max_downloads: 0,
            max_waiting_uploads: 1024,
            idle_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            max_upload_time: Duration::from_secs(6 * 60 * 60),
            min_rate: ByteSize::b(256),
            min_rate_window: Duration::from_secs(30),
            max_connections: 4096,
            max_connections_per_address: 0,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            drain_bytes: ByteSize::mib(256),
            drain_time: Duration::from_secs(30),
            max_drains: 256,
            refusals_per_second: 100,
            drain_bytes_per_second: ByteSize::mib(64),
            per_client: throttle::Config::default(),
        }
    }
}

/// How the process ends.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Shutdown {
    /// How long all is served still after a SIGTERM, while those who send requests learn to send them elsewhere. Default 5 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub delay: Duration,
    /// How long requests in flight may go on after that. Past it they are answered 503 / UNAVAILABLE, for which there are
    /// 3 s more. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub grace: Duration,
}

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown { delay: Duration::from_secs(5), grace: Duration::from_secs(30) }
    }
}

impl Config {
    /// What the pipeline may do, with so many uploads at once.
    pub(crate) fn upload(&self, max_uploads: usize) -> upload::Config {
        upload::Config {
            max_uploads,
            max_upload_size: self.limits.max_upload_size.as_u64(),
            idle_timeout: self.limits.idle_timeout,
            max_upload_time: self.limits.max_upload_time,
            min_rate: self.limits.min_rate.as_u64(),
            min_rate_window: self.limits.min_rate_window,
            create_unknown: self.attachments.on_unknown == OnUnknown::Create,
            undelete_window: self.attachments.undelete_window,
        }
    }

    /// What memory uploads may hold.
    pub(crate) fn budget(&self) -> budget::Config {
        budget::Config {
            memory_budget: self.limits.memory_budget,
            max_waiting_uploads: self.limits.max_waiting_uploads,
            max_wait: self.storage.timeout,
            kept: self.storage.kept_by_upload(self.limits.sizing()),
            useful: self.storage.useful_memory(),
        }
    }

    /// What memory downloads may hold.
    pub(crate) fn downloads(&self) -> budget::Downloads {
        budget::Downloads::new(self.limits.download_budget, self.storage.timeout)
    }

    /// What downloads may do.
    pub(crate) fn reads(&self, max_downloads: usize) -> reads::Config {
        reads::Config {
            max_downloads,
            idle_timeout: self.limits.idle_timeout,
            min_rate: self.limits.min_rate.as_u64(),
            min_rate_window: self.limits.min_rate_window,
        }
    }

    /// The window of an HTTP/2 stream, in bytes.
    pub(crate) fn http2_window(&self) -> u32 {
        let bytes = match self.limits.http2_window.as_u64() {
            0 => (self.limits.memory_budget.as_u64() / 1024).clamp(*HTTP2_WINDOW.start(), FAST_WINDOW),
            bytes => bytes,
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// The ports, each with the address that it listens on.
    pub(crate) fn ports(&self) -> [(&'static str, SocketAddr); 3] {
        [("rest", self.rest.listen), ("grpc", self.grpc.listen), ("admin", self.admin.listen)]
    }

    /// How refused requests are drained.
    pub(crate) fn drains(&self) -> drains::Config {
        let Limits { drain_bytes, drain_time, max_drains, drain_bytes_per_second, .. } = &self.limits;
        drains::Config {
            bytes: drain_bytes.as_u64(),
            time: *drain_time,
            at_once: *max_drains,
            bytes_per_second: drain_bytes_per_second.as_u64(),
        }
    }
}
