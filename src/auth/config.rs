//! What users write about tokens, and what is wrong with it in plain words. This file must not know what a key source
//! holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units;

use super::certificate::CertificateConfig;
use super::claims::{ClaimNames, Path as ClaimPath, Paths};
use super::fetch::Provider;
use super::grants::Grant;
use super::keys::{self, Form};
use super::load_error::LoadError;
use super::principal::Scope;

/// The largest clock difference that is forgiven, and the default.
const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// The most memory that verified tokens may take.
const MAX_TOKEN_CACHE: ByteSize = ByteSize::gib(1);

/// The shortest lifetime that tokens can be limited to.
const MIN_TOKEN_LIFETIME: Duration = Duration::from_secs(1);

/// The names that `algorithms` takes (RFC 7518 §3.1, RFC 8037, RFC 9864), for messages.
pub(super) const ALGORITHMS: &str =
    "HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA or Ed25519";

/// The `[auth]` table: whose tokens are accepted.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// How far the clocks of issuer and service may differ when `exp` and `nbf` are judged: a duration such as `"30s"`,
    /// from `0s` to `60s`. Default `60s`.
    #[serde(default = "default_leeway", with = "units::time")]
    #[schemars(with = "units::Time")]
    pub leeway: Duration,
    /// How long a token may be valid for, at least `1s`: a token is refused with 401 if its `exp` is further away than this
    /// from now, with `leeway` added, or further from its `iat`, where it has one. Default none: a token is accepted for as
    /// long as its issuer says.
    #[serde(default, with = "units::optional_time")]
    #[schemars(with = "Option<units::Time>")]
    pub max_token_lifetime: Option<Duration>,
    /// The bytes, about, within which tokens are remembered that were found to hold, so that a signature is verified once and
    /// not for each request: 0, which turns it off, to 1 GiB. A token is forgotten when the keys of its issuer change, and
    /// judged by the clock each time. Default 4 MiB, some 10,000 tokens.
    #[serde(default = "default_token_cache", with = "units::size")]
    #[schemars(with = "units::Size")]
    pub token_cache: ByteSize,
    /// How keys are kept up to date.
    #[serde(default)]
    pub keys: KeysConfig,
    /// The trusted issuers, at least one, each with a name of its own. Default none, with which loading fails.
    #[serde(default)]
    pub issuers: Vec<IssuerConfig>,
    /// Whom client certificates speak for, where a port asks for them. Default nobody.
    #[serde(default)]
    pub certificates: Vec<CertificateConfig>,
}

/// The `[auth.keys]` table: how the keys of `jwks_url` and `discovery` are kept up to date. Files are looked at each five
/// seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct KeysConfig {
    /// How often a provider is asked again, from `1s` to `24h`. A key that it takes back is in use for this long at most.
    /// Default `5m`.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub refresh: Duration,
    /// How long keys are used that could not be confirmed, because the provider does not answer or the file cannot be read:
    /// from `refresh` to `7d`. Past it the issuer's tokens are answered 503 / UNAVAILABLE. Default `1h`.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub max_age: Duration,
    /// How long a provider may take to answer, from `100ms` to `60s`. Default `5s`.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub timeout: Duration,
    /// How soon a provider is asked again when no known key verifies a token, from `100ms` to `60s`. Such requests wait for
    /// the answer, up to 256 of them for an issuer. A key that the provider does not have is asked for ever more rarely, at
    /// last each `refresh`, and the requests between are refused at once. Default `1s`.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub cooldown: Duration,
}

