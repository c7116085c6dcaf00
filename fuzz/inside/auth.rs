//! Targets that try tokens and keys.

#![allow(clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde_json::{Map, Value};

use super::json;
use super::keys::{Form, Pem};
use super::token::bearer;
use super::{Config, Principal, Verifier};
use crate::error::Result;

const ISSUER: &str = "https://id.example";
const NOW: u64 = 1_800_000_000;
/// How far clocks may differ, by the configuration below.
const LEEWAY: u64 = 30;
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Every algorithm that can be configured for public keys.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A verifier of one issuer with one secret.
pub struct Bench {
    verifier: Verifier,
    runtime: tokio::runtime::Runtime,
}

impl Bench {
    /// Writes the secret to a file in the folder, and reads it from there.
    pub fn new(folder: &std::path::Path) -> Bench {
        let file = folder.join("secret");
        std::fs::write(&file, SECRET).unwrap();
        let config = format!(
            "leeway = \"{LEEWAY}s\"\ntoken_cache = \"0B\"\n[[issuers]]\nissuer = {ISSUER:?}\naudience = [\"attachd\"]\n\
             algorithms = [\"HS256\"]\nhmac_secret_file = {file:?}"
        );
        let config: Config = toml::from_str(&config).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Bench { verifier: Verifier::load(&config).unwrap(), runtime }
    }

    fn verdict(&self, token: &str) -> Result<Principal> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(NOW);
        self.runtime.block_on(self.verifier.verify(token, now))
    }
}

/// The token in a header has one form that reads as the same, and nobody signed it.
pub fn header(bench: &Bench, value: &[u8]) {
    let Ok(token) = bearer([value].into_iter()) else { return };
    assert_eq!(bearer([format!("Bearer {token}").as_bytes()].into_iter()).unwrap(), token);
    assert!(!token.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()));
    bench.verdict(token).unwrap_err();
}

/// A token with any header and claims is accepted only if it is signed, and if they say what they must. `change` says what is
/// changed of it afterwards.
pub fn signed(bench: &Bench, header: &[u8], claims: &[u8], change: usize) {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    let Ok(principal) = bench.verdict(&token) else { return };

    let [header, claims] = [header, claims].map(|json| serde_json::from_slice::<Map<String, Value>>(json).unwrap());
    assert_eq!(header["alg"], "HS256");
    assert!(!header.contains_key("crit"));
    assert_eq!((claims["iss"].as_str(), principal.issuer()), (Some(ISSUER), ISSUER));
    assert_eq!(claims["sub"].as_str(), Some(principal.subject()));
    let audience = &claims["aud"];
    assert!(audience == "attachd" || audience.as_array().unwrap().iter().any(|one| one == "attachd"));
    assert!(claims["exp"].as_f64().unwrap() > (NOW - LEEWAY) as f64);
    if let Some(not_before) = claims.get("nbf") {
        assert!(not_before.as_f64().unwrap() <= (NOW + LEEWAY) as f64);
    }
    let holds = |name: &str, id: i64| {
        let is_it = |value: &Value| value == "*" || value == id || value.as_str() == Some(&id.to_string());
        claims.get(name).is_some_and(|claim| is_it(claim) || claim.as_array().is_some_and(|all| all.iter().any(is_it)))
    };
    for id in [1, 7, 42] {
        assert_eq!(principal.holds_client(id), holds("client_ids", id));
        assert_eq!(principal.holds_project(id), holds("project_ids", id));
        assert_eq!(principal.holds_portfolio(id), holds("portfolio_ids", id));
    }

    // One character is another, or is left out, or comes twice.
    let at = change % token.len();
    let (before, after) = token.split_at(at);
    let (one, rest) = after.split_at(1);
    let other = if one == "A" { "B" } else { "A" };
    for changed in [format!("{before}{other}{rest}"), format!("{before}{rest}"), format!("{before}{one}{one}{rest}")] {
        if changed != token {
            bench.verdict(&changed).unwrap_err();
        }
    }
    let unsigned = format!("{message}.");
    bench.verdict(&unsigned).unwrap_err();
    let other = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"another"), message.as_bytes());
    bench.verdict(&format!("{message}.{}", URL_SAFE_NO_PAD.encode(other))).unwrap_err();
}

/// The JSON of a token is read as a library reads it, or refused because of a member that is there twice or of its depth.
pub fn json(text: &[u8]) {
    match (json::object(text), serde_json::from_slice::<Value>(text)) {
        (Ok(ours), theirs) => assert_eq!(Value::Object(ours), theirs.unwrap()),
        // Without a member that is there twice it is taken.
        (Err(_), Ok(Value::Object(theirs))) if depth(&theirs) <= 64 => {
            let again = serde_json::to_vec(&theirs).unwrap();
            assert_eq!(json::object(&again).unwrap(), theirs);
        }
        (Err(_), _) => {}
    }
}

fn depth(members: &Map<String, Value>) -> usize {
    let of = |value: &Value| match value {
        Value::Object(members) => depth(members),
        Value::Array(items) => depth(&items.iter().cloned().map(|item| (String::new(), item)).collect()),
        _ => 0,
    };
    1 + members.values().map(of).max().unwrap_or_default()
}

/// Of a key set, each key is for what its type can verify, none is a secret, and one more key that is good serves beside them.
pub fn key_set(bytes: &[u8], good: &Value) {
    let found = Form::Jwks.parse(bytes, &ALGORITHMS);
    let set = serde_json::from_slice::<Value>(bytes).ok();
    let listed = || set.as_ref().and_then(|set| set.get("keys")).and_then(Value::as_array);
    let is_private = |key: &Value| key.get("d").is_some_and(|d| !d.is_null()) && key.get("kty") != Some(&"oct".into());
    if let Ok(found) = &found {
        let all = listed().unwrap();
        assert_eq!(found.keys.len() + found.unusable.len(), all.len());
        for key in &found.keys {
            assert!(!key.algorithms.is_empty());
            let families: Vec<_> = key.algorithms.iter().map(|algorithm| algorithm.family()).collect();
            assert!(families.iter().all(|family| *family == families[0] && *family != AlgorithmFamily::Hmac));
            let is_it = |one: &&Value| one.get("kid").and_then(Value::as_str) == key.kid.as_deref();
            let own = all.iter().find(is_it).unwrap();
            assert!(!is_private(own) || all.iter().filter(is_it).count() > 1);
        }
    }
    let Some(all) = listed() else { return };
    let more = serde_json::json!({"keys": all.iter().chain([good]).collect::<Vec<_>>()}).to_string();
    match Form::Jwks.parse(more.as_bytes(), &ALGORITHMS) {
        Ok(more) => assert_eq!(more.keys.len(), found.map_or(0, |found| found.keys.len()) + 1),
        Err(why) => assert!(all.iter().any(is_private), "{why}"),
    }
}

/// A PEM file has one block, which can be written again.
pub fn pem(bytes: &[u8]) {
    let Ok(pem) = Pem::parse(bytes) else { return };
    let written = format!("-----BEGIN {0}-----\n{1}\n-----END {0}-----\n", pem.label, STANDARD.encode(&pem.der));
    let again = Pem::parse(written.as_bytes()).unwrap();
    assert_eq!((again.label, again.der), (pem.label, pem.der));
    if let Ok(found) = Form::Pem.parse(bytes, &[Algorithm::RS256]) {
        assert_eq!(found.keys.len(), 1);
    }
}
