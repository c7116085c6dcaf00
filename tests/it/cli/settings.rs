//! What is said of a configuration that is wrong, or that says less than it seems to: the key, what was given, and what to
//! write instead.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Running, assert_refused, attachd, configured};
use crate::harness::{Setup, eventually};

const LISTEN: &str = "[rest]\nlisten = \"127.0.0.1:0\"";
const SIZE: &str = "max_upload_size = 8388608";

#[test]
fn a_value_of_another_form_is_answered_with_what_to_write() {
    let refused = |from: &str, to: &str, words: &[&str]| assert_refused(configured(from, to).path(), &[], words);
    refused(SIZE, "max_upload_size = \"5 gigs\"", &["limits.max_upload_size: \"5 gigs\"", "write \"5GiB\""]);
    refused(SIZE, "max_upload_size = -1", &["limits.max_upload_size: \"-1\" is not a size"]);
    refused(
        SIZE,
        "max_upload_size = [1]",
        &["limits.max_upload_size: [1] is a list; write its value without brackets: 1"],
    );
    refused(SIZE, "idle_timeout = 30", &["limits.idle_timeout: 30 has no unit; write \"30s\""]);
    refused(SIZE, "idle_timeout = true", &["limits.idle_timeout: true is not text"]);
    refused(SIZE, "max_connections = \"12\"", &["limits.max_connections: \"12\" is text; write 12, without quotes"]);
    refused(SIZE, "max_connections = \"many\"", &["limits.max_connections: \"many\" is not a whole number"]);
    refused(SIZE, "max_connections = -1", &["limits.max_connections: -1 is not a whole number of 0 or more"]);
    refused(SIZE, "max_connections = 1.5", &["limits.max_connections: 1.5 is not a whole number"]);
    let listen = "listen = \"127.0.0.1:0\"";
    refused(listen, "listen = \"localhost:8080\"", &["rest.listen: \"localhost:8080\"", "write \"127.0.0.1:8080\""]);
    refused(listen, "listen = 8080", &["rest.listen: \"8080\" has no IP address; write \"0.0.0.0:8080\""]);
    refused(listen, "listen = [\"127.0.0.1:0\"]", &["rest.listen: [\"127.0.0.1:0\"] is a list", "without brackets"]);
    let proxies = format!("{LISTEN}\ntrusted_proxies = \"10.0.0.0/8\"");
    refused(LISTEN, &proxies, &["rest.trusted_proxies: \"10.0.0.0/8\" is not a list; write [\"10.0.0.0/8\"]"]);
    refused("\"HS256\"", "\"HS256\"]\ntypes = [5", &["auth.issuers[0].types[0]: 5 is not text; write \"5\""]);
    refused("audience = [", "audience = [[", &["line "]);
    refused(
        "audience = [\"attachd\"]",
        "audience = \"attachd\"",
        &["audience: \"attachd\" is not a list; write [\"attachd\"]"],
    );
    refused("issuer = \"https://id.example\"", "issuer = [\"a\"]", &["issuer: [\"a\"] is a list", "\"a\""]);
    refused("[[auth.issuers]]", "[auth.issuers]", &["auth.issuers: a table is given", "[[auth.issuers]]"]);
}

#[test]
fn a_variable_of_another_form_is_answered_with_what_to_write() {
    for (variable, value, words) in [
        ("ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "5 gigs", "write \"5GiB\""),
        ("ATTACHD_LIMITS__IDLE_TIMEOUT", "30", "30 has no unit; write \"30s\""),
        ("ATTACHD_REST__LISTEN", "localhost:8080", "write \"127.0.0.1:8080\""),
        ("ATTACHD_GRPC__LISTEN", ":50051", "write \"0.0.0.0:50051\""),
        ("ATTACHD_AUTH__ISSUERS__0__AUDIENCE", "attachd", "write [\"attachd\"]"),
        ("ATTACHD_LIMITS__MAX__UPLOAD_SIZE", "1", "write ATTACHD_LIMITS__MAX_UPLOAD_SIZE"),
        ("ATTACHD_STORAGE__SOLE_WRITER", "yes", "\"yes\" is not true or false"),
    ] {
        assert_refused(configured("", "").path(), &[(variable, value)], &[variable, words]);
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let folder =
        configured(SIZE, "max_uplaod_size = 1\nidle_timeout = 30\nmax_connections = 0\nmax_handshakes = \"x\"");
    let words = [
        "attachd.toml: 6 problems",
        "limits.max_uplaod_size: unknown key",
        "limits.idle_timeout: 30 has no unit",
        "limits.max_connections: must be at least 1",
        "limits.max_handshakes: \"x\" is not a whole number",
        "log.filter (from ATTACHD_LOG__FILTER): ",
        "storage.timeout (from ATTACHD_STORAGE__TIMEOUT): ",
    ];
    assert_refused(folder.path(), &[("ATTACHD_LOG__FILTER", "loud"), ("ATTACHD_STORAGE__TIMEOUT", "0s")], &words);
    // Files are looked at once the keys are good, and likewise all at once.
    let folder = configured("", "");
    let more = "[rest.tls]\ncert_file = \"no.pem\"\nkey_file = \"no.key\"\n[grpc.tls]\ncert_file = \"none.pem\"\nkey_file = \"none.key\"\n\
                [traces]\nendpoint = \"https://127.0.0.1:1\"\nca_file = \"ca.pem\"\n";
    let path = folder.path().join("attachd.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{text}\n{more}")).unwrap();
    fs::remove_file(folder.path().join("secret")).unwrap();
    let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &[]);
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    for key in
        ["auth.issuers[0].hmac_secret_file: ", "rest.tls.cert_file: ", "grpc.tls.cert_file: ", "traces.ca_file: "]
    {
        assert!(outcome.stderr.lines().any(|line| line.starts_with(&format!("attachd: {key}"))), "{key}: {outcome:?}");
    }
}

