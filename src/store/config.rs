//! Which storage backend, and how to reach it: what an operator may write, and why it is refused. It reads the files that
//! secrets are in, and opens nothing else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use super::services::{self, Service, Sizing};
use crate::units;

/// Which storage backend, and how to reach it.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An OpenDAL service: `fs`, `memory`, `s3`, `gcs` or `azblob`.
    pub service: String,
    /// The service's own options, as OpenDAL names them. `fs`: `root` (required: an existing folder, empty for a new storage; as
    /// seen from the configuration file) and `atomic_write_dir` (default `.attachd-tmp` in the root; must be on the same file system). `memory`: `root`. A secret such as `secret_access_key` may
    /// be in a file instead, which `secret_access_key_file` names.
    #[serde(default, deserialize_with = "options")]
    pub options: BTreeMap<String, String>,
    /// A file of PEM certificates to trust beside those of the system, for a service with an authority of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Whether this process is the only one that writes there. Only then may the storage be one that cannot compare
    /// versions. Default false.
    #[serde(default)]
    pub sole_writer: bool,
    /// How long one storage operation may take: a read, a write of about a megabyte or of one part, a close; its second and
    /// third try included. Past it the upload is answered 503 / UNAVAILABLE, and what was begun has as long again to end and
    /// be taken back. Default 60 s.
    #[serde(default = "default_timeout", with = "units::time")]
    #[schemars(with = "units::Time")]
    pub timeout: Duration,
    /// Content of at most so many bytes is stored with its record, in one object, so that it costs one write. Content that arrives
    /// slowly may have an object of its own all the same. 0 to 128 KiB; 0 gives all content objects of its own. Default 16 KiB.
    #[serde(default = "default_inline_below", with = "units::size")]
    #[schemars(with = "units::Size")]
    pub inline_below: ByteSize,
    /// How many bytes uploads leave free on the file system, for the service `fs`. An upload is answered 503 / UNAVAILABLE if what is
    /// free would fall below it: before its content is read, by its declared size, else while it is written. Fewer than 16
    /// free inodes have the same effect. So has a client for whose other uploads 75 % of the space is set aside already, but for
    /// that client alone. Reads are served, and so are deletions, which need some space. 0 leaves it to the file system to refuse writes.
    /// Default 64 MiB.
    #[serde(default = "default_min_free", with = "units::size")]
    #[schemars(with = "units::Size")]
    pub min_free: ByteSize,
    /// Which storage operations fail, for tests.
    #[cfg(feature = "faults")]
    #[serde(default, skip_serializing)]
    #[schemars(skip)]
    pub faults: Vec<super::faults::Rule>,
    /// Where the process ends itself, for tests.
    #[cfg(feature = "faults")]
    #[serde(skip_serializing)]
    #[schemars(skip)]
    pub crash: Option<super::faults::Crash>,
}

/// The longest file that is taken for a secret, in bytes. A key of a Google service account is one of the longest.
const SECRET_FILE: u64 = 64 << 10;

/// What [`Config::inline_below`] may be at most: whoever reads a record reads it all, and content is gathered up to twice as
/// much before any of it is written.
const MOST_INLINE: ByteSize = ByteSize::kib(128);

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

fn default_inline_below() -> ByteSize {
    ByteSize::kib(16)
}

fn default_min_free() -> ByteSize {
    ByteSize::mib(64)
}

/// Why the storage could not be opened: the configuration key, and what is wrong with it, for an operator.
#[derive(Debug, thiserror::Error)]
#[error("storage.{key}: {why}")]
pub struct OpenError {
    key: String,
    why: String,
}

impl OpenError {
    pub(super) fn new(key: impl Into<String>, why: impl ToString) -> Self {
        OpenError { key: key.into(), why: why.to_string() }
    }

    /// The configuration key.
    pub fn key(&self) -> String {
        format!("storage.{}", self.key)
    }

    /// What is wrong with it.
    pub fn why(&self) -> &str {
        &self.why
    }
}

impl Config {
    /// A service and its options, with the defaults for the rest.
    pub fn new(service: &str, options: BTreeMap<String, String>) -> Config {
        Config {
            service: service.to_owned(),
            options,
            ca_file: None,
            sole_writer: false,
            timeout: default_timeout(),
            inline_below: default_inline_below(),
            min_free: default_min_free(),
            #[cfg(feature = "faults")]
            faults: Vec::new(),
            #[cfg(feature = "faults")]
            crash: None,
        }
    }

    /// Checks the service and the names of its options, without touching the storage.
    pub fn validate(&self) -> Result<(), OpenError> {
        self.service()?.check(&self.options)?;
        if self.timeout.is_zero() {
            return Err(OpenError::new("timeout", "must be more than zero"));
        }
        if self.inline_below > MOST_INLINE {
            return Err(OpenError::new("inline_below", "must be at most 128 KiB"));
        }
        Ok(())
    }

    /// Takes the names of files as seen from `folder`.
    pub fn resolve(&mut self, folder: &Path) {
        if let Some(file) = &mut self.ca_file {
            *file = folder.join(&*file);
        }
        let Ok(service) = self.service() else { return };
        for (option, value) in &mut self.options {
            if service.secret_in_file(option).is_some() || service.is_path(option) {
                *value = folder.join(&*value).display().to_string();
            }
        }
    }

    /// Which storage it is, without secrets.
    pub fn describe(&self) -> String {
        let named = ["bucket", "container", "endpoint", "root"];
        let options = named.iter().filter(|name| self.may_show(name));
        let options = options.filter_map(|name| self.options.get(*name).map(|value| format!(", {name} {value}")));
        options.fold(self.service.clone(), |all, option| all + &option)
    }

