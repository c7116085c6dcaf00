//! The configuration: a TOML file, overridden by `ATTACHD_SECTION__KEY` variables, read once into typed values before
//! anything is opened. Each part owns its own `Config`; this module is their sum, and the only reader of the environment,
//! which it takes as a map so that a test can supply one.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::origin::Network;
use crate::store::Sizing;
use crate::{auth, budget, edge, store, telemetry, tls, units, upload};

mod overrides;
pub mod reference;
mod show;
#[cfg(test)]
mod tests;
mod warnings;

pub use warnings::{GC_GRACE, Warning};

use overrides::{Overrides, overrides, set, value};

/// All that `attachd serve` is told.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The REST port. Default `0.0.0.0:8080`.
    #[serde(default)]
    pub rest: Rest,
    /// The gRPC port. Default `0.0.0.0:50051`.
    #[serde(default = "Door::grpc")]
    pub grpc: Door,
    /// The admin port. Default `0.0.0.0:9090`.
    #[serde(default = "Listen::admin")]
    pub admin: Listen,
    /// Where the bytes go.
    pub storage: store::Config,
    /// What may be uploaded to.
    #[serde(default)]
    pub attachments: Attachments,
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
#[serde(deny_unknown_fields)]
pub struct Rest {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
    /// The certificate. Without it the port speaks plain text.
    #[serde(default)]
    pub tls: Option<tls::Config>,
    /// The proxies whose `X-Forwarded-For` is believed, in the audit trail and nowhere else: networks or addresses. The last
    /// address in it that is none of theirs is where a request comes from. Default none: it is the address of the connection.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// Which pages may call the port from a browser.
    #[serde(default)]
    pub cors: edge::cors::Config,
}

impl Rest {
    /// A port that speaks plain text, and that no page may call.
    pub fn plain(listen: SocketAddr) -> Rest {
        Rest { listen, tls: None, trusted_proxies: Vec::new(), cors: edge::cors::Config::default() }
    }
}

impl Default for Rest {
    fn default() -> Self {
        Rest::plain(SocketAddr::from(([0, 0, 0, 0], 8080)))
    }
}

/// The gRPC port.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
    /// The certificate. Without it the port speaks plain text.
    #[serde(default)]
    pub tls: Option<tls::Config>,
    /// The proxies whose `X-Forwarded-For` is believed, in the audit trail and nowhere else: networks or addresses. The last
    /// address in it that is none of theirs is where a request comes from. Default none: it is the address of the connection.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
}

impl Door {
    /// A port that speaks plain text.
    pub fn plain(listen: SocketAddr) -> Door {
        Door { listen, tls: None, trusted_proxies: Vec::new() }
    }

    fn grpc() -> Door {
        Door::plain(SocketAddr::from(([0, 0, 0, 0], 50051)))
    }
}

/// The admin port, which speaks plain text.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// The address to listen on. Port 0 takes a free one, which the log names.
    pub listen: SocketAddr,
}

impl Listen {
    fn admin() -> Listen {
        Listen { listen: SocketAddr::from(([0, 0, 0, 0], 9090)) }
    }
}