#[test]
fn ports_that_exclude_each_other_are_refused_before_one_opens() {
    for (rest, grpc, admin, key, words) in [
        ("127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1:0", "grpc.listen", "\"127.0.0.1:50051\""),
        ("0.0.0.0:8080", "127.0.0.1:8080", "127.0.0.1:0", "grpc.listen", "rest.listen = 0.0.0.0:8080"),
        ("127.0.0.1:8080", "127.0.0.1:0", "[::]:8080", "admin.listen", "\"[::]:9090\""),
        ("127.0.0.1:0", "127.0.0.1:9090", "0.0.0.0:9090", "admin.listen", "grpc.listen = 127.0.0.1:9090"),
    ] {
        let variables =
            [("ATTACHD_REST__LISTEN", rest), ("ATTACHD_GRPC__LISTEN", grpc), ("ATTACHD_ADMIN__LISTEN", admin)];
        assert_refused(configured("", "").path(), &variables, &[key, "an address of its own", words]);
    }
}

#[test]
fn a_check_finds_an_address_that_is_not_of_this_machine() {
    let folder = configured("", "");
    let foreign = [("ATTACHD_GRPC__LISTEN", "192.0.2.1:50051")];
    for (command, code) in [("check", 2), ("serve", 1)] {
        let outcome = attachd(folder.path(), &[command, "--config", "attachd.toml"], &foreign);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains("grpc.listen: 192.0.2.1:50051: "), "{outcome:?}");
    }
    // A port that is in use may be that of the server whose next configuration is checked.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let taken = TcpListener::bind(taken).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &[("ATTACHD_REST__LISTEN", &address)]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains(&format!("warning: rest.listen: {address} is in use")), "{outcome:?}");
}

#[test]
fn a_variable_that_overrides_nothing_is_warned_of_and_named_right() {
    let meant = [
        ("ATTACHD_LIMITS_MAX_UPLOAD_SIZE", "ATTACHD_LIMITS__MAX_UPLOAD_SIZE"),
        ("ATTACHD_STORAGE_OPTIONS_ROOT", "ATTACHD_STORAGE__OPTIONS__ROOT"),
        ("attachd_rest__listen", "ATTACHD_REST__LISTEN"),
        ("ATTACHD_AUTH_ISSUERS_0_AUDIENCE", "ATTACHD_AUTH__ISSUERS__0__AUDIENCE"),
    ];
    let folder = configured("", "");
    for (wrong, right) in meant {
        for command in [&["check"][..], &["config", "show"], &["gc"], &["token", "--client", "1"]] {
            let arguments = [command, &["--config", "attachd.toml"]].concat();
            let outcome = attachd(folder.path(), &arguments, &[(wrong, "1")]);
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            let warning = format!("warning: {wrong}: this variable is ignored; did you mean {right}?");
            assert!(outcome.stderr.lines().any(|line| line == warning), "{command:?}: {outcome:?}");
        }
    }
    let server = Setup { variables: [(meant[0].0, "1".to_owned())].into(), ..Setup::default() }.start();
    let warned = |line: &String| line.contains("\"WARN\"") && line.contains(meant[0].0) && line.contains(meant[0].1);
    eventually("the log says so", || server.log().iter().any(warned));
}

