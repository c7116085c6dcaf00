//! `attachd dev`: what it prints works, and what it keeps to itself stays there.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Running, made};
use crate::harness::{Connection, Form, read_record, record_path};

/// A development server and what it printed.
struct Dev {
    process: Running,
    text: String,
}

impl Dev {
    /// Starts one with these arguments beside those that keep it off the well-known ports.
    fn start(folder: &Path, arguments: &[&str]) -> Dev {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        let ports = ["--rest", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
        command.arg("dev").args(ports).args(arguments).env_clear().current_dir(folder);
        let mut process = Running(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut text = String::new();
        let mut stdout = BufReader::new(process.0.stdout.take().unwrap());
        while !text.contains("Ctrl-C") {
            assert_ne!(stdout.read_line(&mut text).unwrap(), 0, "it ended after: {text}");
        }
        Dev { process, text }
    }

    /// The line after the one that reads `title`, and those that it continues on.
    fn after(&self, title: &str) -> String {
        let lines = self.text.lines().skip_while(|line| *line != title).skip(1).take_while(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("\n")
    }

    fn token(&self) -> String {
        self.after("token (12 hours, all clients):")
    }

    /// What the printed curl command does, done without curl: its address, path and token.
    fn upload(&self, token: &str) -> u16 {
        let command = self.after("Upload over REST:");
        let url = command.split_whitespace().last().unwrap().strip_prefix("http://").unwrap();
        let (address, path) = url.split_once('/').unwrap();
        let head = "Content-Disposition: form-data; name=\"file\"; filename=\"hello.txt\"\r\nContent-Type: text/plain";
        let form = Form::default().part(head, b"hello\n");
        let mut connection = Connection::open(address.parse::<SocketAddr>().unwrap());
        connection.upload_with(token, &format!("/{path}"), &[], &form).status
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_development_server_prints_commands_that_work() {
    let here = tempfile::tempdir().unwrap();
    // A name that a shell would take apart.
    let data = here.path().join("it's data");
    let mut dev = Dev::start(here.path(), &["--data", data.to_str().unwrap()]);
    let curl = dev.after("Upload over REST:");
    assert!(curl.contains(&format!("'Authorization: Bearer {}'", dev.token())), "{curl}");
    assert!(
        curl.contains("echo 'hello' | curl ") && curl.contains("'file=@-;filename=hello.txt;type=text/plain'"),
        "{curl}"
    );
    assert_eq!(dev.upload(&dev.token()), 201);
    let record = |attachment: i64| read_record(&record_path(&data, 1, attachment)).unwrap().0["content"].clone();
    assert_eq!((&record(1)["filename"], &record(1)["content_type"]), (&"hello.txt".into(), &"text/plain".into()));

    let page = dev.after("Open this page in a browser to upload files:");
    let (page, token) = page.split_once("/#token=").expect("the token is not sent to a server");
    assert_eq!(token, dev.token());
    let page = page.strip_prefix("http://").unwrap().parse::<SocketAddr>().unwrap();
    assert_eq!(Connection::open(page).request("GET", "/", &[], b"").header("content-type"), "text/html; charset=utf-8");

    let command = dev.after("Upload over gRPC:");
    let done = Command::new("sh").args(["-c", &command]).env_clear().output().unwrap();
    assert!(done.status.success(), "{command}: {done:?}");
    let stored: Value = serde_json::from_slice(&done.stdout).unwrap();
    let program = fs::metadata(env!("CARGO_BIN_EXE_attachd")).unwrap();
    assert_eq!((&stored["size"], &stored["filename"]), (&program.len().into(), &"attachd".into()));
    assert_eq!(record(2)["sha256"], stored["sha256"]);
    let admin = dev.text.lines().find_map(|line| line.trim().strip_prefix("admin  http://")).unwrap();
    let admin = admin.strip_suffix("/readyz").unwrap().parse::<SocketAddr>().unwrap();
    assert_eq!(Connection::open(admin).request("GET", "/readyz", &[], b"").status, 200);
    assert_eq!(dev.process.terminate(), Some(0));
}

#[test]
fn a_development_server_keeps_its_key_to_itself_and_from_one_start_to_the_next() {
    let here = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(here.path(), &["--data", "data"]);
    let old = dev.token();
    let (key, token) = (here.path().join("data/dev-signing-key"), here.path().join("data/dev-token"));
    assert_eq!((mode(&key), mode(&token)), (0o600, 0o600));
    assert_eq!(fs::read_to_string(&token).unwrap(), old);
    let secret = fs::read(&key).unwrap();
    assert_eq!(dev.process.terminate(), Some(0));

    let dev = Dev::start(here.path(), &["--data", "data"]);
    assert_eq!(fs::read(&key).unwrap(), secret);
    assert_eq!(dev.upload(&old), 201);
    assert_eq!(dev.upload(&made(here.path(), &["--data", "data", "--client", "1"])), 201);
    assert_eq!(dev.upload(&made(here.path(), &["--data", "data", "--client", "2"])), 403);
    let other = Dev::start(here.path(), &["--data", "other"]);
    assert_eq!(other.upload(&old), 401, "each folder has a key of its own");
}

#[test]
fn a_development_server_writes_its_token_where_it_is_told_to_for_its_owner_only() {
    let here = tempfile::tempdir().unwrap();
    let file = here.path().join("token");
    fs::write(&file, "one that others could read, and that was longer than any token is ".repeat(100)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let dev = Dev::start(here.path(), &["--data", "data", "--token-file", "token"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), dev.token());
    assert_eq!(mode(&file), 0o600);
    assert!(!here.path().join("data/dev-token").exists());
    assert_eq!(dev.upload(&dev.token()), 201);
}

#[test]
fn a_link_in_the_place_of_the_key_or_the_token_is_refused() {
    for name in ["dev-signing-key", "dev-token"] {
        let folder = tempfile::tempdir().unwrap();
        let (data, outside) = (folder.path().join("data"), folder.path().join("outside"));
        fs::create_dir(&data).unwrap();
        fs::write(&outside, "a secret of 32 bytes or more, kept").unwrap();
        std::os::unix::fs::symlink(&outside, data.join(name)).unwrap();
        let ended = crate::harness::run(&["dev", "--data", data.to_str().unwrap()]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{name} is a symbolic link; delete it")), "{said}");
        assert_eq!(fs::read(&outside).unwrap(), b"a secret of 32 bytes or more, kept");
    }
}
