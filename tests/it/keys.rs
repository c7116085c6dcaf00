//! Keys at a provider: found, fetched, kept up to date while it rotates them, and while it is down. And files of keys that
//! change.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustls::ServerConfig;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    Answer, Ask, Authority, Form, Provider, Reply, SECRET, Server, Setup, SigningKey, chunk, claims, eventually,
    finish, header, mint_with, run,
};

const UNAVAILABLE: &str = "The token cannot be checked now, try again later";
const REFUSED: &str = "JWT token invalid";

/// Times that a test need not wait long for.
const BRISK: &str = "refresh = \"1s\"\nmax_age = \"1h\"\ntimeout = \"2s\"\ncooldown = \"100ms\"";

/// Times in which nothing is asked for but by a token.
const LAZY: &str = "refresh = \"1h\"\nmax_age = \"1h\"\ntimeout = \"2s\"\ncooldown = \"100ms\"";

fn server(auth: String) -> Server {
    Setup { auth: Some(auth), ..Setup::default() }.start()
}

fn by_url(provider: &Provider, keys: &str) -> Server {
    server(provider.auth(keys, &format!("jwks_url = \"{}/jwks\"", provider.url())))
}

fn upload(server: &Server, token: &str) -> Reply {
    server.connect().ask(&Ask::upload(1, 2, &Form::file(b"content")).by(token))
}

fn status(server: &Server, token: &str) -> u16 {
    upload(server, token).status
}

/// What `/readyz` says of the only issuer.
fn keys(server: &Server) -> Value {
    server.readiness()["keys"][0].clone()
}

fn state(server: &Server) -> String {
    keys(server)["state"].as_str().expect("a state").to_owned()
}

/// Waits until the log tells why keys could not be had.
fn complains(server: &Server, what: &str) {
    let complaint = |line: &String| line.contains("could not be read") && line.contains(what);
    eventually(&format!("the log says {what}: {:?}", server.log()), || server.log().iter().any(complaint));
}

#[test]
fn an_issuer_that_describes_itself_is_all_that_a_server_must_be_told() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.publish(&[&key]);
    let server = server(provider.auth(BRISK, "discovery = true"));
    assert_eq!(status(&server, &provider.token(&key)), 201);
    eventually("it is ready", || server.readiness()["ready"] == true);
    let keys = keys(&server);
    assert_eq!((&keys["issuer"], &keys["state"], &keys["keys"]), (&json!(provider.url()), &json!("fresh"), &json!(1)));
    assert_eq!(status(&server, &provider.token(&SigningKey::new("a"))), 401);
}

#[test]
fn many_who_wait_for_the_first_keys_are_served_by_one_fetch() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    let set = json!({"keys": [key.jwk]}).to_string().into_bytes();
    provider.answer("/jwks", Answer::Late(Duration::from_millis(500), set));
    let server = by_url(&provider, LAZY);
    let token = provider.token(&key);
    thread::scope(|scope| {
        for _ in 0..40 {
            scope.spawn(|| assert_eq!(status(&server, &token), 201));
        }
    });
    assert_eq!(provider.requests("/jwks").len(), 1);
}

#[test]
fn a_key_that_is_new_is_fetched_when_the_first_token_names_it_and_no_request_is_refused() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("old"), SigningKey::new("new"));
    provider.publish(&[&old]);
    let server = by_url(&provider, LAZY);
    let (by_old, by_new) = (provider.token(&old), provider.token(&new));
    assert_eq!(status(&server, &by_old), 201);
    let rotated = AtomicBool::new(false);
    thread::scope(|scope| {
        // Callers who take the newest token that there is, all the time.
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let token = if rotated.load(Ordering::SeqCst) { &by_new } else { &by_old };
                    let reply = upload(&server, token);
                    assert_eq!(reply.status, 201, "{reply:?}");
                }
            });
        }
        thread::sleep(Duration::from_millis(50));
        provider.publish(&[&old, &new]);
        rotated.store(true, Ordering::SeqCst);
    });
    // The key that is still published goes on.
    assert_eq!(status(&server, &by_old), 201);
    assert_eq!(provider.requests("/jwks").len(), 2, "once at the start, once for the new key");
}

