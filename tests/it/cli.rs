//! The command line: what each command says, how it ends, and that a wrong configuration starts nothing.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Form, Server, Setup, eventually};

mod completions;
mod dev;
mod download;
mod man;
mod output;
mod proxy;
mod reads;
mod register;
mod remote;
mod retry;
mod settings;
mod source;
mod stalled;
mod upload;

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs the program in a folder to its end, which comes soon or is a failure.
pub fn attachd(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(arguments).env_clear().envs(variables.iter().copied()).current_dir(folder);
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    eventually(&format!("{arguments:?} ends"), || child.0.try_wait().unwrap().is_some());
    let mut outcome = Outcome { code: child.0.wait().unwrap().code(), stdout: String::new(), stderr: String::new() };
    child.0.stdout.take().unwrap().read_to_string(&mut outcome.stdout).unwrap();
    child.0.stderr.take().unwrap().read_to_string(&mut outcome.stderr).unwrap();
    outcome
}

/// A process that ends with its test.
pub struct Running(pub Child);

impl Running {
    /// Asks it to end, and returns its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        Command::new("kill").arg(self.0.id().to_string()).status().unwrap();
        self.0.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn entries(folder: &Path) -> BTreeSet<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// A folder with a good configuration in which `from` is replaced by `to`.
fn configured(from: &str, to: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let path = Setup::default().write(folder.path());
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
    folder
}

/// Looks that the configuration in a folder starts nothing, and that the reason has these words.
fn assert_refused(folder: &Path, variables: &[(&str, &str)], words: &[&str]) {
    for command in ["serve", "check"] {
        let before = entries(folder);
        let outcome = attachd(folder, &[command, "--config", "attachd.toml"], variables);
        assert_eq!(outcome.code, Some(2), "{command}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{command}");
        for word in words {
            assert!(outcome.stderr.contains(word), "{command} does not say {word}: {}", outcome.stderr);
        }
        assert_eq!(entries(folder), before, "{command} has created something");
    }
}

#[test]
fn every_command_explains_itself_and_names_its_options() {
    let here = tempfile::tempdir().unwrap();
    let all: [(&[&str], &[&str]); 12] = [
        (&[], &["serve", "dev", "check", "token", "register", "upload", "--help", "--version", "Exit codes"]),
        (&["serve"], &["--config", "ATTACHD_LIMITS__MAX_UPLOAD_SIZE"]),
        (&["check"], &["--config"]),
        (&["dev"], &["--data", "--rest", "--grpc", "--admin", "--token-file", "[default: attachd-data]"]),
        (&["token"], &["--config", "--data", "--client", "--project", "--portfolio", "--scope", "--ttl", "--key"]),
        (
            &["upload"],
            &[
                "<FILE>",
                "--client",
                "--attachment",
                "--to",
                "--token-file",
                "--if-absent",
                "--content-type",
                "--filename",
                "--retry",
                "ATTACHD_TOKEN",
                "try again later",
            ],
        ),
        (
            &["register"],
            &["--client", "--attachment", "--to", "--token-file", "--retry", "ATTACHD_TOKEN", "Exit codes"],
        ),
        (&["get"], &["--client", "--attachment", "--to", "--token-file", "--retry", "Exit codes"]),
        (&["list"], &["--client", "--project", "--limit", "--page-size", "--output", "--to", "--retry", "Exit codes"]),
        (&["download"], &["--client", "--attachment", "-o", "--force", "--to", "--retry", "Exit codes"]),
        (&["completions"], &["bash", "zsh", "fish"]),
        (&["delete"], &["--client", "--attachment", "--if-match", "--to", "--retry", "Exit codes"]),
    ];
    for (command, words) in all {
        let help = attachd(here.path(), &[command, &["--help"]].concat(), &[]);
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command:?}");
        for word in words {
            assert!(help.stdout.contains(word), "{command:?} does not say {word}: {}", help.stdout);
        }
        let version = attachd(here.path(), &[command, &["--version"]].concat(), &[]);
        assert_eq!(version.code, Some(0), "{command:?}: {version:?}");
        assert!(version.stdout.trim_end().ends_with(env!("CARGO_PKG_VERSION")), "{command:?}: {version:?}");
    }
    assert!(entries(here.path()).is_empty());
}

