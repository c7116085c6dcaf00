//! Every kind of key, from file to principal.

use super::super::token::Members;
use super::*;

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
        let principal = verifier.verdict(&token, at(NOW)).unwrap();
        assert_eq!((principal.subject(), principal.issuer()), ("svc", ISSUER));
        assert!(principal.allows(Scope::Write) && principal.allows(Scope::Read) && !principal.allows(Scope::Manage));
        assert!(principal.holds_client(7) && principal.holds_client(9) && !principal.holds_client(8));
        assert!(principal.holds_project(1) && !principal.holds_portfolio(1));
        assert!(verifier.verdict(&token, at(NOW + 359)).is_ok());
        assert_eq!(kind(verifier.verdict(&token, at(NOW + 360))), Kind::TokenExpired);
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
    assert!(verifier.verdict(&sign_rs256(&RSA.0, json!({"alg": "RS256"}), &good()), at(NOW)).is_ok());
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
        assert!(Verifier::load(&config(vec![signing.clone()])).unwrap().verdict(&token, at(NOW)).is_ok());
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
    let field = |claims: Claims| signing.mint(&claims).unwrap_err().field().map(str::to_owned);
    assert_eq!(field(minted("")), Some("subject".into()));
    assert_eq!(field(minted(&"a".repeat(256))), Some("subject".into()));
    assert_eq!(field(Claims { ttl: Duration::from_millis(999), ..minted("a") }), Some("ttl".into()));
    assert_eq!(field(Claims { ttl: Duration::from_secs(u64::MAX), ..minted("a") }), Some("ttl".into()));
    assert_eq!(field(Claims { clients: Ids::Only(vec![0]), ..minted("a") }), Some("clients".into()));
    assert_eq!(field(Claims { portfolios: Ids::Only(vec![-1]), ..minted("a") }), Some("portfolios".into()));
    assert_eq!(field(Claims { projects: Ids::Only((1..9_000).collect()), ..minted("a") }), Some("token".into()));
    assert_eq!(
        field(Claims { now: SystemTime::UNIX_EPOCH - Duration::from_secs(1), ..minted("a") }),
        Some("now".into())
    );
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
    assert!(Verifier::load(&config(vec![signing])).unwrap().verdict(&token, at(NOW)).is_ok());
}
