//! `attachd token`: minting in both forms, and the explanation of a token.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::harness::{Answer, ISSUER, Provider, SECRET, Setup, SigningKey, claims, mint, mint_with, run, token};

/// Runs `attachd token inspect` on a token, against the configuration of the harness.
fn inspect(auth: Option<String>, token: &str) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let config = Setup { auth, ..Setup::default() }.write(folder.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_attachd"))
        .args(["token", "inspect", "--config"])
        .arg(config)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The line of a check.
fn line(output: &Output, check: &str) -> String {
    let said = said(output);
    let found = said.lines().find(|line| line.split(' ').next() == Some(check));
    found.unwrap_or_else(|| panic!("no line {check} in {said}")).to_owned()
}

fn with(name: &str, value: Value) -> String {
    let mut claims = claims(&[1, 7]);
    claims[name] = value;
    mint(&claims)
}

#[test]
fn a_good_token_is_accepted_with_its_rights() {
    let token = token(&[1, 7]);
    for text in [token.clone(), format!("{token}\n"), format!("Bearer {token}"), format!("bearer  {token}\r\n")] {
        let output = inspect(None, &text);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(said(&output).ends_with("the token is accepted\n"), "{}", said(&output));
        assert!(line(&output, "clients").ends_with(" 1, 7"));
        assert!(line(&output, "projects").ends_with(" all"));
        assert!(line(&output, "scopes").ends_with("attachments:write attachments:read attachments:manage"));
        assert!(line(&output, "issuer").contains("is auth.issuers[0]"));
        assert!(!said(&output).contains("FAILED"));
    }
}

#[test]
fn the_check_that_fails_is_named_with_what_it_saw_and_the_rest_is_left_open() {
    let good = token(&[1]);
    let (message, _) = good.rsplit_once('.').unwrap();
    let another = mint_with(&jsonwebtoken::Header::default(), &claims(&[1]), "another secret of at least 32 bytes");
    let hs384 = mint_with(&jsonwebtoken::Header::new(jsonwebtoken::Algorithm::HS384), &claims(&[1]), SECRET);
    for (token, check, seen, reason) in [
        ("a.b".to_owned(), "form", "2 parts", "TOKEN_INVALID"),
        ("a.b.c.d.e".to_owned(), "form", "5 parts", "TOKEN_INVALID"),
        (String::new(), "form", "0 bytes", "TOKEN_INVALID"),
        ("x".repeat(20_000), "form", "20000 bytes", "TOKEN_INVALID"),
        (with("iss", json!("https://other.example")), "issuer", "configured are https://id.example", "TOKEN_INVALID"),
        (hs384, "key", "alg \"HS384\"", "TOKEN_INVALID"),
        (another, "signature", "not shown", "TOKEN_INVALID"),
        (format!("{message}."), "signature", "not shown", "TOKEN_INVALID"),
        (with("aud", json!(["other"])), "audience", "aud [\"other\"]; ours is attachd", "TOKEN_INVALID"),
        (with("sub", json!(7)), "subject", "none that can be used", "TOKEN_INVALID"),
        (with("client_ids", json!({})), "claims", "clients", "TOKEN_INVALID"),
        (with("nbf", json!(4_000_000_000_u64)), "times", "nbf 2096-10-02T07:06:40Z", "TOKEN_INVALID"),
        (with("exp", json!("soon")), "times", "exp \"soon\"", "TOKEN_INVALID"),
        (with("exp", json!(4_000_000_000_000_u64)), "times", "exp 4000000000000", "TOKEN_INVALID"),
        (format!("{message}.AA=="), "form", "3 parts", "TOKEN_INVALID"),
        (with("exp", json!(1_000_000_000)), "expiry", "expired ", "TOKEN_EXPIRED"),
    ] {
        let output = inspect(None, &token);
        assert_eq!(output.status.code(), Some(1), "{check}: {output:?}");
        let text = said(&output);
        assert_eq!(text.matches("FAILED").count(), 1, "{text}");
        let line = line(&output, check);
        assert!(line.contains("FAILED") && line.contains(seen), "{check}: {text}");
        assert!(!text.contains("accepted") && !text.contains("scopes    "), "{text}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(reason));
        let after = text.lines().skip_while(|line| !line.contains("FAILED")).skip(2);
        assert!(after.clone().all(|line| line.contains(" -  ")), "{text}");
    }
}

/// Why the check that failed did so.
fn why(output: &Output) -> String {
    let said = said(output);
    said.lines().skip_while(|line| !line.contains("FAILED")).nth(1).unwrap_or(&said).trim().to_owned()
}

#[test]
fn the_reason_is_the_one_that_the_log_of_a_server_gives() {
    let good = token(&[1]);
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    let twice = format!("{{\"sub\":\"tester\",{}", &claims(&[1]).to_string()[1..]);
    let twice = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(twice));
    for (token, words) in [
        (format!("{head}=.{body}.{signature}"), "the token's header is base64url with padding (`=`)"),
        (format!("{head}.{body}==.{signature}"), "the token's claims set is base64url with padding (`=`)"),
        (format!("{head}.{body}.{signature}="), "the token's signature is base64url with padding (`=`)"),
        (twice, "the token's claims set has a duplicate member"),
        ("ory_at_opaque".to_owned(), "the token is opaque, not a JWT: have the provider issue JWT access tokens"),
        ("a.b.c.d.e".to_owned(), "the token is encrypted (JWE): have the provider issue access tokens that are signed"),
        (with("exp", json!(4_000_000_000_000_u64)), "the token's exp is in milliseconds: it must be in seconds"),
        (with("nbf", json!("soon")), "the token's nbf is not a number of seconds since 1970"),
    ] {
        let output = inspect(None, &token);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(why(&output).starts_with(words), "{}", said(&output));
    }
    // A fraction is shown as one.
    assert!(line(&inspect(None, &with("exp", json!(4_000_000_000.5))), "times").contains("exp 2096-10-02T07:06:40.5Z"));
    let limited = format!(
        "[auth]\nmax_token_lifetime = \"30m\"\n[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"attachd\"]\n\
         algorithms = [\"HS256\"]\nhmac_secret_file = \"secret\"\n"
    );
    let output = inspect(Some(limited), &good);
    assert!(line(&output, "times").ends_with("auth.max_token_lifetime is 30m"), "{output:?}");
    assert_eq!(why(&output), "the token's exp is further away than auth.max_token_lifetime (30m)");
}

#[test]
fn each_claim_is_shown_by_its_configured_name_with_the_value_that_was_found() {
    let output = inspect(None, &token(&[1, 7]));
    let line = line(&output, "claims");
    for seen in [
        "scopes from scope: \"attachments:write ",
        "clients from client_ids: [1,7]",
        "projects from project_ids: \"*\"",
    ] {
        assert!(line.contains(seen), "{line}");
    }
    assert!(said(&output).contains("sub \"tester\""));
    assert!(!said(&output).contains("missing"));
}

#[test]
fn a_token_that_is_accepted_and_grants_nothing_says_what_is_missing_and_ends_with_4() {
    let changed = |changes: &[(&str, Option<Value>)]| {
        let mut claims = claims(&[1]);
        for (name, value) in changes {
            match value {
                Some(value) => claims[*name] = value.clone(),
                None => drop(claims.as_object_mut().unwrap().remove(*name)),
            }
        }
        mint(&claims)
    };
    let write = || Some(json!(["attachments:write"]));
    for (token, code, words) in [
        (changed(&[("scope", None), ("scp", write())]), 4, "scopes: the token has no claim scope; the token has scp ["),
        (changed(&[("scope", None), ("roles", write())]), 4, "set auth.issuers.claims.scopes"),
        (changed(&[("scope", Some(json!(null)))]), 4, "scopes: the token has no claim scope\n"),
        (changed(&[("scope", Some(json!("openid")))]), 4, "the token is accepted, grants nothing"),
        (
            changed(&[("client_ids", None), ("clients", Some(json!([1])))]),
            4,
            "clients: the token has no claim client_ids; the token has clients [1]",
        ),
        (changed(&[("client_ids", Some(json!([])))]), 4, "the token is accepted, grants nothing"),
        (changed(&[("project_ids", None)]), 0, "projects: the token has no claim project_ids\n"),
    ] {
        let output = inspect(None, &token);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(said(&output).contains(words), "{words}: {}", said(&output));
    }
}

#[test]
fn a_provider_that_was_not_asked_for_keys_is_said_not_to_have_been() {
    let (provider, key) = (Provider::start(), SigningKey::new("key-1"));
    provider.publish(&[&key]);
    let auth = || Some(provider.auth("timeout = \"1s\"", "discovery = true"));
    let mut claims = claims(&[1]);
    claims["iss"] = provider.url().into();
    let output = inspect(auth(), &mint(&claims));
    assert!(line(&output, "key").ends_with("was not asked for keys"), "{output:?}");
    assert_eq!(why(&output), "the token's alg is HS256, and the issuer's algorithms are ES256");
    assert!(provider.requests("/jwks").is_empty());
    assert!(
        line(&inspect(auth(), &provider.token(&key)), "key").contains(", fetched just now are \"key-1\" for ES256")
    );
}

#[test]
fn a_key_of_the_set_that_cannot_be_used_is_named() {
    let (provider, key, bad) = (Provider::start(), SigningKey::new("key-1"), SigningKey::new("key-2"));
    let mut jwk = bad.jwk.clone();
    jwk["use"] = "enc".into();
    provider.answer("/jwks", Answer::json(&json!({"keys": [key.jwk, jwk]})));
    let auth = provider.auth("timeout = \"1s\"", &format!("jwks_url = \"{}/jwks\"", provider.url()));
    let output = inspect(Some(auth), &provider.token(&bad));
    assert!(line(&output, "key").ends_with("not usable: \"key-2\" is not for signatures (`use`)"), "{output:?}");
    let words =
        "no key of the issuer has the token's kid; the issuer's key set has a key that cannot be used: \"key-2\"";
    assert!(why(&output).starts_with(words), "{output:?}");
}

#[test]
fn no_signature_and_nothing_that_a_terminal_would_act_on_is_printed() {
    let evil = with("aud", json!("\u{1b}[2J\u{202e}\u{9b}x\r\n".to_owned()));
    for token in [token(&[1]), evil, with("exp", json!(1)), format!("{}MARKER", token(&[1]))] {
        let output = inspect(None, &token);
        let signature = token.rsplit_once('.').unwrap().1;
        let all = format!("{}{}", said(&output), String::from_utf8(output.stderr.clone()).unwrap());
        assert!(!all.contains(&signature[..20]), "{all}");
        assert!(all.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{all:?}");
    }
}

#[test]
fn a_tokens_keys_are_fetched_and_shown_by_name() {
    let (provider, key) = (Provider::start(), SigningKey::new("key-1"));
    let auth = || Some(provider.auth("timeout = \"1s\"", "discovery = true"));
    let good = provider.token(&key);
    let output = inspect(auth(), &good);
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&output, "key").contains("FAILED") && line(&output, "key").contains("answered 404"), "{output:?}");
    assert!(String::from_utf8(output.stderr).unwrap().contains("KEYS_UNAVAILABLE"));
    provider.publish(&[&key]);
    let output = inspect(auth(), &good);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(line(&output, "key").contains("\"key-1\" for ES256, fresh"), "{output:?}");
    let unknown = inspect(auth(), &provider.token(&SigningKey::new("key-2")));
    assert_eq!(unknown.status.code(), Some(1));
    assert!(line(&unknown, "key").contains("kid \"key-2\""), "{unknown:?}");
}

#[test]
fn minting_has_two_forms_that_make_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let config = Setup::default().write(folder.path());
    let config = config.to_str().unwrap();
    for form in [&["token"][..], &["token", "mint"]] {
        let output = run(&[form, &["--config", config, "--client", "1", "7"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let inspected = inspect(None, &String::from_utf8(output.stdout).unwrap());
        assert!(line(&inspected, "clients").ends_with(" 1, 7"));
        assert_eq!(run(&[form, &["--config", config]].concat()).status.code(), Some(2), "a client is needed");
    }
    assert_eq!(run(&["token", "inspect"]).status.code(), Some(2));
    assert_eq!(run(&["token", "inspect", "--config", "/no/such.toml"]).status.code(), Some(2));
}
