//! Which storage backend, and how to reach it: what an operator may write, and why it is refused. It opens nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units;

/// Which storage backend, and how to reach it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An OpenDAL service: `fs` or `memory`.
    pub service: String,
    /// The service's own options. `fs`: `root` (required) and `atomic_write_dir` (default `.attachd-tmp` in the root; must
    /// be on the same file system). `memory`: `root`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// How long one storage operation may take: a read, a write of about a megabyte, a close. Past it the upload is
    /// answered 503 / UNAVAILABLE, and what was begun has as long again to end and be taken back. Default 60 s.
    #[serde(default = "default_timeout", with = "units::time")]
    #[schemars(with = "units::Time")]
    pub timeout: Duration,
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

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

/// The services that keep the promises of a commit, and the options that each of them takes.
const SERVICES: [(&str, &[&str]); 2] = [("fs", &["root", "atomic_write_dir"]), ("memory", &["root"])];

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
            timeout: default_timeout(),
            #[cfg(feature = "faults")]
            faults: Vec::new(),
            #[cfg(feature = "faults")]
            crash: None,
        }
    }

    /// Checks the service and the names of its options, without touching the storage.
    pub fn validate(&self) -> Result<(), OpenError> {
        let Some((_, known)) = SERVICES.iter().find(|(service, _)| *service == self.service) else {
            let names = SERVICES.map(|(service, _)| service).join(", ");
            return Err(OpenError::new("service", format!("unknown service `{}`; known are: {names}", self.service)));
        };
        for option in self.options.keys() {
            if !known.contains(&option.as_str()) {
                let nearest = crate::config::nearest(option, known.iter().copied());
                return Err(OpenError::new(
                    format!("options.{option}"),
                    format!("the service {} has no such option; {nearest}", self.service),
                ));
            }
        }
        if self.timeout.is_zero() {
            return Err(OpenError::new("timeout", "must be more than zero"));
        }
        if self.service == "fs" && self.options.get("root").is_none_or(String::is_empty) {
            return Err(OpenError::new("options.root", "the service fs needs a root directory"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(service: &str, options: &[(&str, &str)]) -> Config {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::new(service, options)
    }

    #[test]
    fn an_unknown_service_or_option_is_refused_by_name() {
        let refusal = |config: Config| config.validate().unwrap_err().to_string();
        assert_eq!(refusal(config("fss", &[])), "storage.service: unknown service `fss`; known are: fs, memory");
        let typo = refusal(config("fs", &[("rot", "/x")]));
        assert!(typo.starts_with("storage.options.rot: ") && typo.contains("`root`"), "{typo}");
        assert!(refusal(config("fs", &[])).starts_with("storage.options.root: "));
        assert!(config("memory", &[]).validate().is_ok());
    }
}
