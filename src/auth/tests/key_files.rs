//! Files of keys: which yield keys, and what is said of those that do not.

use super::*;

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
        verifier.verdict(&token(&good()), at(NOW)).is_ok()
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
    wrong(with(RSA.1.jwk.clone(), json!({"kid": 7})), "has a `kid` that is not text");
    wrong(with(RSA.1.jwk.clone(), json!({"key_ops": "verify"})), "is malformed");
    wrong(without(RSA.1.jwk.clone(), "e"), "has no `e`");
    wrong(json!({"kty": "oct", "k": b64(SECRET), "alg": "HS256"}), "is a shared secret");
    wrong(json!({"kty": "oct", "k": b64(SECRET)}), "is a shared secret");
    wrong(with(P256.jwk.clone(), json!({"crv": "P-521"})), "not supported");
    wrong(with(P256.jwk.clone(), json!({"crv": "P-384"})), "are not a point of P-384");
    wrong(with(P384.jwk.clone(), json!({"crv": "P-256"})), "has an `x` of more than the 32 bytes of P-256");
    wrong(with(P256.jwk.clone(), json!({"x": P256.jwk["y"]})), "are not a point of P-256");
    wrong(P384.jwk.clone(), "none of the configured algorithms");
    wrong(with(ED.jwk.clone(), json!({"crv": "X25519"})), "not supported");
    wrong(with(ED.jwk.clone(), json!({"x": "AAAA"})), "another length");
    wrong(json!({"kty": "AKP"}), "not supported");
    wrong(json!({}), "has no `kty`");
    wrong(json!([]), "is not a JSON object");
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
