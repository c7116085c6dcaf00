//! What a configuration may say, and what is said of one that may not.

use std::collections::BTreeMap;
use std::path::Path;

use bytesize::ByteSize;

use super::*;
use crate::budget;

pub const LEAST: &str = r#"
    [storage]
    service = "memory"
    [[auth.issuers]]
    issuer = "https://id.example"
    audience = ["attachd"]
    algorithms = ["HS256"]
    hmac_secret_file = "key"
"#;

pub fn read(text: &str, variables: &[(&str, &str)]) -> Result<Config, Error> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    Config::load_with(file.path(), &variables)
}

fn refusal(text: &str, variables: &[(&str, &str)]) -> String {
    read(text, variables).unwrap_err().to_string()
}

#[test]
fn the_least_configuration_has_the_documented_defaults() {
    let config = read(LEAST, &[]).unwrap();
    assert_eq!(config.rest.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.grpc.listen.to_string(), "0.0.0.0:50051");
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:9090");
    assert_eq!(config.limits.max_upload_size, ByteSize::gib(5));
    assert_eq!(config.limits.memory_budget, ByteSize::mib(256));
    assert_eq!(config.attachments.on_unknown, OnUnknown::Reject);
}

#[test]
fn a_port_whose_table_names_no_address_listens_on_the_default_one() {
    let tables = "[rest]\nopenapi = false\n[grpc]\ntrusted_proxies = [\"10.0.0.0/8\"]\n[admin]\n";
    let config = read(&format!("{LEAST}\n{tables}"), &[]).unwrap();
    assert_eq!(config.rest.listen.to_string(), "0.0.0.0:8080");
    assert_eq!(config.grpc.listen.to_string(), "0.0.0.0:50051");
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:9090");
    assert!(!config.rest.openapi && config.grpc.trusted_proxies.len() == 1);
    let by_variable = read(LEAST, &[("ATTACHD_REST__OPENAPI", "false")]).unwrap();
    assert_eq!(by_variable.rest.listen.to_string(), "0.0.0.0:8080");
}

