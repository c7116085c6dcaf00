//! What a start refuses, and what it keeps to itself.

use std::collections::BTreeMap;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::conformance::{DOORS, Door, digest, upload};
use crate::engines::{BUCKET, Engine, Place, Running, free_port, spawn, versitygw};
use crate::harness::storage::MARKER;
use crate::harness::{Connection, Setup, eventually, hex, noise, sha256};
use crate::look::{ACCESS_KEY, Look, SECRET_KEY};
use crate::way;

/// Runs `serve`, which is expected to end by itself.
pub fn refused(setup: &Setup) -> String {
    let (code, said) = ended(setup, "serve");
    assert_eq!(code, Some(2), "{said}");
    said
}

/// Runs a command that takes a configuration and ends, and returns its exit code with all that it said.
pub fn ended(setup: &Setup, command: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = setup.write(folder.path());
    let mut attachd = Command::new(env!("CARGO_BIN_EXE_attachd"));
    let attachd = attachd.args([command, "--config"]).arg(config).env_clear().envs(&setup.variables);
    let Output { status, stdout, stderr } = attachd.output().unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

fn with(place: &Place, option: &'static str, value: &str) -> Setup {
    let mut setup = place.setup();
    setup.variables.insert(option, value.to_owned());
    setup
}

#[test]
fn a_storage_that_cannot_keep_the_promises_is_refused_with_why() {
    let said = refused(&Setup { service: "webdav", ..Setup::default() });
    assert!(said.contains("storage.service: `webdav` cannot keep what a 201 promises: "), "{said}");
}

/// Why `webdav` is refused, as nginx shows it: what is told by a condition is done all the same, and nothing is synced.
#[test]
fn a_webdav_server_replaces_a_file_against_a_condition_and_syncs_nothing_before_it_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (at, port) = (folder.path().display(), free_port());
    let config = format!(
        "user root; daemon off; master_process off; pid {at}/pid; error_log {at}/errors; events {{}}\n\
         http {{ access_log off; client_body_temp_path {at}/arriving; server {{ listen 127.0.0.1:{port}; root {at}/root;\n\
         location / {{ dav_methods PUT; create_full_put_path on; }} }} }}\n"
    );
    std::fs::write(folder.path().join("conf"), config).unwrap();
    let calls = folder.path().join("calls");
    let mut command = Command::new("strace");
    // It runs beside the server, which is the process that is ended.
    command.args(["-D", "-f", "-e", "trace=rename,fsync,fdatasync,syncfs,sync,sync_file_range,openat", "-o"]);
    command.arg(&calls).args(["nginx", "-e", &format!("{at}/errors"), "-c", &format!("{at}/conf")]);
    let mut server = spawn(&mut command);
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    eventually("nginx listens", || Connection::try_open(address).is_ok());
    let put = |condition: (&str, &str), bytes: &[u8]| {
        let mut connection = Connection::open(address);
        connection.head("PUT", "/file", &[condition, ("Content-Length", &bytes.len().to_string())]);
        connection.send(bytes).unwrap();
        connection.reply_without_body().expect("a reply").status
    };
    assert_eq!(put(("If-None-Match", "*"), b"one"), 201);
    assert_eq!(put(("If-None-Match", "*"), b"two"), 204);
    assert_eq!(put(("If-Match", "\"of none\""), b"three"), 204);
    assert_eq!(std::fs::read(folder.path().join("root/file")).unwrap(), b"three");
    server.kill().unwrap();
    server.wait().unwrap();
    let calls = || std::fs::read_to_string(&calls).unwrap();
    eventually("strace has written all", || calls().contains("+++ killed"));
    let calls = calls();
    assert_eq!(calls.lines().filter(|line| line.contains("rename(") && line.ends_with("= 0")).count(), 3, "{calls}");
    let synced = calls.lines().find(|line| line.contains("sync") || line.contains("O_DSYNC"));
    assert_eq!(synced, None);
}

#[test]
fn an_unknown_option_is_refused_with_the_nearest_known_one() {
    let said = refused(&with(&Engine::Moto.place(), "ATTACHD_STORAGE__OPTIONS__REGOIN", "x"));
    assert!(said.contains("storage.options.regoin (from ATTACHD_STORAGE__OPTIONS__REGOIN): "), "{said}");
    assert!(said.contains("did you mean `region`?"), "{said}");
}