/// What may be uploaded to.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Attachments {
    /// What becomes of an upload to an attachment that was never registered. Default `reject`.
    pub on_unknown: OnUnknown,
}

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
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
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
    /// How much may have arrived of each request over HTTP/2 before it is read, from 64 KiB to 8 MiB: the window of a stream, beside
    /// `memory_budget`. An upload over HTTP/2 comes no faster than so much in the time that a packet takes to the client and
    /// back. 0 takes the 1024th part of `memory_budget`, but 64 KiB at least and 256 KiB at most. Default 0.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub http2_window: ByteSize,
    /// How many uploads may wait for memory, 1 or more. Past it new ones get 503 / UNAVAILABLE. Default 1024.
    pub max_waiting_uploads: usize,
    /// How long a client may send nothing, in the headers or in the content. Past it 408 / DEADLINE_EXCEEDED. In the content
    /// a time in which the process itself stood still for more than 2 s does not count. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub idle_timeout: Duration,
    /// The least number of bytes a second that a client must send, over each `min_rate_window` of waiting for it, without what
    /// `idle_timeout` does not count. Below it 408 / DEADLINE_EXCEEDED. 0 asks for none. Default 256 B.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub min_rate: ByteSize,
    /// Over which time the rate is averaged, and which it has at the beginning. Default 30 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub min_rate_window: Duration,
    /// How many connections each port may have open, 1 or more. Further ones wait to be accepted. Default 4096.
    pub max_connections: usize,
    /// How many TLS handshakes each port may have under way, 1 or more. Further ones wait. Default 256.
    pub max_handshakes: usize,
    /// How long a TLS handshake may take, the waiting included. Past it the connection is closed. Default 10 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub handshake_timeout: Duration,
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
            http2_window: ByteSize::b(0),
            max_waiting_uploads: 1024,
            idle_timeout: Duration::from_secs(30),
            max_upload_time: Duration::from_secs(6 * 60 * 60),
            min_rate: ByteSize::b(256),
            min_rate_window: Duration::from_secs(30),
            max_connections: 4096,
            max_handshakes: 256,
            handshake_timeout: Duration::from_secs(10),
            drain_bytes: ByteSize::mib(256),
            drain_time: Duration::from_secs(30),
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
    /// What the pipeline may do.
    pub(crate) fn upload(&self) -> upload::Config {
        upload::Config {
            max_upload_size: self.limits.max_upload_size.as_u64(),
            idle_timeout: self.limits.idle_timeout,
            max_upload_time: self.limits.max_upload_time,
            min_rate: self.limits.min_rate.as_u64(),
            min_rate_window: self.limits.min_rate_window,
            create_unknown: self.attachments.on_unknown == OnUnknown::Create,
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

    /// The window of an HTTP/2 stream, in bytes.
    pub(crate) fn http2_window(&self) -> u32 {
        let bytes = match self.limits.http2_window.as_u64() {
            0 => (self.limits.memory_budget.as_u64() / 1024).clamp(*HTTP2_WINDOW.start(), FAST_WINDOW),
            bytes => bytes,
        };
        u32::try_from(bytes).unwrap_or(u32::MAX)
    }

    /// How refused requests are drained.
    pub(crate) fn edge(&self) -> edge::Config {
        edge::Config { drain_bytes: self.limits.drain_bytes.as_u64(), drain_time: self.limits.drain_time }
    }

    /// Reads `file` and the variables of this process.
    pub fn load(file: &Path) -> Result<Config, Error> {
        Config::load_with(file, &std::env::vars().collect())
    }

    /// Reads `file` and the given variables.
    pub fn load_with(file: &Path, variables: &BTreeMap<String, String>) -> Result<Config, Error> {
        let here = |why: String| Error { file: Some(file.to_owned()), key: None, why };
        let text = std::fs::read_to_string(file).map_err(|error| here(error.to_string()))?;
        let table: Table = toml::from_str(&text).map_err(|error| here(error.to_string()))?;
        let mut config = Config::from_table(table, variables)
            .map_err(|error| Error { file: error.file.or_else(|| Some(file.to_owned())), ..error })?;
        // A key file is named as seen from the file that names it, wherever the process was started.
        let folder = file.parent().unwrap_or(Path::new(""));
        config.storage.resolve(folder);
        config.traces.resolve(folder);
        for issuer in &mut config.auth.issuers {
            for path in issuer.paths_mut() {
                *path = folder.join(&*path);
            }
        }
        for tls in [&mut config.rest.tls, &mut config.grpc.tls].into_iter().flatten() {
            tls.resolve(folder);
        }
        Ok(config)
    }

    fn from_table(mut table: Table, variables: &BTreeMap<String, String>) -> Result<Config, Error> {
        let overrides = overrides(variables);
        for (path, (variable, text)) in &overrides {
            let parts: Vec<&str> = path.split('.').collect();
            // An option of a storage service is text whatever it looks like: a secret may look like a number.
            let value = if path.starts_with("storage.options.") { Value::String(text.clone()) } else { value(text) };
            set(&mut table, &parts, value).map_err(|why| Error {
                file: None,
                key: Some(format!("{path} (from {variable})")),
                why,
            })?;
        }
        let config: Config = serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
            let path = error.path().to_string();
            Error::at(&path, &overrides, &explain(&error.into_inner().to_string()))
        })?;
        config.validate().map_err(|(key, why)| Error::at(key, &overrides, &why))?;
        config.storage.validate().map_err(|error| Error::at(&error.key(), &overrides, error.why()))?;
        // Where there is little, one part is sent at once.
        let sizing = Sizing { memory: 0, ..config.limits.sizing() };
        let least = budget::least(config.storage.kept_by_upload(sizing));
        if config.limits.memory_budget.as_u64() < least {
            let parts = "for the parts that the storage takes uploads of limits.max_upload_size in";
            let why = format!("must be at least {} {parts}", ByteSize::b(least));
            return Err(Error::at("limits.memory_budget", &overrides, &why));
        }
        Ok(config)
    }

    /// The rules that a type cannot express.
    fn validate(&self) -> Result<(), (&'static str, String)> {
        let limits = &self.limits;
        if limits.memory_budget.as_u64() < budget::LEAST {
            return Err(("limits.memory_budget", format!("must be at least {}", ByteSize::b(budget::LEAST))));
        }
        let window = limits.http2_window.as_u64();
        if window > 0 && !HTTP2_WINDOW.contains(&window) {
            return Err(("limits.http2_window", "must be 0, or from 64KiB to 8MiB".to_owned()));
        }
        if !(1..=i64::MAX.cast_unsigned()).contains(&limits.max_upload_size.as_u64()) {
            return Err(("limits.max_upload_size", "must be from 1 to 9223372036854775807 bytes".to_owned()));
        }
        if limits.max_waiting_uploads == 0 {
            return Err((
                "limits.max_waiting_uploads",
                "must be at least 1: with 0 every upload is refused".to_owned(),
            ));
        }
        for (key, count) in
            [("limits.max_connections", limits.max_connections), ("limits.max_handshakes", limits.max_handshakes)]
        {
            if count == 0 {
                return Err((key, "must be at least 1".to_owned()));
            }
        }
        for (key, time) in [
            ("limits.idle_timeout", limits.idle_timeout),
            ("limits.max_upload_time", limits.max_upload_time),
            ("limits.min_rate_window", limits.min_rate_window),
            ("limits.handshake_timeout", limits.handshake_timeout),
            ("limits.drain_time", limits.drain_time),
        ] {
            if time.is_zero() {
                return Err((key, "must be more than zero".to_owned()));
            }
        }
        self.traces.validate()?;
        self.log.parse_filter().map_err(|error| ("log.filter", error.to_string()))?;
        for (section, tls) in [("rest.tls", &self.rest.tls), ("grpc.tls", &self.grpc.tls)] {
            if let Some(Err((key, why))) = tls.as_ref().map(tls::Config::check) {
                return Err((section, format!("{key} {why}")));
            }
        }
        let asked = [&self.rest.tls, &self.grpc.tls].into_iter().flatten().any(|tls| tls.client_ca_file.is_some());
        if !self.auth.certificates.is_empty() && !asked {
            return Err((
                "auth.certificates",
                "no port asks for a certificate: give grpc.tls.client_ca_file".to_owned(),
            ));
        }
        Ok(())
    }
}

