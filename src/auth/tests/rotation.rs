//! Keys that change while the service runs, and tokens that are remembered meanwhile.

use super::super::verifier::Verifications;
use super::*;

const OTHER_SECRET: &[u8] = b"another secret, and as long as it needs to be";

fn signed_with(secret: &[u8], claims: &Value) -> String {
    let message = format!("{}.{}", b64(r#"{"alg":"HS256"}"#), b64(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message.as_bytes());
    format!("{message}.{}", b64(tag))
}

/// Asks for the keys as the service does every now and then.
fn look_again(verifier: &Verifier) -> Result<(), LoadError> {
    RUNTIME.with(|runtime| runtime.block_on(verifier.fetch_keys()))
}

#[test]
fn a_token_is_verified_once() {
    let files = Files::new();
    let verifier = files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let token = sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good());
    for _ in 0..100 {
        let principal = verifier.verdict(&token, at(NOW)).unwrap();
        assert!(principal.holds_client(7) && !principal.holds_client(8) && principal.subject() == "svc-a");
    }
    assert_eq!(verifier.verifications(), Verifications { made: 1, spared: 99 });
    let other = sign_rs256(&RSA.0, json!({"alg": "RS256"}), &with(good(), json!({"sub": "svc-b"})));
    assert_eq!(verifier.verdict(&other, at(NOW)).unwrap().subject(), "svc-b");
    assert_eq!(verifier.verdict(&token, at(NOW)).unwrap().subject(), "svc-a");
    assert_eq!(verifier.verifications(), Verifications { made: 2, spared: 100 });
}

#[test]
fn without_room_each_token_is_verified_each_time() {
    let files = Files::new();
    let issuers = vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)];
    let verifier = Verifier::load(&Config { token_cache: bytesize::ByteSize::b(0), ..config(issuers) }).unwrap();
    for _ in 0..10 {
        assert!(verifier.verdict(&token(&good()), at(NOW)).is_ok());
    }
    assert_eq!(verifier.verifications(), Verifications { made: 10, spared: 0 });
}

#[test]
fn a_remembered_token_is_judged_by_the_clock_each_time() {
    let verifier = hs256();
    let token = token(&with(good(), json!({"nbf": NOW, "exp": NOW + 300})));
    let ask = |seconds: u64| verifier.verdict(&token, at(seconds)).map(|_| ());
    assert!(ask(NOW).is_ok() && ask(NOW + 359).is_ok());
    assert_eq!(kind(ask(NOW + 360)), Kind::TokenExpired);
    assert_eq!(kind(ask(NOW + 1_000_000)), Kind::TokenExpired);
    assert!(ask(NOW - 60).is_ok());
    assert_eq!(kind(ask(NOW - 61)), Kind::TokenInvalid);
    assert_eq!(verifier.verifications().made, 1, "all but the first were remembered");
}

#[test]
fn a_refused_token_is_not_remembered_as_good_or_bad() {
    let verifier = hs256();
    let good_token = token(&good());
    let forged = format!("{}.{}", good_token.rsplit_once('.').unwrap().0, b64([0; 32]));
    for _ in 0..3 {
        assert_invalid(&verifier, &forged);
        assert!(verifier.verdict(&good_token, at(NOW)).is_ok());
    }
    assert_eq!(verifier.verifications(), Verifications { made: 4, spared: 2 });
}

#[test]
fn a_file_that_changes_is_read_again_when_a_token_asks_for_it() {
    let files = Files::new();
    let verifier = files.verifier(&["HS256"], "hmac_secret_file", SECRET).unwrap();
    let (old, new) = (token(&good()), signed_with(OTHER_SECRET, &good()));
    assert!(verifier.verdict(&old, at(NOW)).is_ok());
    assert_invalid(&verifier, &new);
    files.put("hmac_secret_file", OTHER_SECRET);
    assert!(verifier.verdict(&new, at(NOW)).is_ok());
    // And a remembered token holds no longer than its key.
    assert_invalid(&verifier, &old);
}

