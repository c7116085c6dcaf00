//! `attachd get`, `list` and `delete`: what they print, and how they end.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::upload::Uploader;
use super::{Outcome, Running, attachd};
use crate::harness::{Server, claims, hex, mint, record_path, sha256, token};

/// A token with these scopes for client 1.
pub fn scoped(scope: &str) -> String {
    let mut claims = claims(&[1]);
    claims["scope"] = json!(scope);
    mint(&claims)
}

impl Uploader {
    /// Runs a command for client 1.
    pub fn run(&self, command: &str, more: &[&str]) -> Outcome {
        attachd(self.here.path(), &[&[command, "--client", "1", "--to", &self.to], more].concat(), &[])
    }

    /// Runs a command for client 1 with the token, and looks that it succeeds without a complaint.
    fn good(&self, command: &str, more: &[&str]) -> String {
        let outcome = self.run(command, &[more, &["--token-file", "token"]].concat());
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{command} {more:?}");
        outcome.stdout
    }

    /// Uploads a file with this content.
    pub fn put(&self, attachment: &str, bytes: &[u8]) {
        fs::write(self.here.path().join("some file.bin"), bytes).unwrap();
        self.good("upload", &["some file.bin", "--attachment", attachment]);
    }

    /// Writes the token that the commands use.
    pub fn use_token(&self, token: &str) {
        fs::write(self.here.path().join("token"), token).unwrap();
    }
}

fn values(text: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(text).into_iter().collect::<Result<_, _>>().unwrap()
}

#[test]
fn get_prints_what_an_upload_printed() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    let stored = uploader.good("upload", &["some file.bin", "--attachment", "2"]);
    assert_eq!(uploader.good("get", &["--attachment", "2"]), stored);
    uploader.good("register", &["--attachment", "3"]);
    let found = values(&uploader.good("get", &["--attachment", "3,2"]));
    assert_eq!((&found[0]["attachment_id"], &found[0]["size"]), (&json!(3), &Value::Null));
    assert_eq!(found[1]["sha256"], hex(&sha256(b"content")));
    let outcome = uploader.run("get", &["--attachment", "9,2", "--token-file", "token"]);
    assert_eq!((outcome.code, values(&outcome.stdout).len()), (Some(1), 1), "{outcome:?}");
    let words = ["attachd: attachment 9: NotFound NOT_FOUND: ", "attachd: 1 of 2 failed"];
    assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");
}