#[test]
fn a_bucket_that_is_not_there_is_refused() {
    for engine in [Engine::Moto, Engine::Minio] {
        let said = refused(&with(&engine.place(), "ATTACHD_STORAGE__OPTIONS__BUCKET", "no-such-bucket"));
        assert!(
            said.contains("attachd: storage.options.bucket: the bucket \"no-such-bucket\" does not exist"),
            "{said}"
        );
        assert_says_nothing_of_the_library(&said);
        for command in ["verify", "gc"] {
            let (code, said) =
                ended(&with(&engine.place(), "ATTACHD_STORAGE__OPTIONS__BUCKET", "no-such-bucket"), command);
            assert_eq!(code, Some(1), "{said}");
            assert!(said.contains("storage.options.bucket: the bucket \"no-such-bucket\" does not exist"), "{said}");
            assert_says_nothing_of_the_library(&said);
        }
    }
    let said = refused(&with(&Engine::Azurite.place(), "ATTACHD_STORAGE__OPTIONS__CONTAINER", "no-such-container"));
    let expected = "attachd: storage.options.container: the container \"no-such-container\" does not exist";
    assert!(said.contains(expected), "{said}");
    assert_says_nothing_of_the_library(&said);
}

#[test]
fn a_wrong_key_is_refused_and_not_said() {
    let wrong = "hunter2hunter2hunter2";
    let said = refused(&with(&Engine::Minio.place(), "ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY", wrong));
    assert!(said.contains("attachd: storage.options.secret_access_key: is not the secret"), "{said}");
    assert!(!said.contains(wrong), "{said}");
    assert_says_nothing_of_the_library(&said);
    let said = refused(&with(&Engine::Minio.place(), "ATTACHD_STORAGE__OPTIONS__ACCESS_KEY_ID", wrong));
    assert!(said.contains("attachd: storage.options.access_key_id: the storage does not know this key"), "{said}");
}

/// The last line, which says why.
fn assert_says_nothing_of_the_library(said: &str) {
    let why = said.lines().find(|line| line.starts_with("attachd: ")).expect("it says why");
    for word in ["S3Error", "context", "Parts", "permanent", "uri", "reqsign", "source:", "::"] {
        assert!(!why.contains(word), "{why}");
    }
}

#[test]
fn a_secret_may_look_like_a_number_and_may_be_in_a_file() {
    let place = Engine::Minio.place();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{SECRET_KEY}\n")).unwrap();
    let mut setup = place.setup();
    setup.variables.remove("ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY");
    let named = file.to_str().unwrap().to_owned();
    setup.variables.insert("ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY_FILE", named);
    assert_eq!(upload(&setup.start(), Door::Rest, 1, b"x", false), 201);
    // moto takes any key, this one included, which TOML would take for a number.
    let numeric = with(&Engine::Moto.place(), "ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY", "1e5");
    assert_eq!(upload(&numeric.start(), Door::Rest, 1, b"x", false), 201);
}

#[test]
fn no_secret_is_in_the_log_whatever_its_filter() {
    for engine in [Engine::Moto, Engine::Azurite] {
        let mut setup = engine.place().setup();
        setup.variables.insert("ATTACHD_LOG__FILTER", "trace,reqsign_core=trace,reqsign_core::api=trace".to_owned());
        let server = setup.start();
        assert_eq!(upload(&server, Door::Rest, 1, b"x", false), 201);
        let lines = server.log();
        assert!(lines.len() > 20, "a trace has many lines: {}", lines.len());
        let found: Vec<_> = lines.iter().filter(|line| line.contains(SECRET_KEY)).collect();
        assert!(found.is_empty(), "{found:?}");
        // The filter itself is in a line of ours.
        let signs = |line: &&String| line.contains("\"target\":\"reqsign") || line.contains("\"log.target\":\"reqsign");
        assert_eq!(lines.iter().find(signs), None, "what signs is silent");
    }
    assert_ne!(ACCESS_KEY, SECRET_KEY);
}

