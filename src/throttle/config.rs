//! What each client may do, as it is configured.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::attachment::Id;
use crate::{rate, units};

/// What one client may do. 0 sets no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Allowance {
    pub uploads: usize,
    /// A second.
    pub requests: u32,
    /// A second.
    pub bytes: u64,
}

/// The longest burst.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What each client may do, by the client id of its requests, over REST and gRPC together. Every process counts for itself, so
/// with three replicas a client may do up to three times as much. Requests that are refused with 401 or 403 do not count.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How many uploads a client may have under way. Past it new ones get 429 / RESOURCE_EXHAUSTED before their content is read. 0
    /// sets no limit. Default 0.
    pub max_uploads: usize,
    /// How many requests a second a client may make: reads, uploads and all others. Past it they get 429 / RESOURCE_EXHAUSTED.
    /// 0 sets no limit. Default 0.
    pub requests_per_second: u32,
    /// How many bytes of content a second a client may send and receive, both together. What is under way goes on and counts; past
    /// the rate new requests get 429 / RESOURCE_EXHAUSTED. Content that the storage itself sends does not count. 0 sets no
    /// limit. Default 0.
    #[serde(with = "units::size")]
    #[schemars(with = "units::Size")]
    pub bytes_per_second: ByteSize,
    /// How much may come at once: what each of the two rates gives in this time, 1 ms to 1 h. Default 10 s.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub burst: Duration,
    /// Other limits for some clients. Default none.
    pub overrides: Vec<Override>,
}

/// What is not given is as for all others.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Override {
    /// The ids of the clients, 1 or more of them. Each has these limits for itself.
    pub clients: Vec<i64>,
    /// As `limits.per_client.max_uploads`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_uploads: Option<usize>,
    /// As `limits.per_client.requests_per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_second: Option<u32>,
    /// As `limits.per_client.bytes_per_second`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::optional_size")]
    #[schemars(with = "Option<units::Size>")]
    pub bytes_per_second: Option<ByteSize>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            max_uploads: 0,
            requests_per_second: 0,
            bytes_per_second: ByteSize::b(0),
            burst: Duration::from_secs(10),
            overrides: Vec::new(),
        }
    }
}

impl Config {
    /// What is wrong, by the key below `limits.per_client`.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        if !(Duration::from_millis(1)..=LONGEST).contains(&self.burst) {
            problems.push(("burst".to_owned(), "must be from 1ms to 1h".to_owned()));
        }
        let mut named = HashSet::new();
        for (index, entry) in self.overrides.iter().enumerate() {
            let key = format!("overrides[{index}].clients");
            if entry.clients.is_empty() {
                problems.push((key.clone(), "must name at least one client".to_owned()));
            }
            for client in &entry.clients {
                if Id::try_from(*client).is_err() {
                    problems.push((key.clone(), format!("{client} is no client id; ids are 1 or more")));
                } else if !named.insert(*client) {
                    problems.push((key.clone(), format!("the client {client} is named twice; name it once")));
                }
            }
        }
        problems
    }

    /// What a client may do that is not named.
    pub(super) fn general(&self) -> Allowance {
        Allowance {
            uploads: self.max_uploads,
            requests: self.requests_per_second,
            bytes: self.bytes_per_second.as_u64(),
        }
    }

    /// What each of the others may do.
    pub(super) fn named(&self) -> HashMap<Id, Allowance> {
        let of = |entry: &Override| Allowance {
            uploads: entry.max_uploads.unwrap_or(self.max_uploads),
            requests: entry.requests_per_second.unwrap_or(self.requests_per_second),
            bytes: entry.bytes_per_second.unwrap_or(self.bytes_per_second).as_u64(),
        };
        let entries =
            self.overrides.iter().flat_map(|entry| entry.clients.iter().map(move |client| (*client, of(entry))));
        entries.filter_map(|(client, allowance)| Some((Id::try_from(client).ok()?, allowance))).collect()
    }

    /// The burst in nanoseconds.
    pub(super) fn burst(&self) -> u64 {
        u64::try_from(self.burst.min(LONGEST).as_nanos()).unwrap_or(rate::SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<(String, String)> {
        toml::from_str::<Config>(text).unwrap().validate()
    }

    #[test]
    fn the_burst_has_its_bounds() {
        for (burst, fits) in [("0s", false), ("1ms", true), ("1h", true), ("3600001ms", false)] {
            assert_eq!(problems(&format!("burst = \"{burst}\"")).is_empty(), fits, "{burst}");
        }
    }

    #[test]
    fn an_override_names_clients_that_can_be_each_of_them_once() {
        let named =
            |clients: &str| problems(&format!("[[overrides]]\nclients = {clients}\n[[overrides]]\nclients = [7]"));
        assert_eq!(named("[1, 9223372036854775807]"), []);
        for (clients, key, why) in [
            ("[]", "overrides[0].clients", "must name at least one client"),
            ("[0]", "overrides[0].clients", "0 is no client id; ids are 1 or more"),
            ("[-1]", "overrides[0].clients", "-1 is no client id; ids are 1 or more"),
            ("[5, 5]", "overrides[0].clients", "the client 5 is named twice; name it once"),
            ("[7]", "overrides[1].clients", "the client 7 is named twice; name it once"),
        ] {
            assert_eq!(named(clients), [(key.to_owned(), why.to_owned())], "{clients}");
        }
    }

    #[test]
    fn an_override_takes_what_it_does_not_say_from_the_others() {
        let config: Config = toml::from_str(
            "max_uploads = 3\nrequests_per_second = 10\nbytes_per_second = \"1KiB\"\n[[overrides]]\nclients = [7, 8]\nmax_uploads = 0",
        )
        .unwrap();
        let expected = Allowance { uploads: 0, requests: 10, bytes: 1024 };
        let named = config.named();
        assert_eq!((named.len(), named[&Id::try_from(8).unwrap()]), (2, expected));
        assert_eq!(config.general(), Allowance { uploads: 3, ..expected });
    }
}
