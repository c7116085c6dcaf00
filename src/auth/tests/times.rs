//! When a token holds, for whom, and by whose word.

use super::*;

#[test]
fn a_token_expires_at_exp_plus_leeway_and_not_a_second_before() {
    let files = Files::new();
    let issuer = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    let token = token(&with(good(), json!({ "exp": NOW })));
    for leeway in [0, 1, 59, 60] {
        let config = Config { leeway: Duration::from_secs(leeway), ..config(vec![issuer.clone()]) };
        let verifier = Verifier::load(&config).unwrap();
        let end = at(NOW + leeway);
        assert!(verifier.verdict(&token, end - Duration::from_secs(1)).is_ok(), "{leeway}");
        assert!(verifier.verdict(&token, end - Duration::from_nanos(1)).is_ok(), "{leeway}");
        assert_eq!(kind(verifier.verdict(&token, end)), Kind::TokenExpired, "{leeway}");
        assert_eq!(kind(verifier.verdict(&token, end + Duration::from_secs(1))), Kind::TokenExpired, "{leeway}");
    }
}

#[test]
fn a_token_begins_at_nbf_minus_leeway_and_not_a_second_before() {
    let token = token(&with(good(), json!({ "nbf": NOW })));
    let verifier = hs256();
    assert_eq!(kind(verifier.verdict(&token, at(NOW - 61))), Kind::TokenInvalid);
    assert!(verifier.verdict(&token, at(NOW - 60)).is_ok());
    assert!(verifier.verdict(&token, at(NOW - 59)).is_ok());
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
    assert!(hs256().verdict(&token(&with(good(), json!({ "exp": u64::MAX }))), at(NOW)).is_ok());
    assert_eq!(kind(hs256().verdict(&token(&with(good(), json!({ "exp": 0 }))), at(NOW))), Kind::TokenExpired);
}

#[test]
fn expired_is_only_said_of_a_token_that_was_good() {
    let verifier = hs256();
    let old = with(good(), json!({ "exp": NOW - 1000 }));
    assert_eq!(kind(verifier.verdict(&token(&old), at(NOW))), Kind::TokenExpired);
    let forged = token(&old);
    assert_invalid(&verifier, &format!("{}.{}", forged.rsplit_once('.').unwrap().0, b64([0; 32])));
    for wrong in [json!({"aud": "other"}), json!({"iss": "other"}), json!({"sub": ""}), json!({"client_ids": 0})] {
        assert_invalid(&verifier, &token(&with(old.clone(), wrong)));
    }
}

#[test]
fn a_clock_before_1970_is_our_failure_and_not_the_tokens() {
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(kind(hs256().verdict(&token(&good()), before)), Kind::Internal);
}

#[test]
fn aud_must_name_one_of_ours() {
    let verifier = hs256();
    for aud in [json!("attachd"), json!("attachd-2"), json!(["attachd"]), json!(["other", "attachd-2"])] {
        assert!(verifier.verdict(&token(&with(good(), json!({ "aud": aud }))), at(NOW)).is_ok());
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
    assert!(verifier.verdict(&token(&good()), at(NOW)).is_ok());
    let theirs = with(good(), json!({"iss": "https://other.example", "aud": "elsewhere"}));
    let principal = verifier.verdict(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &theirs), at(NOW)).unwrap();
    assert_eq!(principal.issuer(), "https://other.example");
    assert_invalid(&verifier, &token(&theirs));
    assert_invalid(&verifier, &sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()));
    // Nor does one issuer's audience do for the other.
    let crossed = with(theirs, json!({"aud": "attachd"}));
    assert_invalid(&verifier, &sign_rs256(&RSA.0, json!({"alg": "RS256"}), &crossed));
}
