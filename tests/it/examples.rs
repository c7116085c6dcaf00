//! The examples of docs/auth.md, as they stand there: each issuer's table and token, with a key of ours.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{Ask, Form, Setup};

/// The keys of an issuer's table that say where its keys are.
const SOURCES: [&str; 4] = ["discovery", "jwks_url", "ca_file", "bearer_token_file"];

struct Example {
    name: String,
    table: String,
    claims: Value,
}

/// The text between a line that opens a block of this language and the next fence.
fn block<'a>(section: &'a str, language: &str) -> Option<&'a str> {
    let (_, after) = section.split_once(&format!("```{language}\n"))?;
    Some(after.split_once("```")?.0)
}

fn examples() -> Vec<Example> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/auth.md")).unwrap();
    let (_, examples) = text.split_once("\n## Examples\n").expect("there are examples");
    let examples = examples.split("\n## ").next().unwrap();
    examples
        .split("\n### ")
        .skip(1)
        .map(|section| Example {
            name: section.lines().next().unwrap().to_owned(),
            table: block(section, "toml").expect("a table").to_owned(),
            claims: serde_json::from_str(block(section, "json").expect("a token")).expect("JSON"),
        })
        .collect()
}

#[test]
fn the_examples_work_as_they_are_documented() {
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let [n, e] =
        [public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero()]
            .map(|part| URL_SAFE_NO_PAD.encode(part));
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let pem = pem(private.as_ref());
    let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::RS256) };
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("jwks.json");
    fs::write(&set, json!({"keys": [{"kty": "RSA", "n": n, "e": e, "kid": "k", "use": "sig"}]}).to_string()).unwrap();

    let examples = examples();
    assert_eq!(examples.len(), 4);
    for Example { name, table, mut claims } in examples {
        // All but where the keys are, which is out of a test's reach.
        let is_source = |line: &str| SOURCES.iter().any(|key| line.starts_with(&format!("{key} =")));
        assert!(table.lines().any(is_source), "{name}");
        let kept: Vec<_> = table.lines().filter(|line| !is_source(line)).collect();
        let kept = kept.join("\n").replacen("algorithms =", &format!("jwks_file = {set:?}\nalgorithms ="), 1);
        let server = Setup { auth: Some(kept), ..Setup::default() }.start();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        claims["iat"] = now.into();
        claims["exp"] = (now + 300).into();
        let token = encode(&header, &claims, &key).unwrap();
        let ask = |client: i64| server.connect().ask(&Ask::upload(client, 2, &Form::file(b"content")).by(&token));
        let reply = ask(42);
        assert_eq!(reply.status, 201, "{name}: {reply:?}");
        assert_eq!(ask(7).status, 403, "{name}");
        let record = server.record(42, 2).unwrap();
        assert_eq!(record["uploaded_by"], claims["sub"], "{name}");
        // A stranger of the same issuer has none of these rights.
        claims["sub"] = "somebody-else".into();
        claims.as_object_mut().unwrap().retain(|name, _| ["iss", "aud", "sub", "exp"].contains(&name.as_str()));
        let token = encode(&header, &claims, &key).unwrap();
        let refused = server.connect().ask(&Ask::upload(42, 2, &Form::file(b"content")).by(&token));
        assert_eq!(refused.status, 403, "{name}: {refused:?}");
    }
}

fn pem(der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
}