#[test]
fn a_variable_overrides_a_key_and_makes_a_missing_one() {
    let config = read(
        LEAST,
        &[
            ("ATTACHD_REST__LISTEN", "127.0.0.1:0"),
            ("ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "7MiB"),
            ("ATTACHD_LIMITS__MAX_WAITING_UPLOADS", "3"),
            ("ATTACHD_STORAGE__OPTIONS__ROOT", "/"),
            ("ATTACHD_AUTH__ISSUERS__0__AUDIENCE", r#"["other"]"#),
            ("ATTACHD_PORT", "tcp://10.0.0.1:80"),
        ],
    )
    .unwrap();
    assert_eq!(config.rest.listen.port(), 0);
    assert_eq!(config.limits.max_upload_size, ByteSize::mib(7));
    assert_eq!(config.limits.max_waiting_uploads, 3);
    assert_eq!(config.storage.options["root"], "/");
    assert_eq!(config.auth.issuers[0].audience, ["other"]);
}

#[test]
fn an_unknown_key_is_refused_and_the_nearest_is_named() {
    let message = refusal(&format!("{LEAST}\n[limits]\nmax_upload_sise = \"1MiB\""), &[]);
    assert!(message.contains("limits") && message.contains("did you mean `max_upload_size`?"), "{message}");
    let message = refusal(LEAST, &[("ATTACHD_LIMITZ__X", "1")]);
    assert!(message.contains("unknown key `limitz`; did you mean `limits`?"), "{message}");
}

#[test]
fn a_bad_value_is_refused_with_its_key_and_its_variable() {
    let message = refusal(&format!("{LEAST}\n[rest]\nlisten = \"nowhere\""), &[]);
    assert!(message.contains("rest.listen: "), "{message}");
    let message = refusal(LEAST, &[("ATTACHD_LIMITS__IDLE_TIMEOUT", "soon")]);
    assert!(message.contains("limits.idle_timeout (from ATTACHD_LIMITS__IDLE_TIMEOUT): "), "{message}");
    assert!(refusal("[storage]\nservice = \"memory\"", &[]).contains("auth: is missing, and has no default"));
    assert!(refusal("x = [", &[]).contains("TOML parse error"));
    let message = refusal(LEAST, &[("ATTACHD_AUTH__ISSUERS__2__ISSUER", "x")]);
    assert!(
        message.contains("auth.issuers.2.issuer (from ATTACHD_AUTH__ISSUERS__2__ISSUER): there are 1"),
        "{message}"
    );
}

#[test]
fn the_memory_budget_has_a_least_value() {
    let with = |bytes: u64| read(LEAST, &[("ATTACHD_LIMITS__MEMORY_BUDGET", &bytes.to_string())]);
    assert!(with(budget::LEAST - 1).unwrap_err().to_string().contains("limits.memory_budget"));
    assert!(with(budget::LEAST).is_ok());
    assert!(with(budget::LEAST + 1).is_ok());
}

#[test]
fn a_port_may_have_one_connection_and_one_handshake_at_least_and_a_client_has_some_time_for_each() {
    for (key, variable, least) in [
        ("limits.max_connections", "ATTACHD_LIMITS__MAX_CONNECTIONS", ["0", "1", "2"]),
        ("limits.max_handshakes", "ATTACHD_LIMITS__MAX_HANDSHAKES", ["0", "1", "2"]),
        ("limits.max_drains", "ATTACHD_LIMITS__MAX_DRAINS", ["0", "1", "2"]),
        ("limits.handshake_timeout", "ATTACHD_LIMITS__HANDSHAKE_TIMEOUT", ["0s", "1ns", "2ns"]),
        ("limits.min_rate_window", "ATTACHD_LIMITS__MIN_RATE_WINDOW", ["0s", "1ns", "2ns"]),
    ] {
        assert!(read(LEAST, &[(variable, least[0])]).unwrap_err().to_string().contains(key), "{key}");
        assert!(read(LEAST, &[(variable, least[1])]).is_ok(), "{key}");
        assert!(read(LEAST, &[(variable, least[2])]).is_ok(), "{key}");
    }
    assert!(read(LEAST, &[("ATTACHD_LIMITS__MIN_RATE", "0")]).is_ok());
    assert!(read(LEAST, &[("ATTACHD_SHUTDOWN__DELAY", "0s")]).is_ok());
}

#[test]
fn the_window_of_a_stream_is_neither_smaller_than_a_frame_nor_too_large_for_that_of_a_connection() {
    let with = |bytes: u64| read(LEAST, &[("ATTACHD_LIMITS__HTTP2_WINDOW", &bytes.to_string())]);
    for (bytes, fits) in [(1, false), (65_535, false), (65_536, true), (65_537, true)].into_iter().chain([
        (8_388_607, true),
        (8_388_608, true),
        (8_388_609, false),
    ]) {
        match with(bytes) {
            Ok(config) => assert!(fits && u64::from(config.http2_window()) == bytes, "{bytes}"),
            Err(error) => assert!(!fits && error.to_string().contains("limits.http2_window"), "{bytes}: {error}"),
        }
    }
    for (budget, window) in [("8MiB", 64 << 10), ("64MiB", 64 << 10), ("100MiB", 100 << 10), ("1GiB", 256 << 10)] {
        let config = read(LEAST, &[("ATTACHD_LIMITS__MEMORY_BUDGET", budget)]).unwrap();
        assert_eq!(config.http2_window(), window, "{budget}");
    }
}

#[test]
fn a_type_that_a_browser_would_run_is_refused_with_its_key() {
    let with = |types: &str| read(&format!("{LEAST}\n[download]\ninline_types = {types}"), &[]);
    assert!(read(LEAST, &[]).unwrap().download.inline_types.is_empty());
    assert_eq!(with(r#"["image/png", "IMAGE/gif"]"#).unwrap().download.inline_types.len(), 2);
    let why = with(r#"["image/png", "image/svg+xml"]"#).unwrap_err().to_string();
    assert!(why.contains("download.inline_types[1]: `image/svg+xml` cannot be sent inline: "), "{why}");
    let why = with(r#"["image/png; x=y"]"#).unwrap_err().to_string();
    assert!(why.contains("download.inline_types[0]: ") && why.contains("write `image/png`"), "{why}");
    let variable = [("ATTACHD_DOWNLOAD__INLINE_TYPES", r#"["text/html"]"#)];
    let why = refusal(LEAST, &variable);
    assert!(why.contains("download.inline_types[0]: `text/html` cannot be sent inline: "), "{why}");
}

#[test]
fn an_address_is_valid_for_a_second_to_an_hour() {
    let with = |time: &str| read(LEAST, &[("ATTACHD_DOWNLOAD__REDIRECT_EXPIRY", time)]);
    for time in ["1s", "1001ms", "5m", "3599s", "1h"] {
        assert!(with(time).is_ok(), "{time}");
    }
    for time in ["0s", "999ms", "3600001ms", "2h"] {
        let why = with(time).unwrap_err().to_string();
        assert!(why.contains("download.redirect_expiry") && why.ends_with("must be from 1s to 1h"), "{why}");
    }
    assert_eq!(read(LEAST, &[]).unwrap().download.redirect_expiry.as_secs(), 300);
}

#[test]
fn a_service_that_signs_no_addresses_is_refused_with_redirects() {
    let redirect = ("ATTACHD_DOWNLOAD__REDIRECT", "true");
    let with = |service: &str, option: &str| {
        let variables = [redirect, ("ATTACHD_STORAGE__SERVICE", service), (option, "x")];
        read(LEAST, &variables).map_err(|error| error.to_string())
    };
    for (service, option) in [
        ("memory", "ATTACHD_STORAGE__OPTIONS__ROOT"),
        ("fs", "ATTACHD_STORAGE__OPTIONS__ROOT"),
        ("azblob", "ATTACHD_STORAGE__OPTIONS__CONTAINER"),
    ] {
        let why = with(service, option).unwrap_err();
        let named =
            format!("download.redirect (from ATTACHD_DOWNLOAD__REDIRECT): the service `{service}` signs no addresses");
        assert!(why.contains(&named) && why.contains("write false, or use the service `s3` or `gcs`"), "{why}");
    }
    for service in ["s3", "gcs"] {
        assert!(with(service, "ATTACHD_STORAGE__OPTIONS__BUCKET").is_ok(), "{service}");
    }
    let token = [
        redirect,
        ("ATTACHD_STORAGE__SERVICE", "gcs"),
        ("ATTACHD_STORAGE__OPTIONS__BUCKET", "b"),
        ("ATTACHD_STORAGE__OPTIONS__TOKEN", "t"),
    ];
    let why = refusal(LEAST, &token);
    assert!(why.contains("storage.options.token cannot sign addresses") && why.contains("credential"), "{why}");
    assert!(read(LEAST, &token[1..]).is_ok());
    assert!(!read(LEAST, &[]).unwrap().download.redirect);
}

#[test]
fn at_least_one_upload_may_wait_for_memory() {
    let with = |count: &str| read(LEAST, &[("ATTACHD_LIMITS__MAX_WAITING_UPLOADS", count)]);
    assert!(with("0").unwrap_err().to_string().contains("limits.max_waiting_uploads"));
    assert!(with("1").is_ok());
    assert!(with("2").is_ok());
}

#[test]
fn a_missing_file_is_named() {
    let message = Config::load_with(Path::new("/no/such.toml"), &BTreeMap::new()).unwrap_err().to_string();
    assert!(message.contains("/no/such.toml"), "{message}");
}
