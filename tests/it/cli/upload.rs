//! `attachd upload`: what it prints, and how it ends.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use super::{Outcome, attachd};
use crate::harness::{Server, hex, noise, sha256, token};

/// A file and a token beside each other, and an upload of the one with the other.
struct Uploader {
    here: tempfile::TempDir,
    to: String,
}

impl Uploader {
    fn new(server: &Server, bytes: &[u8]) -> Uploader {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("some file.bin"), bytes).unwrap();
        fs::write(here.path().join("token"), token(&[1]) + "\n").unwrap();
        Uploader { here, to: format!("http://{}", server.grpc) }
    }

    fn upload(&self, file: &str, more: &[&str]) -> Outcome {
        let target = ["upload", file, "--client", "1", "--attachment", "2", "--to", &self.to];
        attachd(self.here.path(), &[&target, more].concat(), &[])
    }
}

#[test]
fn an_upload_prints_the_stored_attachment() {
    let server = Server::start();
    for bytes in [noise(2_500_000, 1), Vec::new()] {
        let uploader = Uploader::new(&server, &bytes);
        let outcome = uploader
            .upload("some file.bin", &["--token-file", "token", "--content-type", "text/plain", "--project", "5"]);
        // The first upload settles the project; the attachment belongs to it from then on.
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        let stored: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let expected = serde_json::json!({
            "client_id": 1, "attachment_id": 2, "project_id": 5, "portfolio_id": null, "filename": "some file.bin",
            "content_type": "text/plain", "size": bytes.len(), "sha256": hex(&sha256(&bytes)),
            "created_at": stored["created_at"], "uploaded_by": "tester",
        });
        assert_eq!(stored, expected);
        let created = server.record(1, 2).unwrap()["created_at"].as_str().unwrap().to_owned();
        assert_eq!(stored["created_at"].as_str().unwrap()[..19], created[..19]);
        assert_eq!(server.stored(1, 2).unwrap(), bytes);
    }
}

#[test]
fn an_upload_that_is_refused_says_why_and_ends_with_one() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"x");
    fs::write(uploader.here.path().join("wrong"), "a.b.c").unwrap();
    fs::write(uploader.here.path().join("other"), token(&[2])).unwrap();
    for (file, more, words) in [
        ("some file.bin", &["--token-file", "wrong"][..], ["TOKEN_INVALID", "JWT token invalid"]),
        ("some file.bin", &["--token-file", "other"], ["FORBIDDEN", "Insufficient permissions"]),
        ("some file.bin", &[], ["TOKEN_MISSING", "JWT token not found"]),
        ("some file.bin", &["--token-file", "nowhere"], ["nowhere", "No such file"]),
        ("nothing.bin", &["--token-file", "token"], ["nothing.bin", "No such file"]),
    ] {
        let outcome = uploader.upload(file, more);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{more:?}: {}", outcome.stderr);
    }
    assert!(server.record(1, 2).is_none());
}

#[test]
fn an_upload_to_nobody_names_the_address() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, b"x");
    // A port that is taken by who does not listen.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    uploader.to = format!("http://{closed}");
    let outcome = uploader.upload("some file.bin", &["--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""));
    assert!(outcome.stderr.contains(&uploader.to) && outcome.stderr.contains("refused"), "{outcome:?}");
    uploader.to = "not an address".to_owned();
    let outcome = uploader.upload("some file.bin", &["--token-file", "token"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--to"), "{outcome:?}");
}

#[test]
fn an_upload_that_shall_not_replace_does_not() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"first");
    let absent = ["--token-file", "token", "--if-absent"];
    assert_eq!(uploader.upload("some file.bin", &absent).code, Some(0));
    fs::write(uploader.here.path().join("some file.bin"), "second").unwrap();
    let outcome = uploader.upload("some file.bin", &absent);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("ALREADY_EXISTS"), "{outcome:?}");
    assert_eq!(server.stored(1, 2).unwrap(), b"first");
}