    /// How many bytes one upload keeps until it is stored. Zero where it is not sent in parts.
    pub fn kept_by_upload(&self, sizing: Sizing) -> u64 {
        let parts = self.service().ok().and_then(|service| service.parts(sizing));
        parts.map(|parts| parts.kept).unwrap_or_default()
    }

    /// How many file descriptors an upload takes at most: on a local file system those of its file, and of a lock and a directory or
    /// record at its commit; connections to a service for the two parts that are sent at once.
    pub fn descriptors_per_upload(&self) -> u64 {
        match self.service.as_str() {
            "fs" => 3,
            "memory" => 0,
            _ => 2,
        }
    }

    /// How many file descriptors a download takes at most: its file, or a connection to a service.
    pub fn descriptors_per_download(&self) -> u64 {
        u64::from(self.service != "memory")
    }

    /// How many bytes of content that pass through the storage can make use of, if there is such a number.
    pub fn useful_memory(&self) -> Option<u64> {
        self.service().ok().and_then(|service| service.useful_memory)
    }

    /// Checks that the service hands out content at addresses that it signs. Says nothing of a service that there is not.
    pub fn check_signing(&self) -> Result<(), String> {
        self.service().map_or(Ok(()), |service| service.check_signing(&self.options))
    }

    pub(super) fn service(&self) -> Result<&'static Service, OpenError> {
        services::find(&self.service)
    }

    /// Whether anybody may read the option.
    pub fn may_show(&self, option: &str) -> bool {
        self.service().is_ok_and(|service| service.may_show(option))
    }

    /// The options as OpenDAL takes them: secrets that are in files are read.
    pub(super) fn opened_options(&self) -> Result<BTreeMap<String, String>, OpenError> {
        let service = self.service()?;
        let open = |(option, value): (&String, &String)| match service.secret_in_file(option) {
            Some(secret) => read_secret(option, Path::new(value)).map(|text| (secret.to_owned(), text)),
            None => Ok((option.clone(), value.clone())),
        };
        self.options.iter().map(open).collect()
    }
}

/// Reads a secret. The line ending that an editor leaves is no part of it.
fn read_secret(option: &str, file: &Path) -> Result<String, OpenError> {
    let refusal = |why: String| OpenError::new(format!("options.{option}"), format!("{}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| refusal(error.to_string()))?.len();
    if size > SECRET_FILE {
        return Err(refusal(format!("a secret has at most {SECRET_FILE} bytes")));
    }
    let text = std::fs::read_to_string(file).map_err(|error| refusal(error.to_string()))?;
    let text = text.trim_end_matches(['\r', '\n']);
    if text.is_empty() { Err(refusal("the file is empty".to_owned())) } else { Ok(text.to_owned()) }
}

/// Options can be secrets, so their names are shown alone.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { service, options, ca_file, sole_writer, timeout, .. } = self;
        let options: Vec<_> = options.keys().collect();
        let mut shown = f.debug_struct("Config");
        shown.field("service", service).field("options", &options).field("ca_file", ca_file);
        shown.field("sole_writer", sole_writer).field("timeout", timeout).finish_non_exhaustive()
    }
}

/// Reads options. OpenDAL takes text, and makes numbers and switches of it; here they may be written as what they are.
fn options<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected text, a whole number, true or false")]
    enum Scalar {
        Text(String),
        Switch(bool),
        Number(i64),
    }
    let options = BTreeMap::<String, Scalar>::deserialize(deserializer)?;
    let text = |(name, value)| match value {
        Scalar::Text(text) => (name, text),
        Scalar::Switch(switch) => (name, switch.to_string()),
        Scalar::Number(number) => (name, number.to_string()),
    };
    Ok(options.into_iter().map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> Config {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::new("s3", options)
    }

    #[test]
    fn a_configuration_shows_no_value_of_an_option() {
        let shown = format!("{:?}", config(&[("bucket", "b"), ("secret_access_key", "hunter2")]));
        assert!(shown.contains("secret_access_key") && !shown.contains("hunter2"), "{shown}");
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_secret_is_read_from_the_file_beside_the_configuration_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "hun ter2\r\n").unwrap();
        let mut config = config(&[("bucket", "b"), ("secret_access_key_file", "key")]);
        config.resolve(folder.path());
        let options = config.opened_options().unwrap();
        assert_eq!(options["secret_access_key"], "hun ter2");
        assert!(!options.contains_key("secret_access_key_file"));

        std::fs::write(folder.path().join("key"), "\n").unwrap();
        let empty = config.opened_options().unwrap_err().to_string();
        assert!(
            empty.starts_with("storage.options.secret_access_key_file: ") && empty.ends_with("is empty"),
            "{empty}"
        );
        let limit = usize::try_from(SECRET_FILE).unwrap();
        for (size, good) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
            std::fs::write(folder.path().join("key"), "x".repeat(size)).unwrap();
            assert_eq!(config.opened_options().is_ok(), good, "{size}");
        }
        std::fs::remove_file(folder.path().join("key")).unwrap();
        assert!(config.opened_options().unwrap_err().to_string().contains("storage.options.secret_access_key_file: "));
    }

    #[test]
    fn an_option_may_be_written_as_what_it_is() {
        let text = "text = \"1e5\"\nnumber = 7\nswitch = true";
        let read = |text: &str| {
            let table = format!("service = \"s3\"\n[options]\n{text}");
            toml::from_str::<Config>(&table).map_err(|error| error.to_string())
        };
        let values: Vec<_> = read(text).unwrap().options.into_iter().collect();
        let expected = [("number", "7"), ("switch", "true"), ("text", "1e5")];
        assert_eq!(values, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let refused = read("list = [1]").unwrap_err();
        assert!(refused.contains("expected text, a whole number, true or false"), "{refused}");
    }
}