/// What is wrong with the configuration, and where it stands.
#[derive(Debug)]
pub struct Error {
    file: Option<PathBuf>,
    key: Option<String>,
    why: String,
}

impl Error {
    fn at(path: &str, overrides: &Overrides, why: &str) -> Error {
        // An entry of a list is `[0]` in a path and `0` in a variable. And a section that does not exist may have come from
        // a variable that names a key in it.
        let plain = path.replace('[', ".").replace(']', "");
        let unknown = why.starts_with("unknown key");
        let below = |rest: &str| rest.is_empty() || (unknown && rest.starts_with('.'));
        let variable = overrides.iter().find(|(key, _)| key.strip_prefix(&plain).is_some_and(below));
        let variable = variable.map(|(_, (variable, _))| format!(" (from {variable})")).unwrap_or_default();
        let key = Some(format!("{path}{variable}")).filter(|_| path != ".");
        Error { file: None, key, why: why.to_owned() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        f.write_str(self.why.trim_end())
    }
}

impl std::error::Error for Error {}

/// Adds the nearest known key to the message about an unknown one. What stands after the first line is where it happened,
/// which the path says better.
fn explain(message: &str) -> String {
    let message = message.lines().next().unwrap_or_default();
    let mut quoted = message.split('`').skip(1).step_by(2);
    match (message.starts_with("unknown field"), quoted.next()) {
        (true, Some(unknown)) => format!("unknown key `{unknown}`; {}", nearest(unknown, quoted)),
        _ => message.to_owned(),
    }
}

/// The known name that was most likely meant, or all of them, for a message.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    let best =
        known.clone().max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match best.filter(|best| strsim::jaro_winkler(unknown, best) > 0.75) {
        Some(best) => format!("did you mean `{best}`?"),
        None => format!("known are {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    }
}
