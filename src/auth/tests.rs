//! The module from outside: configuration as users write it, keys as files, tokens as text. Keys are made afresh for
//! each run, and tokens that must not exist are built by hand, so that nothing under test vouches for itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
};
use aws_lc_rs::{hmac, rand};
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::json;
use tempfile::TempDir;

use super::*;

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
    assert_eq!(kind(verifier.verify(token, at(NOW))), Kind::TokenInvalid);
}

/// The claims, once as they are and then with `name` set to each value: all refused.
#[track_caller]
fn assert_claim_invalid(name: &str, values: &[Value]) {
    let verifier = hs256();
    assert!(verifier.verify(&token(&good()), at(NOW)).is_ok());
    for value in values {
        let claims = with(good(), json!({ name: value }));
        let error = verifier.verify(&token(&claims), at(NOW)).expect_err(&format!("{name}: {value}"));
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

// ---- what a good token gives ----

#[test]
fn a_good_token_becomes_the_principal_it_describes() {
    let principal = hs256().verify(&token(&good()), at(NOW)).unwrap();
    assert_eq!((principal.issuer(), principal.subject()), (ISSUER, "svc-a"));
    assert!(principal.allows(Scope::Write) && !principal.allows(Scope::Read) && !principal.allows(Scope::Manage));
    assert!(principal.holds_client(7) && !principal.holds_client(8));
    assert!([1, 2, 3].into_iter().all(|id| principal.holds_project(id)));
    assert!(!principal.holds_project(0) && !principal.holds_project(4));
    assert!(principal.holds_portfolio(1) && principal.holds_portfolio(i64::MAX));
}

#[test]
fn an_absent_claim_grants_nothing() {
    let bare = json!({"iss": ISSUER, "aud": "attachd", "sub": "svc-a", "exp": NOW + 300});
    let principal = hs256().verify(&token(&bare), at(NOW)).unwrap();
    assert!(Scope::ALL.into_iter().all(|scope| !principal.allows(scope)));
    assert!(!principal.holds_client(1) && !principal.holds_project(1) && !principal.holds_portfolio(1));
}

#[test]
fn scopes_are_a_string_or_an_array_and_names_must_match_exactly() {
    let scopes = |claim: Value| {
        let principal = hs256().verify(&token(&with(good(), json!({ "scope": claim }))), at(NOW)).unwrap();
        Scope::ALL.into_iter().filter(|scope| principal.allows(*scope)).collect::<Vec<_>>()
    };
    assert_eq!(scopes(json!("attachments:manage attachments:read")), [Scope::Read, Scope::Manage]);
    assert_eq!(scopes(json!(["attachments:write", "other"])), [Scope::Write]);
    for nothing in [json!(""), json!([]), json!("attachments:writer"), json!("Attachments:Write"), json!("*")] {
        assert_eq!(scopes(nothing), []);
    }
    assert_eq!(scopes(json!(["attachments:write attachments:read"])), []);
    assert_claim_invalid("scope", &[json!(null), json!(1), json!({}), json!(["attachments:write", 1]), json!(true)]);
}

#[test]
fn ids_are_positive_integers_or_a_star_and_never_strings_of_digits() {
    let clients = |claim: Value| hs256().verify(&token(&with(good(), json!({ "client_ids": claim }))), at(NOW));
    assert!(clients(json!([1, i64::MAX])).unwrap().holds_client(i64::MAX));
    assert!(!clients(json!([])).unwrap().holds_client(1));
    assert!(clients(json!(["*"])).unwrap().holds_client(5));
    for name in ["client_ids", "project_ids", "portfolio_ids"] {
        let wrong =
            [json!(null), json!(7), json!("7"), json!(["7"]), json!([0]), json!([-1]), json!([1.0]), json!([1e3])];
        assert_claim_invalid(name, &wrong);
        let wrong =
            [json!([1, "*"]), json!(["*", "*"]), json!([u64::MAX]), json!([i64::MAX as u64 + 1]), json!([null])];
        assert_claim_invalid(name, &wrong);
        assert_claim_invalid(name, &[json!([[1]]), json!({}), json!(""), json!("**"), json!(true)]);
    }
}

#[test]
fn claims_are_read_under_their_configured_names_only() {
    let files = Files::new();
    let path = files.put("secret", SECRET);
    let verifier = Verifier::load(&config(vec![issuer(&format!(
        "algorithms = [\"HS256\"]\nhmac_secret_file = {path:?}\n[claims]\nsubject = \"azp\"\nclients = \"tenants\"",
    ))]))
    .unwrap();
    let claims = with(good(), json!({"azp": "app", "tenants": [5]}));
    let principal = verifier.verify(&token(&claims), at(NOW)).unwrap();
    assert_eq!(principal.subject(), "app");
    assert!(principal.holds_client(5) && !principal.holds_client(7) && principal.allows(Scope::Write));
    assert_invalid(&verifier, &token(&good()));
}

#[test]
fn a_subject_has_1_to_255_bytes_and_no_control_characters() {
    let subject = |subject: &str| hs256().verify(&token(&with(good(), json!({ "sub": subject }))), at(NOW));
    for good in ["a".to_owned(), "é".repeat(127), "a".repeat(254), "a".repeat(255), "auth0|Zoë 🦀".to_owned()] {
        assert_eq!(subject(&good).unwrap().subject(), good);
    }
    for bad in ["".to_owned(), "a".repeat(256), "é".repeat(128), "a\nb".into(), "a\0".into(), "\u{85}".into()] {
        assert_eq!(kind(subject(&bad)), Kind::TokenInvalid, "{bad:?}");
    }
    assert_claim_invalid("sub", &[json!(null), json!(7), json!(["svc-a"]), json!({})]);
    assert_invalid(&hs256(), &token(&without(good(), "sub")));
}

// ---- case 2 and 3: the header field ----

#[test]
fn a_bearer_token_is_taken_from_exactly_one_field() {
    let one = |value: &'static [u8]| bearer([value].into_iter());
    for value in [b"Bearer a.b-c_d~e+f/g==".as_slice(), b"bearer x", b"BEARER x", b"bEaReR x"] {
        assert!(one(value).is_ok(), "{}", value.escape_ascii());
    }
    assert_eq!(one(b"Bearer a.b.c=").unwrap(), "a.b.c=");
    assert_eq!(kind(bearer(std::iter::empty())), Kind::TokenMissing);
    for value in [b"".as_slice(), b"Basic dTpw", b"Bearer", b"Bearer ", b"Bearertoken", b"Token x", b" Bearer x"] {
        assert_eq!(kind(one(value)), Kind::TokenMissing, "{}", value.escape_ascii());
    }
    let malformed: [&[u8]; 13] = [
        b"Bearer  x",
        b"Bearer  ",
        b"Bearer x ",
        b"Bearer x y",
        b"Bearer\tx",
        b"Bearer \tx",
        b"Bearer x,y",
        b"Bearer x, Bearer y",
        b"Bearer a=b",
        b"Bearer =",
        b"Bearer \xc3\xa9",
        b"Bearer x\xff",
        b"Bearer x\0",
    ];
    for value in malformed {
        assert_eq!(kind(one(value)), Kind::TokenInvalid, "{}", value.escape_ascii());
    }
    let two: [&[u8]; 2] = [b"Bearer x", b"Bearer x"];
    assert_eq!(kind(bearer(two.into_iter())), Kind::TokenInvalid);
    let other: [&[u8]; 2] = [b"Basic x", b"Bearer x"];
    assert_eq!(kind(bearer(other.into_iter())), Kind::TokenInvalid);
}

#[test]
fn only_errors_about_the_token_have_a_challenge() {
    for kind in Kind::ALL {
        let expected = match kind {
            Kind::TokenMissing => Some(r#"Bearer realm="attachd""#),
            Kind::TokenInvalid => {
                Some(r#"Bearer realm="attachd", error="invalid_token", error_description="The token is invalid""#)
            }
            Kind::TokenExpired => {
                Some(r#"Bearer realm="attachd", error="invalid_token", error_description="The token expired""#)
            }
            _ => None,
        };
        assert_eq!(www_authenticate(&Error::new(kind)).as_deref(), expected);
    }
}

// ---- case 5 to 9: algorithms and signatures ----

#[test]
fn alg_none_is_refused_in_every_spelling_with_and_without_a_signature() {
    let verifier = hs256();
    for alg in ["none", "None", "nOnE", "NONE", "", "HS256 ", "hs256"] {
        let signed = sign_hs256(json!({ "alg": alg }), &good());
        assert_invalid(&verifier, &signed);
        assert_invalid(&verifier, &format!("{}.", signed.rsplit_once('.').unwrap().0));
    }
    for header in [json!({}), json!({"alg": null}), json!({"alg": 1}), json!({"alg": ["HS256"]}), json!([]), json!("a")]
    {
        assert_invalid(&verifier, &sign_hs256(header, &good()));
    }
}

#[test]
fn a_public_key_is_never_used_as_a_secret() {
    let files = Files::new();
    let from_pem = files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let from_jwks = files.verifier(&["RS256"], "jwks_file", jwks(std::slice::from_ref(&RSA.1.jwk))).unwrap();
    let message = format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(good().to_string()));
    let der = RSA.0.public_key().as_ref();
    for secret in
        [RSA.1.public.as_bytes(), RSA.1.public.trim().as_bytes(), der, RSA.1.jwk["n"].as_str().unwrap().as_bytes()]
    {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
        assert_invalid(&from_pem, &format!("{message}.{}", b64(tag)));
        assert_invalid(&from_jwks, &format!("{message}.{}", b64(tag)));
    }
}

#[test]
fn an_algorithm_that_is_not_pinned_is_refused_though_the_key_could_verify_it() {
    let message = format!("{}.{}", b64(r#"{"alg":"HS384"}"#), b64(good().to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA384, SECRET), message.as_bytes());
    assert_invalid(&hs256(), &format!("{message}.{}", b64(tag)));

    let files = Files::new();
    let signing = files.issuer(&["RS512"], "pem_file", &RSA.1.public);
    let private = files.put("private", &RSA.1.private);
    let token = Minter::from_issuer(&signing, Some(&private)).unwrap().mint(&minted("a")).unwrap();
    assert!(Verifier::load(&config(vec![signing])).unwrap().verify(&token, at(NOW)).is_ok());
    assert_invalid(&files.verifier(&["RS256", "PS512"], "pem_file", &RSA.1.public).unwrap(), &token);
}

#[test]
fn a_signature_that_is_flipped_empty_short_long_or_padded_is_refused() {
    let verifier = hs256();
    let good = token(&good());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_invalid(&verifier, &format!("{message}.{}", b64(flipped)));
    }
    for wrong in [&bytes[..0], &bytes[..31], &bytes[1..], &[&bytes[..], &[0]].concat()] {
        assert_invalid(&verifier, &format!("{message}.{}", b64(wrong)));
    }
    assert_invalid(&verifier, &format!("{good}="));
    assert_invalid(&verifier, &format!("{good}\n"));
    let (header, claims) = message.split_once('.').unwrap();
    let other = b64(with(super::tests::good(), json!({"sub": "root"})).to_string());
    assert_invalid(&verifier, &format!("{header}.{other}.{signature}"));
    assert_invalid(&verifier, &format!("{claims}.{header}.{signature}"));
}

#[test]
fn an_ecdsa_signature_of_zeros_is_refused() {
    for (pair, alg, half) in [(&*P256, "ES256", 32), (&*P384, "ES384", 48)] {
        let verifier = Files::new().verifier(&[alg], "pem_file", &pair.public).unwrap();
        let message = format!("{}.{}", b64(json!({ "alg": alg }).to_string()), b64(good().to_string()));
        for signature in [vec![0; half * 2], vec![0xff; half * 2], vec![0; half], b"0\x06\x02\x01\0\x02\x01\0".to_vec()]
        {
            assert_invalid(&verifier, &format!("{message}.{}", b64(signature)));
        }
    }
}

#[test]
fn another_key_of_the_same_kind_does_not_verify() {
    let verifier = Files::new().verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    assert!(verifier.verify(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
    assert_invalid(&verifier, &sign_rs256(&OTHER_RSA.0, json!({"alg": "RS256"}), &good()));
}

// ---- case 10 to 12: times ----

#[test]
fn a_token_expires_at_exp_plus_leeway_and_not_a_second_before() {
    let files = Files::new();
    let issuer = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let token = token(&with(good(), json!({ "exp": NOW })));
    for leeway in [0, 1, 59, 60] {
        let config = Config { leeway: Duration::from_secs(leeway), issuers: vec![issuer.clone()] };
        let verifier = Verifier::load(&config).unwrap();
        let end = at(NOW + leeway);
        assert!(verifier.verify(&token, end - Duration::from_secs(1)).is_ok(), "{leeway}");
        assert!(verifier.verify(&token, end - Duration::from_nanos(1)).is_ok(), "{leeway}");
        assert_eq!(kind(verifier.verify(&token, end)), Kind::TokenExpired, "{leeway}");
        assert_eq!(kind(verifier.verify(&token, end + Duration::from_secs(1))), Kind::TokenExpired, "{leeway}");
    }
}

#[test]
fn a_token_begins_at_nbf_minus_leeway_and_not_a_second_before() {
    let token = token(&with(good(), json!({ "nbf": NOW })));
    let verifier = hs256();
    assert_eq!(kind(verifier.verify(&token, at(NOW - 61))), Kind::TokenInvalid);
    assert!(verifier.verify(&token, at(NOW - 60)).is_ok());
    assert!(verifier.verify(&token, at(NOW - 59)).is_ok());
}

#[test]
fn exp_is_required_and_times_are_unsigned_integers() {
    let wrong =
        [json!(null), json!("1900000000"), json!(-1), json!(1_900_000_000.0), json!(1e300), json!([]), json!(true)];
    assert_claim_invalid("exp", &wrong);
    assert_claim_invalid("nbf", &[json!(null), json!("0"), json!(-1), json!(1.5), json!(1e300), json!({})]);
    assert_claim_invalid("nbf", &[json!(NOW + 61), json!(u64::MAX)]);
    assert_invalid(&hs256(), &token(&without(good(), "exp")));
    for number in ["18446744073709551616", "1.9e9", "-0", "1e400", "0x7fffffff", "01900000000", "NaN"] {
        let claims = format!(r#"{{"iss":"{ISSUER}","aud":"attachd","sub":"a","exp":{number}}}"#);
        assert_invalid(&hs256(), &sign_hs256_text(r#"{"alg":"HS256"}"#, &claims));
    }
    // The largest integer overflows nothing.
    assert!(hs256().verify(&token(&with(good(), json!({ "exp": u64::MAX }))), at(NOW)).is_ok());
    assert_eq!(kind(hs256().verify(&token(&with(good(), json!({ "exp": 0 }))), at(NOW))), Kind::TokenExpired);
}

#[test]
fn expired_is_only_said_of_a_token_that_was_good() {
    let verifier = hs256();
    let old = with(good(), json!({ "exp": NOW - 1000 }));
    assert_eq!(kind(verifier.verify(&token(&old), at(NOW))), Kind::TokenExpired);
    let forged = token(&old);
    assert_invalid(&verifier, &format!("{}.{}", forged.rsplit_once('.').unwrap().0, b64([0; 32])));
    for wrong in [json!({"aud": "other"}), json!({"iss": "other"}), json!({"sub": ""}), json!({"client_ids": 1})] {
        assert_invalid(&verifier, &token(&with(old.clone(), wrong)));
    }
}

#[test]
fn a_clock_before_1970_is_our_failure_and_not_the_tokens() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(kind(hs256().verify(&token(&good()), before)), Kind::Internal);
}

// ---- case 13 and 14: audience and issuer ----

#[test]
fn aud_must_name_one_of_ours() {
    let verifier = hs256();
    for aud in [json!("attachd"), json!("attachd-2"), json!(["attachd"]), json!(["other", "attachd-2"])] {
        assert!(verifier.verify(&token(&with(good(), json!({ "aud": aud }))), at(NOW)).is_ok());
    }
    let wrong = [json!(null), json!("other"), json!(""), json!(1), json!([]), json!({}), json!(["other"])];
    assert_claim_invalid("aud", &wrong);
    assert_claim_invalid("aud", &[json!("attachd "), json!("ATTACHD"), json!(["attachd", 1]), json!([["attachd"]])]);
    assert_invalid(&verifier, &token(&without(good(), "aud")));
}

#[test]
fn iss_must_be_the_string_of_a_configured_issuer() {
    let wrong =
        [json!(null), json!(1), json!([ISSUER]), json!(""), json!("https://id.example/"), json!("HTTPS://id.example")];
    assert_claim_invalid("iss", &wrong);
    assert_invalid(&hs256(), &token(&without(good(), "iss")));
}

#[test]
fn an_issuers_key_does_not_vouch_for_another_issuer() {
    let files = Files::new();
    let first = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let mut second = files.issuer(&["RS256"], "pem_file", &RSA.1.public);
    second.issuer = "https://other.example".to_owned();
    second.audience = vec!["elsewhere".to_owned()];
    let verifier = Verifier::load(&config(vec![first, second])).unwrap();
    assert!(verifier.verify(&token(&good()), at(NOW)).is_ok());
    let theirs = with(good(), json!({"iss": "https://other.example", "aud": "elsewhere"}));
    let principal = verifier.verify(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &theirs), at(NOW)).unwrap();
    assert_eq!(principal.issuer(), "https://other.example");
    assert_invalid(&verifier, &token(&theirs));
    assert_invalid(&verifier, &sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()));
    // Nor does one issuer's audience do for the other.
    let crossed = with(theirs, json!({"aud": "attachd"}));
    assert_invalid(&verifier, &sign_rs256(&RSA.0, json!({"alg": "RS256"}), &crossed));
}

// ---- case 15 to 17 and 20: the token's header ----

#[test]
fn crit_is_refused_whatever_it_holds() {
    for crit in [json!(["exp"]), json!(["b64"]), json!([]), json!(null), json!("x")] {
        assert_invalid(&hs256(), &sign_hs256(json!({"alg": "HS256", "crit": crit, "b64": false}), &good()));
    }
}

#[test]
fn keys_that_a_token_brings_along_are_ignored() {
    let header = json!({"alg": "HS256", "jku": "http://127.0.0.1:1/jwks", "x5u": 7, "x5c": ["AAAA"], "typ": "at+jwt",
        "jwk": {"kty": "oct", "k": b64(b"attacker")}});
    assert!(hs256().verify(&sign_hs256(header, &good()), at(NOW)).is_ok());
    let verifier = Files::new().verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let header = json!({"alg": "RS256", "jwk": OTHER_RSA.1.jwk});
    assert_invalid(&verifier, &sign_rs256(&OTHER_RSA.0, header, &good()));
}

#[test]
fn a_kid_selects_its_key_and_an_unknown_one_selects_none() {
    let keys = [with(RSA.1.jwk.clone(), json!({"kid": "a"})), with(OTHER_RSA.1.jwk.clone(), json!({"kid": "b"}))];
    let verifier = Files::new().verifier(&["RS256"], "jwks_file", jwks(&keys)).unwrap();
    let signed =
        |pair, kid: Value| verifier.verify(&sign_rs256(pair, json!({"alg": "RS256", "kid": kid}), &good()), at(NOW));
    assert!(signed(&RSA.0, json!("a")).is_ok());
    assert!(signed(&OTHER_RSA.0, json!("b")).is_ok());
    assert_eq!(kind(signed(&RSA.0, json!("b"))), Kind::TokenInvalid);
    for kid in [
        json!("../../etc/passwd"),
        json!("k".repeat(10_000)),
        json!(""),
        json!("A"),
        json!(null),
        json!(1),
        json!(["a"]),
    ] {
        assert_eq!(kind(signed(&RSA.0, kid)), Kind::TokenInvalid);
    }
    // Without a kid every key of that algorithm is tried.
    for pair in [&RSA.0, &OTHER_RSA.0] {
        assert!(verifier.verify(&sign_rs256(pair, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
    }
}

#[test]
fn a_kid_matches_no_key_without_one_in_a_set_and_means_nothing_to_a_single_key() {
    let files = Files::new();
    let token = sign_rs256(&RSA.0, json!({"alg": "RS256", "kid": "a"}), &good());
    assert_invalid(&files.verifier(&["RS256"], "jwks_file", jwks(std::slice::from_ref(&RSA.1.jwk))).unwrap(), &token);
    assert!(files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap().verify(&token, at(NOW)).is_ok());
}

#[test]
fn a_rotated_key_verifies_inside_the_overlap_and_not_after_it() {
    let files = Files::new();
    let (old, new) =
        (with(RSA.1.jwk.clone(), json!({"kid": "old"})), with(OTHER_RSA.1.jwk.clone(), json!({"kid": "new"})));
    let overlap = files.verifier(&["RS256"], "jwks_file", jwks(&[old, new.clone()])).unwrap();
    let after = files.verifier(&["RS256"], "jwks_file", jwks(&[new])).unwrap();
    let by_old = sign_rs256(&RSA.0, json!({"alg": "RS256", "kid": "old"}), &good());
    let by_new = sign_rs256(&OTHER_RSA.0, json!({"alg": "RS256", "kid": "new"}), &good());
    assert!(overlap.verify(&by_old, at(NOW)).is_ok() && overlap.verify(&by_new, at(NOW)).is_ok());
    assert!(after.verify(&by_new, at(NOW)).is_ok());
    assert_invalid(&after, &by_old);
}

// ---- case 18 and 19: shapes and sizes ----

#[test]
fn a_token_has_exactly_three_parts() {
    let verifier = hs256();
    let good = token(&good());
    let thousands = ".".repeat(16_000);
    for token in ["", ".", "..", "...", "a.b", "a.b.c", "a.b.c.d", "a.b.c.d.e", &thousands, "\u{e9}.\u{e9}.\u{e9}"] {
        assert_invalid(&verifier, token);
    }
    for token in [format!(".{good}"), format!("{good}."), format!("{good}.x"), format!(" {good}")] {
        assert_invalid(&verifier, &token);
    }
}

#[test]
fn a_token_of_16_kib_is_the_longest() {
    let verifier = hs256();
    let of_length = |length: usize| {
        // Three bytes of claims are four of token; the header makes up for what is left over.
        for header in ["", " ", "  ", "   "] {
            let header = format!(r#"{{"alg":"HS256"}}{header}"#);
            for padding in (length - 2_000) / 4 * 3 - 2_000..length {
                let json = 300 + padding;
                if b64(&header).len() + 1 + (json * 4).div_ceil(3) + 1 + 43 == length {
                    let claims = format!("{:300}{}", good().to_string(), " ".repeat(padding));
                    return sign_hs256_text(&header, &claims);
                }
            }
        }
        panic!("no token of {length} bytes");
    };
    for (length, ok) in [(16_383, true), (16_384, true), (16_385, false)] {
        let token = of_length(length);
        assert_eq!(token.len(), length);
        assert_eq!(verifier.verify(&token, at(NOW)).is_ok(), ok, "{length}");
    }
    assert_invalid(&verifier, &"a".repeat(1 << 20));
}

#[test]
fn a_member_that_comes_twice_is_refused_in_header_and_claims() {
    let claims = good().to_string();
    let twice = |name: &str, value: &str| format!("{{\"{name}\":{value},{}", &claims[1..]);
    let alg = r#"{"alg":"HS256"}"#;
    assert!(hs256().verify(&sign_hs256_text(alg, &twice("x", "1")), at(NOW)).is_ok());
    for (name, value) in
        [("sub", "\"svc-a\""), ("exp", "0"), ("iss", "\"x\""), ("\\u0073ub", "\"root\""), ("scope", "[]")]
    {
        assert_invalid(&hs256(), &sign_hs256_text(alg, &twice(name, value)));
    }
    assert_invalid(&hs256(), &sign_hs256_text(r#"{"alg":"none","alg":"HS256"}"#, &claims));
    assert_invalid(&hs256(), &sign_hs256_text(r#"{"x":1,"alg":"HS256","x":1}"#, &claims));
}

#[test]
fn parts_that_are_not_one_json_object_are_refused() {
    let alg = r#"{"alg":"HS256"}"#;
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(4_000), "]".repeat(4_000));
    for claims in ["", "null", "[]", "1", "\"x\"", "{", "{}", "{} {}", "{\"iss\":\"\\ud800\"}", &deep] {
        assert_invalid(&hs256(), &sign_hs256_text(alg, claims));
    }
    let trailing = format!("{}x", good());
    assert_invalid(&hs256(), &sign_hs256_text(alg, &trailing));
    assert_invalid(&hs256(), &sign_hs256_text("\u{feff}{\"alg\":\"HS256\"}", &good().to_string()));
}

proptest! {
    #[test]
    fn no_text_is_a_token_by_chance(text in "[A-Za-z0-9_.=-]{0,200}|\\PC{0,100}") {
        prop_assert_eq!(kind(VERIFIER.verify(&text, at(NOW))), Kind::TokenInvalid);
    }

    #[test]
    fn no_signed_json_is_more_than_refused(
        value in prop_oneof![
            any::<f64>().prop_map(|number| json!(number)),
            any::<i64>().prop_map(|number| json!(number)),
            "~\\PC{0,20}".prop_map(|text| json!([text])),
        ],
        name in prop::sample::select(vec!["iss", "aud", "client_ids", "sub"]),
    ) {
        prop_assert_eq!(kind(VERIFIER.verify(&token(&with(good(), json!({ name: value }))), at(NOW))), Kind::TokenInvalid);
    }

    #[test]
    fn what_bearer_gives_is_visible_ascii(value in prop::collection::vec(any::<u8>(), 0..40), lead in any::<bool>()) {
        let value = if lead { [b"Bearer ".as_slice(), &value].concat() } else { value };
        if let Ok(token) = bearer([value.as_slice()].into_iter()) {
            prop_assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}

static VERIFIER: LazyLock<Verifier> = LazyLock::new(hs256);

// ---- case 22: nothing leaks ----

#[test]
fn no_error_and_no_debug_shows_a_token_or_a_key() {
    let files = Files::new();
    let verifier = hs256();
    let good_token = token(&good());
    let marked = with(good(), json!({"iss": "MARKER", "sub": "MARKER"}));
    let tokens = [
        token(&marked),
        token(&with(good(), json!({"aud": "MARKER"}))),
        token(&with(good(), json!({"exp": "MARKER"}))),
        token(&with(good(), json!({"scope": ["MARKER", 1]}))),
        sign_hs256(json!({"alg": "MARKER"}), &good()),
        sign_hs256(json!({"alg": "HS256", "kid": ["MARKER"]}), &good()),
        sign_hs256_text(r#"{"alg":"HS256"}"#, r#"{"iss":"MARKER"#),
        "MARKER.MARKER.MARKER".to_owned(),
        "MARKER".to_owned(),
        format!("{good_token}MARKER"),
        token(&with(good(), json!({"exp": 1}))),
    ];
    for token in &tokens {
        let error = verifier.verify(token, at(NOW)).unwrap_err();
        let shown = format!("{error} {error:?} {:?} {:?}", error.log_source(), error.to_status());
        assert!(!shown.contains("MARKER"), "{shown}");
        for part in token.split('.').filter(|part| part.len() > 5) {
            assert!(!shown.contains(part), "{shown}");
        }
    }
    let error = bearer([b"Bearer MARKER MARKER".as_slice()].into_iter()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("MARKER"));

    let signing = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let minter = Minter::from_issuer(&signing, None).unwrap();
    let of_rsa = files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let shown = format!("{verifier:?} {minter:?} {of_rsa:?}");
    assert!(!shown.contains("0123456789abcdef") && !shown.contains("48, 49, 50, 51"), "{shown}");
    assert!(shown.contains("redacted") && shown.contains("HS256") && shown.contains(ISSUER), "{shown}");
}

#[test]
fn a_verifier_is_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Verifier>();
    shared::<Principal>();
    shared::<LoadError>();
}

// ---- minting: every kind of key, from file to principal ----

#[test]
fn every_algorithm_verifies_what_it_minted() {
    let files = Files::new();
    let secret: Vec<u8> = (0..64).collect();
    let check = |signing: IssuerConfig, private: Option<&str>| {
        let private = private.map(|pem| files.put("private", pem));
        let token = Minter::from_issuer(&signing, private.as_deref()).unwrap().mint(&minted("svc")).unwrap();
        let header: Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap()).unwrap();
        assert_eq!(header["alg"], signing.algorithms[0].as_str());
        let verifier = Verifier::load(&config(vec![signing])).unwrap();
        let principal = verifier.verify(&token, at(NOW)).unwrap();
        assert_eq!((principal.subject(), principal.issuer()), ("svc", ISSUER));
        assert!(principal.allows(Scope::Write) && principal.allows(Scope::Read) && !principal.allows(Scope::Manage));
        assert!(principal.holds_client(7) && principal.holds_client(9) && !principal.holds_client(8));
        assert!(principal.holds_project(1) && !principal.holds_portfolio(1));
        assert!(verifier.verify(&token, at(NOW + 359)).is_ok());
        assert_eq!(kind(verifier.verify(&token, at(NOW + 360))), Kind::TokenExpired);
    };
    for alg in ["HS256", "HS384", "HS512"] {
        check(files.issuer(&[alg], "hmac_secret_file", &secret), None);
    }
    let public_keys = [
        (["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].as_slice(), &RSA.1),
        (&["ES256"], &*P256),
        (&["ES384"], &*P384),
        (&["EdDSA"], &*ED),
    ];
    for (algorithms, pair) in public_keys {
        for alg in algorithms {
            check(files.issuer(&[alg], "pem_file", &pair.public), Some(&pair.private));
            let set = jwks(&[with(pair.jwk.clone(), json!({"kid": "k", "use": "sig", "alg": alg, "x5t": "ignored"}))]);
            check(files.issuer(&[alg], "jwks_file", set), Some(&pair.private));
        }
    }
}

#[test]
fn pkcs1_keys_and_text_around_a_key_are_read() {
    let files = Files::new();
    let public = pem("RSA PUBLIC KEY", RSA.0.public_key().as_ref());
    let public = format!("Issuer: example\r\n\r\n{}trailing words\n", public.replace('\n', "\r\n"));
    let verifier = files.verifier(&["RS256"], "pem_file", public).unwrap();
    assert!(verifier.verify(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
}

#[test]
fn a_minted_token_names_the_key_of_the_set_that_signed_it() {
    let files = Files::new();
    let keys = [
        with(OTHER_RSA.1.jwk.clone(), json!({"kid": "a"})),
        with(P256.jwk.clone(), json!({"kid": "e"})),
        with(RSA.1.jwk.clone(), json!({"kid": "b"})),
    ];
    let signing = files.issuer(&["RS256", "ES256"], "jwks_file", jwks(&keys));
    for (private, kid) in [(&RSA.1.private, "b"), (&OTHER_RSA.1.private, "a"), (&P256.private, "e")] {
        let private = files.put("private", private);
        let token = Minter::from_issuer(&signing, Some(&private)).unwrap().mint(&minted("svc")).unwrap();
        let header = Members::decode(token.split('.').next().unwrap()).unwrap();
        assert_eq!(header.string("kid"), Some(kid));
        assert!(Verifier::load(&config(vec![signing.clone()])).unwrap().verify(&token, at(NOW)).is_ok());
    }
}

#[test]
fn a_minter_refuses_keys_that_could_not_sign_for_the_issuer() {
    let files = Files::new();
    let rsa = files.issuer(&["RS256"], "pem_file", &RSA.1.public);
    let hmac = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let refused = |issuer: &IssuerConfig, private: Option<&str>, what: &str| {
        let private = private.map(|bytes| files.put("private", bytes));
        let error = Minter::from_issuer(issuer, private.as_deref()).unwrap_err();
        assert_eq!(error.key(), "private key file");
        assert!(error.what().contains(what), "{error}");
    };
    refused(&rsa, None, "is needed");
    refused(&hmac, Some(&RSA.1.private), "is not needed");
    refused(&rsa, Some(&OTHER_RSA.1.private), "does not belong");
    refused(&rsa, Some(&RSA.1.public), "holds a `PUBLIC KEY`");
    refused(&rsa, Some(&P256.private), "is not a private key for RS256");
    refused(&rsa, Some(&pem("PRIVATE KEY", b"0\x03\x02\x01\x01")), "is not a private key for RS256");
    refused(&rsa, Some(&pem("EC PRIVATE KEY", b"x")), "-topk8");
    refused(&rsa, Some(&pem("ENCRYPTED PRIVATE KEY", b"x")), "encrypted");
    let error = Minter::from_issuer(&rsa, Some(Path::new("/nowhere/key.pem"))).unwrap_err();
    assert!(error.to_string().starts_with("private key file: cannot read /nowhere/key.pem: "), "{error}");
    let mut unreadable = rsa;
    unreadable.pem_file = Some("/nowhere/public.pem".into());
    let error = Minter::from_issuer(&unreadable, None).unwrap_err();
    assert_eq!(error.key(), "auth.issuers[\"https://id.example\"].pem_file");
}

#[test]
fn claims_out_of_range_are_not_minted() {
    let signing = Files::new();
    let signing = Minter::from_issuer(&signing.issuer(&["HS256"], "hmac_secret_file", SECRET), None).unwrap();
    let field = |claims: Claims| signing.mint(&claims).unwrap_err().field();
    assert_eq!(field(minted("")), Some("subject"));
    assert_eq!(field(minted(&"a".repeat(256))), Some("subject"));
    assert_eq!(field(Claims { ttl: Duration::from_millis(999), ..minted("a") }), Some("ttl"));
    assert_eq!(field(Claims { ttl: Duration::from_secs(u64::MAX), ..minted("a") }), Some("ttl"));
    assert_eq!(field(Claims { clients: Ids::Only(vec![0]), ..minted("a") }), Some("clients"));
    assert_eq!(field(Claims { portfolios: Ids::Only(vec![-1]), ..minted("a") }), Some("portfolios"));
    assert_eq!(field(Claims { projects: Ids::Only((1..9_000).collect()), ..minted("a") }), Some("token"));
    assert_eq!(field(Claims { now: SystemTime::UNIX_EPOCH - Duration::from_secs(1), ..minted("a") }), Some("now"));
}

#[test]
fn minted_claims_stand_under_the_configured_names() {
    let files = Files::new();
    let mut signing = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    signing.claims = ClaimNames {
        subject: "azp".into(),
        scopes: "scp".into(),
        clients: "c".into(),
        projects: "p".into(),
        portfolios: "f".into(),
    };
    let token = Minter::from_issuer(&signing, None).unwrap().mint(&minted("svc")).unwrap();
    let claims: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap();
    assert_eq!(
        claims,
        json!({"iss": ISSUER, "aud": "attachd", "iat": NOW, "exp": NOW + 300, "azp": "svc",
            "scp": "attachments:write attachments:read", "c": [9, 7], "p": "*", "f": []})
    );
    assert!(Verifier::load(&config(vec![signing])).unwrap().verify(&token, at(NOW)).is_ok());
}

// ---- configuration ----

#[test]
fn the_documented_configuration_reads_with_its_defaults() {
    let config: Config = toml::from_str(
        r#"
        leeway = "5s"
        [[issuers]]
        issuer = "https://id.example"
        audience = ["attachd"]
        algorithms = ["RS256"]
        pem_file = "keys/issuer.pem"
        [issuers.claims]
        scopes = "scp"
        "#,
    )
    .unwrap();
    assert_eq!(config.leeway, Duration::from_secs(5));
    assert_eq!(config.issuers[0].pem_file.as_deref(), Some(Path::new("keys/issuer.pem")));
    assert_eq!(config.issuers[0].claims, ClaimNames { scopes: "scp".to_owned(), ..ClaimNames::default() });
    let config: Config = toml::from_str("").unwrap();
    assert_eq!((config.leeway, config.issuers.len()), (Duration::from_secs(60), 0));
    for wrong in ["leeway = 5", "leeway = \"soon\"", "lee = \"5s\"", "[[issuers]]\nissuer = \"a\"\nkey = \"x\""] {
        assert!(toml::from_str::<Config>(wrong).is_err(), "{wrong}");
    }
}

#[track_caller]
fn assert_load_error(config: &Config, key: &str, what: &str) {
    let error = Verifier::load(config).unwrap_err();
    assert_eq!(error.key(), key, "{error}");
    assert!(error.what().contains(what), "{error}");
}

#[test]
fn a_leeway_of_60_seconds_is_the_largest() {
    let issuers = vec![Files::new().issuer(&["HS256"], "hmac_secret_file", SECRET)];
    for (leeway, ok) in [(0, true), (59_999, true), (60_000, true), (60_001, false)] {
        let files = Files::new();
        let issuers = vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)];
        let config = Config { leeway: Duration::from_millis(leeway), issuers };
        assert_eq!(Verifier::load(&config).is_ok(), ok, "{leeway}");
    }
    assert_load_error(&Config { leeway: Duration::from_secs(61), issuers }, "auth.leeway", "more than 60s");
}

#[test]
fn a_wrong_issuer_table_is_named_with_its_key() {
    let files = Files::new();
    let good = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let wrong = |change: fn(&mut IssuerConfig), key: &str, what: &str| {
        let mut bad = good.clone();
        bad.issuer = "https://second.example".to_owned();
        change(&mut bad);
        assert_load_error(&config(vec![good.clone(), bad]), key, what);
    };
    assert_load_error(&config(vec![]), "auth.issuers", "no issuer");
    let at = "auth.issuers[1]";
    wrong(|i| i.issuer = ISSUER.to_owned(), &format!("{at}.issuer"), "is the issuer of auth.issuers[0] already");
    wrong(|i| i.issuer.clear(), &format!("{at}.issuer"), "empty");
    wrong(|i| i.audience.clear(), &format!("{at}.audience"), "at least one");
    wrong(|i| i.audience.push(String::new()), &format!("{at}.audience"), "empty");
    wrong(|i| i.algorithms.clear(), &format!("{at}.algorithms"), "at least one of HS256");
    wrong(|i| i.algorithms = vec!["none".into()], &format!("{at}.algorithms"), "`none` is not one of HS256, HS384");
    wrong(|i| i.algorithms = vec!["hs256".into()], &format!("{at}.algorithms"), "`hs256` is not one of");
    wrong(|i| i.algorithms.push("RS256".into()), &format!("{at}.algorithms"), "RS256 needs a public key");
    wrong(|i| i.hmac_secret_file = None, at, "has no key: give exactly one of pem_file, jwks_file");
    wrong(|i| i.pem_file = Some("x".into()), at, "has pem_file and hmac_secret_file: give exactly one");
    wrong(|i| i.jwks_url = Some("x".into()), at, "has jwks_url and hmac_secret_file");
    wrong(|i| i.claims.clients.clear(), &format!("{at}.claims.clients"), "empty");
    wrong(|i| i.claims.scopes = "sub".into(), &format!("{at}.claims.scopes"), "`sub` is the name of `subject` already");
    wrong(|i| i.claims.subject = "iss".into(), &format!("{at}.claims.subject"), "`iss` has a meaning of its own");
    wrong(
        |i| (i.hmac_secret_file, i.jwks_url) = (None, Some("https://id.example/jwks".into())),
        &format!("{at}.jwks_url"),
        "jwks_url is not supported by this version, use jwks_file",
    );
    wrong(
        |i| (i.hmac_secret_file, i.pem_file) = (None, Some("x".into())),
        &format!("{at}.algorithms"),
        "HS256 needs a shared secret",
    );
    wrong(
        |i| i.hmac_secret_file = Some("/nowhere/secret".into()),
        &format!("{at}.hmac_secret_file"),
        "cannot read /nowhere/secret: No such file or directory",
    );
}

#[test]
fn a_secret_is_at_least_as_long_as_the_hash_without_its_last_newline() {
    let files = Files::new();
    for (alg, least) in [("HS256", 32), ("HS384", 48), ("HS512", 64)] {
        for (length, ok) in [(least - 1, false), (least, true), (least + 1, true)] {
            for end in ["", "\n", "\r\n"] {
                let secret = [&vec![b'x'; length], end.as_bytes()].concat();
                let loaded = files.verifier(&[alg], "hmac_secret_file", secret);
                assert_eq!(loaded.is_ok(), ok, "{alg} {length} {end:?}");
                if let Err(error) = loaded {
                    assert_eq!(error.key(), "auth.issuers[0].hmac_secret_file");
                    assert!(
                        error.what().contains(&format!("{length} bytes, and {alg} needs at least {least}")),
                        "{error}"
                    );
                    assert!(!error.what().contains("xxxx"));
                }
            }
        }
    }
    // The longest of the configured algorithms decides.
    assert!(files.verifier(&["HS256", "HS512"], "hmac_secret_file", [b'x'; 63]).is_err());
}

#[test]
fn one_newline_ends_a_secret_file_and_everything_else_is_the_secret() {
    let files = Files::new();
    let verifies = |file: &[u8]| {
        let verifier = files.verifier(&["HS256"], "hmac_secret_file", file).unwrap();
        verifier.verify(&token(&good()), at(NOW)).is_ok()
    };
    let cases: [(&[u8], bool); 6] =
        [(b"", true), (b"\n", true), (b"\r\n", true), (b"\n\n", false), (b" ", false), (b"\r", false)];
    for (end, same) in cases {
        assert_eq!(verifies(&[SECRET, end].concat()), same, "{}", end.escape_ascii());
    }
    assert!(!verifies(&[b" ", SECRET].concat()));
}

#[test]
fn a_pem_file_that_does_not_fit_says_why() {
    let files = Files::new();
    let wrong = |algorithms: &[&str], bytes: &[u8], what: &str| {
        let error = files.verifier(algorithms, "pem_file", bytes).unwrap_err();
        assert_eq!(error.key(), "auth.issuers[0].pem_file");
        assert!(error.what().contains(what), "{error}");
    };
    wrong(&["ES256"], RSA.1.public.as_bytes(), "is an RSA key, and ES256 needs an EC P-256 key");
    wrong(&["RS256"], P256.public.as_bytes(), "is an EC P-256 key, and RS256 needs an RSA key");
    wrong(&["ES384"], P256.public.as_bytes(), "is an EC P-256 key, and ES384 needs an EC P-384 key");
    wrong(&["ES384", "ES256"], P384.public.as_bytes(), "is an EC P-384 key, and ES256 needs");
    wrong(&["PS256", "EdDSA"], RSA.1.public.as_bytes(), "EdDSA needs an Ed25519 key");
    wrong(&["RS256"], ED.public.as_bytes(), "is an Ed25519 key");
    wrong(&["RS256"], RSA.1.private.as_bytes(), "is a private key");
    wrong(&["ES256"], pem("EC PRIVATE KEY", b"x").as_bytes(), "is a private key");
    wrong(&["RS256"], pem("CERTIFICATE", b"x").as_bytes(), "is a certificate");
    wrong(&["RS256"], pem("X509 CRL", b"x").as_bytes(), "holds a `X509 CRL`");
    wrong(&["RS256"], pem("PUBLIC KEY", b"x").as_bytes(), "is damaged");
    wrong(&["RS256"], [RSA.1.public.as_bytes(), P256.public.as_bytes()].concat().as_slice(), "more than one key");
    wrong(&["RS256"], b"", "no `-----BEGIN` line");
    wrong(&["RS256"], b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "no `-----END` line");
    wrong(&["RS256"], b"-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----\n", "damaged");
    wrong(&["RS256"], jwks(&[]).as_bytes(), "goes into jwks_file");
    wrong(&["RS256"], b"\xff\xfe", "not text");
    wrong(&["RS256"], &vec![b'x'; 1024 * 1024 + 1], "longer than 1 MiB");
    wrong(&["RS256"], &vec![b'x'; 1024 * 1024], "no `-----BEGIN` line");
}

#[test]
fn rsa_keys_under_2048_bits_are_refused() {
    // 1024 bits, all set: the size is judged before a token is.
    let n = [vec![0xff; 128]].concat();
    let key = json!({"kty": "RSA", "n": b64(n), "e": "AQAB"});
    let error = Files::new().verifier(&["RS256"], "jwks_file", jwks(&[key])).unwrap_err();
    assert!(error.what().contains("1024 bits"), "{error}");
}

#[test]
fn a_key_set_yields_its_signing_keys_and_no_others() {
    let files = Files::new();
    let wrong = |key: Value, what: &str| {
        let error =
            files.verifier(&["RS256", "ES256", "EdDSA"], "jwks_file", jwks(std::slice::from_ref(&key))).unwrap_err();
        assert_eq!(error.key(), "auth.issuers[0].jwks_file");
        assert!(error.what().contains(what), "{error}");
        // Beside a good key it is passed over, unless it is a secret that should not be there.
        if !what.contains("private") {
            assert!(files.verifier(&["RS256"], "jwks_file", jwks(&[key, RSA.1.jwk.clone()])).is_ok());
        }
    };
    wrong(with(RSA.1.jwk.clone(), json!({"use": "enc"})), "is not for signatures");
    wrong(with(RSA.1.jwk.clone(), json!({"key_ops": ["encrypt"]})), "is not for verifying");
    wrong(with(RSA.1.jwk.clone(), json!({"alg": "RS384"})), "none of the configured algorithms");
    wrong(with(RSA.1.jwk.clone(), json!({"alg": "RSA-OAEP"})), "not supported (`alg`)");
    wrong(with(RSA.1.jwk.clone(), json!({"alg": "ES256"})), "none of the configured algorithms");
    wrong(with(RSA.1.jwk.clone(), json!({"d": "AQAB"})), "is a private key");
    wrong(with(RSA.1.jwk.clone(), json!({"n": "!"})), "malformed `n`");
    wrong(with(RSA.1.jwk.clone(), json!({"kid": 7})), "is malformed");
    wrong(without(RSA.1.jwk.clone(), "e"), "has no `e`");
    wrong(json!({"kty": "oct", "k": b64(SECRET), "alg": "HS256"}), "is a shared secret");
    wrong(json!({"kty": "oct", "k": b64(SECRET)}), "is a shared secret");
    wrong(with(P256.jwk.clone(), json!({"crv": "P-521"})), "not supported");
    wrong(with(P256.jwk.clone(), json!({"crv": "P-384"})), "coordinates of another length");
    wrong(with(P256.jwk.clone(), json!({"x": P256.jwk["y"]})), "is damaged");
    wrong(P384.jwk.clone(), "none of the configured algorithms");
    wrong(with(ED.jwk.clone(), json!({"crv": "X25519"})), "not supported");
    wrong(with(ED.jwk.clone(), json!({"x": "AAAA"})), "another length");
    wrong(json!({"kty": "AKP"}), "not supported");
    wrong(json!({}), "is malformed");
    for (text, what) in [("", "line 1"), ("[]", "is not a JSON Web Key Set"), ("{\"keys\":[]}", "holds no keys")] {
        let error = files.verifier(&["RS256"], "jwks_file", text).unwrap_err();
        assert!(error.what().contains(what), "{error}");
    }
}

#[test]
fn a_secret_in_a_key_set_verifies_nothing() {
    let files = Files::new();
    let keys = [json!({"kty": "oct", "k": b64(SECRET), "kid": "s"}), with(RSA.1.jwk.clone(), json!({"kid": "r"}))];
    let verifier = files.verifier(&["RS256"], "jwks_file", jwks(&keys)).unwrap();
    assert_invalid(&verifier, &token(&good()));
    assert_invalid(&verifier, &sign_hs256(json!({"alg": "HS256", "kid": "s"}), &good()));
}

#[test]
fn a_keys_own_alg_pins_it() {
    let files = Files::new();
    let pinned = with(RSA.1.jwk.clone(), json!({"alg": "PS256"}));
    let verifier = files.verifier(&["RS256", "PS256"], "jwks_file", jwks(&[pinned])).unwrap();
    assert_invalid(&verifier, &sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()));
}

#[test]
fn random_bytes_in_place_of_a_key_file_are_an_error_and_no_panic() {
    let files = Files::new();
    for length in [0, 1, 65, 97, 294] {
        let mut bytes = vec![0; length];
        rand::fill(&mut bytes).unwrap();
        for source in ["pem_file", "jwks_file"] {
            assert!(files.verifier(&["RS256"], source, &bytes).is_err());
            assert!(files.verifier(&["RS256"], source, pem("PUBLIC KEY", &bytes)).is_err());
        }
    }
}