#[test]
fn a_key_that_is_taken_out_of_a_file_verifies_nothing_once_it_was_looked_at() {
    let files = Files::new();
    let (a, b) = (with(RSA.1.jwk.clone(), json!({"kid": "a"})), with(OTHER_RSA.1.jwk.clone(), json!({"kid": "b"})));
    let verifier = files.verifier(&["RS256"], "jwks_file", jwks(&[a.clone(), b.clone()])).unwrap();
    let by_a = sign_rs256(&RSA.0, json!({"alg": "RS256", "kid": "a"}), &good());
    let by_b = sign_rs256(&OTHER_RSA.0, json!({"alg": "RS256", "kid": "b"}), &good());
    assert!(verifier.verdict(&by_a, at(NOW)).is_ok() && verifier.verdict(&by_b, at(NOW)).is_ok());
    files.put("jwks_file", jwks(&[b]));
    look_again(&verifier).unwrap();
    assert_invalid(&verifier, &by_a);
    assert!(verifier.verdict(&by_b, at(NOW)).is_ok());
    files.put("jwks_file", jwks(&[a]));
    assert!(verifier.verdict(&by_a, at(NOW)).is_ok());
    assert_invalid(&verifier, &by_b);
}

#[test]
fn a_file_that_says_the_same_again_lets_tokens_be_remembered() {
    let files = Files::new();
    let verifier = files.verifier(&["HS256"], "hmac_secret_file", SECRET).unwrap();
    assert!(verifier.verdict(&token(&good()), at(NOW)).is_ok());
    files.put("hmac_secret_file", SECRET);
    look_again(&verifier).unwrap();
    assert!(verifier.verdict(&token(&good()), at(NOW)).is_ok());
    assert_eq!(verifier.verifications(), Verifications { made: 1, spared: 1 });
}

#[test]
fn a_file_that_breaks_leaves_the_keys_in_use_and_says_so() {
    let files = Files::new();
    let verifier = files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let token = sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good());
    let path = files.put("pem_file", "nonsense");
    for breakage in ["nonsense", "missing"] {
        if breakage == "missing" {
            fs::remove_file(&path).unwrap();
        }
        let error = look_again(&verifier).unwrap_err();
        assert!(error.what().contains(if breakage == "missing" { "cannot read" } else { "-----BEGIN" }), "{error}");
        assert!(verifier.verdict(&token, at(NOW)).is_ok());
        assert_invalid(&verifier, &sign_rs256(&OTHER_RSA.0, json!({"alg": "RS256"}), &good()));
        assert_eq!(verifier.keys()[0].freshness, Freshness::Stale);
        assert!(verifier.is_ready());
    }
    files.put("pem_file", &RSA.1.public);
    look_again(&verifier).unwrap();
    assert_eq!(verifier.keys()[0].freshness, Freshness::Fresh);
}

#[test]
fn keys_that_could_not_be_confirmed_for_too_long_are_not_used() {
    let files = Files::new();
    let issuers = vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)];
    let keys = toml::from_str("refresh = \"1s\"\nmax_age = \"1s\"").unwrap();
    let verifier = Verifier::load(&Config { keys, ..config(issuers) }).unwrap();
    let token = token(&good());
    assert!(verifier.verdict(&token, at(NOW)).is_ok());
    fs::remove_file(files.0.path().join("hmac_secret_file")).unwrap();
    // The token is remembered, and all the same the keys must be as good as the configuration asks for.
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(kind(verifier.verdict(&token, at(NOW))), Kind::KeysUnavailable);
    assert_eq!(verifier.keys()[0].freshness, Freshness::Unusable);
    assert!(!verifier.is_ready());
    files.put("hmac_secret_file", SECRET);
    assert!(verifier.verdict(&token, at(NOW)).is_ok());
    assert!(verifier.is_ready());
}