/// One `[[auth.issuers]]` table: an issuer, and the keys that prove a token to be its own. Exactly one of `discovery`,
/// `jwks_url`, `jwks_file`, `pem_file` and `hmac_secret_file` is given.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    /// The token's `iss`, compared byte by byte (RFC 7519 §4.1.1). Not empty.
    pub issuer: String,
    /// The names by which a token's `aud` may address this service (RFC 7519 §4.1.3). At least one, none empty.
    pub audience: Vec<String>,
    /// The claim whose value must be one of `audience`: a name or a JSON pointer, as in `[auth.issuers.claims]`. For an issuer
    /// whose tokens have no `aud`, such as Amazon Cognito's access tokens with `client_id`. Then whoever is given such a
    /// token for another service can use it here. Default `aud`.
    #[serde(default)]
    pub audience_claim: Option<String>,
    /// The accepted `alg` values, case-sensitive: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256,
    /// ES384, EdDSA. At least one. `Ed25519` (RFC 9864) means the same as `EdDSA`, here and in a token. HS* go with `hmac_secret_file` and only with it.
    pub algorithms: Vec<String>,
    /// A public key in PEM (RFC 7468): `PUBLIC KEY` for RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519, or
    /// `RSA PUBLIC KEY`. Every one of `algorithms` must fit the key. A token's `kid` is not looked at.
    #[serde(default)]
    pub pem_file: Option<PathBuf>,
    /// A JSON Web Key Set (RFC 7517 §5) of public keys. A token's `kid` selects its key; if no key
    /// has it, the keys without a `kid` are tried. A key that cannot be used is passed over.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// The address of a JSON Web Key Set of public keys, https. It is fetched at the start and again and again. Redirects are
    /// followed within its host.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// `true`: the key set is the one that the issuer names in `<issuer>/.well-known/openid-configuration` (OpenID Connect
    /// Discovery 1.0), where `issuer` must be an https URL. Default `false`.
    #[serde(default)]
    pub discovery: bool,
    /// For `jwks_url` and `discovery`: the certificates in PEM that are trusted to vouch for the provider, in place of those
    /// that the system trusts. It is read again for each fetch.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// For `jwks_url` and `discovery`: a file with a token that the provider wants to see, sent as `Authorization: Bearer` to
    /// the host that is configured and to no other. It is read again for each fetch.
    #[serde(default)]
    pub bearer_token_file: Option<PathBuf>,
    /// For `jwks_url` and `discovery`: whether plain http is permitted, and not to this machine alone. Default `false`.
    #[serde(default)]
    pub allow_http: bool,
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
    /// What the issuer calls the scopes, where it cannot use their names: a name of the issuer on the left, the scope that it
    /// stands for on the right, such as `"attachd/attachments.write" = "attachments:write"`. The scopes' own names are
    /// accepted as well. Default none.
    #[serde(default)]
    pub scope_names: BTreeMap<String, Scope>,
    /// Rights by subject, group or role, for tokens that cannot carry them. Default none.
    #[serde(default)]
    pub grants: Vec<Grant>,
}

/// Where an issuer's keys are.
#[derive(Debug)]
pub(super) enum Source<'a> {
    /// In a file, which stands at this key of the issuer's table.
    File { path: &'a Path, form: Form, key: &'static str },
    /// At its provider.
    Provider(Provider<'a>),
}

fn default_leeway() -> Duration {
    MAX_LEEWAY
}

fn default_token_cache() -> ByteSize {
    ByteSize::mib(4)
}

impl Default for Config {
    /// The defaults of all keys, and no issuer.
    fn default() -> Self {
        let (leeway, token_cache) = (default_leeway(), default_token_cache());
        Config {
            leeway,
            max_token_lifetime: None,
            token_cache,
            keys: KeysConfig::default(),
            issuers: Vec::new(),
            certificates: Vec::new(),
        }
    }
}

impl Default for KeysConfig {
    fn default() -> Self {
        KeysConfig {
            refresh: Duration::from_secs(5 * 60),
            max_age: Duration::from_secs(60 * 60),
            timeout: Duration::from_secs(5),
            cooldown: Duration::from_secs(1),
        }
    }
}

impl Source<'_> {
    /// What the source holds.
    pub(super) fn form(&self) -> Form {
        match self {
            Source::File { form, .. } => *form,
            Source::Provider(_) => Form::Jwks,
        }
    }
}

impl KeysConfig {
    fn check(&self) -> Result<(), LoadError> {
        let second = Duration::from_secs(1);
        let (short, minute) = (Duration::from_millis(100), 60 * second);
        for (key, value, least, most) in [
            ("refresh", self.refresh, second, 24 * 60 * minute),
            ("max_age", self.max_age, self.refresh, 7 * 24 * 60 * minute),
            ("timeout", self.timeout, short, minute),
            ("cooldown", self.cooldown, short, minute),
        ] {
            if !(least..=most).contains(&value) {
                let [value, least, most] = [value, least, most].map(humantime::format_duration);
                return Err(LoadError::new(
                    format!("auth.keys.{key}"),
                    format!("{value} is not from {least} to {most}"),
                ));
            }
        }
        Ok(())
    }
}

