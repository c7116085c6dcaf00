//! Bytes become keys, each pinned to the algorithms it may verify. A key is only ever used with algorithms of its
//! own family and curve. This file must not know tokens or claims.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{PublicKey as RsaPublicKey, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::load_error::LoadError;

/// No key file is longer: 1 MiB. A path that names something endless must not hang or fill the memory.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// RSA moduli that the library verifies with, in bits; 2048 is the least that RFC 7518 §3.3 allows.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The curves that keys may be of.
const CURVES: &str = "P-256, P-384 and Ed25519";

/// One verification key. `Debug` is safe to show: `DecodingKey` redacts itself.
#[derive(Debug)]
pub(super) struct VerificationKey {
    /// The key's id in its JWKS; `None` for a key from another source.
    pub(super) kid: Option<String>,
    /// The algorithms it may verify: never empty, all of one family.
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) decoding: DecodingKey,
}

/// A key of a set that verifies nothing, and why.
#[derive(Debug)]
pub(super) struct Unusable {
    pub(super) kid: Option<String>,
    /// What to call it: by its id, or by its place in the set.
    pub(super) name: String,
    /// What is wrong with it, as the end of a sentence. Holds no key material.
    pub(super) why: String,
}

/// What a key source yields.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) keys: Vec<VerificationKey>,
    pub(super) unusable: Vec<Unusable>,
}

/// Why this algorithm is none of those that can be configured, if there is more to say than that.
pub(super) fn unsupported(name: &str) -> Option<&'static str> {
    match name {
        "ES512" => Some("ES512 is not supported: have the issuer sign with ES256, ES384, EdDSA or an RSA algorithm"),
        _ => None,
    }
}

/// The algorithm of this name: RFC 7518 §3.1, RFC 8037, and RFC 9864, whose `Ed25519` is `EdDSA` with the one kind of key that
/// is supported for it.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "Ed25519" => Some(Algorithm::EdDSA),
        name => Algorithm::from_str(name).ok(),
    }
}

/// What the bytes of a key source are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One public key in PEM.
    Pem,
    /// A JSON Web Key Set.
    Jwks,
    /// A shared secret.
    Secret,
}

impl Form {
    /// Whether the keys there have ids, so that a token's `kid` selects among them.
    pub(super) fn has_key_ids(self) -> bool {
        self == Form::Jwks
    }

    /// The keys in `bytes`; at least one of them goes with `algorithms`.
    ///
    /// # Errors
    /// What is wrong with the bytes, as the end of a sentence about them. Holds no key material.
    pub(super) fn parse(self, bytes: &[u8], algorithms: &[Algorithm]) -> Result<Found, String> {
        let single = |decoding| {
            let key = VerificationKey { kid: None, algorithms: algorithms.to_vec(), decoding };
            Found { keys: vec![key], unusable: Vec::new() }
        };
        match self {
            Form::Jwks => keys_from_jwks(bytes, algorithms),
            Form::Secret => secret(bytes, algorithms).map(|secret| single(DecodingKey::from_secret(secret))),
            Form::Pem => {
                let (kind, decoding) = public_key_from_pem(bytes)?;
                match algorithms.iter().find(|algorithm| !kind.takes(**algorithm)) {
                    None => Ok(single(decoding)),
                    Some(other) => {
                        Err(format!("is an {} key, and {other:?} needs {}", kind.name(), needed_for(*other)))
                    }
                }
            }
        }
    }
}

/// Reads a whole file, at most [`MAX_FILE_BYTES`].
pub(super) fn read(path: &Path, key: &str) -> Result<Vec<u8>, LoadError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes))
        .map_err(|error| LoadError::new(key, format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(LoadError::new(key, format!("{}: is longer than 1 MiB", path.display())));
    }
    Ok(bytes)
}

