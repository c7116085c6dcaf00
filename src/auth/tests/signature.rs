//! Algorithms, keys and signatures, and what a token's header may ask for.

use super::*;

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
    assert!(Verifier::load(&config(vec![signing])).unwrap().verdict(&token, at(NOW)).is_ok());
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
    assert!(verifier.verdict(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
    assert_invalid(&verifier, &sign_rs256(&OTHER_RSA.0, json!({"alg": "RS256"}), &good()));
}

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
    assert!(hs256().verdict(&sign_hs256(header, &good()), at(NOW)).is_ok());
    let verifier = Files::new().verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    let header = json!({"alg": "RS256", "jwk": OTHER_RSA.1.jwk});
    assert_invalid(&verifier, &sign_rs256(&OTHER_RSA.0, header, &good()));
}

#[test]
fn a_kid_selects_its_key_and_an_unknown_one_selects_none() {
    let keys = [with(RSA.1.jwk.clone(), json!({"kid": "a"})), with(OTHER_RSA.1.jwk.clone(), json!({"kid": "b"}))];
    let verifier = Files::new().verifier(&["RS256"], "jwks_file", jwks(&keys)).unwrap();
    let signed =
        |pair, kid: Value| verifier.verdict(&sign_rs256(pair, json!({"alg": "RS256", "kid": kid}), &good()), at(NOW));
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
        assert!(verifier.verdict(&sign_rs256(pair, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
    }
}

#[test]
fn a_kid_means_nothing_to_a_key_that_has_none() {
    let files = Files::new();
    let token = |pair| sign_rs256(pair, json!({"alg": "RS256", "kid": "a"}), &good());
    let set = files.verifier(&["RS256"], "jwks_file", jwks(std::slice::from_ref(&RSA.1.jwk))).unwrap();
    let single = files.verifier(&["RS256"], "pem_file", &RSA.1.public).unwrap();
    for verifier in [set, single] {
        assert!(verifier.verdict(&token(&RSA.0), at(NOW)).is_ok());
        assert_invalid(&verifier, &token(&OTHER_RSA.0));
    }
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
    assert!(overlap.verdict(&by_old, at(NOW)).is_ok() && overlap.verdict(&by_new, at(NOW)).is_ok());
    assert!(after.verdict(&by_new, at(NOW)).is_ok());
    assert_invalid(&after, &by_old);
}

#[test]
fn a_type_of_token_that_is_not_configured_is_refused() {
    let files = Files::new();
    let path = files.put("secret", SECRET);
    let types = |types: &str| {
        let table = format!("algorithms = [\"HS256\"]\nhmac_secret_file = {path:?}\ntypes = {types}");
        Verifier::load(&config(vec![issuer(&table)])).unwrap()
    };
    let with_typ = |typ: Value| sign_hs256(json!({"alg": "HS256", "typ": typ}), &good());
    let access = types(r#"["at+jwt"]"#);
    for typ in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"] {
        assert!(access.verdict(&with_typ(json!(typ)), at(NOW)).is_ok(), "{typ}");
        assert!(types(&format!("[\"other\", {typ:?}]")).verdict(&with_typ(json!("at+jwt")), at(NOW)).is_ok(), "{typ}");
    }
    for typ in
        [json!("JWT"), json!("id+jwt"), json!(""), json!("application/"), json!(null), json!(["at+jwt"]), json!(1)]
    {
        assert_invalid(&access, &with_typ(typ));
    }
    assert_invalid(&access, &token(&good()));
    // Where none is configured, the header may say what it likes.
    assert!(types("[]").verdict(&with_typ(json!("id+jwt")), at(NOW)).is_ok());
}