#[test]
fn a_storage_that_does_not_compare_versions_is_refused_unless_nobody_else_writes_there() {
    let place = Engine::Moto.place();
    let endpoint = way::to(&place, |mut request| {
        // As with a server that does not know conditions.
        request.fields.retain(|field| !field.to_lowercase().starts_with("if-"));
        request.pass()
    });
    let said = refused(&with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint));
    assert!(said.contains("does not compare versions") && said.contains("storage.sole_writer"), "{said}");

    let mut alone = with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint);
    alone.variables.extend(BTreeMap::from([("ATTACHD_STORAGE__SOLE_WRITER", "true".to_owned())]));
    let server = alone.start();
    assert_eq!(upload(&server, Door::Rest, 1, b"one", true), 201);
    assert_eq!(upload(&server, Door::Grpc, 1, b"two", true), 412);
    assert_eq!(upload(&server, Door::Grpc, 1, b"three", false), 201);
    assert_eq!(place.stored(&server, 1), Some(crate::conformance::digest(b"three")));
}

#[test]
fn a_storage_that_lets_two_win_that_put_at_once_is_refused() {
    let place = Engine::S3Mock.place();
    let said = refused(&place.setup());
    assert!(said.contains("does not compare versions of puts that come at once: it carried out "), "{said}");
    assert!(said.contains("storage.sole_writer = true") && !said.contains("nternal server error"), "{said}");
    let mut alone = place.setup();
    alone.variables.insert("ATTACHD_STORAGE__SOLE_WRITER", "true".to_owned());
    let server = alone.start();
    for door in DOORS {
        let bytes = noise(3000, 1);
        assert_eq!(upload(&server, door, 1, &bytes, false), 201);
        assert_eq!(place.stored(&server, 1), Some(digest(&bytes)));
    }
}

#[test]
fn a_storage_that_does_not_say_which_version_it_returns_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut gateway = spawn(&mut versitygw(folder.path(), port, &["--nometa"]));
    let endpoint = format!("http://127.0.0.1:{port}");
    let look = Look::at("s3", &endpoint, BUCKET);
    look.make();
    let place = Place::at("s3", Arc::new(Running::elsewhere(endpoint, look)), "nometa");
    let said = refused(&place.setup());
    assert!(said.contains("storage: the storage does not say which version of an object it returned"), "{said}");
    assert!(said.contains("storage.sole_writer = true"), "{said}");
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}

/// Answers a request whose condition does not hold.
fn does_not_hold(request: way::Request) -> std::io::Result<()> {
    request.answer("412 Precondition Failed", "<Error><Code>PreconditionFailed</Code><Message>no</Message></Error>")
}

#[test]
fn a_storage_that_compares_tags_without_their_quotes_alone_is_served_so() {
    let place = Engine::Moto.place();
    let endpoint = way::to(&place, |mut request| match request.field("if-match") {
        Some(tag) if tag.starts_with('"') => does_not_hold(request),
        Some(tag) => {
            request.fields.retain(|field| !field.to_lowercase().starts_with("if-match:"));
            request.fields.push(format!("If-Match: \"{tag}\""));
            request.pass()
        }
        None => request.pass(),
    });
    let server = with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint).start();
    for door in DOORS {
        for seed in [1, 2] {
            let bytes = noise(3000, seed);
            assert_eq!(upload(&server, door, 1, &bytes, false), 201);
            assert_eq!(place.stored(&server, 1), Some(digest(&bytes)));
        }
        assert_eq!(upload(&server, door, 1, b"x", true), 412);
    }
}

#[test]
fn a_storage_that_sends_tags_without_quotes_and_compares_them_with_quotes_is_served_so() {
    let place = Engine::Moto.place();
    let endpoint = way::to(&place, |request| {
        if request.field("if-match").is_some_and(|tag| !tag.starts_with('"')) {
            return does_not_hold(request);
        }
        let reply = request.carry_out()?;
        let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(reply[..end].to_vec()).unwrap();
        let bare =
            |line: &str| if line.to_lowercase().starts_with("etag:") { line.replace('"', "") } else { line.to_owned() };
        let head: Vec<String> = head.split("\r\n").map(bare).collect();
        request.reply(&[head.join("\r\n").as_bytes(), &reply[end..]].concat())
    });
    let server = with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint).start();
    for seed in [1, 2] {
        let bytes = noise(3000, seed);
        assert_eq!(upload(&server, Door::Rest, 1, &bytes, false), 201);
        assert_eq!(place.stored(&server, 1), Some(digest(&bytes)));
    }
    assert_eq!(upload(&server, Door::Rest, 1, b"x", true), 412);
}

#[test]
fn a_storage_that_refuses_the_version_that_stands_is_refused_in_words() {
    let place = Engine::Moto.place();
    let endpoint = way::to(&place, |request| match request.field("if-match") {
        Some(_) => does_not_hold(request),
        None => request.pass(),
    });
    let said = refused(&with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint));
    assert!(said.contains("storage: the storage refuses a put that names the version which stands"), "{said}");
    assert!(said.contains("storage.sole_writer = true"), "{said}");
}