#[test]
fn a_key_without_a_name_that_is_new_is_fetched_likewise() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("").nameless(), SigningKey::new("").nameless());
    provider.publish(&[&old]);
    let server = by_url(&provider, LAZY);
    let by_old = provider.token(&old);
    assert_eq!(status(&server, &by_old), 201);
    provider.publish(&[&new]);
    assert_eq!(status(&server, &provider.token(&new)), 201);
    // The token was good and is remembered, but its key is gone.
    assert_eq!(status(&server, &by_old), 401);
}

#[test]
fn a_key_that_is_replaced_under_its_name_is_fetched_and_no_request_is_refused() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("same"), SigningKey::new("same"));
    provider.publish(&[&old]);
    let server = by_url(&provider, LAZY);
    let (by_old, by_new) = (provider.token(&old), provider.token(&new));
    assert_eq!(status(&server, &by_old), 201);
    provider.publish(&[&new]);
    assert_eq!(status(&server, &by_new), 201);
    assert_eq!(status(&server, &by_old), 401);
    assert_eq!(status(&server, &by_new), 201);
    // Forged tokens all the time do not keep the next one from being found.
    provider.publish(&[&old]);
    let forged = SigningKey::new("same");
    eventually("the key is found", || {
        assert_eq!(status(&server, &provider.token(&forged)), 401);
        status(&server, &by_old) == 201
    });
}

#[test]
fn a_key_that_is_gone_is_not_asked_for_by_each_token_that_names_it() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("old"), SigningKey::new("new"));
    provider.publish(&[&old]);
    let server = by_url(&provider, "refresh = \"1h\"\nmax_age = \"1h\"\ntimeout = \"2s\"\ncooldown = \"2s\"");
    assert_eq!(status(&server, &provider.token(&old)), 201);
    provider.publish(&[&new]);
    assert_eq!(status(&server, &provider.token(&new)), 201, "the old one is gone now");
    let before = provider.requests("/jwks").len();
    let began = Instant::now();
    for _ in 0..100 {
        upload(&server, &provider.token(&old)).assert_refusal(401, REFUSED);
    }
    // The first may wait for the cooldown. Were each to do so, it would take minutes.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let asked = provider.requests("/jwks").len() - before;
    assert!(asked <= 5, "{asked} fetches in {:?}", began.elapsed());
    assert_eq!(status(&server, &provider.token(&new)), 201);
}

#[test]
fn a_key_that_is_taken_back_verifies_nothing_after_the_next_refresh() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("old"), SigningKey::new("new"));
    provider.publish(&[&old, &new]);
    let server = by_url(&provider, BRISK);
    let by_old = provider.token(&old);
    assert_eq!(status(&server, &by_old), 201);
    provider.publish(&[&new]);
    eventually("the old key is forgotten", || status(&server, &by_old) == 401);
    assert_eq!(status(&server, &provider.token(&new)), 201);
}

#[test]
fn strangers_cannot_make_a_server_ask_faster_than_it_may() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.publish(&[&key]);
    let server = by_url(&provider, "refresh = \"1h\"\nmax_age = \"1h\"\ncooldown = \"1s\"");
    assert_eq!(status(&server, &provider.token(&key)), 201);
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for kid in ["x", "../../etc/passwd", "y", "z"] {
                    let reply = upload(&server, &provider.token(&SigningKey::new(kid)));
                    reply.assert_refusal(401, REFUSED);
                }
            });
        }
    });
    let most = 2 + began.elapsed().as_secs() as usize;
    let asked = provider.requests("/jwks").len();
    assert!(asked <= most, "{asked} fetches in {:?}", began.elapsed());
    assert_eq!(status(&server, &provider.token(&key)), 201);
}