#[test]
fn variables_that_kubernetes_sets_are_neither_refused_nor_warned_of() {
    let folder = configured("", "");
    let clean = attachd(folder.path(), &["check", "--config", "attachd.toml"], &[]);
    let variables = [
        ("ATTACHD_SERVICE_HOST", "10.0.0.1"),
        ("ATTACHD_SERVICE_PORT", "8080"),
        ("ATTACHD_SERVICE_PORT_GRPC", "50051"),
        ("ATTACHD_PORT", "tcp://10.0.0.1:8080"),
        ("ATTACHD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("ATTACHD_PORT_8080_TCP_PROTO", "tcp"),
        ("ATTACHD_PORT_8080_TCP_PORT", "8080"),
        ("ATTACHD_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("ATTACHD_ADMIN_SERVICE_HOST", "10.0.0.1"),
        ("ATTACHD_ADMIN_PORT", "tcp://10.0.0.1:9090"),
        ("ATTACHD_TOKEN", "a.b.c"),
    ];
    let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &variables);
    assert_eq!((outcome.code, outcome.stderr), (Some(0), clean.stderr));
}

#[test]
fn a_variable_that_is_not_utf_8_stops_only_who_reads_it() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let folder = configured("", "");
    for (name, code) in [("LESSCHARSET", 0), ("ATTACHD_STORAGE__OPTIONS__ROOT", 2)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(["check", "--config", "attachd.toml"]).env_clear().current_dir(folder.path());
        let output = command.env(name, OsStr::from_bytes(b"a\xff")).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{name}: {said}");
        assert_eq!(said.contains(&format!("the value of the variable {name} is not UTF-8")), code == 2, "{said}");
    }
}

#[test]
fn a_filter_of_the_log_that_shows_less_than_it_says_is_refused() {
    for (filter, words) in [
        ("verbose", ["`verbose` is not a level", "off, error, warn, info, debug, trace"]),
        ("info,attachd::audti=info", ["no events of `attachd::audti`", "did you mean `audit`?"]),
        ("atachd=debug", ["no events of `atachd`", "did you mean `attachd`?"]),
        ("", ["the filter is empty", "write a level"]),
        (" ", ["the filter is empty", "write a level"]),
        ("attachd::audit", ["has no level", "write `attachd::audit=info`"]),
    ] {
        let folder = configured("filter = \"debug\"", &format!("filter = {filter:?}"));
        assert_refused(folder.path(), &[], &[&words[..], &["log.filter: "]].concat());
    }
}

#[test]
fn a_filter_that_turns_the_audit_trail_off_is_warned_of_whatever_it_shows() {
    for (filter, warned) in [
        ("warn", true),
        ("off", true),
        ("error", true),
        ("info,attachd::audit=off", true),
        ("hyper=debug", true),
        ("info", false),
        ("warn,attachd::audit=info", false),
    ] {
        let folder = configured("filter = \"debug\"", &format!("filter = {filter:?}"));
        let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &[]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let said = outcome.stderr.contains("warning: log.filter: the audit trail is off");
        assert_eq!(said, warned, "{filter}: {outcome:?}");
        if !warned {
            continue;
        }
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(["serve", "--config", "attachd.toml"]).env_clear().current_dir(folder.path());
        let mut server = Running(command.stderr(Stdio::piped()).spawn().unwrap());
        let lines = BufReader::new(server.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        let mut events = lines.map(|line| serde_json::from_str::<Value>(&line).expect("a line is JSON"));
        let warns = |event: &Value| event["level"] == "WARN" && event["fields"]["key"] == "log.filter";
        assert!(events.any(|event| warns(&event)), "{filter}");
    }
}

#[cfg(feature = "s3")]
#[test]
fn an_s3_storage_without_a_region_or_a_key_is_refused_by_the_option() {
    let s3 = |more: &[(&'static str, &'static str)]| {
        let folder = configured("", "");
        let mut variables = vec![
            ("ATTACHD_STORAGE__SERVICE", "s3"),
            ("ATTACHD_STORAGE__OPTIONS__BUCKET", "files"),
            // Where nothing listens: a key that is missing is found before a request is sent.
            ("ATTACHD_STORAGE__OPTIONS__ENDPOINT", "http://127.0.0.1:9"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ];
        variables.extend_from_slice(more);
        let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &variables);
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        for word in ["ConfigInvalid", "context", "reqsign", "S3::", "Builder"] {
            assert!(!outcome.stderr.contains(word), "{outcome:?}");
        }
        outcome.stderr
    };
    let region = ("ATTACHD_STORAGE__OPTIONS__REGION", "us-east-1");
    let key = ("ATTACHD_STORAGE__OPTIONS__ACCESS_KEY_ID", "key");
    let secret = ("ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY", "hunter2");
    let said = s3(&[key, secret]);
    assert!(said.contains("attachd: storage.options.region: is missing; write the region of the bucket"), "{said}");
    let said = s3(&[region, key]);
    assert!(said.contains("storage.options.secret_access_key: is missing, and access_key_id is of no use"), "{said}");
    let said = s3(&[region, secret]);
    assert!(said.contains("storage.options.access_key_id: is missing, and secret_access_key is of no use"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    let said = s3(&[region]);
    assert!(said.contains("attachd: storage.options.access_key_id: is missing, and the environment"), "{said}");
}
