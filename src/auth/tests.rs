//! The module from outside: configuration as users write it, keys as files, tokens as text. Keys are made afresh for
//! each run, and tokens that must not exist are built by hand, so that nothing under test vouches for itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::claims::ClaimNames;
use super::grants::Grant;
use super::*;
use crate::error::{Error, Kind, Result};

const ISSUER: &str = "https://id.example";
const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn pem(label: &str, der: &[u8]) -> String {
    let base64 = STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A key pair as files hold it.
struct Pair {
    public: String,
    private: String,
    /// The public key as JWK members, `kty` first.
    jwk: Value,
}

fn rsa_jwk(pair: &RsaKeyPair) -> Value {
    let public = pair.public_key();
    let (n, e) = (public.modulus(), public.exponent());
    json!({"kty": "RSA", "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero())})
}

fn rsa_pair() -> (RsaKeyPair, Pair) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let (public, private) = (pem("PUBLIC KEY", public.as_ref()), pem("PRIVATE KEY", private.as_ref()));
    let jwk = rsa_jwk(&pair);
    (pair, Pair { public, private, jwk })
}

fn ec_pair(algorithm: &'static EcdsaSigningAlgorithm, crv: &str) -> Pair {
    let private = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let point = &pair.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    Pair {
        public: pem("PUBLIC KEY", public.as_ref()),
        private: pem("PRIVATE KEY", private.as_ref()),
        jwk: json!({"kty": "EC", "crv": crv, "x": b64(x), "y": b64(y)}),
    }
}

fn ed_pair() -> Pair {
    let private = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    Pair {
        public: pem("PUBLIC KEY", public.as_ref()),
        private: pem("PRIVATE KEY", private.as_ref()),
        jwk: json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key())}),
    }
}

static RSA: LazyLock<(RsaKeyPair, Pair)> = LazyLock::new(rsa_pair);
static OTHER_RSA: LazyLock<(RsaKeyPair, Pair)> = LazyLock::new(rsa_pair);
static P256: LazyLock<Pair> = LazyLock::new(|| ec_pair(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"));
static P384: LazyLock<Pair> = LazyLock::new(|| ec_pair(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"));
static ED: LazyLock<Pair> = LazyLock::new(ed_pair);

/// A directory with key files and configurations that name them.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Files(TempDir::new().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn issuer(&self, algorithms: &[&str], source: &str, bytes: impl AsRef<[u8]>) -> IssuerConfig {
        let path = self.put(source, bytes);
        issuer(&format!("algorithms = {algorithms:?}\n{source} = {path:?}"))
    }

    fn verifier(&self, algorithms: &[&str], source: &str, bytes: impl AsRef<[u8]>) -> Result<Verifier, LoadError> {
        Verifier::load(&config(vec![self.issuer(algorithms, source, bytes)]))
    }
}

thread_local! {
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
}

impl Verifier {
    /// What is said of a token, for tests that have nothing else to wait for.
    fn verdict(&self, token: &str, now: SystemTime) -> Result<Principal> {
        RUNTIME.with(|runtime| runtime.block_on(self.verify(token, now)))
    }
}

fn issuer(rest: &str) -> IssuerConfig {
    toml::from_str(&format!("issuer = {ISSUER:?}\naudience = [\"attachd\", \"attachd-2\"]\n{rest}")).unwrap()
}

fn config(issuers: Vec<IssuerConfig>) -> Config {
    Config { issuers, ..Config::default() }
}

fn hs256() -> Verifier {
    Files::new().verifier(&["HS256"], "hmac_secret_file", SECRET).unwrap()
}

fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn with(mut object: Value, members: Value) -> Value {
    for (name, value) in members.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

/// Claims that verify at [`NOW`].
fn good() -> Value {
    json!({"iss": ISSUER, "aud": "attachd", "sub": "svc-a", "exp": NOW + 300, "scope": "attachments:write openid",
        "client_ids": [7], "project_ids": [3, 1, 2], "portfolio_ids": "*"})
}

fn sign_hs256_text(header: &str, claims: &str) -> String {
    let message = format!("{}.{}", b64(header), b64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", b64(tag))
}

fn sign_hs256(header: Value, claims: &Value) -> String {
    sign_hs256_text(&header.to_string(), &claims.to_string())
}

fn token(claims: &Value) -> String {
    sign_hs256(json!({"alg": "HS256"}), claims)
}

fn sign_rs256(pair: &RsaKeyPair, header: Value, claims: &Value) -> String {
    let message = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", b64(signature))
}

fn kind<T: fmt::Debug>(result: Result<T>) -> Kind {
    result.unwrap_err().kind()
}

#[track_caller]
fn assert_invalid(verifier: &Verifier, token: &str) {
    assert_eq!(kind(verifier.verdict(token, at(NOW))), Kind::TokenInvalid);
}

/// The claims, once as they are and then with `name` set to each value: all refused.
#[track_caller]
fn assert_claim_invalid(name: &str, values: &[Value]) {
    let verifier = hs256();
    assert!(verifier.verdict(&token(&good()), at(NOW)).is_ok());
    for value in values {
        let claims = with(good(), json!({ name: value }));
        let error = verifier.verdict(&token(&claims), at(NOW)).expect_err(&format!("{name}: {value}"));
        assert_eq!(error.kind(), Kind::TokenInvalid, "{name}: {value}");
    }
}

fn minted(subject: &str) -> Claims {
    Claims {
        subject: subject.to_owned(),
        scopes: vec![Scope::Write, Scope::Read],
        clients: Ids::Only(vec![9, 7]),
        projects: Ids::All,
        portfolios: Ids::default(),
        ttl: Duration::from_secs(300),
        now: at(NOW),
    }
}

mod configuration;
mod form;
mod key_files;
mod minting;
mod rights;
mod rotation;
mod signature;
mod times;