#[test]
fn no_file_is_opened_and_nobody_asked_because_a_token_names_them() {
    let (provider, key, stranger) = (Provider::start(), SigningKey::new("a"), Provider::start());
    provider.publish(&[&key]);
    let server = by_url(&provider, LAZY);
    assert_eq!(status(&server, &provider.token(&key)), 201);
    // A key of their own, at an address and in a file of their own; and a pipe, which would hold up whoever opens it.
    let theirs = SigningKey::new("theirs");
    stranger.publish(&[&theirs]);
    let url = format!("{}/jwks", stranger.url());
    let (file, pipe) = (server.folder().join("theirs.json"), server.folder().join("pipe"));
    std::fs::write(&file, json!({"keys": [theirs.jwk]}).to_string()).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let places = [url, file.display().to_string(), pipe.display().to_string(), format!("file://{}", pipe.display())];
    let mut claims = claims(&[1]);
    claims["iss"] = provider.url().into();
    for place in places {
        let header = |kid: &str| jsonwebtoken::Header {
            kid: Some(kid.to_owned()),
            jku: Some(place.clone()),
            x5u: Some(place.clone()),
            ..jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256)
        };
        for kid in [place.as_str(), "theirs", "a"] {
            upload(&server, &theirs.sign_with(&header(kid), &claims)).assert_refusal(401, REFUSED);
        }
        assert_eq!(status(&server, &key.sign_with(&header("a"), &claims)), 201, "what it names besides is passed over");
    }
    assert!(stranger.requests("/jwks").is_empty());
}

#[test]
fn a_token_that_no_key_could_verify_makes_nobody_ask() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.publish(&[&key]);
    let server = by_url(&provider, LAZY);
    assert_eq!(status(&server, &provider.token(&key)), 201);
    let mut other_issuer = claims(&[1]);
    other_issuer["iss"] = "https://elsewhere.example".into();
    let mut here = claims(&[1]);
    here["iss"] = provider.url().into();
    let foreign_alg = mint_with(&jsonwebtoken::Header::default(), &here, SECRET);
    for token in [key.sign(&other_issuer), foreign_alg, "a.b.c".to_owned()] {
        upload(&server, &token).assert_refusal(401, REFUSED);
    }
    assert_eq!(provider.requests("/jwks").len(), 1);
}

#[test]
fn the_old_keys_serve_while_the_provider_is_down_and_for_no_longer_than_they_may() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.publish(&[&key]);
    let server = by_url(&provider, "refresh = \"1s\"\nmax_age = \"4s\"\ntimeout = \"1s\"\ncooldown = \"100ms\"");
    let token = provider.token(&key);
    assert_eq!(status(&server, &token), 201);
    eventually("it is fresh", || state(&server) == "fresh");
    provider.answer("/jwks", Answer::Cut);
    eventually("it says that the provider is down", || state(&server) == "stale");
    assert_eq!(server.readiness()["ready"], true);
    assert_eq!(status(&server, &token), 201, "the keys that there are serve on");
    eventually("the keys are too old", || state(&server) == "unusable");
    let refused = upload(&server, &token);
    refused.assert_refusal(503, UNAVAILABLE);
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(server.readiness()["ready"], false);
    // What does not depend on the keys is as it was.
    upload(&server, "a.b.c").assert_refusal(401, REFUSED);
    provider.publish(&[&key]);
    eventually("it recovers", || status(&server, &token) == 201);
    eventually("it says so", || server.readiness()["ready"] == true);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_had_are_no_fault_of_the_token_on_either_door() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.answer("/jwks", Answer::Reply(500, String::new(), Vec::new()));
    let server = by_url(&provider, LAZY);
    let token = provider.token(&key);
    upload(&server, &token).assert_refusal(503, UNAVAILABLE);
    let refused = server.grpc_upload(
        &token,
        vec![attachd::pb::upload_attachment_request::Message::Header(header(1, 2)), chunk(&b"content"[..]), finish()],
    );
    let refused = refused.await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (Code::Unavailable, "KEYS_UNAVAILABLE"), "{refused:?}");
    assert!(refused.retry_after.is_some());
    assert_eq!(server.readiness()["ready"], false);
    assert_eq!(keys(&server)["age_seconds"], Value::Null);
    complains(&server, "answered 500");
    assert!(server.objects().is_empty());
}

#[test]
fn one_provider_that_is_down_is_no_trouble_of_anothers_callers() {
    let (up, down, key) = (Provider::start(), Provider::start(), SigningKey::new("a"));
    up.publish(&[&key]);
    down.publish(&[&key]);
    let two = |first: &Provider, second: &Provider| {
        let issuer = |of: &Provider| {
            let auth = of.auth("", &format!("jwks_url = \"{}/jwks\"", of.url()));
            auth.split_once("[[").map(|(_, table)| format!("[[{table}")).expect("a table")
        };
        format!(
            "[auth.keys]\nrefresh = \"1s\"\nmax_age = \"1s\"\ntimeout = \"1s\"\n{}{}",
            issuer(first),
            issuer(second)
        )
    };
    let server = server(two(&up, &down));
    let (by_up, by_down) = (up.token(&key), down.token(&key));
    assert_eq!((status(&server, &by_up), status(&server, &by_down)), (201, 201));
    down.answer("/jwks", Answer::Cut);
    eventually("one cannot be judged", || status(&server, &by_down) == 503);
    eventually("the other can", || status(&server, &by_up) == 201);
    assert_eq!(server.readiness()["ready"], true, "the callers of the other are to be sent here");
}

