//! The recipes of docs/how-to/issuers.md, as they stand there: each issuer's table and token, with a key of ours.

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

use crate::harness::{Ask, Form, Setup, SigningKey, pem, run};

/// The keys of an issuer's table that say where its keys are.
const SOURCES: [&str; 4] = ["discovery", "jwks_url", "ca_file", "bearer_token_file"];

/// The providers that have a recipe.
const PROVIDERS: [&str; 11] = [
    "Keycloak",
    "Hydra",
    "Dex",
    "Spring Authorization Server",
    "oidc-provider",
    "OpenBao and Vault",
    "Kubernetes service accounts",
    "Microsoft Entra ID",
    "Okta",
    "Auth0",
    "Amazon Cognito",
];

struct Recipe {
    name: String,
    table: String,
    claims: Value,
}

/// The text between a line that opens a block of this language and the next fence.
fn block<'a>(section: &'a str, language: &str) -> Option<&'a str> {
    let (_, after) = section.split_once(&format!("```{language}\n"))?;
    Some(after.split_once("```")?.0)
}

fn document() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/issuers.md")).unwrap()
}

fn recipes() -> Vec<Recipe> {
    let text = document();
    let (_, recipes) = text.split_once("\n## Recipes\n").expect("there are recipes");
    let recipes = recipes.split("\n## ").next().unwrap();
    recipes
        .split("\n### ")
        .skip(1)
        .map(|section| Recipe {
            name: section.lines().next().unwrap().to_owned(),
            table: block(section, "toml").expect("a table").to_owned(),
            claims: serde_json::from_str(block(section, "json").expect("a token")).expect("JSON"),
        })
        .collect()
}

/// Keys of ours in a set, and what signs with them by the algorithm of a table.
struct Keys {
    rsa: EncodingKey,
    ec: SigningKey,
    set: Value,
}

impl Keys {
    fn new() -> Keys {
        let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let public = pair.public_key();
        let [n, e] =
            [public.modulus().big_endian_without_leading_zero(), public.exponent().big_endian_without_leading_zero()]
                .map(|part| URL_SAFE_NO_PAD.encode(part));
        let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
        let ec = SigningKey::new("ec");
        let set = json!({"keys": [{"kty": "RSA", "n": n, "e": e, "kid": "rsa", "use": "sig"}, ec.jwk]});
        Keys { rsa: EncodingKey::from_rsa_pem(pem("PRIVATE KEY", private.as_ref()).as_bytes()).unwrap(), ec, set }
    }

    /// Signs a token as the issuer of this table would.
    fn sign(&self, table: &str, claims: &Value) -> String {
        let table: toml::Table = table.parse().unwrap();
        let issuer = &table["auth"]["issuers"][0];
        let typ = issuer.get("types").map(|types| types[0].as_str().unwrap().to_owned());
        match issuer["algorithms"][0].as_str().unwrap() {
            "RS256" => {
                let header = Header { kid: Some("rsa".to_owned()), typ, ..Header::new(Algorithm::RS256) };
                encode(&header, claims, &self.rsa).unwrap()
            }
            _ => {
                self.ec.sign_with(&Header { kid: Some("ec".to_owned()), typ, ..Header::new(Algorithm::ES256) }, claims)
            }
        }
    }
}

#[test]
fn the_recipes_work_as_they_are_documented() {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    let set = folder.path().join("jwks.json");
    fs::write(&set, keys.set.to_string()).unwrap();

    let recipes = recipes();
    let names: Vec<_> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
    assert_eq!(names, PROVIDERS);
    for Recipe { name, table, mut claims } in recipes {
        // All but where the keys are, which is out of a test's reach.
        let is_source = |line: &str| SOURCES.iter().any(|key| line.starts_with(&format!("{key} =")));
        assert!(table.lines().any(is_source), "{name}");
        let kept: Vec<_> = table.lines().filter(|line| !is_source(line)).collect();
        let kept = kept.join("\n").replacen("algorithms =", &format!("jwks_file = {set:?}\nalgorithms ="), 1);
        let server = Setup { auth: Some(kept), ..Setup::default() }.start();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        claims["iat"] = now.into();
        claims["exp"] = (now + 300).into();
        let token = keys.sign(&table, &claims);
        let ask = |client: i64| server.connect().ask(&Ask::upload(client, 2, &Form::file(b"content")).by(&token));
        let reply = ask(42);
        assert_eq!(reply.status, 201, "{name}: {reply:?}");
        assert_eq!(ask(7).status, 403, "{name}");
        let record = server.record(42, 2).unwrap();
        assert_eq!(record["content"]["uploaded_by"], claims["sub"], "{name}");
        // A stranger of the same issuer, who has a token for the same audience and nothing else.
        claims["sub"] = "somebody-else".into();
        claims.as_object_mut().unwrap().retain(|name, _| ["iss", "aud", "client_id", "sub", "exp"].contains(&&**name));
        let token = keys.sign(&table, &claims);
        let refused = server.connect().ask(&Ask::upload(42, 2, &Form::file(b"content")).by(&token));
        assert_eq!(refused.status, 403, "{name}: {refused:?}");
    }
}

#[test]
fn every_table_of_the_document_is_a_configuration_as_it_stands() {
    const ISSUER: &str = "[[auth.issuers]]\nissuer = \"https://id.example\"\naudience = [\"a\"]\nalgorithms = [\"RS256\"]\ndiscovery = true\n";
    let text = document();
    let tables: Vec<_> = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(tables.len() > PROVIDERS.len(), "the tables of the recipes and of the chapters before");
    for table in tables {
        let whole = if table.starts_with("[[auth.issuers]]") { table.to_owned() } else { format!("{ISSUER}{table}") };
        let folder = tempfile::tempdir().unwrap();
        let config = Setup { auth: Some(whole), ..Setup::default() }.write(folder.path());
        let shown = run(&["config", "show", "--config", config.to_str().unwrap()]);
        assert!(shown.status.success(), "{table}\n{shown:?}");
    }
}
