//! `attachd upload`: what it prints, and how it ends.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use super::{Outcome, attachd};
use crate::harness::{Authority, Server, Setup, hex, noise, sha256, token};

/// A file and a token beside each other, and an upload of the one with the other.
pub struct Uploader {
    pub here: tempfile::TempDir,
    pub to: String,
}

impl Uploader {
    pub fn new(server: &Server, bytes: &[u8]) -> Uploader {
        let here = tempfile::tempdir().unwrap();
        fs::write(here.path().join("some file.bin"), bytes).unwrap();
        fs::write(here.path().join("token"), token(&[1]) + "\n").unwrap();
        Uploader { here, to: format!("http://{}", server.grpc) }
    }

    pub fn upload(&self, file: &str, more: &[&str]) -> Outcome {
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
        let created = server.content(1, 2)["created_at"].as_str().unwrap().to_owned();
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
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""));
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

/// A server whose gRPC port speaks TLS, with these more lines in its table, and an uploader that has the authority's certificate
/// as `ca.pem`, that of a stranger as `other.pem`, and those of a client that is known as `client.pem` and `client.key`.
pub fn over_tls(more: &str) -> (Server, Uploader) {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    ours.server().write(folder.path(), "server");
    fs::write(folder.path().join("ca.pem"), ours.pem()).unwrap();
    let certificates = "[[auth.certificates]]\nidentity = \"CN=archiver,O=Example\"\nscopes = [\"attachments:write\"]\n\
         clients = [1]\n";
    let known = if more.is_empty() { "" } else { certificates };
    let tls = format!("[grpc.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n{more}\n{known}");
    let server = Setup { more: tls, ..Setup::default() }.start_in(folder);
    let mut uploader = Uploader::new(&server, b"content");
    let here = uploader.here.path();
    fs::write(here.join("ca.pem"), ours.pem()).unwrap();
    fs::write(here.join("other.pem"), theirs.pem()).unwrap();
    fs::write(here.join("nothing.pem"), "nothing").unwrap();
    ours.client("archiver", &[]).write(here, "client");
    theirs.client("archiver", &[]).write(here, "stranger");
    uploader.to = format!("https://{}", server.grpc);
    (server, uploader)
}

#[test]
fn an_upload_over_tls_goes_to_who_is_vouched_for_and_to_nobody_else() {
    let (server, uploader) = over_tls("");
    let by_token = |more: &[&str]| uploader.upload("some file.bin", &[&["--token-file", "token"], more].concat());
    let outcome = by_token(&["--ca-file", "ca.pem"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");

    // Neither another authority nor those of the system know this server.
    for more in [&["--ca-file", "other.pem"][..], &[]] {
        let outcome = by_token(more);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{more:?}: {outcome:?}");
        assert!(outcome.stderr.contains(&uploader.to) && outcome.stderr.contains("--ca-file"), "{outcome:?}");
    }
    // And no token goes out where no TLS is spoken.
    let plain = Uploader { to: uploader.to.replace("https", "http"), ..uploader };
    let outcome = plain.upload("some file.bin", &["--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    assert!(outcome.stderr.contains("the port speaks TLS; write https://"), "{outcome:?}");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn an_upload_may_show_a_certificate_in_place_of_a_token() {
    let (server, uploader) = over_tls("client_ca_file = \"ca.pem\"");
    let by = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let flags = ["--ca-file", "ca.pem", "--cert-file", &certificate, "--key-file", &key];
        uploader.upload("some file.bin", &flags)
    };
    let outcome = by("client");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let stored: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(stored["uploaded_by"], "CN=archiver,O=Example");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
    assert_eq!(by("stranger").code, Some(1));
    let without = uploader.upload("some file.bin", &["--ca-file", "ca.pem", "--token-file", "token"]);
    assert_eq!(without.code, Some(1), "{without:?}");
}

#[test]
fn what_an_upload_over_tls_is_told_wrong_is_named() {
    let (server, uploader) = over_tls("");
    for (to, more, words) in [
        (&uploader.to, &["--ca-file", "nothing.pem"][..], ["--ca-file: nothing.pem", "no certificate"]),
        (&uploader.to, &["--cert-file", "client.pem"], ["--key-file", "required"]),
        (&uploader.to, &["--key-file", "client.key"], ["--cert-file", "required"]),
        (&uploader.to, &["--cert-file", "nothing.pem", "--key-file", "client.key"], ["--cert-file", "no certificate"]),
        (&uploader.to, &["--cert-file", "client.pem", "--key-file", "stranger.key"], ["--key-file: stranger.key", ""]),
        (&uploader.to, &["--cert-file", "client.pem", "--key-file", "nothing.pem"], ["--key-file: nothing.pem", ""]),
        (&format!("http://{}", server.grpc), &["--ca-file", "ca.pem"], ["--ca-file", "https://"]),
        (&format!("ftp://{}", server.grpc), &[], ["--to", "https://"]),
        (&server.grpc.to_string(), &[], ["--to", ""]),
    ] {
        let target = ["upload", "some file.bin", "--client", "1", "--attachment", "2", "--to", to];
        let outcome = attachd(uploader.here.path(), &[&target, more].concat(), &[]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(2), ""), "{to} {more:?}: {outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{to} {more:?}: {}", outcome.stderr);
    }
    let outcome = uploader.upload("some file.bin", &["--ca-file", "nowhere.pem"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("nowhere.pem: No such file"), "{outcome:?}");
}