#[test]
fn an_answer_that_is_no_set_of_public_keys_is_no_keys() {
    let key = SigningKey::new("a");
    let big = format!("{{\"keys\":[{}],\"x\":\"{}\"}}", key.jwk, "x".repeat(1 << 20));
    let secret = json!({"keys": [{"kty": "oct", "k": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "kid": "a"}]});
    let mut private = key.jwk.clone();
    private["d"] = "AAAA".into();
    for (answer, why) in [
        (Answer::Reply(200, String::new(), big.into_bytes()), "more than 1 MiB"),
        (Answer::Reply(200, String::new(), b"<html>".to_vec()), "is not a JSON Web Key Set"),
        (Answer::json(&json!({"keys": []})), "holds no keys"),
        (Answer::json(&secret), "is a shared secret"),
        (Answer::json(&json!({"keys": [private]})), "is a private key"),
        (Answer::Reply(404, String::new(), b"{}".to_vec()), "answered 404"),
        (Answer::Reply(204, String::new(), Vec::new()), "answered 204"),
        (Answer::Drip, "has not answered in 2s"),
        (Answer::Cut, "error sending request"),
    ] {
        let provider = Provider::start();
        provider.answer("/jwks", answer);
        let server = by_url(&provider, LAZY);
        upload(&server, &provider.token(&key)).assert_refusal(503, UNAVAILABLE);
        complains(&server, why);
        assert_eq!(state(&server), "unusable");
    }
}

#[test]
fn a_redirect_is_followed_on_its_host_and_never_to_another() {
    let (provider, other, key) = (Provider::start(), Provider::start(), SigningKey::new("a"));
    other.publish(&[&key]);
    provider.publish(&[&key]);
    provider.answer("/here", Answer::redirect("/jwks"));
    provider.answer("/away", Answer::redirect(&format!("{}/jwks", other.url())));
    provider.answer("/loop", Answer::redirect("/loop"));
    let at = |path: &str| server(provider.auth(LAZY, &format!("jwks_url = \"{}{path}\"", provider.url())));
    assert_eq!(status(&at("/here"), &provider.token(&key)), 201);
    for (path, why) in [("/away", "names another port"), ("/loop", "one address after another")] {
        let server = at(path);
        upload(&server, &provider.token(&key)).assert_refusal(503, UNAVAILABLE);
        complains(&server, why);
    }
    assert!(other.requests("/jwks").is_empty());
}

#[test]
fn a_description_speaks_for_its_own_issuer_and_names_a_safe_address() {
    let key = SigningKey::new("a");
    for (description, why) in [
        (
            json!({"issuer": "https://other.example", "jwks_uri": "SELF/jwks"}),
            "is the description of `https://other.example`",
        ),
        (json!({"issuer": "SELF/", "jwks_uri": "SELF/jwks"}), "is the description of"),
        (json!({"issuer": "SELF", "jwks_uri": "http://id.example/jwks"}), "must be https"),
        (json!({"issuer": "SELF", "jwks_uri": "file:///etc/passwd"}), "names no host"),
        (json!({"issuer": "SELF", "jwks_uri": "jwks"}), "is no URL"),
        (json!({"issuer": "SELF"}), "missing field `jwks_uri`"),
        (json!([]), "is not the description of an issuer"),
    ] {
        let provider = Provider::start();
        provider.publish(&[&key]);
        let description = description.to_string().replace("SELF", &provider.url());
        let path = "/.well-known/openid-configuration";
        provider.answer(path, Answer::Reply(200, String::new(), description.into_bytes()));
        let server = server(provider.auth(LAZY, "discovery = true"));
        upload(&server, &provider.token(&key)).assert_refusal(503, UNAVAILABLE);
        complains(&server, why);
        assert!(provider.requests("/jwks").is_empty(), "{why}");
    }
}