/// A shared secret, without the one newline that may end its file.
pub(super) fn secret<'a>(bytes: &'a [u8], algorithms: &[Algorithm]) -> Result<&'a [u8], String> {
    let secret = bytes.strip_suffix(b"\r\n").or_else(|| bytes.strip_suffix(b"\n")).unwrap_or(bytes);
    // RFC 7518 §3.2: at least as long as the hash.
    for algorithm in algorithms {
        let least = match algorithm {
            Algorithm::HS384 => 48,
            Algorithm::HS512 => 64,
            _ => 32,
        };
        if secret.len() < least {
            let length = secret.len();
            return Err(format!("the secret has {length} bytes, and {algorithm:?} needs at least {least}"));
        }
    }
    Ok(secret)
}

/// What a public key is, as far as it decides which algorithms go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl KeyKind {
    fn takes(self, algorithm: Algorithm) -> bool {
        match self {
            KeyKind::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            KeyKind::P256 => algorithm == Algorithm::ES256,
            KeyKind::P384 => algorithm == Algorithm::ES384,
            KeyKind::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }

    fn name(self) -> &'static str {
        match self {
            KeyKind::Rsa => "RSA",
            KeyKind::P256 => "EC P-256",
            KeyKind::P384 => "EC P-384",
            KeyKind::Ed25519 => "Ed25519",
        }
    }
}

fn needed_for(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::ES256 => "an EC P-256 key",
        Algorithm::ES384 => "an EC P-384 key",
        Algorithm::EdDSA => "an Ed25519 key",
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => "a shared secret",
        _ => "an RSA key",
    }
}

/// The one block of a PEM file (RFC 7468).
pub(super) struct Pem {
    pub(super) label: String,
    pub(super) der: Vec<u8>,
}

impl Pem {
    /// Takes the file apart. Text around the block is allowed (RFC 7468 §2); a second block is not, for it would be
    /// unclear which key is meant.
    pub(super) fn parse(bytes: &[u8]) -> Result<Pem, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "is not PEM: it is not text".to_owned())?;
        if text.trim_start().starts_with('{') {
            return Err("is JSON, not PEM: a JSON Web Key Set goes into jwks_file".to_owned());
        }
        let label_of = |line: &str, what: &str| {
            line.trim().strip_prefix(what).and_then(|rest| rest.strip_suffix("-----")).map(str::to_owned)
        };
        let mut lines = text.lines();
        let label = lines.find_map(|line| label_of(line, "-----BEGIN "));
        let label = label.ok_or_else(|| "is not PEM: it has no `-----BEGIN` line".to_owned())?;
        let mut base64 = String::new();
        loop {
            let Some(line) = lines.next() else { return Err("is not PEM: it has no `-----END` line".to_owned()) };
            if label_of(line, "-----END ").is_some_and(|end| end == label) {
                break;
            }
            base64.push_str(line.trim());
        }
        if lines.any(|line| label_of(line, "-----BEGIN ").is_some()) {
            return Err("holds more than one key: use jwks_file for several".to_owned());
        }
        let der = STANDARD.decode(base64).map_err(|_| format!("the `{label}` in it is damaged or encrypted"))?;
        Ok(Pem { label, der })
    }
}

fn public_key_from_pem(bytes: &[u8]) -> Result<(KeyKind, DecodingKey), String> {
    let pem = Pem::parse(bytes)?;
    match pem.label.as_str() {
        "PUBLIC KEY" | "RSA PUBLIC KEY" => public_key_from_der(&pem.der),
        label if label.ends_with("PRIVATE KEY") => {
            Err(format!("is a private key (`{label}`): give the public one, the private one stays with the issuer"))
        }
        "CERTIFICATE" => {
            Err("is a certificate: give its public key, as `openssl x509 -pubkey -noout` prints it".to_owned())
        }
        label => Err(format!("holds a `{label}`, not a `PUBLIC KEY`")),
    }
}

