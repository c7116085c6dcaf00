//! What a configuration permits and an operator should know of: combinations that are right somewhere and dangerous
//! elsewhere. Each names the key and what follows from it. Nothing here keeps a server from starting.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::overrides;
use super::sections::{Config, OnUnknown};
use crate::origin::Network;
use crate::units;

/// The grace with which `attachd gc` runs where it is not told otherwise.
pub const GC_GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// Something that an operator should know.
#[derive(Debug, PartialEq, Eq)]
pub struct Warning {
    /// The key that it is about.
    pub key: String,
    /// What follows from its value.
    pub why: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.why)
    }
}

impl Config {
    /// What an operator should know of this configuration. `memory` is how much memory the process may have, in bytes,
    /// where something bounds it.
    pub fn warnings(&self, memory: Option<u64>) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &str, why: String| warnings.push(Warning { key: key.to_owned(), why });
        let limits = &self.limits;
        let (rest, grpc) = (&self.rest, &self.grpc);
        for (key, tls, listen) in [("rest.listen", &rest.tls, rest.listen), ("grpc.listen", &grpc.tls, grpc.listen)] {
            if tls.is_none() && !listen.ip().is_loopback() {
                warn(
                    key,
                    format!(
                        "{} is served without TLS: tokens and files cross the network in the clear, unless what stands \
                         before attachd encrypts them",
                        listen
                    ),
                );
            }
        }
        for (key, proxies) in
            [("rest.trusted_proxies", &rest.trusted_proxies), ("grpc.trusted_proxies", &grpc.trusted_proxies)]
        {
            if proxies.iter().any(Network::holds_all) {
                let why =
                    "every address is trusted, so callers write themselves where they come from in the audit trail";
                warn(key, why.to_owned());
            }
        }
        if self.auth.max_token_lifetime.is_none() {
            let why = "is not set: a token is accepted for as long as its issuer says, be it years; `24h` is a limit that \
                       access tokens rarely reach";
            warn("auth.max_token_lifetime", why.to_owned());
        }
        for (index, issuer) in self.auth.issuers.iter().enumerate() {
            if let Some(claim) = issuer.audience_claim.as_deref().filter(|claim| !["aud", "/aud"].contains(claim)) {
                let why = format!(
                    "tokens are accepted by `{claim}` in place of `aud`: a token that was issued for another service is \
                     accepted too, if its `{claim}` is one of `audience`"
                );
                warn(&format!("auth.issuers[{index}].audience_claim"), why);
            }
            if issuer.audience.iter().any(|name| name == "account") {
                let why = "`account` is in every token of a Keycloak realm, so every token of the realm is accepted: give \
                           attachd a client of its own and its tokens an audience mapper";
                warn(&format!("auth.issuers[{index}].audience"), why.to_owned());
            }
        }
        if self.attachments.on_unknown == OnUnknown::Create {
            warn(
                "attachments.on_unknown",
                "`create` lets every caller who may upload to a client make attachments known, under any id".to_owned(),
            );
        }
        if self.download.redirect {
            let why = "`true` sends clients to the storage: attachd neither verifies nor counts what they read there, and anyone who \
                       has an address of `download.redirect_expiry` can read its content without a token";
            warn("download.redirect", why.to_owned());
        }
        if self.storage.service == "memory" {
            warn("storage.service", "`memory` forgets all uploads when the process ends".to_owned());
        }
        for (name, value) in &self.storage.options {
            if value.starts_with("http://") && !is_loopback(value) {
                let why = "the storage is reached without TLS: files and keys cross the network in the clear";
                warn(&format!("storage.options.{name}"), why.to_owned());
            }
        }
        if limits.max_upload_time >= GC_GRACE {
            warn(
                "limits.max_upload_time",
                format!(
                    "{} is not less than the grace of `attachd gc`, which takes content of that age for garbage: run it \
                     with a longer --grace",
                    humantime::format_duration(limits.max_upload_time)
                ),
            );
        }
        if limits.idle_timeout > limits.max_upload_time {
            warn("limits.idle_timeout", "is longer than limits.max_upload_time, so it never comes to be".to_owned());
        }
        if self.storage.timeout > limits.max_upload_time {
            warn(
                "storage.timeout",
                "is longer than limits.max_upload_time, so that one slow operation can outlast what its upload may take"
                    .to_owned(),
            );
        }
        // Of what the storage cannot use no upload takes any.
        let budget = limits.memory_budget.as_u64().min(self.storage.useful_memory().unwrap_or(u64::MAX));
        if let Some(memory) = memory.filter(|memory| budget > memory / 2) {
            warn(
                "limits.memory_budget",
                format!(
                    "{} is more than half of the {} that the process may have. Connections and gRPC messages need memory \
                     beside the budget; past the limit the system ends the process",
                    units::size::exact(budget),
                    units::size::exact(memory),
                ),
            );
        }
        if !self.log.shows_audit() {
            let filter = &self.log.filter;
            warn(
                "log.filter",
                format!(
                    "the audit trail is off: `{filter}` leaves it out; write `{filter},attachd::audit=info` to keep it"
                ),
            );
        }
        if ["debug", "trace"].iter().any(|level| self.log.filter.split(',').any(|directive| directive.trim() == *level))
        {
            warn(
                "log.filter",
                format!(
                    "`{}` holds for libraries too, which write many lines a request; `info,attachd=debug` is what one \
                     of attachd's own looks like",
                    self.log.filter
                ),
            );
        }
        warnings
    }
}

/// What is said of variables that begin as ours do and override no key.
pub(super) fn ignored(variables: &BTreeMap<String, String>, known: &[String]) -> Vec<Warning> {
    let warning = |(key, meant): (String, Option<String>)| {
        let why = match meant {
            Some(meant) => format!("this variable is ignored; did you mean {meant}?"),
            None => "this variable is ignored: it is the variable of no key".to_owned(),
        };
        Warning { key, why }
    };
    overrides::ignored(variables, known).into_iter().map(warning).collect()
}

