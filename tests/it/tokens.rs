//! Tokens in the forms that issuers and clients really send, over REST and gRPC, and what the log says of those that are
//! refused.

use std::time::{SystemTime, UNIX_EPOCH};

use attachd::pb::upload_attachment_request::Message;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{
    AUDIENCE, Ask, Form, ISSUER, SECRET, Server, Setup, SigningKey, chunk, claims, eventually, finish, header, mint,
    token,
};

/// Why the audit trail says that a request was refused.
fn why(server: &Server, request_id: &str) -> String {
    let find = || {
        let lines = server.log();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut fields =
            events.filter(|event| event["target"] == "attachd::audit").map(|event| event["fields"].clone());
        fields.find(|fields| fields["request_id"] == request_id)
    };
    eventually(&format!("the trail has {request_id}"), || find().is_some());
    find().unwrap()["why"].as_str().unwrap_or_default().to_owned()
}

/// Uploads with a token over REST and gRPC, which must agree: `None` where it is accepted, else why it is refused.
async fn refusal(server: &Server, token: &str) -> Option<String> {
    let reply = server.connect().ask(&Ask::upload(1, 2, &Form::file(b"content")).by(token));
    let messages = vec![Message::Header(header(1, 2)), chunk(&b"content"[..]), finish()];
    let over_grpc = server.grpc_upload(token, messages).await;
    if reply.status == 201 {
        over_grpc.expect("it is accepted as over REST");
        return None;
    }
    assert_eq!(reply.status, 401, "{reply:?}");
    let refused = over_grpc.expect_err("it is refused as over REST");
    assert_eq!(refused.code, Code::Unauthenticated, "{refused:?}");
    let ids = [reply.header("x-request-id").to_owned(), refused.request_id.expect("an id")];
    let [rest, grpc] = ids.map(|id| why(server, &id));
    assert_eq!(rest, grpc);
    Some(rest)
}

async fn assert_accepted(server: &Server, token: &str, what: &str) {
    assert_eq!(refusal(server, token).await, None, "{what}");
}

async fn assert_refused(server: &Server, token: &str, words: &str) {
    let why = refusal(server, token).await.unwrap_or_else(|| panic!("accepted, where {words} was expected"));
    assert!(why.contains(words), "{why}, and {words} was expected");
    assert!(!token.split('.').any(|part| part.len() > 5 && why.contains(part)), "{why}");
}

/// A token of these texts, signed with a key.
fn signed_with(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).expect("it can be signed");
    format!("{message}.{signature}")
}

/// A token of these texts, signed with the secret of the harness.
fn signed(header: &str, claims: &str) -> String {
    signed_with(header, claims, &EncodingKey::from_secret(SECRET.as_bytes()), Algorithm::HS256)
}

