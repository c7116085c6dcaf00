//! Tokens for development and tests, signed as a configured issuer would sign them. No upload path may depend on this:
//! the service holds public keys only. This file must not know who asks for a token.

use std::path::Path;
use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, AlgorithmFamily, EncodingKey, Header};
use serde_json::{Map, Value};

use super::claims::Paths;
use super::config::{IssuerConfig, KeysConfig, Source};
use super::issuer::Issuer;
use super::keyring::Held;
use super::keys::{self, Form};
use super::load_error::LoadError;
use super::principal::{Ids, Scope, is_subject};
use super::token::{MAX_TOKEN_BYTES, Members, TokenParts};
use crate::error::{Error, Result};

/// What a minted token says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Who the token is for: 1 to 255 bytes without control characters.
    pub subject: String,
    /// What it allows; may be empty.
    pub scopes: Vec<Scope>,
    /// For which clients.
    pub clients: Ids,
    /// For which projects.
    pub projects: Ids,
    /// For which portfolios.
    pub portfolios: Ids,
    /// How long it holds: at least one second; a fraction of a second is dropped.
    pub ttl: Duration,
    /// When it is issued. It expires `ttl` later, in whole seconds of Unix time.
    pub now: SystemTime,
}

/// Signs tokens in the name of one issuer. `Debug` shows no key material.
#[derive(Debug)]
pub struct Minter {
    issuer: String,
    audience: String,
    paths: Paths,
    algorithm: Algorithm,
    kid: Option<String>,
    key: EncodingKey,
}

impl Minter {
    /// Reads the key with which `issuer` signs. With `hmac_secret_file` that is the configured secret, and
    /// `private_key_file` must be `None`. Otherwise it is the PEM file `private_key_file`: `PRIVATE KEY` (PKCS #8, RFC
    /// 5958) for RSA, EC and Ed25519, or `RSA PRIVATE KEY`. The first configured algorithm that goes with the key is
    /// used, and the key must belong to one of the issuer's public keys, whose `kid` is written into the tokens.
    ///
    /// # Errors
    /// A [`LoadError`] about the issuer's configuration, whose table is called `auth.issuers["<issuer>"]` there, or
    /// about the private key, which is called `private key file`.
    pub fn from_issuer(issuer: &IssuerConfig, private_key_file: Option<&Path>) -> Result<Minter, LoadError> {
        const PRIVATE: &str = "private key file";
        let at = format!("auth.issuers[{:?}]", issuer.issuer);
        let (source, algorithms) = issuer.check(&at)?;
        let (path, form) = match source {
            Source::File { path, form, .. } => (path, form),
            Source::Provider(_) => {
                return Err(LoadError::new(at, "has its keys at a provider, which alone makes its tokens"));
            }
        };
        let verifying = Issuer::load(issuer, KeysConfig::default(), &at)?;
        let held = verifying.ring.held();
        let paths = Paths::parse(&issuer.claims, &format!("{at}.claims"))?;
        let bytes = match (form, private_key_file) {
            (Form::Secret, Some(_)) => {
                return Err(LoadError::new(PRIVATE, "is not needed: the issuer signs with its hmac_secret_file"));
            }
            (Form::Secret, None) => {
                let key = format!("{at}.hmac_secret_file");
                let bytes = keys::read(path, &key)?;
                keys::secret(&bytes, &algorithms).map(<[u8]>::to_vec).map_err(|what| LoadError::new(key, what))?
            }
            (_, Some(path)) => keys::read(path, PRIVATE)?,
            (_, None) => {
                return Err(LoadError::new(PRIVATE, "is needed: the configuration has only the issuer's public key"));
            }
        };
        let wrong = |what: String| match private_key_file {
            Some(path) => LoadError::new(PRIVATE, format!("{}: {what}", path.display())),
            None => LoadError::new(format!("{at}.hmac_secret_file"), what),
        };
        if form != Form::Secret {
            check_private_pem(&bytes).map_err(wrong)?;
        }

        // The proof of a key is that what it signs verifies: kind, curve and belonging in one check.
        let mut signs = false;
        for algorithm in algorithms {
            let Some(key) = encoding_key(algorithm, &bytes) else { continue };
            for candidate in held.keys.iter().filter(|key| key.algorithms.contains(&algorithm)) {
                let minter = Minter {
                    issuer: issuer.issuer.clone(),
                    audience: verifying.audience.first().cloned().unwrap_or_default(),
                    paths: paths.clone(),
                    algorithm,
                    kid: candidate.kid.clone(),
                    key: key.clone(),
                };
                let Ok(probe) = minter.sign(&Map::new()) else { continue };
                signs = true;
                if is_signed(&verifying, &held, &probe) {
                    return Ok(minter);
                }
            }
        }
        Err(wrong(if signs {
            "does not belong to the public key that is configured for the issuer".to_owned()
        } else {
            format!("is not a private key for {}", issuer.algorithms.join(" or "))
        }))
    }