#[test]
fn a_command_that_reads_or_deletes_says_why_it_is_refused() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.put("2", b"content");
    fs::write(uploader.here.path().join("writer"), scoped("attachments:write")).unwrap();
    fs::write(uploader.here.path().join("other"), token(&[2])).unwrap();
    for command in [
        &["get", "--attachment", "2"][..],
        &["list"],
        &["delete", "--attachment", "2"],
        &["download", "--attachment", "2", "-o", "-"],
        &["download", "--attachment", "2", "-o", "new"],
    ] {
        for (more, words) in [
            (&[][..], "Unauthenticated TOKEN_MISSING: JWT token not found"),
            (&["--token-file", "other"], "PermissionDenied FORBIDDEN: Insufficient permissions"),
            (&["--token-file", "writer"], "PermissionDenied FORBIDDEN: Insufficient permissions"),
        ] {
            let outcome = uploader.run(command[0], &[&command[1..], more].concat());
            assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{command:?}: {outcome:?}");
            let said = outcome.stderr.contains(words) && outcome.stderr.contains("(request id ");
            assert!(said, "{command:?} {more:?}: {outcome:?}");
        }
        let unreachable = Uploader { here: tempfile::tempdir().unwrap(), to: "http://127.0.0.1:1".to_owned() };
        let outcome = unreachable.run(command[0], &command[1..]);
        assert_eq!(outcome.code, Some(3), "{command:?}: {outcome:?}");
        assert!(outcome.stderr.contains("connection refused"), "{outcome:?}");
    }
    assert!(!uploader.here.path().join("new").exists() && !uploader.here.path().join("new.part").exists());
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn delete_deletes_and_with_if_match_that_content_alone() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.put("2", b"content");
    uploader.put("3", b"");
    uploader.use_token(&scoped("attachments:read attachments:delete"));
    let (other, tag) = (hex(&sha256(b"other")), hex(&sha256(b"content")));
    let delete = |more: &[&str]| uploader.run("delete", &[more, &["--token-file", "token"]].concat());
    let outcome = delete(&["--attachment", "2", "--if-match", &other]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    let words = "attachd: attachment 2: FailedPrecondition PRECONDITION_FAILED: ";
    assert!(outcome.stderr.starts_with(words), "{outcome:?}");
    let outcome = delete(&["--attachment", "2,3", "--if-match", &tag]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--if-match is for one attachment"), "{outcome:?}");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");

    assert_eq!(uploader.good("delete", &["--attachment", "2", "--if-match", &tag]), "");
    assert_eq!(uploader.good("delete", &["--attachment", "3", "--if-match", "*"]), "");
    // Again it changes nothing.
    assert_eq!(uploader.good("delete", &["--attachment", "2,3"]), "");
    assert_eq!(uploader.good("list", &[]), "");
    let outcome = delete(&["--attachment", "4"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("attachment 4: NotFound NOT_FOUND"), "{outcome:?}");
}

#[test]
fn list_prints_all_pages_as_json_or_as_a_table() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.good("register", &["--attachment", "1,2,3,4,5,6", "--project", "5"]);
    uploader.put("7", b"content");
    let ids =
        |text: &str| values(text).iter().map(|found| found["attachment_id"].as_i64().unwrap()).collect::<Vec<_>>();
    for size in ["1", "3", "7", "1000"] {
        assert_eq!(ids(&uploader.good("list", &["--page-size", size])), [1, 2, 3, 4, 5, 6, 7], "{size}");
    }
    for (limit, last) in [("1", 1), ("2", 2), ("3", 3), ("7", 7), ("8", 7)] {
        let listed = uploader.good("list", &["--page-size", "2", "--limit", limit]);
        assert_eq!(ids(&listed), (1..=last).collect::<Vec<_>>(), "{limit}");
    }
    assert_eq!(ids(&uploader.good("list", &["--project", "5", "--page-size", "4"])), [1, 2, 3, 4, 5, 6]);
    let json = uploader.good("list", &["--output", "json"]);
    assert_eq!(json.lines().count(), 7);
    assert_eq!(values(&json)[6], values(&uploader.good("get", &["--attachment", "7"]))[0]);

    let table = uploader.good("list", &["--page-size", "3", "--output", "table"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["ATTACHMENT", "PROJECT", "PORTFOLIO", "SIZE", "CREATED", "TYPE", "NAME"]);
    let numbers: Vec<_> = rows[1..].iter().map(|row| row[0]).collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(rows[1][..4], ["1", "5", "-", "-"]);
    assert_eq!(
        (&rows[7][..4], &rows[7][5..]),
        (&["7", "-", "-", "7"][..], &["application/octet-stream", "some", "file.bin"][..])
    );
    assert_eq!(rows.len(), 8);
    for (option, value) in [("--page-size", "0"), ("--page-size", "1001"), ("--limit", "0"), ("--output", "xml")] {
        let outcome = uploader.run("list", &[option, value]);
        assert_eq!(outcome.code, Some(2), "{option} {value}");
        assert!(outcome.stderr.contains(option), "{outcome:?}");
    }
}

#[test]
fn list_goes_on_past_a_damaged_record_and_ends_with_one() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.good("register", &["--attachment", "1,2,3"]);
    fs::write(record_path(server.root(), 1, 2), "nonsense").unwrap();
    for output in ["json", "table"] {
        let outcome = uploader.run("list", &["--page-size", "1", "--output", output, "--token-file", "token"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let complaint =
            "attachd: client 1: attachments left out because their record is damaged: 1; the log of the server \
                         names them
";
        assert_eq!(outcome.stderr, complaint);
        let rows = outcome.stdout.lines().count();
        assert_eq!(rows, if output == "json" { 2 } else { 3 }, "{outcome:?}");
    }
    // The harness would look that all records are sound.
    server.kill();
}

#[test]
fn a_list_whose_reader_is_gone_stops_and_succeeds() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.good("register", &["--attachment", "1,2,3"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let target = ["list", "--client", "1", "--page-size", "1", "--to", &uploader.to, "--token-file", "token"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(target).env_clear().current_dir(uploader.here.path()).stdout(writer).stderr(Stdio::piped());
    let mut child = Running(command.spawn().unwrap());
    assert_eq!(child.0.wait().unwrap().code(), Some(0));
    // Three registrations and one page; a second page would have ended before the command did.
    crate::harness::eventually("all requests are logged", || server.events("request").len() >= 4);
    assert_eq!(server.events("request").len(), 4);
}