/// A token whose claim `name` is written so.
fn with(name: &str, written: &str) -> String {
    let mut all = claims(&[1]);
    all[name] = "WRITTEN".into();
    signed(r#"{"alg":"HS256"}"#, &all.to_string().replace("\"WRITTEN\"", written))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A server whose issuer has a key set with these keys.
fn with_keys(algorithms: &[&str], keys: &[Value]) -> Server {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("jwks.json"), json!({ "keys": keys }).to_string()).unwrap();
    let auth = format!(
        "[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = {algorithms:?}\n\
         jwks_file = \"jwks.json\"\n"
    );
    Setup { auth: Some(auth), ..Setup::default() }.start_in(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_may_have_a_fraction_or_an_exponent() {
    let server = Server::start();
    for (name, seconds) in [("exp", now() + 600), ("nbf", now() - 10), ("iat", now() - 10)] {
        for written in [
            format!("{seconds}"),
            format!("{seconds}.0"),
            format!("{seconds}.5"),
            format!("{seconds}.123456789"),
            format!("{}.{:09}e9", seconds / 1_000_000_000, seconds % 1_000_000_000),
            format!("{}.{:09}E+9", seconds / 1_000_000_000, seconds % 1_000_000_000),
            format!("{seconds}00e-2"),
        ] {
            assert_accepted(&server, &with(name, &written), &format!("{name} {written}")).await;
        }
        for wrong in [format!("\"{seconds}\""), format!("\"{seconds}.0\"")] {
            assert_refused(&server, &with(name, &wrong), &format!("{name} is not a number of seconds")).await;
        }
        for wrong in ["null", "-1", "-1.5", "-0", "-1e9", "true", "[]", "{}", "[1]"] {
            assert_refused(&server, &with(name, wrong), &format!("{name} is not a number of seconds")).await;
        }
        assert_refused(&server, &with(name, "NaN"), "NaN or Infinity").await;
        assert_refused(&server, &with(name, "1e400"), "is not valid JSON").await;
    }
    assert_refused(&server, &with("exp", "1000000000.5"), "the token has expired").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_in_milliseconds_is_refused_and_called_so() {
    let server = Server::start();
    let millis = (now() + 600) * 1000;
    for name in ["exp", "nbf", "iat"] {
        for written in [millis.to_string(), format!("{millis}.0"), format!("{millis}.25"), format!("{}e3", now() + 600)]
        {
            assert_refused(&server, &with(name, &written), &format!("{name} is in milliseconds")).await;
        }
        for written in [format!("{millis}000"), format!("{millis}000000"), u64::MAX.to_string(), "1e300".to_owned()] {
            assert_refused(&server, &with(name, &written), &format!("{name} is past the year 5138")).await;
        }
    }
    for (last, accepted) in [("99999999999", true), ("100000000000", true), ("100000000000.0001", false)] {
        assert_eq!(refusal(&server, &with("exp", last)).await.is_none(), accepted, "{last}");
    }
    assert_refused(&server, &with("exp", "100000000001"), "in milliseconds").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_valid_for_longer_than_permitted_is_refused_with_the_key() {
    let auth = format!(
        "[auth]\nmax_token_lifetime = \"1h\"\nleeway = \"0s\"\n[[auth.issuers]]\nissuer = \"{ISSUER}\"\n\
         audience = [\"{AUDIENCE}\"]\nalgorithms = [\"HS256\"]\nhmac_secret_file = \"secret\"\n"
    );
    let server = Setup { auth: Some(auth), ..Setup::default() }.start();
    let lives = |issued: Option<u64>, expires: u64| {
        let mut claims = claims(&[1]);
        claims["exp"] = expires.into();
        match issued {
            Some(issued) => claims["iat"] = issued.into(),
            None => drop(claims.as_object_mut().unwrap().remove("iat")),
        }
        mint(&claims)
    };
    let words = "further away than auth.max_token_lifetime (1h)";
    assert_refused(&server, &lives(None, now() + 3700), words).await;
    assert_refused(&server, &lives(Some(now()), now() + 365 * 86_400), words).await;
    let words = "further from its iat than auth.max_token_lifetime (1h)";
    assert_refused(&server, &lives(Some(now() - 3000), now() + 601), words).await;
    let began = now();
    assert_accepted(&server, &lives(None, began + 3600), "it ends when it may").await;
    assert_accepted(&server, &lives(Some(began - 3000), began + 600), "an hour from iat").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scheme_is_followed_by_any_number_of_spaces_and_by_no_tab() {
    let server = Server::start();
    let good = token(&[1]);
    for spaces in ["", " ", "  ", "          "] {
        assert_accepted(&server, &format!("{spaces}{good}"), "spaces in front").await;
    }
    assert_accepted(&server, &format!("{good}  "), "spaces at the end are not part of a field").await;
    for wrong in [format!("\t{good}"), format!(" \t{good}"), format!("{good} {good}"), format!("{good} x")] {
        assert_refused(&server, &wrong, "the text after the scheme Bearer is not a token").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ed25519_is_eddsa_in_a_token_in_the_configuration_and_in_a_key() {
    let private = Ed25519KeyPair::generate_pkcs8(&aws_lc_rs::rand::SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).unwrap();
    let key = EncodingKey::from_ed_der(private.as_ref());
    for configured in ["Ed25519", "EdDSA"] {
        for of_key in [Some("Ed25519"), Some("EdDSA"), None] {
            let mut jwk =
                json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key()), "kid": "e"});
            of_key.into_iter().for_each(|alg| jwk["alg"] = alg.into());
            let other = SigningKey::new("ec");
            let server = with_keys(&[configured, "ES256"], &[jwk, other.jwk.clone()]);
            for alg in ["Ed25519", "EdDSA"] {
                let header = json!({"alg": alg, "kid": "e"}).to_string();
                let token = signed_with(&header, &claims(&[1]).to_string(), &key, Algorithm::EdDSA);
                assert_accepted(&server, &token, &format!("{configured} {of_key:?} {alg}")).await;
                // Under a key of another kind the name means nothing.
                let header = json!({"alg": alg, "kid": "ec"}).to_string();
                let token = signed_with(&header, &claims(&[1]).to_string(), &key, Algorithm::EdDSA);
                assert_refused(&server, &token, "no key of the issuer with the token's kid is for its alg").await;
            }
            assert_accepted(&server, &other.sign(&claims(&[1])), "the other key is as it was").await;
            for alg in ["ed25519", "ED25519", "Ed448", "ES521", "none"] {
                let header = json!({"alg": alg, "kid": "e"}).to_string();
                let token = signed_with(&header, &claims(&[1]).to_string(), &key, Algorithm::EdDSA);
                assert_refused(&server, &token, "the token's alg is not one of HS256,").await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_cannot_be_read_is_named_with_what_is_wrong() {
    let server = Server::start();
    let good = token(&[1]);
    let [head, body, signature] = good.split('.').collect::<Vec<_>>().try_into().unwrap();
    // One that needs padding, and one that does not.
    for (text, padding) in [(r#"{"alg":"HS256"} "#, "=="), (r#"{"alg":"HS256"}  "#, "=")] {
        let padded = URL_SAFE.encode(text);
        assert!(padded.ends_with(padding));
        assert_refused(&server, &format!("{padded}.{body}.{signature}"), "base64url with padding (`=`)").await;
    }
    assert_refused(&server, &format!("{head}=.{body}.{signature}"), "base64url with padding (`=`)").await;
    assert_refused(&server, &format!("{head}.{body}==.{signature}"), "base64url with padding (`=`)").await;
    assert_refused(&server, &format!("{head}.{body}.{signature}="), "the token's signature is base64url with padding")
        .await;
    assert_refused(&server, &format!("{head}.{body}+.{signature}"), "the token's claims set is not base64url").await;
    let claims = claims(&[1]).to_string();
    let also = |written: &str| format!("{{{written},{}", &claims[1..]);
    let deep = |levels: usize| format!("\"x\":{}1{}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    for (header, claims, words) in [
        ("{\"alg\":\"HS256\",\"alg\":\"HS256\"}", claims.clone(), "header has a duplicate member"),
        ("{\"alg\":\"HS256\"}", also("\"sub\":\"tester\""), "claims set has a duplicate member"),
        ("{\"alg\":\"HS256\"}", also("\"x\":[{\"a\":1,\"a\":1}]"), "claims set has a duplicate member"),
        ("{\"alg\":\"HS256\"}", also("\"\\u0073ub\":1"), "claims set has a duplicate member"),
        ("{\"alg\":\"HS256\"}", also("\"x\":\"\\ud83d\""), "claims set has a lone surrogate"),
        ("{\"alg\":\"HS256\"}", also("\"x\":\"\\ude00\\ud83d\""), "claims set has a lone surrogate"),
        ("{\"alg\":\"HS256\"}", also(&deep(65)), "claims set is nested more than 64 levels deep"),
        ("{\"alg\":\"HS256\"}", also(&deep(4_000)), "claims set is nested more than 64 levels deep"),
        ("{\"alg\":\"HS256\"}", also("\"x\":-Infinity"), "claims set has NaN or Infinity"),
        ("{\"alg\":\"HS256\"}", also("\"NaN\":NaN"), "claims set has NaN or Infinity"),
        ("{\"alg\":\"HS256\"}", also("\"NaN\":nan"), "claims set is not valid JSON"),
        ("{\"alg\":\"HS256\"}", "[]".to_owned(), "claims set is not a JSON object"),
        ("{\"alg\":\"HS256\"", claims.clone(), "header is not valid JSON"),
    ] {
        assert_refused(&server, &signed(header, &claims), words).await;
    }
    for written in
        [deep(63), deep(64), "\"x\":\"\\ud83d\\ude00 NaN \\\\ud83d\"".to_owned(), "\"Infinity\":0".to_owned()]
    {
        assert_accepted(&server, &signed("{\"alg\":\"HS256\"}", &also(&written)), &written[..20.min(written.len())])
            .await;
    }
}

/// An RSA key as a member of a set, and the key that signs.
fn rsa() -> (Value, EncodingKey) {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let [n, e] =
        [public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero()];
    let jwk = json!({"kty": "RSA", "n": URL_SAFE_NO_PAD.encode(n), "e": URL_SAFE_NO_PAD.encode(e)});
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pem = base64::engine::general_purpose::STANDARD.encode(private.as_ref());
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{pem}\n-----END PRIVATE KEY-----\n");
    (jwk, EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap())
}

fn also(mut jwk: Value, name: &str, value: Value) -> Value {
    jwk[name] = value;
    jwk
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_key_in_a_set_is_named_when_a_token_asks_for_it_and_the_others_serve() {
    let good = SigningKey::new("good");
    let (other, (rsa, _)) = (SigningKey::new("other"), rsa());
    let padded = URL_SAFE.encode(URL_SAFE_NO_PAD.decode(rsa["n"].as_str().unwrap()).unwrap());
    let without = |name: &str| {
        let mut jwk = other.jwk.clone();
        jwk.as_object_mut().unwrap().remove(name);
        jwk
    };
    let bad = [
        ("padded", also(rsa.clone(), "n", padded.into()), "malformed `n`: it is base64url with padding"),
        ("garbled", also(rsa.clone(), "e", "*".into()), "malformed `e`: it is not base64url"),
        ("enc", also(rsa.clone(), "use", "enc".into()), "is not for signatures (`use`)"),
        ("ops", also(rsa.clone(), "key_ops", json!(["encrypt"])), "is not for verifying (`key_ops`)"),
        ("short", also(rsa.clone(), "n", URL_SAFE_NO_PAD.encode([0xff; 128]).into()), "is an RSA key of 1024 bits"),
        ("zero", also(rsa.clone(), "n", "AAAA".into()), "is a damaged RSA key"),
        ("number", also(rsa.clone(), "n", 5.into()), "has a `n` that is not text"),
        ("kty", json!({"kty": "AKP", "pub": "AAAA"}), "is of the type \"AKP\", which is not supported"),
        ("crv", also(other.jwk.clone(), "crv", "P-521".into()), "is of the curve \"P-521\", which is not supported"),
        ("point", also(other.jwk.clone(), "x", other.jwk["y"].clone()), "are not a point of P-256"),
        ("no-x", without("x"), "has no `x`"),
        ("no-crv", without("crv"), "has no `crv`"),
        ("no-kty", without("kty"), "has no `kty`"),
        ("alg", also(other.jwk.clone(), "alg", "ES256K".into()), "is for an algorithm that is not supported"),
        ("oct", json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)}), "is a shared secret"),
    ];
    let named = bad.clone().map(|(kid, jwk, _)| also(jwk, "kid", kid.into()));
    let server = with_keys(
        &["ES256", "RS256"],
        &[&[json!(7), json!(null)], &named[..], std::slice::from_ref(&good.jwk)].concat(),
    );
    assert_accepted(&server, &good.sign(&claims(&[1])), "the good key serves").await;
    for (kid, _, words) in bad {
        for alg in ["ES256", "RS256"] {
            let header = json!({"alg": alg, "kid": kid}).to_string();
            let token = signed(&header, &claims(&[1]).to_string());
            assert_refused(&server, &token, &format!("a key that cannot be used: \"{kid}\" ")).await;
            assert_refused(&server, &token, words).await;
        }
    }
    // Keys without a name may be the one that is asked for.
    let unknown = signed(r#"{"alg":"ES256","kid":"unknown"}"#, &claims(&[1]).to_string());
    assert_refused(&server, &unknown, "keys[0] is not a JSON object; keys[1] is not a JSON object").await;
    assert_accepted(&server, &good.sign(&claims(&[1])), "the good key serves still").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_keys_under_one_id_both_serve_and_a_bad_one_beside_a_good_one_is_named() {
    let (first, second, stranger) = (SigningKey::new("same"), SigningKey::new("same"), SigningKey::new("same"));
    let server = with_keys(&["ES256"], &[first.jwk.clone(), second.jwk.clone()]);
    assert_accepted(&server, &first.sign(&claims(&[1])), "the first").await;
    assert_accepted(&server, &second.sign(&claims(&[1])), "the second").await;
    assert_refused(&server, &stranger.sign(&claims(&[1])), "the token's signature is invalid").await;
    let server = with_keys(&["ES256"], &[also(second.jwk.clone(), "use", "enc".into()), first.jwk.clone()]);
    assert_accepted(&server, &first.sign(&claims(&[1])), "the good one").await;
    let words = "cannot be used: \"same\" is not for signatures (`use`)";
    assert_refused(&server, &second.sign(&claims(&[1])), words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_in_front_of_a_number_of_a_key_may_be_there_or_not() {
    let (jwk, key) = rsa();
    let zeros = |name: &str, zeros: usize| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
        json!(URL_SAFE_NO_PAD.encode([vec![0; zeros], bytes].concat()))
    };
    for (n, e) in [(0, 0), (1, 0), (4, 0), (0, 1), (1, 2)] {
        let set = also(also(also(jwk.clone(), "n", zeros("n", n)), "e", zeros("e", e)), "kid", "r".into());
        let server = with_keys(&["RS256"], &[set]);
        let token = signed_with(r#"{"alg":"RS256","kid":"r"}"#, &claims(&[1]).to_string(), &key, Algorithm::RS256);
        assert_accepted(&server, &token, &format!("{n} zeros before n, {e} before e")).await;
    }
    for name in ["x", "y"] {
        let first = |key: &SigningKey| URL_SAFE_NO_PAD.decode(key.jwk[name].as_str().unwrap()).unwrap();
        let key = std::iter::repeat_with(|| SigningKey::new("ec")).find(|key| first(key)[0] == 0).unwrap();
        let short = URL_SAFE_NO_PAD.encode(&first(&key)[1..]);
        let long = URL_SAFE_NO_PAD.encode([&[0], first(&key).as_slice()].concat());
        for written in [short, long] {
            let server = with_keys(&["ES256"], &[also(key.jwk.clone(), name, written.into())]);
            assert_accepted(&server, &key.sign(&claims(&[1])), name).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_an_id_is_tried_with_the_keys_that_have_none() {
    let (named, nameless, stranger) = (SigningKey::new("a"), SigningKey::new("b"), SigningKey::new("b"));
    let mut jwk = nameless.jwk.clone();
    jwk.as_object_mut().unwrap().remove("kid");
    let server = with_keys(&["ES256"], &[named.jwk.clone(), jwk]);
    assert_accepted(&server, &nameless.sign(&claims(&[1])), "its key has no id").await;
    assert_accepted(&server, &named.sign(&claims(&[1])), "its key has its id").await;
    assert_refused(&server, &stranger.sign(&claims(&[1])), "the token's signature is invalid").await;
    // An id that a key has selects that key alone.
    let header = jsonwebtoken::Header { kid: Some("a".to_owned()), ..jsonwebtoken::Header::new(Algorithm::ES256) };
    assert_refused(&server, &nameless.sign_with(&header, &claims(&[1])), "the token's signature is invalid").await;
}

/// A server whose issuer is the one of the harness, with these lines more in its table.
fn with_issuer(lines: &str) -> Server {
    let auth = format!(
        "[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = [\"HS256\"]\n\
         hmac_secret_file = \"secret\"\n{lines}\n"
    );
    Setup { auth: Some(auth), ..Setup::default() }.start()
}

/// A token with these claims in place of the harness's; `null` takes a claim away.
fn changed(changes: &Value) -> String {
    let mut all = claims(&[1]);
    let members = all.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        members.insert(name.clone(), value.clone());
    }
    members.retain(|_, value| !value.is_null());
    mint(&all)
}

/// The statuses of an upload for client 1, for client 2, and for client 1 under project 5.
fn statuses(server: &Server, token: &str) -> [u16; 3] {
    [(1, 9, ""), (2, 9, ""), (1, 10, "?project_id=5")].map(|(client, attachment, query)| {
        let ask = Ask::upload(client, attachment, &Form::file(b"content")).path(query).by(token);
        server.connect().ask(&ask).status
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_may_have_names_of_its_own_for_the_scopes() {
    let server = with_issuer(
        "[auth.issuers.scope_names]\n\"attachd/attachments:write\" = \"attachments:write\"\nuploader = \"attachments:write\"\n\
         \"attachments.read\" = \"attachments:read\"",
    );
    for scope in [
        json!("openid attachd/attachments:write"),
        json!(["uploader", "x"]),
        json!("attachments:write"),
        json!(["attachd/attachments:write", "attachments.read"]),
    ] {
        let token = changed(&json!({ "scope": scope }));
        assert_accepted(&server, &token, &scope.to_string()).await;
    }
    for scope in [json!("attachments.read"), json!("uploaders"), json!("attachd/"), json!("Uploader")] {
        assert_eq!(statuses(&server, &changed(&json!({ "scope": scope }))), [403, 403, 403], "{scope}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_is_by_subject_or_by_a_value_of_a_claim_and_several_add_up() {
    let server = with_issuer(
        "[[auth.issuers.grants]]\nclaim = \"groups\"\nvalue = \"writers\"\nscopes = [\"attachments:write\"]\nclients = [1]\n\
         [[auth.issuers.grants]]\nclaim = \"/realm/groups\"\nvalue = \"/org/team a\"\nscopes = [\"attachments:write\"]\nclients = [2]\n\
         [[auth.issuers.grants]]\nclaim = \"projects\"\nvalue = \"five\"\nprojects = [5]\n\
         [[auth.issuers.grants]]\nsubject = \"robot\"\nscopes = [\"attachments:write\"]\nclients = \"*\"",
    );
    let nothing = json!({"scope": null, "client_ids": null, "project_ids": null, "portfolio_ids": null});
    let with = |changes: Value| {
        let mut all = nothing.clone();
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        changed(&all)
    };
    for (changes, expected) in [
        (json!({"groups": ["other", "writers"]}), [201, 403, 403]),
        (json!({"groups": "writers"}), [201, 403, 403]),
        (json!({"realm": {"groups": ["/org/team a"]}}), [403, 201, 403]),
        (json!({"groups": ["writers"], "realm": {"groups": ["/org/team a"]}}), [201, 201, 403]),
        (json!({"groups": ["writers"], "projects": "five"}), [201, 403, 201]),
        (json!({"groups": ["writers"], "sub": "robot"}), [201, 201, 403]),
        (json!({"sub": "robot"}), [201, 201, 403]),
        (json!({"groups": ["Writers", "writers ", "writer"]}), [403, 403, 403]),
        (json!({"groups": [["writers"]]}), [403, 403, 403]),
        (json!({"groups": {"writers": true}}), [403, 403, 403]),
        (json!({"/realm/groups": ["/org/team a"]}), [403, 403, 403]),
        (json!({}), [403, 403, 403]),
    ] {
        assert_eq!(statuses(&server, &with(changes.clone())), expected, "{changes}");
    }
    // A grant stands in place of the claims, and without one the claims count.
    assert_eq!(statuses(&server, &changed(&json!({"groups": ["writers"], "client_ids": [2]}))), [201, 403, 403]);
    assert_eq!(statuses(&server, &changed(&json!({"client_ids": [2]}))), [403, 201, 403]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_claim_can_stand_in_place_of_aud() {
    let server = with_issuer("audience_claim = \"client_id\"");
    assert_accepted(&server, &changed(&json!({"aud": null, "client_id": AUDIENCE})), "no aud").await;
    assert_accepted(&server, &changed(&json!({"aud": "other", "client_id": ["x", AUDIENCE]})), "another aud").await;
    let words = "the token's client_id is missing, malformed or not ours";
    for wrong in [json!(null), json!("other"), json!([]), json!(1), json!([1, AUDIENCE])] {
        assert_refused(&server, &changed(&json!({ "client_id": wrong })), words).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn es512_is_refused_in_words() {
    let server = Server::start();
    let token = signed(r#"{"alg":"ES512"}"#, &claims(&[1]).to_string());
    assert_refused(&server, &token, "the token's alg ES512 is not supported: have the issuer sign with ES256").await;
}
