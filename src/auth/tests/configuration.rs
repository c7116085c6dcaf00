//! What may be written about issuers, and what is said of what may not.

use super::*;

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
    wrong(|i| i.claims.subject = "/iss".into(), &format!("{at}.claims.subject"), "`iss` has a meaning of its own");
    wrong(|i| i.claims.subject = "/exp/x".into(), &format!("{at}.claims.subject"), "`exp` has a meaning of its own");
    wrong(
        |i| i.claims.scopes = "/sub".into(),
        &format!("{at}.claims.scopes"),
        "`/sub` and `sub` of `subject` cannot both",
    );
    wrong(|i| i.claims.scopes = "/sub/x".into(), &format!("{at}.claims.scopes"), "cannot both be there");
    wrong(|i| i.claims.scopes = "/".into(), &format!("{at}.claims.scopes"), "empty");
    wrong(|i| i.claims.scopes = "/a~b".into(), &format!("{at}.claims.scopes"), "`~` is written `~0`");
    wrong(|i| i.claims.scopes = "/a~".into(), &format!("{at}.claims.scopes"), "no JSON pointer");
    wrong(|i| i.types.push(String::new()), &format!("{at}.types"), "empty type");
    let grant = |subject: &str| Grant { subject: subject.to_owned(), ..toml::from_str("subject = \"x\"").unwrap() };
    let granted = |grants: Vec<Grant>, key: &str, what: &str| {
        let bad = IssuerConfig { grants, ..good.clone() };
        assert_load_error(&config(vec![bad]), key, what);
    };
    granted(vec![grant("")], "auth.issuers[0].grants[0].subject", "1 to 255 bytes");
    granted(vec![grant("a"), grant("a\n")], "auth.issuers[0].grants[1].subject", "no control characters");
    granted(
        vec![grant("a"), grant("b"), grant("a")],
        "auth.issuers[0].grants[2].subject",
        "`a` is the subject of auth.issuers[0].grants[0]",
    );
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
fn a_grant_that_cannot_be_read_says_why() {
    let grant = |rest: &str| toml::from_str::<Grant>(&format!("subject = \"a\"\n{rest}"));
    for good in ["", "clients = \"*\"", "clients = [1, 9223372036854775807]", "scopes = [\"attachments:read\"]"] {
        assert!(grant(good).is_ok(), "{good}");
    }
    for (wrong, what) in [
        ("clients = [0]", "from 1 to"),
        ("clients = [-1]", "from 1 to"),
        ("clients = \"all\"", "\"*\""),
        ("clients = [\"*\"]", "expected i64"),
        ("clients = 7", "list of ids"),
        ("scopes = [\"write\"]", "`write` is not one of attachments:write"),
        ("scope = []", "unknown field `scope`"),
    ] {
        let error = grant(wrong).unwrap_err().to_string();
        assert!(error.contains(what), "{wrong}: {error}");
    }
    assert!(toml::from_str::<Grant>("clients = \"*\"").is_err());
}
