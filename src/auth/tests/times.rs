//! When a token holds, for whom, and by whose word.

use super::super::verifier::Verifications;
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
fn exp_is_required_and_times_are_numbers_that_may_have_a_fraction() {
    let wrong = [json!(null), json!("1900000000"), json!(-1), json!(-0.0), json!(1e300), json!([]), json!(true)];
    for name in ["exp", "nbf", "iat"] {
        assert_claim_invalid(name, &wrong);
    }
    assert_claim_invalid("nbf", &[json!(NOW + 61), json!(u64::MAX)]);
    assert_invalid(&hs256(), &token(&without(good(), "exp")));
    let written = |number: &str| {
        let claims = format!(r#"{{"iss":"{ISSUER}","aud":"attachd","sub":"a","exp":{number}}}"#);
        sign_hs256_text(r#"{"alg":"HS256"}"#, &claims)
    };
    for number in ["18446744073709551616", "-0", "1e400", "0x7fffffff", "01900000000", "NaN", "1900000000000"] {
        assert_invalid(&hs256(), &written(number));
    }
    for number in ["1900000000", "1900000000.0", "1.9e9", "1.9E+9", "19000000000e-1", "99999999999", "100000000000"] {
        assert!(hs256().verdict(&written(number), at(NOW)).is_ok(), "{number}");
    }
    for number in ["100000000001", "100000000000.001", "1e14", "100000000000001", "18446744073709551615"] {
        assert_invalid(&hs256(), &written(number));
    }
    assert_eq!(kind(hs256().verdict(&token(&with(good(), json!({ "exp": 0 }))), at(NOW))), Kind::TokenExpired);
}

#[test]
fn a_fraction_of_a_second_counts() {
    let verifier = hs256();
    let half = Duration::from_millis(500);
    let token = token(&with(good(), json!({ "exp": NOW as f64 + 0.5, "nbf": NOW as f64 - 0.5 })));
    assert!(verifier.verdict(&token, at(NOW + 60) + half - Duration::from_nanos(1)).is_ok());
    assert_eq!(kind(verifier.verdict(&token, at(NOW + 60) + half)), Kind::TokenExpired);
    assert!(verifier.verdict(&token, at(NOW - 61) + half).is_ok());
    assert_eq!(kind(verifier.verdict(&token, at(NOW - 61) + half - Duration::from_nanos(1))), Kind::TokenInvalid);
}

#[test]
fn a_lifetime_is_counted_from_now_with_leeway_and_from_iat_without() {
    let files = Files::new();
    let issuer = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
    for leeway in [0, 60] {
        let lifetime = Some(Duration::from_secs(3600));
        let limits = Config { leeway: Duration::from_secs(leeway), max_token_lifetime: lifetime, ..config(vec![]) };
        let verifier = Verifier::load(&Config { issuers: vec![issuer.clone()], ..limits }).unwrap();
        let lives = |claims: Value| verifier.verdict(&token(&with(good(), claims)), at(NOW)).is_ok();
        for (more, accepted) in [(-1, true), (0, true), (1, false)] {
            let exp = (NOW + 3600 + leeway).checked_add_signed(more).unwrap();
            assert_eq!(lives(json!({ "exp": exp })), accepted, "{leeway} {more}");
            let exp = (NOW + 600).checked_add_signed(more).unwrap();
            assert_eq!(lives(json!({ "exp": exp, "iat": NOW - 3000 })), accepted, "{leeway} {more}");
        }
        assert!(!lives(json!({ "exp": NOW + 3600 + leeway, "iat": NOW - 1 })), "{leeway}");
        // A clock that is ahead makes no token invalid by itself.
        assert!(lives(json!({ "exp": NOW + 3600 + leeway, "iat": NOW + leeway })), "{leeway}");
    }
    // It is judged each time, also of a token that is remembered.
    let lifetime = Some(Duration::from_secs(3600));
    let verifier = Verifier::load(&Config { max_token_lifetime: lifetime, ..config(vec![issuer]) }).unwrap();
    let token = token(&with(good(), json!({ "exp": NOW + 3660 })));
    assert!(verifier.verdict(&token, at(NOW)).is_ok());
    assert_eq!(kind(verifier.verdict(&token, at(NOW - 1))), Kind::TokenInvalid);
    assert_eq!(verifier.verifications(), Verifications { made: 1, spared: 1 });
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
