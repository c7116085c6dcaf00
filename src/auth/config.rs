//! What users write about tokens, and what is wrong with it in plain words. This file must not know what a key file
//! holds.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::{Deserialize, Deserializer, de};

use super::claims::Paths;
use super::principal::{Ids, Rights, Scope, is_subject};

/// The largest clock difference that is forgiven, and the default.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// The names that `algorithms` takes (RFC 7518 §3.1, RFC 8037), for messages.
const ALGORITHMS: &str = "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";

/// The `[auth]` table: whose tokens are accepted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How far the clocks of issuer and service may differ when `exp` and `nbf` are judged: a duration such as `"30s"`,
    /// from `0s` to `60s`. Default `60s`.
    #[serde(default = "default_leeway", deserialize_with = "duration")]
    pub leeway: Duration,
    /// The trusted issuers, at least one, each with a name of its own. Default none, with which loading fails.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
}

/// One `[[auth.issuers]]` table: an issuer, and the keys that prove a token to be its own. Exactly one of `pem_file`,
/// `jwks_file`, `jwks_url` and `hmac_secret_file` is given.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The token's `iss`, compared byte by byte (RFC 7519 §4.1.1). Not empty.
    pub issuer: String,
    /// The names by which a token's `aud` may address this service (RFC 7519 §4.1.3). At least one, none empty.
    pub audience: Vec<String>,
    /// The accepted `alg` values, case-sensitive: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256,
    /// ES384, EdDSA. At least one. HS* go with `hmac_secret_file` and only with it.
    pub algorithms: Vec<String>,
    /// A public key in PEM (RFC 7468): `PUBLIC KEY` for RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, or
    /// `RSA PUBLIC KEY`. Every one of `algorithms` must fit the key. A token's `kid` is not looked at.
    #[serde(default)]
    pub pem_file: Option<PathBuf>,
    /// A JSON Web Key Set (RFC 7517 §5) of public keys. A token's `kid` selects its key.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The address of a JSON Web Key Set. Recognised, and not supported by this version.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// A shared secret, as bytes: at least 32 for HS256, 48 for HS384, 64 for HS512 (RFC 7518 §3.2). One newline at the
    /// very end (LF or CR LF), as editors and `echo` leave it, is not part of the secret; nothing else is trimmed. A
    /// binary secret whose last byte happens to be 0x0A is therefore one byte shorter than its file.
    #[serde(default)]
    pub hmac_secret_file: Option<PathBuf>,
    /// The accepted types of tokens, the header's `typ` (RFC 8725 §3.11), such as `at+jwt` (RFC 9068); in any case, with
    /// or without `application/`. Default none, with which `typ` is not looked at.
    #[serde(default)]
    pub types: Vec<String>,
    /// Under which names the issuer writes what attachd reads.
    #[serde(default)]
    pub claims: ClaimNames,
    /// Rights of single subjects, for tokens that cannot carry them. Default none.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// One `[[auth.issuers.grants]]` table: what one subject may do. It stands in place of the claims that grant rights, which
/// are not looked at in the tokens of this subject.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The subject, compared byte by byte: 1 to 255 bytes without control characters. Each at most once for an issuer.
    pub subject: String,
    /// What it may do. Default nothing.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// For which clients: a list of ids, or `"*"` for all. Default none.
    #[serde(default)]
    pub clients: Ids,
    /// For which projects, likewise.
    #[serde(default)]
    pub projects: Ids,
    /// For which portfolios, likewise.
    #[serde(default)]
    pub portfolios: Ids,
}

/// The `[auth.issuers.claims]` table: where the claims stand. Each is the name of a claim, or, where it begins with `/`, a
/// JSON pointer (RFC 6901) to one within others. None may be empty, the same as another, within another, or one of `iss`,
/// `aud`, `exp`, `nbf` and `iat`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// Who the caller is: a string. Default `sub`.
    pub subject: String,
    /// What it may do: a string of names between spaces, or an array of names. Default `scope`.
    pub scopes: String,
    /// For which clients: an id or an array of ids, as integers or their digits, or `"*"` for all. Default `client_ids`.
    pub clients: String,
    /// For which projects, likewise. Default `project_ids`.
    pub projects: String,
    /// For which portfolios, likewise. Default `portfolio_ids`.
    pub portfolios: String,
}

/// Why a configuration of tokens cannot be used: which key of it, and what is wrong. Holds no key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    key: String,
    what: String,
}

/// Where an issuer's keys are.
#[derive(Debug)]
pub(super) enum Source<'a> {
    Pem(&'a Path),
    Jwks(&'a Path),
    Hmac(&'a Path),
}

fn default_leeway() -> Duration {
    MAX_LEEWAY
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text)
        .map_err(|error| de::Error::custom(format!("`{text}` is not a duration such as \"30s\": {error}")))
}

impl Default for Config {
    /// A leeway of 60 seconds and no issuer.
    fn default() -> Self {
        Config { leeway: default_leeway(), issuers: Vec::new() }
    }
}

impl Default for ClaimNames {
    /// `sub`, `scope`, `client_ids`, `project_ids`, `portfolio_ids`.
    fn default() -> Self {
        ClaimNames {
            subject: "sub".to_owned(),
            scopes: "scope".to_owned(),
            clients: "client_ids".to_owned(),
            projects: "project_ids".to_owned(),
            portfolios: "portfolio_ids".to_owned(),
        }
    }
}

impl LoadError {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        LoadError { key: key.into(), what: what.into() }
    }

    /// The configuration key that is wrong, such as `auth.issuers[0].pem_file`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong with it, in words for whoever wrote the configuration.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl std::error::Error for LoadError {}

impl Source<'_> {
    /// Whether the keys there have ids, so that a token's `kid` selects among them.
    pub(super) fn has_key_ids(&self) -> bool {
        matches!(self, Source::Jwks(_))
    }
}