impl Config {
    /// Checks what is not about a single issuer.
    pub(super) fn check(&self) -> Result<(), LoadError> {
        if self.leeway > MAX_LEEWAY {
            let leeway = humantime::format_duration(self.leeway);
            return Err(LoadError::new("auth.leeway", format!("{leeway} is more than 60s")));
        }
        if let Some(lifetime) = self.max_token_lifetime.filter(|lifetime| *lifetime < MIN_TOKEN_LIFETIME) {
            let lifetime = humantime::format_duration(lifetime);
            return Err(LoadError::new("auth.max_token_lifetime", format!("{lifetime} is less than 1s")));
        }
        if self.token_cache > MAX_TOKEN_CACHE {
            return Err(LoadError::new(
                "auth.token_cache",
                format!("{} is more than {MAX_TOKEN_CACHE}", self.token_cache),
            ));
        }
        self.keys.check()?;
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
        self.audience_path(at)?;
        if self.scope_names.keys().any(String::is_empty) {
            return wrong("scope_names", "must not have an empty name");
        }
        Grant::check(&self.grants, &format!("{at}.grants"))?;
        let source = self.source(at)?;
        Ok((source, self.parsed_algorithms(at)?))
    }

    /// Where a token says whom it is for.
    pub(super) fn audience_path(&self, at: &str) -> Result<ClaimPath, LoadError> {
        let name = self.audience_claim.as_deref().unwrap_or("aud");
        ClaimPath::parse(name).map_err(|what| LoadError::new(format!("{at}.audience_claim"), what))
    }

    /// The paths of all files that the table names.
    pub fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let IssuerConfig { pem_file, jwks_file, hmac_secret_file, ca_file, bearer_token_file, .. } = self;
        [pem_file, jwks_file, hmac_secret_file, ca_file, bearer_token_file].into_iter().flatten()
    }

    fn source(&self, at: &str) -> Result<Source<'_>, LoadError> {
        let one_of = "exactly one of discovery, jwks_url, jwks_file, pem_file and hmac_secret_file";
        let provider = |key, jwks_url| {
            let (ca_file, bearer_token_file) = (self.ca_file.as_deref(), self.bearer_token_file.as_deref());
            let IssuerConfig { issuer, allow_http, .. } = self;
            (key, Source::Provider(Provider { jwks_url, issuer, ca_file, bearer_token_file, allow_http: *allow_http }))
        };
        let given = [
            self.discovery.then(|| provider("discovery", None)),
            self.jwks_url.as_deref().map(|url| provider("jwks_url", Some(url))),
            in_file("jwks_file", Form::Jwks, self.jwks_file.as_deref()),
            in_file("pem_file", Form::Pem, self.pem_file.as_deref()),
            in_file("hmac_secret_file", Form::Secret, self.hmac_secret_file.as_deref()),
        ];
        let mut given = given.into_iter().flatten();
        let (first, source) = given.next().ok_or_else(|| LoadError::new(at, format!("has no key: give {one_of}")))?;
        let others: Vec<_> = given.map(|(key, _)| key).collect();
        if !others.is_empty() {
            return Err(LoadError::new(at, format!("has {first} and {}: give {one_of}", others.join(" and "))));
        }
        let fetching = [
            ("ca_file", self.ca_file.is_some()),
            ("bearer_token_file", self.bearer_token_file.is_some()),
            ("allow_http", self.allow_http),
        ];
        match fetching.iter().find(|(_, given)| *given) {
            Some((key, _)) if !matches!(source, Source::Provider(_)) => Err(LoadError::new(
                format!("{at}.{key}"),
                format!("goes with discovery and jwks_url, not with {first}"),
            )),
            _ => Ok(source),
        }
    }

    /// The algorithms, each once, all of the kind that the key source is of. A list that mixes secrets with public keys
    /// is how a public key gets used as a secret (RFC 8725 §2.1).
    fn parsed_algorithms(&self, at: &str) -> Result<Vec<Algorithm>, LoadError> {
        let wrong = |what: String| Err(LoadError::new(format!("{at}.algorithms"), what));
        let mut algorithms = Vec::new();
        for name in &self.algorithms {
            let Some(algorithm) = keys::algorithm(name) else {
                return wrong(match keys::unsupported(name) {
                    Some(why) => why.to_owned(),
                    None => format!("`{name}` is not one of {ALGORITHMS}"),
                });
            };
            let is_hmac = algorithm.family() == AlgorithmFamily::Hmac;
            if is_hmac && self.hmac_secret_file.is_none() {
                return wrong(format!(
                    "{name} needs a shared secret (hmac_secret_file), and a public key is configured"
                ));
            }
            if !is_hmac && self.hmac_secret_file.is_some() {
                return wrong(format!(
                    "{name} needs a public key (discovery, jwks_url, jwks_file or pem_file), not hmac_secret_file"
                ));
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

/// A file as a source of keys, with the key of the configuration that names it.
fn in_file<'a>(key: &'static str, form: Form, path: Option<&'a Path>) -> Option<(&'static str, Source<'a>)> {
    path.map(|path| (key, Source::File { path, form, key }))
}