    /// Writes and signs a token that [`Verifier::verify`](super::Verifier::verify) accepts until it expires. `aud` is
    /// the first audience of the issuer.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) names the field of [`Claims`] that is out of range, or `token`
    /// when the result would be longer than [`MAX_TOKEN_BYTES`].
    pub fn mint(&self, claims: &Claims) -> Result<String> {
        if !is_subject(&claims.subject) {
            return Err(Error::invalid_field("subject", "must have 1 to 255 bytes and no control characters"));
        }
        let issued = claims.now.duration_since(SystemTime::UNIX_EPOCH).map(|now| now.as_secs()).ok();
        let issued = issued.ok_or_else(|| Error::invalid_field("now", "must not be before 1970"))?;
        let ttl = claims.ttl.as_secs();
        if ttl == 0 {
            return Err(Error::invalid_field("ttl", "must be at least one second"));
        }
        let expires = issued.checked_add(ttl).ok_or_else(|| Error::invalid_field("ttl", "is too long"))?;
        let scopes: Vec<_> = claims.scopes.iter().map(|scope| scope.as_str()).collect();

        let mut members = Map::new();
        let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
        put("iss", self.issuer.as_str().into());
        put("aud", self.audience.as_str().into());
        put("iat", issued.into());
        put("exp", expires.into());
        self.paths.subject.put(&mut members, claims.subject.as_str().into());
        self.paths.scopes.put(&mut members, scopes.join(" ").into());
        self.paths.clients.put(&mut members, ids_claim(&claims.clients, "clients")?);
        self.paths.projects.put(&mut members, ids_claim(&claims.projects, "projects")?);
        self.paths.portfolios.put(&mut members, ids_claim(&claims.portfolios, "portfolios")?);

        let token = self.sign(&members)?;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(Error::invalid_field("token", "would be longer than 16 KiB, the most that is accepted"));
        }
        Ok(token)
    }

    fn sign(&self, members: &Map<String, Value>) -> Result<String> {
        let mut header = Header::new(self.algorithm);
        header.kid.clone_from(&self.kid);
        // Without the library's error, of which only the fact matters here.
        jsonwebtoken::encode(&header, members, &self.key).map_err(|_| Error::internal("a token could not be signed"))
    }
}

/// Whether the signature of `token` is valid under one of the issuer's keys, whatever its claims say.
fn is_signed(issuer: &Issuer, held: &Held, token: &str) -> bool {
    let Some(parts) = TokenParts::of(token) else { return false };
    Members::decode(parts.header).is_ok_and(|header| issuer.check_signature(held, &header, &parts).is_ok())
}

fn ids_claim(ids: &Ids, field: &'static str) -> Result<Value> {
    match ids {
        Ids::All => Ok("*".into()),
        Ids::Only(ids) if ids.iter().all(|id| *id >= 1) => Ok(ids.as_slice().into()),
        Ids::Only(_) => Err(Error::invalid_field(field, "must be positive")),
    }
}

/// Says in plain words why a file is not a private key that can be used.
fn check_private_pem(bytes: &[u8]) -> Result<(), String> {
    match keys::Pem::parse(bytes)?.label.as_str() {
        "PRIVATE KEY" | "RSA PRIVATE KEY" => Ok(()),
        "ENCRYPTED PRIVATE KEY" => Err("is encrypted: decrypt it with `openssl pkcs8`".to_owned()),
        "EC PRIVATE KEY" => Err("is not PKCS #8: convert it with `openssl pkcs8 -topk8 -nocrypt`".to_owned()),
        label => Err(format!("holds a `{label}`, not a `PRIVATE KEY`")),
    }
}

/// The signing key for `algorithm`, if `bytes` can be one. EC and Ed25519 keys are read when they first sign.
fn encoding_key(algorithm: Algorithm, bytes: &[u8]) -> Option<EncodingKey> {
    match algorithm.family() {
        AlgorithmFamily::Hmac => Some(EncodingKey::from_secret(bytes)),
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(bytes).ok(),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(bytes).ok(),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(bytes).ok(),
    }
}