impl Config {
    /// Checks what is not about a single issuer.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        if self.leeway > MAX_LEEWAY {
            let leeway = humantime::format_duration(self.leeway);
            return Err(LoadError::new("auth.leeway", format!("{leeway} is more than 60s")));
        }
        if self.issuers.is_empty() {
            return Err(LoadError::new("auth.issuers", "no issuer is configured, so that no token could be accepted"));
        }
        for (index, issuer) in self.issuers.iter().enumerate() {
            if let Some(first) = self.issuers.iter().take(index).position(|other| other.issuer == issuer.issuer) {
                return Err(LoadError::new(
                    format!("auth.issuers[{index}].issuer"),
                    format!("`{}` is the issuer of auth.issuers[{first}] already", issuer.issuer),
                ));
            }
        }
        Ok(())
    }
}

impl IssuerConfig {
    /// Checks everything that can be checked without reading a key; `at` is the configuration key of this table.
    pub(super) fn check(&self, at: &str) -> Result<(Source<'_>, Vec<Algorithm>), LoadError> {
        let wrong = |key: &str, what: &str| Err(LoadError::new(format!("{at}.{key}"), what));
        if self.issuer.is_empty() {
            return wrong("issuer", "must not be empty");
        }
        if self.audience.is_empty() || self.audience.iter().any(String::is_empty) {
            return wrong("audience", "must name at least one audience, and no empty one");
        }
        if self.types.iter().any(String::is_empty) {
            return wrong("types", "must not name an empty type");
        }
        Paths::parse(&self.claims, &format!("{at}.claims"))?;
        Grant::check(&self.grants, &format!("{at}.grants"))?;
        let source = self.source(at)?;
        Ok((source, self.parsed_algorithms(at)?))
    }

    fn source(&self, at: &str) -> Result<Source<'_>, LoadError> {
        let one_of = "exactly one of pem_file, jwks_file, jwks_url and hmac_secret_file";
        match (&self.pem_file, &self.jwks_file, &self.jwks_url, &self.hmac_secret_file) {
            (Some(path), None, None, None) => Ok(Source::Pem(path)),
            (None, Some(path), None, None) => Ok(Source::Jwks(path)),
            (None, None, None, Some(path)) => Ok(Source::Hmac(path)),
            (None, None, Some(_), None) => Err(LoadError::new(
                format!("{at}.jwks_url"),
                "jwks_url is not supported by this version, use jwks_file",
            )),
            (None, None, None, None) => Err(LoadError::new(at, format!("has no key: give {one_of}"))),
            _ => {
                let given = [
                    ("pem_file", self.pem_file.is_some()),
                    ("jwks_file", self.jwks_file.is_some()),
                    ("jwks_url", self.jwks_url.is_some()),
                    ("hmac_secret_file", self.hmac_secret_file.is_some()),
                ];
                let given: Vec<_> = given.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
                Err(LoadError::new(at, format!("has {}: give {one_of}", given.join(" and "))))
            }
        }
    }

    /// The algorithms, each once, all of the kind that the key source is of. A list that mixes secrets with public keys
    /// is how a public key gets used as a secret (RFC 8725 §2.1).
    fn parsed_algorithms(&self, at: &str) -> Result<Vec<Algorithm>, LoadError> {
        let wrong = |what: String| Err(LoadError::new(format!("{at}.algorithms"), what));
        let mut algorithms = Vec::new();
        for name in &self.algorithms {
            let Ok(algorithm) = Algorithm::from_str(name) else {
                return wrong(format!("`{name}` is not one of {ALGORITHMS}"));
            };
            let is_hmac = algorithm.family() == AlgorithmFamily::Hmac;
            if is_hmac && self.hmac_secret_file.is_none() {
                return wrong(format!(
                    "{name} needs a shared secret (hmac_secret_file), and a public key is configured"
                ));
            }
            if !is_hmac && self.hmac_secret_file.is_some() {
                return wrong(format!("{name} needs a public key (pem_file or jwks_file), not hmac_secret_file"));
            }
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        if algorithms.is_empty() {
            return wrong(format!("must name at least one of {ALGORITHMS}"));
        }
        Ok(algorithms)
    }
}

impl Grant {
    /// What it grants.
    pub(super) fn rights(&self) -> Rights {
        let Grant { scopes, clients, projects, portfolios, .. } = self.clone();
        Rights { scopes, clients, projects, portfolios }
    }

    /// Looks at the grants of one issuer; `at` is the configuration key of their list.
    fn check(grants: &[Grant], at: &str) -> Result<(), LoadError> {
        for (index, grant) in grants.iter().enumerate() {
            let wrong = |what: String| Err(LoadError::new(format!("{at}[{index}].subject"), what));
            if !is_subject(&grant.subject) {
                return wrong("must have 1 to 255 bytes and no control characters".to_owned());
            }
            if let Some(first) = grants.iter().take(index).position(|other| other.subject == grant.subject) {
                return wrong(format!("`{}` is the subject of {at}[{first}] already", grant.subject));
            }
        }
        Ok(())
    }
}