#[test]
fn a_command_line_that_is_wrong_is_refused_with_two() {
    let here = tempfile::tempdir().unwrap();
    let wrong: [(&[&str], &str); 7] = [
        (&[], "Usage"),
        (&["sevre"], "'serve'"),
        (&["serve"], "--config"),
        (&["serve", "--confg", "x"], "--config"),
        (&["token", "--data", "x"], "--client"),
        (&["token", "--client", "1"], "--config"),
        (&["upload", "x", "--client", "one", "--attachment", "1", "--to", "x"], "--client"),
    ];
    for (arguments, word) in wrong {
        let outcome = attachd(here.path(), arguments, &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(outcome.stderr.contains(word), "{arguments:?}: {}", outcome.stderr);
    }
    assert!(entries(here.path()).is_empty());
}

#[test]
fn a_configuration_that_is_wrong_is_refused_by_the_name_of_its_key_and_starts_nothing() {
    let refused = |from: &str, to: &str, words: &[&str]| assert_refused(configured(from, to).path(), &[], words);
    let size = "max_upload_size = 8388608";
    refused(size, "max_upload_size = = 1", &["attachd.toml", "line "]);
    refused(size, "max_uplaod_size = 1", &["limits.max_uplaod_size", "did you mean `max_upload_size`?"]);
    refused("[limits]", "[limitz]", &["limitz", "did you mean `limits`?"]);
    refused(size, "max_upload_size = 0", &["limits.max_upload_size"]);
    refused(size, "max_upload_size = \"much\"", &["limits.max_upload_size"]);
    refused(size, "memory_budget = 8388607", &["limits.memory_budget", "8.0 MiB"]);
    refused(size, "max_waiting_uploads = 0", &["limits.max_waiting_uploads"]);
    refused(size, "idle_timeout = \"soon\"", &["limits.idle_timeout", "soon"]);
    refused(size, "idle_timeout = \"0s\"", &["limits.idle_timeout"]);
    refused("service = \"fs\"", "service = \"fss\"", &["storage.service", "`fss`", "memory"]);
    refused("root = ", "rooot = ", &["storage.options.rooot", "did you mean `root`?"]);
    refused("on_unknown = \"create\"", "on_unknown = \"maybe\"", &["attachments.on_unknown", "maybe"]);
    refused("\"HS256\"", "\"none\"", &["auth.issuers[0].algorithms", "none"]);
    refused("\"secret\"", "\"secrets\"", &["auth.issuers[0].hmac_secret_file", "secrets"]);
    refused("\"debug\"", "\"a=b=c\"", &["log.filter"]);
    refused("127.0.0.1:0", "nowhere", &["rest.listen"]);
}

#[test]
fn a_configuration_that_is_not_there_is_refused_by_its_name() {
    let here = tempfile::tempdir().unwrap();
    assert_refused(here.path(), &[], &["attachd.toml"]);
}

#[test]
fn a_variable_that_is_wrong_is_refused_by_its_name_and_its_key() {
    for (variable, value, key) in [
        ("ATTACHD_LIMITZ__X", "1", "limitz"),
        ("ATTACHD_LIMITS__MAX_UPLAOD_SIZE", "1", "limits.max_uplaod_size"),
        ("ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "much", "limits.max_upload_size"),
        ("ATTACHD_LIMITS__MAX_UPLOAD_SIZE", "0", "limits.max_upload_size"),
        ("ATTACHD_LIMITS__IDLE_TIMEOUT", "soon", "limits.idle_timeout"),
        ("ATTACHD_REST__LISTEN", "nowhere", "rest.listen"),
        ("ATTACHD_STORAGE__SERVICE", "fss", "storage.service"),
        ("ATTACHD_STORAGE__OPTIONS__ROOOT", "x", "storage.options.rooot"),
        ("ATTACHD_AUTH__ISSUERS__0__AUDIENSE", "x", "auth.issuers[0].audiense"),
        ("ATTACHD_AUTH__ISSUERS__7__AUDIENCE", "x", "auth.issuers.7.audience"),
        ("ATTACHD_LOG__FILTER", "a=b=c", "log.filter"),
    ] {
        assert_refused(configured("", "").path(), &[(variable, value)], &[variable, key]);
    }
}

#[test]
fn a_good_configuration_is_checked_with_its_storage_and_nothing_stays_there() {
    let folder = configured("", "");
    // What Kubernetes sets for a service of our name is no override.
    let outcome =
        attachd(folder.path(), &["check", "--config", "attachd.toml"], &[("ATTACHD_PORT", "tcp://10.0.0.1:80")]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("attachd.toml"), "{outcome:?}");
    let root = folder.path().join("root");
    let probes = fs::read_dir(root.join("probe")).map(Iterator::count).unwrap_or_default();
    assert_eq!(probes, 0);
    assert!(!root.join("clients").exists());
}

#[test]
fn a_storage_that_does_not_work_is_found_by_a_check_and_by_a_start() {
    let folder = configured("", "");
    fs::remove_dir(folder.path().join("root")).unwrap();
    fs::write(folder.path().join("root"), "a file").unwrap();
    assert_refused(folder.path(), &[], &["storage.options.root"]);
    // A root that can be opened and not written to.
    let folder = configured("", "");
    fs::write(folder.path().join("root/probe"), "a file where the probe goes").unwrap();
    let outcome = attachd(folder.path(), &["check", "--config", "attachd.toml"], &[]);
    assert_ne!(outcome.code, Some(0));
    assert!(outcome.stderr.contains("storage"), "{outcome:?}");
}

#[test]
fn a_port_that_is_taken_is_a_failure_while_running_that_names_the_port() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for port in ["rest", "grpc", "admin"] {
        let folder = configured("", "");
        let variable = format!("ATTACHD_{}__LISTEN", port.to_uppercase());
        let outcome = attachd(folder.path(), &["serve", "--config", "attachd.toml"], &[(&variable, &address)]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let named = outcome.stderr.contains(&format!("{port}.listen")) && outcome.stderr.contains(&address);
        assert!(named, "{}", outcome.stderr);
    }
}

/// A token that `attachd token` makes with these arguments.
pub fn made(folder: &Path, arguments: &[&str]) -> String {
    let outcome = attachd(folder, &[&["token"], arguments].concat(), &[]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{arguments:?}");
    outcome.stdout.trim_end().to_owned()
}

#[test]
fn a_token_that_was_made_covers_what_was_asked_for_and_nothing_else() {
    let server = Server::start();
    let config = server.config();
    let here = config.parent().unwrap();
    let make = |more: &[&str]| made(here, &[&["--config", "attachd.toml"], more].concat());
    let status = |token: &str, client: i64, query: &str| {
        let path = format!("/api/v2/clients/{client}/attachments/1{query}");
        server.connect().upload_with(token, &path, &[], &Form::file(b"x")).status
    };
    let some = make(&["--client", "1", "2", "--client", "3"]);
    assert_eq!([1, 2, 3, 4].map(|client| status(&some, client, "")), [201, 201, 201, 403]);
    assert!(server.record(4, 1).is_none());
    let all = make(&["--client", "*"]);
    assert_eq!(status(&all, 9_000_000_000, ""), 201);
    assert_eq!(status(&all, 5, "?project_id=7"), 403);
    let project = make(&["--client", "*", "--project", "7", "--portfolio", "*"]);
    assert_eq!(status(&project, 5, "?project_id=7&portfolio_id=8"), 201);
    assert_eq!(status(&project, 6, "?project_id=8"), 403);
    let reader = make(&["--client", "1", "--scope", "attachments:read"]);
    assert_eq!(status(&reader, 1, ""), 403);
    let named = make(&["--client", "8", "--subject", "ada"]);
    assert_eq!(status(&named, 8, ""), 201);
    assert_eq!(server.content(8, 1)["uploaded_by"], "ada");
}

#[test]
fn a_token_holds_for_its_time_and_the_leeway() {
    let strict = Setup { variables: [("ATTACHD_AUTH__LEEWAY", "0s".to_owned())].into(), ..Setup::default() }.start();
    let lenient = Server::start();
    let config = strict.config();
    let token = made(config.parent().unwrap(), &["--config", "attachd.toml", "--client", "1", "--ttl", "1s"]);
    let mut connection = strict.connect();
    let mut attachment = 0;
    eventually("it expires", || {
        attachment += 1;
        let reply = connection.upload(&token, 1, attachment, &Form::file(b"x"));
        assert!(reply.status == 201 || reply.details() == "JWT token expired", "{reply:?}");
        reply.status == 401
    });
    assert!(strict.record(1, attachment).is_none());
    assert_eq!(lenient.connect().upload(&token, 1, 1, &Form::file(b"x")).status, 201);
}

#[test]
fn a_token_that_cannot_be_made_is_refused_with_the_reason() {
    let folder = configured("", "");
    for (arguments, word) in [
        (["--client", "1", "--ttl", "0s"], "ttl"),
        (["--client", "1", "--ttl", "soon"], "--ttl"),
        (["--client", "1", "--scope", "attachments:wirte"], "attachments:write"),
        (["--client", "1", "--issuer", "nobody"], "--issuer"),
        (["--client", "1", "--subject", ""], "subject"),
        (["--client", "1", "--key", "secret"], "private key"),
        (["--client", "0", "--ttl", "1h"], "--client"),
        (["--client", "*", "1", "--ttl=1h"], "--client"),
    ] {
        let outcome = attachd(folder.path(), &[&["token", "--config", "attachd.toml"], &arguments[..]].concat(), &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{arguments:?}: {outcome:?}");
        assert!(outcome.stderr.contains(word), "{arguments:?}: {}", outcome.stderr);
    }
    let outcome = attachd(folder.path(), &["token", "--data", "nowhere", "--client", "1"], &[]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("nowhere"), "{outcome:?}");
}
