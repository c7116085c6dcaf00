//! Keys of an issuer: a key set, or a file in PEM.
#![no_main]

use std::sync::LazyLock;

/// A key that serves, whatever is beside it.
static GOOD: LazyLock<serde_json::Value> = LazyLock::new(|| {
    serde_json::json!({"kty": "OKP", "crv": "Ed25519", "kid": "a good one",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    attachd::fuzzing::auth::key_set(bytes, &GOOD);
    attachd::fuzzing::auth::pem(bytes);
});
