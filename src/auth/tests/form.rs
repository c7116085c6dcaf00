//! The field that brings a token, and the shapes and sizes that one has.

use super::*;

#[test]
fn a_bearer_token_is_taken_from_exactly_one_field() {
    let one = |value: &'static [u8]| bearer([value].into_iter());
    let good: [&[u8]; 9] = [
        b"Bearer a.b-c_d~e+f/g==",
        b"bearer x",
        b"BEARER x",
        b"bEaReR x",
        b"Bearer  x",
        b"Bearer   x",
        b"Bearer x ",
        b" Bearer x",
        b"\t Bearer x \t",
    ];
    for value in good {
        assert!(one(value).is_ok(), "{}", value.escape_ascii());
    }
    assert_eq!(one(b"Bearer a.b.c=").unwrap(), "a.b.c=");
    assert_eq!(kind(bearer(std::iter::empty())), Kind::TokenMissing);
    for value in
        [b"".as_slice(), b"Basic dTpw", b"Bearer", b"Bearer ", b"Bearer  ", b"Bearer\t", b"Bearertoken", b"Token x"]
    {
        assert_eq!(kind(one(value)), Kind::TokenMissing, "{}", value.escape_ascii());
    }
    let malformed: [&[u8]; 12] = [
        b"Bearer x y",
        b"Bearer\tx",
        b"Bearer \tx",
        b"Bearer\t x",
        b"Bearer x\ty",
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
        assert_eq!(verifier.verdict(&token, at(NOW)).is_ok(), ok, "{length}");
    }
    assert_invalid(&verifier, &"a".repeat(1 << 20));
}

#[test]
fn a_member_that_comes_twice_is_refused_in_header_and_claims() {
    let claims = good().to_string();
    let twice = |name: &str, value: &str| format!("{{\"{name}\":{value},{}", &claims[1..]);
    let alg = r#"{"alg":"HS256"}"#;
    assert!(hs256().verdict(&sign_hs256_text(alg, &twice("x", "1")), at(NOW)).is_ok());
    for (name, value) in
        [("sub", "\"svc-a\""), ("exp", "0"), ("iss", "\"x\""), ("\\u0073ub", "\"root\""), ("scope", "[]")]
    {
        assert_invalid(&hs256(), &sign_hs256_text(alg, &twice(name, value)));
    }
    assert_invalid(&hs256(), &sign_hs256_text(alg, &twice("x", r#"{"a":{"b":1,"b":1}}"#)));
    assert_invalid(&hs256(), &sign_hs256_text(alg, &twice("x", r#"[{"b":1,"b":2}]"#)));
    assert!(hs256().verdict(&sign_hs256_text(alg, &twice("x", r#"[{"b":1},{"b":2},{"sub":3}]"#)), at(NOW)).is_ok());
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
        prop_assert_eq!(kind(VERIFIER.verdict(&text, at(NOW))), Kind::TokenInvalid);
    }

    #[test]
    fn no_signed_json_is_more_than_refused(
        value in prop_oneof![
            any::<f64>().prop_map(|number| json!(number)),
            any::<i64>().prop_map(|number| json!(number.min(0))),
            "~\\PC{0,20}".prop_map(|text| json!([text])),
        ],
        name in prop::sample::select(vec!["iss", "aud", "client_ids", "sub"]),
    ) {
        prop_assert_eq!(kind(VERIFIER.verdict(&token(&with(good(), json!({ name: value }))), at(NOW))), Kind::TokenInvalid);
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
        let error = verifier.verdict(token, at(NOW)).unwrap_err();
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