/// Recognises a DER public key: SubjectPublicKeyInfo (RFC 5280), or RSAPublicKey (RFC 8017). The library checks that
/// RSA keys are consistent and that EC points are on their curve, now rather than at the first token.
fn public_key_from_der(der: &[u8]) -> Result<(KeyKind, DecodingKey), String> {
    if let Ok(key) = RsaPublicKey::from_der(der) {
        let modulus = key.modulus();
        let modulus = modulus.big_endian_without_leading_zero();
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err(format!("is an RSA key of {bits} bits, and 2048 to 8192 are accepted"));
        }
        return Ok((KeyKind::Rsa, DecodingKey::from_rsa_der(key.as_ref())));
    }
    if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).is_ok() {
        return Ok((KeyKind::P256, DecodingKey::from_ec_der(der)));
    }
    if ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, der).is_ok() {
        return Ok((KeyKind::P384, DecodingKey::from_ec_der(der)));
    }
    if ParsedPublicKey::new(&ED25519, der).is_ok() {
        return Ok((KeyKind::Ed25519, DecodingKey::from_ed_der(der)));
    }
    Err("is damaged, or not a key of RSA, EC P-256, EC P-384 or Ed25519".to_owned())
}

/// A JSON Web Key, as far as it is looked at (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2). Unknown members are ignored, as
/// RFC 7517 §4 demands.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<serde::de::IgnoredAny>,
}

impl Jwk {
    /// Reads one member of a set.
    fn read(value: &Value) -> Result<Jwk, String> {
        let Value::Object(members) = value else { return Err("is not a JSON object".to_owned()) };
        let is_other = |name: &&str| !matches!(members.get(*name), None | Some(Value::Null | Value::String(_)));
        if let Some(name) = ["kty", "use", "alg", "kid", "crv", "n", "e", "x", "y"].into_iter().find(is_other) {
            return Err(format!("has a `{name}` that is not text"));
        }
        if members.get("kty").is_none_or(Value::is_null) {
            return Err("has no `kty`".to_owned());
        }
        // Told without the library's words, which may quote the key.
        Jwk::deserialize(value).map_err(|_| "is malformed".to_owned())
    }
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Value>,
}

/// Takes the usable keys of a set. Keys that are for something else, or that we cannot use, are set apart (RFC 7517 §5): a
/// set may serve others as well, and one key that is wrong is no reason to refuse the tokens of another. When nothing is
/// left, the message says why for each.
fn keys_from_jwks(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Found, String> {
    let set: JwkSet = serde_json::from_slice(bytes)
        .map_err(|error| format!("is not a JSON Web Key Set: line {}, column {}", error.line(), error.column()))?;
    let mut found = Found::default();
    for (index, value) in set.keys.iter().enumerate() {
        let jwk = Jwk::read(value);
        if jwk.as_ref().is_ok_and(|jwk| jwk.kty != "oct" && jwk.d.is_some()) {
            return Err(format!("keys[{index}] is a private key (it has `d`): the private keys stay with the issuer"));
        }
        match jwk.and_then(|jwk| key_from_jwk(jwk, algorithms)) {
            Ok(key) => found.keys.push(key),
            Err(why) => {
                let kid = value.get("kid").and_then(Value::as_str).map(str::to_owned);
                let name = kid.as_deref().map_or_else(|| format!("keys[{index}]"), shown);
                found.unusable.push(Unusable { kid, name, why });
            }
        }
    }
    match (found.keys.is_empty(), found.unusable.is_empty()) {
        (false, _) => Ok(found),
        (true, true) => Err("holds no keys".to_owned()),
        (true, false) => Err(format!("holds no usable key: {}", sentences(found.unusable.iter()))),
    }
}

/// Says of each key why it cannot be used, of the first few in full.
pub(super) fn sentences<'a>(unusable: impl Iterator<Item = &'a Unusable>) -> String {
    const SHOWN: usize = 5;
    let all: Vec<_> = unusable.map(|key| format!("{} {}", key.name, key.why)).collect();
    let first = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join("; ");
    match all.len().saturating_sub(SHOWN) {
        0 => first,
        more => format!("{first}; and {more} more"),
    }
}

/// A key's id, on one line, and not all of a long one.
pub(super) fn shown(kid: &str) -> String {
    const SHOWN: usize = 64;
    match kid.char_indices().nth(SHOWN) {
        None => format!("{kid:?}"),
        Some((at, _)) => format!("{:?}…", kid.get(..at).unwrap_or_default()),
    }
}

