//! What becomes of text that nobody reads, or that has no room.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, pipe};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::upload::Uploader;
use super::{Running, configured};
use crate::harness::storage::{HOUR, Storage};
use crate::harness::{Connection, Form, Server, eventually, token};

/// A pipe whose reader has gone.
fn closed() -> Stdio {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    writer.into()
}

/// Runs the program to its end with this standard output, and returns its exit code and what it complained about.
fn with_output(folder: &Path, arguments: &[&str], output: Stdio) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(arguments).env_clear().current_dir(folder).stdin(Stdio::null());
    let mut child = Running(command.stdout(output).stderr(Stdio::piped()).spawn().unwrap());
    eventually(&format!("{arguments:?} ends"), || child.0.try_wait().unwrap().is_some());
    let mut complaint = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    // What a configuration is warned of is no complaint.
    let complaint = complaint.lines().filter(|line| !line.starts_with("warning: ")).collect();
    (child.0.wait().unwrap().code(), complaint)
}

const PRINTING: [&[&str]; 11] = [
    &["--help"],
    &["--version"],
    &["upload", "--help"],
    &["openapi"],
    &["completions", "bash"],
    &["reference", "configuration"],
    &["reference", "metrics"],
    &["check", "--config", "attachd.toml"],
    &["config", "show", "--config", "attachd.toml"],
    &["token", "--config", "attachd.toml", "--client", "1"],
    &["token", "mint", "--config", "attachd.toml", "--client", "1"],
];

#[test]
fn a_command_whose_reader_is_gone_ends_quietly() {
    let folder = configured("", "");
    for command in PRINTING {
        assert_eq!(with_output(folder.path(), command, closed()), (Some(0), String::new()), "{command:?}");
    }
    let minted = super::made(folder.path(), &["--config", "attachd.toml", "--client", "1"]);
    fs::write(folder.path().join("token"), minted).unwrap();
    let inspect = ["token", "inspect", "--config", "attachd.toml", "--token-file", "token"];
    assert_eq!(with_output(folder.path(), &inspect, closed()), (Some(0), String::new()));
}

#[test]
fn a_text_that_has_no_room_is_a_failure_that_says_so() {
    let folder = configured("", "");
    for command in PRINTING {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (code, complaint) = with_output(folder.path(), command, full.into());
        assert_eq!(code, Some(1), "{command:?}: {complaint}");
        let words = "attachd: standard output cannot be written: No space left on device";
        assert!(complaint.starts_with(words) && complaint.lines().count() == 1, "{command:?}: {complaint}");
    }
}

#[test]
fn an_upload_whose_reader_is_gone_is_stored_and_succeeds() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    let target = ["--client", "1", "--attachment", "2", "--to", &uploader.to, "--token-file", "token"];
    let upload = [&["upload", "some file.bin"], &target[..]].concat();
    assert_eq!(with_output(uploader.here.path(), &upload, closed()), (Some(0), String::new()));
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
    let register = [&["register"], &target[..]].concat();
    assert_eq!(with_output(uploader.here.path(), &register, closed()), (Some(0), String::new()));
}

#[test]
fn a_walk_whose_reader_is_gone_stops_and_is_no_success() {
    let storage = Storage::new();
    storage.garbage(1, 2, 48 * HOUR);
    let data = storage.root().to_str().unwrap();
    for command in ["verify", "gc"] {
        let arguments = [command, "--verbose", "--data", data];
        assert_eq!(with_output(storage.root(), &arguments, closed()), (Some(1), String::new()), "{command}");
    }
}

#[test]
fn a_complaint_that_nobody_reads_leaves_the_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code) in [(&["serve", "--config", "nowhere.toml"][..], 2), (&["sevre"], 2), (&["openapi"], 0)] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(arguments).env_clear().current_dir(folder.path()).stdout(closed()).stderr(closed());
        assert_eq!(command.status().unwrap().code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_server_whose_log_nobody_reads_serves_on() {
    let folder = configured("", "");
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(["serve", "--config", "attachd.toml"]).env_clear().current_dir(folder.path());
    let mut server = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(server.0.stderr.take().unwrap());
    let rest = loop {
        let mut line = String::new();
        assert_ne!(log.read_line(&mut line).unwrap(), 0, "the server ended");
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["fields"]["port"] == "admin" {
            continue;
        }
        if event["fields"]["message"] == "listening" && event["fields"]["port"] == "rest" {
            break event["fields"]["address"].as_str().unwrap().to_owned();
        }
    };
    drop(log);
    for attachment in 1..4 {
        let reply = Connection::open(rest.parse().unwrap()).upload(&token(&[1]), 1, attachment, &Form::file(b"x"));
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    assert_eq!(server.terminate(), Some(0));
}