/// The probe takes longer than an upload waits for it, and goes on when that upload has its answer.
#[test]
fn a_storage_that_comes_late_and_answers_slowly_is_served_in_the_end() {
    let place = Engine::Moto.secluded();
    let there = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&there);
    let endpoint = way::to(&place, move |request| {
        if !seen.load(Ordering::SeqCst) {
            return request.answer("503 Service Unavailable", "");
        }
        std::thread::sleep(Duration::from_millis(100));
        request.pass()
    });
    let mut setup = with(&place, "ATTACHD_STORAGE__OPTIONS__ENDPOINT", &endpoint);
    setup.storage = "timeout = \"3s\"\n".to_owned();
    setup.ready = false;
    let server = setup.start();
    assert_eq!(server.readiness()["ready"], false);
    assert_eq!(upload(&server, Door::Rest, 1, b"x", false), 503);
    there.store(true, Ordering::SeqCst);
    assert_eq!(upload(&server, Door::Rest, 1, b"x", false), 503);
    eventually("it is served", || upload(&server, Door::Rest, 1, b"x", false) == 201);
    assert_eq!(server.readiness()["ready"], true);
}

#[test]
fn a_bucket_that_holds_nothing_is_warned_of_at_the_start_and_by_check() {
    for engine in [Engine::Moto, Engine::Azurite, Engine::FakeGcs] {
        let place = engine.place();
        let warned = |said: &str| said.contains("holds no attachments: the storage is new, or this is not the one");
        let (code, said) = place.run("", &["check"]);
        assert_eq!((code, warned(&said)), (Some(0), true), "{said}");
        let server = place.start();
        eventually("it is warned of", || server.log().iter().any(|line| warned(line)));
        assert_eq!(upload(&server, Door::Rest, 1, b"x", false), 201);
        drop(server);
        assert!(!place.start().log().iter().any(|line| warned(line)), "{engine:?}");
        let (code, said) = place.run("", &["check"]);
        assert_eq!((code, warned(&said)), (Some(0), false), "{said}");
    }
}

#[test]
fn a_bucket_of_another_layout_or_of_other_things_is_refused_by_every_command() {
    for engine in [Engine::Moto, Engine::Azurite, Engine::FakeGcs] {
        for (key, text, why) in [
            ("attachd.json", "{\"layout\":3}", "attachd.json says that the storage has layout 3"),
            ("attachd.json", "layout: 2", "attachd.json is not one of attachd's"),
            ("thesis.txt", "text", "holds no attachd.json, but \"thesis.txt\""),
            ("clients/1/attachments/2/record.json", "{}", "holds clients/ but no attachd.json"),
        ] {
            let place = engine.place();
            place.look().put(&format!("{}{key}", place.root), text);
            for (command, code) in [("serve", 2), ("check", 2), ("verify", 1), ("gc", 1)] {
                let (ended, said) = ended(&place.setup(), command);
                assert_eq!(ended, Some(code), "{engine:?}, {command}: {said}");
                assert!(said.contains(why), "{engine:?}, {command}: {said}");
            }
            let left: Vec<String> = place.look().list(&place.root).into_keys().collect();
            assert_eq!(left, [format!("{}{key}", place.root)], "{engine:?}");
        }
    }
}

#[test]
fn a_new_bucket_is_marked_by_a_start_and_by_no_command_that_only_looks() {
    for engine in [Engine::Moto, Engine::Azurite, Engine::FakeGcs] {
        let place = engine.place();
        let marker = format!("{}attachd.json", place.root);
        for words in [&["verify", "--allow-empty"][..], &["gc", "--delete"]] {
            let (code, said) = place.run("", words);
            assert_eq!(code, Some(0), "{engine:?}: {said}");
            assert!(place.look().list(&place.root).is_empty(), "{engine:?}: {words:?}");
        }
        // Two at once.
        let servers = [place.setup(), place.setup()].map(|setup| std::thread::spawn(|| setup.start()));
        let _servers = servers.map(|server| server.join().unwrap());
        let marked = place.look().digest(&marker).map(|(_, digest)| digest);
        assert_eq!(marked, Some(hex(&sha256(MARKER.as_bytes()))), "{engine:?}");
    }
}
