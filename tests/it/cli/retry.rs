//! `--retry`: what is tried again, and what ends with the exit code for it.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Running;
use super::proxy::{proxy, pump, splice};
use super::upload::Uploader;
use crate::harness::{Answer, Provider, Server, Setup, SigningKey, eventually, hex, record_path, sha256};

#[test]
fn an_upload_to_a_server_that_is_not_up_yet_is_tried_until_it_is() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let uploader = Uploader { to: format!("http://{free}"), ..Uploader::new(&Server::start(), b"content") };
    let target = ["--client", "1", "--attachment", "2", "--to", &uploader.to, "--token-file", "token", "--retry=20"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.env_clear().current_dir(uploader.here.path()).args(["upload", "-"]).args(target);
    command.stdin(fs::File::open(uploader.here.path().join("some file.bin")).unwrap());
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut complaints = BufReader::new(child.0.stderr.take().unwrap());
    let mut first = String::new();
    complaints.read_line(&mut first).unwrap();
    assert!(
        first.contains("connection refused") && first.contains("trying again in 0.") && first.contains("(1 of 20)"),
        "{first}"
    );
    let server = Setup { variables: [("ATTACHD_GRPC__LISTEN", free)].into(), ..Setup::default() }.start();
    let mut rest = String::new();
    complaints.read_to_string(&mut rest).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(0), "{rest}");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn a_refusal_that_may_pass_ends_with_three_after_its_tries() {
    let (provider, key) = (Provider::start(), SigningKey::new("a"));
    provider.answer("/jwks", Answer::Reply(500, String::new(), Vec::new()));
    let jwks = format!("jwks_url = \"{}/jwks\"\nallow_http = true\n", provider.url());
    let auth = provider.auth("cooldown = \"100ms\"", &jwks);
    let server = Setup { auth: Some(auth), ..Setup::default() }.start();
    let uploader = Uploader::new(&server, b"x");
    fs::write(uploader.here.path().join("token"), provider.token(&key)).unwrap();
    let outcome = uploader.upload("some file.bin", &["--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""), "{outcome:?}");
    assert!(
        outcome.stderr.contains("Unavailable KEYS_UNAVAILABLE") && !outcome.stderr.contains("again in"),
        "{outcome:?}"
    );
    let outcome = uploader.upload("some file.bin", &["--token-file", "token", "--retry", "1"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""), "{outcome:?}");
    // The server asks for a second.
    assert!(outcome.stderr.contains("trying again in 1."), "{outcome:?}");
    assert!(outcome.stderr.matches("KEYS_UNAVAILABLE").count() == 2, "{outcome:?}");
}

#[test]
fn what_no_waiting_mends_is_not_tried_again() {
    let server = Server::strict();
    let uploader = Uploader::new(&server, b"x");
    let outcome = uploader.upload("some file.bin", &["--token-file", "token", "--retry"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("NOT_FOUND") && !outcome.stderr.contains("trying again"), "{outcome:?}");
}

#[test]
fn a_pipe_that_was_read_is_not_sent_twice() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, b"x");
    let cut = proxy(server.grpc, |_, client, server| pump(&client, &server, 1 << 16));
    uploader.to = format!("http://{cut}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    let target = ["--client", "1", "--attachment", "2", "--to", &uploader.to, "--token-file", "token", "--retry=9"];
    command.env_clear().current_dir(uploader.here.path()).args(["upload", "-"]).args(target).stdin(Stdio::piped());
    let mut child = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut input = child.0.stdin.take().unwrap();
    // It may end before all is written.
    let _ = std::io::Write::write_all(&mut input, &[7; 1 << 20]);
    drop(input);
    let mut said = String::new();
    child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.0.wait().unwrap().code(), Some(3), "{said}");
    assert!(said.contains("the input cannot be read a second time") && !said.contains("trying again"), "{said}");
    assert!(server.record(1, 2).is_none());
}

#[test]
fn an_upload_whose_answer_was_lost_is_stored_again_and_no_failure() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, b"content");
    let record = record_path(server.root(), 1, 2);
    // The first connection carries nothing back, and ends once the content is stored.
    let address = proxy(server.grpc, move |number, client, server| {
        if number > 0 {
            return splice(client, server);
        }
        let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || pump(&there.0, &there.1, usize::MAX));
        eventually("it is stored", || record.exists());
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    uploader.to = format!("http://{address}");
    let outcome = uploader.upload("some file.bin", &["--token-file", "token", "--retry"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("so it may be stored") && outcome.stderr.contains("trying again"), "{outcome:?}");
    let attachment: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&attachment["sha256"], &attachment["size"]), (&hex(&sha256(b"content")).into(), &7.into()));
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn an_upload_whose_answer_was_lost_is_known_by_its_digest_and_no_failure() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, b"content");
    let record = record_path(server.root(), 1, 2);
    // The first connection carries nothing back, and ends once the content is stored.
    let address = proxy(server.grpc, move |number, client, server| {
        if number > 0 {
            return splice(client, server);
        }
        let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || pump(&there.0, &there.1, usize::MAX));
        eventually("it is stored", || record.exists());
        let _ = client.shutdown(std::net::Shutdown::Both);
    });
    uploader.to = format!("http://{address}");
    let outcome = uploader.upload("some file.bin", &["--token-file", "token", "--retry", "--if-absent"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("so it may be stored") && outcome.stderr.contains("trying again"), "{outcome:?}");
    let attachment: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&attachment["sha256"], &attachment["size"]), (&hex(&sha256(b"content")).into(), &7.into()));
    // Content of somebody else is a refusal as ever.
    fs::write(uploader.here.path().join("some file.bin"), "other").unwrap();
    let outcome = uploader.upload("some file.bin", &["--token-file", "token", "--retry", "--if-absent"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("ALREADY_EXISTS"), "{outcome:?}");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}