/// Whether the host of an address is this machine.
fn is_loopback(address: &str) -> bool {
    let host = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = host.split(['/', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(six) => six.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::super::tests::{LEAST, read};
    use super::*;

    const QUIET: [(&str, &str); 5] = [
        ("ATTACHD_AUTH__MAX_TOKEN_LIFETIME", "24h"),
        ("ATTACHD_REST__LISTEN", "127.0.0.1:0"),
        ("ATTACHD_GRPC__LISTEN", "[::1]:0"),
        ("ATTACHD_STORAGE__SERVICE", "fs"),
        ("ATTACHD_STORAGE__OPTIONS__ROOT", "/data"),
    ];

    /// The keys that are warned of where the quiet configuration is changed so.
    fn warned(changes: &[(&str, &str)], memory: Option<u64>) -> Vec<String> {
        let config = read(LEAST, &[&QUIET, changes].concat()).unwrap();
        config.warnings(memory).into_iter().map(|warning| warning.key).collect()
    }

    #[test]
    fn what_is_harmless_is_not_warned_of() {
        assert_eq!(warned(&[], None), [""; 0]);
        assert_eq!(warned(&[], Some(1 << 40)), [""; 0]);
    }

    #[test]
    fn tokens_without_a_longest_lifetime_are_warned_of() {
        let config = read(LEAST, QUIET.get(1..).unwrap()).unwrap();
        let keys: Vec<_> = config.warnings(None).into_iter().map(|warning| warning.key).collect();
        assert_eq!(keys, ["auth.max_token_lifetime"]);
    }

    #[test]
    fn each_danger_is_named_by_its_key_at_its_bound_and_not_before() {
        for (changes, key) in [
            (&[("ATTACHD_REST__LISTEN", "0.0.0.0:0")][..], "rest.listen"),
            (&[("ATTACHD_GRPC__LISTEN", "192.0.2.1:0")], "grpc.listen"),
            (&[("ATTACHD_REST__TRUSTED_PROXIES", r#"["10.0.0.0/8", "0.0.0.0/0"]"#)], "rest.trusted_proxies"),
            (&[("ATTACHD_GRPC__TRUSTED_PROXIES", r#"["::/0"]"#)], "grpc.trusted_proxies"),
            (&[("ATTACHD_AUTH__ISSUERS__0__AUDIENCE", r#"["account"]"#)], "auth.issuers[0].audience"),
            (&[("ATTACHD_AUTH__ISSUERS__0__AUDIENCE", r#"["attachd", "account"]"#)], "auth.issuers[0].audience"),
            (&[("ATTACHD_AUTH__ISSUERS__0__AUDIENCE_CLAIM", "client_id")], "auth.issuers[0].audience_claim"),
            (&[("ATTACHD_ATTACHMENTS__ON_UNKNOWN", "create")], "attachments.on_unknown"),
            (&[("ATTACHD_STORAGE__SERVICE", "memory")], "storage.service"),
            (&[("ATTACHD_LIMITS__MAX_UPLOAD_TIME", "24h")], "limits.max_upload_time"),
            (&[("ATTACHD_LIMITS__IDLE_TIMEOUT", "6h 1s")], "limits.idle_timeout"),
            (&[("ATTACHD_STORAGE__TIMEOUT", "6h 1s")], "storage.timeout"),
            (&[("ATTACHD_LOG__FILTER", "debug")], "log.filter"),
            (&[("ATTACHD_LOG__FILTER", "attachd=info,trace")], "log.filter"),
        ] {
            assert_eq!(warned(changes, None), [key], "{changes:?}");
        }
        for changes in [
            &[("ATTACHD_LIMITS__MAX_UPLOAD_TIME", "23h 59m 59s")][..],
            &[("ATTACHD_LIMITS__IDLE_TIMEOUT", "6h")],
            &[("ATTACHD_AUTH__ISSUERS__0__AUDIENCE", r#"["accounts", "my-account"]"#)],
            &[("ATTACHD_AUTH__ISSUERS__0__AUDIENCE_CLAIM", "aud")],
            &[("ATTACHD_REST__TRUSTED_PROXIES", r#"["0.0.0.0/1", "192.0.2.1"]"#)],
            &[("ATTACHD_STORAGE__TIMEOUT", "6h")],
            &[("ATTACHD_LOG__FILTER", "info,attachd=debug")],
        ] {
            assert_eq!(warned(changes, None), [""; 0], "{changes:?}");
        }
        // On a local file system uploads take no more than 8 MiB of it.
        let s3 = [
            ("ATTACHD_STORAGE__SERVICE", "s3"),
            ("ATTACHD_STORAGE__OPTIONS__BUCKET", "b"),
            ("ATTACHD_STORAGE__OPTIONS__REGION", "r"),
        ];
        for (service, bound) in [(&s3[..], 512 << 20), (&[], 16 << 20)] {
            assert_eq!(warned(service, Some(bound - 1)), ["limits.memory_budget"]);
            assert_eq!(warned(service, Some(bound)), [""; 0]);
        }
    }

    #[test]
    fn an_address_of_this_machine_is_told_from_any_other() {
        for address in ["http://127.0.0.1:9000", "http://localhost/x", "http://[::1]:9000/x", "http://me@127.1.2.3"] {
            assert!(is_loopback(address), "{address}");
        }
        for address in ["http://storage:9000", "http://192.0.2.1", "http://localhost.example", "http://a/127.0.0.1"] {
            assert!(!is_loopback(address), "{address}");
        }
    }
}