/// The bytes of a number without the zeros that some libraries write in front of it, and RFC 7518 §6.3.1.1 warns of.
fn number(mut bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.drain(..zeros);
    bytes
}

/// A coordinate of an EC point with all of its bytes: some libraries leave out the zeros in front.
fn coordinate(value: &Option<String>, name: &str, length: usize, curve: &str) -> Result<Vec<u8>, String> {
    let bytes = number(member(value, name)?);
    let missing = length.checked_sub(bytes.len());
    let missing = missing.ok_or_else(|| format!("has an `{name}` of more than the {length} bytes of {curve}"))?;
    Ok([vec![0; missing], bytes].concat())
}

fn key_from_jwk(jwk: Jwk, algorithms: &[Algorithm]) -> Result<VerificationKey, String> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("is not for signatures (`use`)".to_owned());
    }
    if jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
        return Err("is not for verifying (`key_ops`)".to_owned());
    }
    let (kind, decoding) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        // Never an HMAC key: whoever can add to a set of public keys must not be able to add a secret (RFC 8725 §3.1).
        ("oct", _) => return Err("is a shared secret, which a set of public keys must not hold".to_owned()),
        ("RSA", _) => {
            let (n, e) = (number(member(&jwk.n, "n")?), number(member(&jwk.e, "e")?));
            let der: PublicKeyX509Der<'_> =
                PublicKeyComponents { n, e }.as_der().map_err(|_| "is a damaged RSA key".to_owned())?;
            public_key_from_der(der.as_ref())?
        }
        ("EC", Some(curve @ ("P-256" | "P-384"))) => {
            let (kind, length) = if curve == "P-256" { (KeyKind::P256, 32) } else { (KeyKind::P384, 48) };
            // An uncompressed point (SEC 1 §2.3.3).
            let (x, y) = (coordinate(&jwk.x, "x", length, curve)?, coordinate(&jwk.y, "y", length, curve)?);
            let key = public_key_from_der(&[&[4], x.as_slice(), y.as_slice()].concat());
            expect_kind(key.map_err(|_| format!("has an `x` and a `y` that are not a point of {curve}"))?, kind)?
        }
        ("EC" | "OKP", None) => return Err("has no `crv`".to_owned()),
        ("OKP", Some("Ed25519")) => {
            let x = member(&jwk.x, "x")?;
            if x.len() != 32 {
                return Err("has a public key of another length than Ed25519".to_owned());
            }
            expect_kind(public_key_from_der(&x)?, KeyKind::Ed25519)?
        }
        ("EC" | "OKP", Some(curve)) => {
            return Err(format!("is of the curve {}, which is not supported ({CURVES} are)", shown(curve)));
        }
        (kty, _) => return Err(format!("is of the type {}, which is not supported (RSA, EC and OKP are)", shown(kty))),
    };
    let own = match jwk.alg.as_deref() {
        None => None,
        Some(name) => Some(algorithm(name).ok_or("is for an algorithm that is not supported (`alg`)")?),
    };
    let fits = |algorithm: &Algorithm| kind.takes(*algorithm) && own.is_none_or(|own| own == *algorithm);
    let algorithms: Vec<_> = algorithms.iter().copied().filter(fits).collect();
    if algorithms.is_empty() {
        return Err(format!("is an {} key that none of the configured algorithms goes with", kind.name()));
    }
    Ok(VerificationKey { kid: jwk.kid, algorithms, decoding })
}

fn expect_kind(key: (KeyKind, DecodingKey), kind: KeyKind) -> Result<(KeyKind, DecodingKey), String> {
    if key.0 == kind { Ok(key) } else { Err(format!("is not an {} key", kind.name())) }
}

/// The bytes of a JWK member: base64url without padding (RFC 7518 §2).
fn member(value: &Option<String>, name: &str) -> Result<Vec<u8>, String> {
    let value = value.as_deref().ok_or_else(|| format!("has no `{name}`"))?;
    let fault = if value.contains('=') { "base64url with padding (`=`)" } else { "not base64url" };
    URL_SAFE_NO_PAD.decode(value).map_err(|_| format!("has a malformed `{name}`: it is {fault}"))
}