#[test]
fn a_token_of_our_own_goes_to_the_host_that_was_configured_and_to_no_other() {
    let (provider, other, key) = (Provider::start(), Provider::start(), SigningKey::new("a"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "our-own-token\n").unwrap();
    provider.publish(&[&key]);
    other.publish(&[&key]);
    let with = format!("discovery = true\nbearer_token_file = {file:?}");
    let bearer = |head: &str| head.to_ascii_lowercase().contains("\r\nauthorization: bearer our-own-token\r\n");
    let near = server(provider.auth(LAZY, &with));
    assert_eq!(status(&near, &provider.token(&key)), 201);
    let heads = |of: &Provider, path: &str| of.requests(path);
    assert!(bearer(&heads(&provider, "/.well-known/openid-configuration")[0]));
    assert!(bearer(&heads(&provider, "/jwks")[0]));
    let away = json!({"issuer": provider.url(), "jwks_uri": format!("{}/jwks", other.url())});
    provider.answer("/.well-known/openid-configuration", Answer::json(&away));
    let far = server(provider.auth(LAZY, &with));
    assert_eq!(status(&far, &provider.token(&key)), 201);
    let head = heads(&other, "/jwks").remove(0).to_ascii_lowercase();
    assert!(!head.contains("authorization") && !head.contains("our-own-token"), "{head}");
    for server in [&near, &far] {
        assert!(!server.log().join("\n").contains("our-own-token"));
    }
}

/// A certificate authority, and what a provider needs that it vouches for.
fn authority() -> (String, ServerConfig) {
    let authority = Authority::new("providers");
    (authority.pem(), authority.server().serve())
}

#[test]
fn over_tls_a_provider_must_be_vouched_for_by_who_is_trusted_now() {
    let ((trusted, config), (stranger, _)) = (authority(), authority());
    let (provider, key) = (Provider::start_tls(config), SigningKey::new("a"));
    provider.publish(&[&key]);
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &stranger).unwrap();
    let server = server(provider.auth(BRISK, &format!("discovery = true\nca_file = {ca:?}")));
    let token = provider.token(&key);
    upload(&server, &token).assert_refusal(503, UNAVAILABLE);
    complains(&server, "certificate");
    // The file is read again, so that an authority can be replaced.
    std::fs::write(&ca, &trusted).unwrap();
    eventually("the provider is trusted", || status(&server, &token) == 201);
}

#[test]
fn without_a_file_the_authorities_of_the_system_are_asked() {
    let (_, config) = authority();
    let (provider, key) = (Provider::start_tls(config), SigningKey::new("a"));
    provider.publish(&[&key]);
    let server = server(provider.auth(LAZY, "discovery = true"));
    upload(&server, &provider.token(&key)).assert_refusal(503, UNAVAILABLE);
    complains(&server, "certificate");
}

#[test]
fn a_file_of_keys_that_is_replaced_is_read_again() {
    let (provider, old, new) = (Provider::start(), SigningKey::new("old"), SigningKey::new("new"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    let put = |keys: &[&SigningKey]| {
        let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
        std::fs::write(&file, json!({ "keys": keys }).to_string()).unwrap();
    };
    put(&[&old]);
    let server = server(provider.auth("", &format!("jwks_file = {file:?}")));
    assert_eq!(status(&server, &provider.token(&old)), 201);
    assert_eq!(status(&server, &provider.token(&new)), 401);
    put(&[&new]);
    // At once where a token asks for it, and in some seconds where none does.
    assert_eq!(status(&server, &provider.token(&new)), 201);
    assert_eq!(status(&server, &provider.token(&old)), 401);
    put(&[&old, &new]);
    eventually("the file is looked at", || keys(&server)["keys"] == 2);
    assert_eq!(status(&server, &provider.token(&old)), 201);
}

#[test]
fn a_check_of_the_configuration_asks_the_provider() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { auth: Some(provider.auth(LAZY, "discovery = true")), ..Setup::default() };
    let config = setup.write(folder.path());
    let check = || run(&["check", "--config", config.to_str().unwrap()]);
    let refused = check();
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("auth.issuers[0]") && said.contains("answered 404"), "{said}");
    provider.publish(&[&key]);
    assert_eq!(check().status.code(), Some(0));
}
