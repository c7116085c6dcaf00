//! Tokens as an identity provider makes them.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{EncodingKey, Header, encode};
use serde_json::{Value, json};

/// Every scope.
pub const ALL_SCOPES: &str = "attachments:write attachments:read attachments:manage attachments:delete";

/// The `iss` that test servers trust.
pub const ISSUER: &str = "https://id.example";
/// The `aud` that test servers answer to.
pub const AUDIENCE: &str = "attachd";
/// The HS256 secret that test servers share with their issuer.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// The claims of a token for `clients` with all scopes, all projects and all portfolios, that holds for an hour.
pub fn claims(clients: &[i64]) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "sub": "tester", "iat": now, "exp": now + 3600,
        "scope": "attachments:write attachments:read attachments:manage",
        "client_ids": clients, "project_ids": "*", "portfolio_ids": "*",
    })
}

/// A token for `clients` with all scopes.
pub fn token(clients: &[i64]) -> String {
    mint(&claims(clients))
}

/// A token for client 1 with every scope, and one claim of another value.
pub fn token_with(name: &str, value: Value) -> String {
    let mut claims = claims(&[1]);
    claims["scope"] = ALL_SCOPES.into();
    claims[name] = value;
    mint(&claims)
}

/// A token for client 1 that may also delete.
pub fn deleter() -> String {
    token_with("sub", "deleter".into())
}

/// A token of any claims, signed as test servers expect it.
pub fn mint(claims: &Value) -> String {
    mint_with(&Header::default(), claims, SECRET)
}

/// A token of any header, claims and HMAC secret.
pub fn mint_with(header: &Header, claims: &Value, secret: &str) -> String {
    encode(header, claims, &EncodingKey::from_secret(secret.as_bytes())).expect("claims can be signed")
}
