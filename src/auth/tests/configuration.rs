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
        let config = Config { leeway: Duration::from_millis(leeway), ..config(issuers) };
        assert_eq!(Verifier::load(&config).is_ok(), ok, "{leeway}");
    }
    assert_load_error(&Config { leeway: Duration::from_secs(61), ..config(issuers) }, "auth.leeway", "more than 60s");
}

#[test]
fn a_lifetime_of_a_second_is_the_shortest() {
    for (lifetime, ok) in [(0, false), (999, false), (1000, true), (1001, true), (u64::MAX, true)] {
        let files = Files::new();
        let issuer = files.issuer(&["HS256"], "hmac_secret_file", SECRET);
        let lifetime = Some(Duration::from_millis(lifetime));
        let config = Config { max_token_lifetime: lifetime, ..config(vec![issuer]) };
        assert_eq!(Verifier::load(&config).is_ok(), ok, "{lifetime:?}");
        if !ok {
            assert_load_error(&config, "auth.max_token_lifetime", "is less than 1s");
        }
    }
    let config: Config = toml::from_str("max_token_lifetime = \"24h\"").unwrap();
    assert_eq!(config.max_token_lifetime, Some(Duration::from_secs(86_400)));
    assert_eq!(
        toml::from_str::<Config>(&toml::to_string(&config).unwrap()).unwrap().max_token_lifetime,
        config.max_token_lifetime
    );
    assert!(toml::to_string(&Config::default()).is_ok());
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
    wrong(|i| i.algorithms = vec!["ES512".into()], &format!("{at}.algorithms"), "ES512 is not supported: have the");
    wrong(|i| i.audience_claim = Some(String::new()), &format!("{at}.audience_claim"), "empty");
    wrong(|i| i.audience_claim = Some("/a~2".into()), &format!("{at}.audience_claim"), "no JSON pointer");
    wrong(|i| i.scope_names = [(String::new(), Scope::Write)].into(), &format!("{at}.scope_names"), "empty name");
    wrong(|i| i.algorithms.push("RS256".into()), &format!("{at}.algorithms"), "RS256 needs a public key");
    wrong(|i| i.hmac_secret_file = None, at, "has no key: give exactly one of discovery, jwks_url, jwks_file");
    wrong(|i| i.pem_file = Some("x".into()), at, "has pem_file and hmac_secret_file: give exactly one");
    wrong(|i| i.jwks_url = Some("x".into()), at, "has jwks_url and hmac_secret_file");
    wrong(|i| (i.discovery, i.jwks_file) = (true, Some("x".into())), at, "has discovery and jwks_file and hmac_secret");
    wrong(
        |i| i.ca_file = Some("x".into()),
        &format!("{at}.ca_file"),
        "goes with discovery and jwks_url, not with hmac",
    );
    wrong(|i| i.bearer_token_file = Some("x".into()), &format!("{at}.bearer_token_file"), "goes with discovery");
    wrong(|i| i.allow_http = true, &format!("{at}.allow_http"), "goes with discovery and jwks_url");
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
    let grant = |subject: &str| Grant { subject: Some(subject.to_owned()), ..toml::from_str("").unwrap() };
    let by_claim = |claim: &str, value: &str| {
        let (claim, value) = (Some(claim.to_owned()), Some(value.to_owned()));
        Grant { claim, value, ..toml::from_str("").unwrap() }
    };
    let granted = |grants: Vec<Grant>, key: &str, what: &str| {
        let bad = IssuerConfig { grants, ..good.clone() };
        assert_load_error(&config(vec![bad]), key, what);
    };
    let either = "must have either subject, or claim and value";
    granted(vec![toml::from_str("").unwrap()], "auth.issuers[0].grants[0]", either);
    granted(vec![Grant { claim: None, ..by_claim("a", "b") }], "auth.issuers[0].grants[0]", either);
    granted(vec![Grant { value: None, ..by_claim("a", "b") }], "auth.issuers[0].grants[0]", either);
    granted(vec![Grant { subject: Some("x".into()), ..by_claim("a", "b") }], "auth.issuers[0].grants[0]", either);
    granted(vec![by_claim("", "b")], "auth.issuers[0].grants[0].claim", "empty");
    granted(vec![by_claim("/a~", "b")], "auth.issuers[0].grants[0].claim", "no JSON pointer");
    granted(vec![by_claim("a", "")], "auth.issuers[0].grants[0].value", "empty");
    granted(vec![grant("")], "auth.issuers[0].grants[0].subject", "1 to 255 bytes");
    granted(vec![grant("a"), grant("a\n")], "auth.issuers[0].grants[1].subject", "no control characters");
    granted(
        vec![grant("a"), grant("b"), grant("a")],
        "auth.issuers[0].grants[2].subject",
        "`a` is the subject of auth.issuers[0].grants[0]",
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
}

/// An issuer whose keys are at a provider.
fn provided(rest: &str) -> Result<Verifier, LoadError> {
    // As the program does first thing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Verifier::load(&config(vec![issuer(&format!("algorithms = [\"RS256\"]\n{rest}"))]))
}

#[test]
fn keys_come_over_tls_or_from_this_machine_or_by_leave() {
    for good in [
        "jwks_url = \"https://id.example/jwks\"",
        "jwks_url = \"http://127.0.0.1:1/jwks\"",
        "jwks_url = \"http://127.9.9.9/jwks\"",
        "jwks_url = \"http://[::1]:1/jwks\"",
        "jwks_url = \"http://localhost:1/jwks\"",
        "jwks_url = \"http://id.example/jwks\"\nallow_http = true",
        "discovery = true",
    ] {
        assert!(provided(good).is_ok(), "{good}: {:?}", provided(good).err());
    }
    for (url, what) in [
        ("http://id.example/jwks", "must be https: whoever is on the way"),
        ("http://128.0.0.1/jwks", "must be https"),
        ("http://localhost.example/jwks", "must be https"),
        ("http://[::2]/jwks", "must be https"),
        ("ftp://id.example/jwks", "must be https"),
        ("file:///etc/passwd", "names no host"),
        ("https://user:password@id.example/jwks", "user name or password"),
        ("id.example/jwks", "is no URL"),
        ("", "is no URL"),
    ] {
        let error = provided(&format!("jwks_url = {url:?}")).unwrap_err();
        assert_eq!(error.key(), "auth.issuers[0].jwks_url", "{error}");
        assert!(error.what().contains(what), "{error}");
    }
    let plain =
        IssuerConfig { issuer: "http://id.example".to_owned(), ..issuer("algorithms = [\"RS256\"]\ndiscovery = true") };
    assert_load_error(&config(vec![plain.clone()]), "auth.issuers[0].issuer", "must be https");
    let name = IssuerConfig { issuer: "our issuer".to_owned(), ..plain };
    assert_load_error(&config(vec![name]), "auth.issuers[0].issuer", "is no URL");
}

#[test]
fn files_that_go_along_with_a_provider_are_read_at_the_start() {
    let files = Files::new();
    let url = "jwks_url = \"https://id.example/jwks\"";
    let wrong = |key: &str, path: &Path, what: &str| {
        let error = provided(&format!("{url}\n{key} = {path:?}")).unwrap_err();
        assert_eq!(error.key(), format!("auth.issuers[0].{key}"), "{error}");
        assert!(error.what().contains(what), "{error}");
    };
    wrong("ca_file", Path::new("/nowhere/ca.pem"), "cannot read /nowhere/ca.pem");
    wrong("ca_file", &files.put("empty", ""), "holds no certificate");
    wrong("ca_file", &files.put("key", &RSA.1.public), "holds no certificate");
    wrong("bearer_token_file", Path::new("/nowhere/token"), "cannot read /nowhere/token");
    wrong("bearer_token_file", &files.put("token", "a\nb"), "is no token");
    assert!(provided(&format!("{url}\nbearer_token_file = {:?}", files.put("token", "a.b.c\n"))).is_ok());
}

#[test]
fn times_of_keys_have_their_ranges() {
    let files = Files::new();
    let with = |key: &str, value: &str| {
        let keys = toml::from_str(&format!("{key} = {value:?}")).unwrap();
        let issuers = vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)];
        Verifier::load(&Config { keys, ..config(issuers) })
    };
    for (key, wrong, good) in [
        ("refresh", ["999ms", "24h 1s"], ["1s", "1h"]),
        ("max_age", ["4m 59s", "7d 1s"], ["5m", "7d"]),
        ("timeout", ["99ms", "60s 1ms"], ["100ms", "60s"]),
        ("cooldown", ["99ms", "60s 1ms"], ["100ms", "60s"]),
    ] {
        for value in wrong {
            let error = with(key, value).unwrap_err();
            assert_eq!(error.key(), format!("auth.keys.{key}"), "{value}: {error}");
        }
        for value in good {
            assert!(with(key, value).is_ok(), "{key} = {value}");
        }
    }
    let most = Config { keys: toml::from_str("refresh = \"24h\"\nmax_age = \"24h\"").unwrap(), ..Config::default() };
    assert!(
        Verifier::load(&Config { issuers: vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)], ..most }).is_ok()
    );
    for (bytes, good) in [(0, true), (1 << 30, true), ((1 << 30) + 1, false)] {
        let issuers = vec![files.issuer(&["HS256"], "hmac_secret_file", SECRET)];
        let config = Config { token_cache: bytesize::ByteSize::b(bytes), ..config(issuers) };
        assert_eq!(Verifier::load(&config).is_ok(), good, "{bytes}");
    }
}
