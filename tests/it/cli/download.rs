//! `attachd download`: what it writes, how it goes on after an interruption, and that no file is ever incomplete.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

use super::proxy::{proxy, pump, splice};
use super::upload::Uploader;
use super::{Outcome, Running};
use crate::harness::{Connection, Form, Server, content_folder, hex, noise, sha256, token};

/// The size of content that is cut in the middle, in bytes.
const SIZE: usize = 4 << 20;

/// How many bytes a connection carries before it is cut.
const CUT: usize = 1 << 20;

impl Uploader {
    fn download(&self, more: &[&str]) -> Outcome {
        self.run("download", &[&["--attachment", "2", "--token-file", "token"], more].concat())
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.here.path().join(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.here.path().join(name).symlink_metadata().is_ok()
    }

    /// Looks that nothing is left of a download of `name`.
    fn assert_nothing(&self, name: &str) {
        for suffix in ["", ".part", ".part.sha256"] {
            assert!(!self.has(&format!("{name}{suffix}")), "{name}{suffix}");
        }
    }
}

/// A proxy that cuts its first connection after so many bytes to the client, and does `between` before the next ones.
fn cut(server: SocketAddr, most: usize, between: impl Fn() + Clone + Send + 'static) -> String {
    let address = proxy(server, move |number, client, server| {
        if number > 0 {
            between();
            return splice(client, server);
        }
        let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pump(&there.0, &there.1, usize::MAX));
        pump(&server, &client, most);
    });
    format!("http://{address}")
}

/// A server with content for attachment 2, and an uploader whose first connection to it is cut.
fn with_cut(bytes: &[u8], between: impl Fn(SocketAddr) + Clone + Send + 'static) -> (Server, Uploader) {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, bytes);
    uploader.put("2", bytes);
    let rest = server.rest;
    uploader.to = cut(server.grpc, CUT, move || between(rest));
    (server, uploader)
}

#[test]
fn a_download_writes_the_content_and_prints_the_attachment_with_the_file() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"");
    for bytes in [Vec::new(), b"content".to_vec(), noise(2_500_000, 1)] {
        uploader.put("2", &bytes);
        let outcome = uploader.download(&["-o", "new"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert!(uploader.read("new") == bytes);
        let printed: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((&printed["file"], &printed["sha256"]), (&json!("new"), &json!(hex(&sha256(&bytes)))));
        fs::remove_file(uploader.here.path().join("new")).unwrap();
        uploader.assert_nothing("new");
    }
    let outcome = uploader.run("download", &["--attachment", "3", "--token-file", "token", "-o", "new"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("attachment 3: NotFound NOT_FOUND"), "{outcome:?}");
    uploader.run("register", &["--attachment", "3", "--token-file", "token"]);
    let outcome = uploader.run("download", &["--attachment", "3", "--token-file", "token", "-o", "new"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("attachment 3: the attachment is registered and has no content"), "{outcome:?}");
    uploader.assert_nothing("new");
}

#[test]
fn without_a_file_the_recorded_name_is_used_or_the_id() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    for (attachment, recorded, name) in [("2", "-x/..hidden.txt", "hidden.txt"), ("3", "", "3"), ("4", "-rf", "rf")] {
        let recorded = format!("--filename={recorded}");
        let upload = ["some file.bin", "--attachment", attachment, "--token-file", "token", &recorded];
        assert_eq!(uploader.run("upload", &upload).code, Some(0));
        let outcome = uploader.run("download", &["--attachment", attachment, "--token-file", "token"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
        assert_eq!(uploader.read(name), b"content");
    }
    let outcome = uploader.run("download", &["--attachment", "2,3", "--token-file", "token", "--force"]);
    assert_eq!((outcome.code, outcome.stdout.matches("\"file\"").count()), (Some(0), 2), "{outcome:?}");
    let outcome = uploader.run("download", &["--attachment", "2,3", "--token-file", "token", "-o", "new"]);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("--output-file is for one attachment"), "{outcome:?}");
}

#[test]
fn a_file_that_exists_is_replaced_only_by_force() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.put("2", b"content");
    fs::write(uploader.here.path().join("some file.bin"), "mine").unwrap();
    for more in [&["-o", "some file.bin"][..], &[]] {
        let outcome = uploader.download(more);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(
            outcome.stderr.contains("some file.bin: exists; ") && outcome.stderr.contains("--force"),
            "{outcome:?}"
        );
        assert_eq!(uploader.read("some file.bin"), b"mine");
    }
    assert_eq!(uploader.download(&["--force"]).code, Some(0));
    assert_eq!(uploader.read("some file.bin"), b"content");
    symlink("some file.bin", uploader.here.path().join("link")).unwrap();
    symlink("some file.bin", uploader.here.path().join("new.part")).unwrap();
    for (output, words) in [
        ("link", "link: is not a regular file"),
        ("/dev/null", "/dev/null: is not a regular file"),
        (".", ".: "),
        ("..", "..: has no file name"),
        ("nowhere/new", "nowhere/new.part: No such file"),
        ("new", "new.part: "),
    ] {
        let outcome = uploader.download(&["--force", "-o", output]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains(words), "{output}: {outcome:?}");
    }
    assert_eq!(uploader.read("some file.bin"), b"content");
}

#[test]
fn two_downloads_do_not_write_to_the_same_file() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.put("2", b"content");
    let other = File::create(uploader.here.path().join("new.part")).unwrap();
    other.lock().unwrap();
    let outcome = uploader.download(&["-o", "new"]);
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("new.part: another download writes to this file"), "{outcome:?}");
    assert!(!uploader.has("new"));
    drop(other);
    assert_eq!(uploader.download(&["-o", "new"]).code, Some(0));
}

#[test]
fn a_download_that_is_cut_is_continued_where_it_ended() {
    let bytes = noise(SIZE, 1);
    let (server, uploader) = with_cut(&bytes, |_| {});
    let outcome = uploader.download(&["-o", "new", "--retry"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("attachment 2: ") && outcome.stderr.contains("trying again in 0."), "{outcome:?}");
    assert!(uploader.read("new") == bytes);
    assert!(!uploader.has("new.part") && !uploader.has("new.part.sha256"));
    assert_eq!(rest_sent(&server, 2), (1, true));
}

/// How many downloads the server has sent to their end, and whether the last one was a part of the content.
fn rest_sent(server: &Server, calls: usize) -> (usize, bool) {
    let downloads = || {
        let lines = server.events("request");
        lines.into_iter().filter(|line| line["method"] == "DownloadAttachment").collect::<Vec<_>>()
    };
    crate::harness::eventually("all downloads have ended", || downloads().len() == calls);
    let whole: Vec<_> = downloads().into_iter().filter(|line| line["outcome"] == "OK").collect();
    let is_part = |line: &Value| (1..SIZE as u64).contains(&line["sent_bytes"].as_u64().unwrap());
    (whole.len(), whole.last().is_some_and(is_part))
}

#[test]
fn an_interrupted_download_is_continued_by_the_next_run() {
    let bytes = noise(SIZE, 1);
    let (server, uploader) = with_cut(&bytes, |_| {});
    let outcome = uploader.download(&["-o", "new"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(3), ""), "{outcome:?}");
    let words = format!(" of {SIZE} bytes are in new.part, and the same command continues there");
    assert!(outcome.stderr.contains(&words), "{outcome:?}");
    assert!(!uploader.has("new"));
    let part = uploader.read("new.part");
    assert!(!part.is_empty() && bytes.starts_with(&part));
    assert_eq!(uploader.read("new.part.sha256"), format!("{}\n", hex(&sha256(&bytes))).as_bytes());

    // What it left is wrong: that is found, and received anew.
    let mut wrong = part.clone();
    wrong[7] ^= 1;
    fs::write(uploader.here.path().join("new.part"), &wrong).unwrap();
    let outcome = uploader.download(&["-o", "new"]);
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    assert!(outcome.stderr.contains("an interrupted run left wrong bytes"), "{outcome:?}");
    uploader.assert_nothing("new");

    fs::write(uploader.here.path().join("new.part"), &part).unwrap();
    fs::write(uploader.here.path().join("new.part.sha256"), hex(&sha256(&bytes))).unwrap();
    let outcome = uploader.download(&["-o", "new"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    assert!(uploader.read("new") == bytes);
    assert_eq!(rest_sent(&server, 3), (2, true));
}

#[test]
fn bytes_of_unknown_or_other_content_are_not_continued() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"content");
    uploader.put("2", b"content");
    for (part, tag) in [
        ("othe", None),
        ("othe", Some(String::new())),
        ("othe", Some(hex(&sha256(b"other")))),
        ("content and more", Some(hex(&sha256(b"content")))),
    ] {
        fs::write(uploader.here.path().join("new.part"), part).unwrap();
        if let Some(tag) = &tag {
            fs::write(uploader.here.path().join("new.part.sha256"), tag).unwrap();
        }
        let outcome = uploader.download(&["-o", "new"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{part} {tag:?}");
        assert_eq!(uploader.read("new"), b"content", "{part} {tag:?}");
        fs::remove_file(uploader.here.path().join("new")).unwrap();
        uploader.assert_nothing("new");
    }
}

#[test]
fn content_that_is_replaced_between_two_tries_is_never_mixed() {
    let replace = |rest| {
        let reply = Connection::open(rest).upload(&token(&[1]), 1, 2, &Form::file(&noise(SIZE, 2)));
        assert_eq!(reply.status, 201, "{reply:?}");
    };
    for output in ["new", "-"] {
        let (_server, uploader) = with_cut(&noise(SIZE, 1), replace);
        let (outcome, written) = to_a_file(&uploader, &["-o", output, "--retry"]);
        assert_eq!(outcome.code, Some(3), "{outcome:?}");
        let words = "FailedPrecondition PRECONDITION_FAILED: ";
        let more = "; the content was replaced during the download; the same command downloads the new content";
        assert!(outcome.stderr.contains(words) && outcome.stderr.contains(more), "{outcome:?}");
        uploader.assert_nothing("new");
        assert!(noise(SIZE, 1).starts_with(&written) && written.is_empty() == (output == "new"));
    }
}

/// Downloads with standard output in a file. Returns the outcome, and what is in the file.
fn to_a_file(uploader: &Uploader, more: &[&str]) -> (Outcome, Vec<u8>) {
    let path = uploader.here.path().join("standard output");
    let target = ["download", "--client", "1", "--attachment", "2", "--to", &uploader.to, "--token-file", "token"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(target).args(more).env_clear().current_dir(uploader.here.path());
    let output = command.stdout(File::create(&path).unwrap()).output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (Outcome { code: output.status.code(), stdout: String::new(), stderr }, fs::read(path).unwrap())
}

#[test]
fn standard_output_gets_the_content_once_even_if_it_is_cut() {
    let bytes = noise(SIZE, 1);
    let (_server, uploader) = with_cut(&bytes, |_| {});
    let (outcome, written) = to_a_file(&uploader, &["-o", "-", "--retry"]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("trying again"), "{outcome:?}");
    assert!(written == bytes);
    let (outcome, written) = to_a_file(&uploader, &["-o", "-"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(written == bytes);
    assert!(!uploader.has("-") && !uploader.has("-.part"));
}

#[test]
fn a_download_whose_reader_is_gone_stops_and_is_no_success() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"");
    uploader.put("2", &noise(SIZE, 1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let target = ["download", "--client", "1", "--attachment", "2", "--to", &uploader.to, "--token-file", "token"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(target).args(["-o", "-"]).env_clear().current_dir(uploader.here.path());
    let output = Running(command.stdout(writer).stderr(Stdio::piped()).spawn().unwrap()).end();
    assert_eq!(output, (Some(1), String::new()));
}

impl Running {
    /// Waits for its end, and returns the exit code and what it complained about.
    fn end(mut self) -> (Option<i32>, String) {
        let mut complaint = String::new();
        std::io::Read::read_to_string(&mut self.0.stderr.take().unwrap(), &mut complaint).unwrap();
        (self.0.wait().unwrap().code(), complaint)
    }
}

#[test]
fn damaged_content_leaves_no_file() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"");
    uploader.put("2", &noise(1 << 20, 1));
    let objects: Vec<PathBuf> =
        fs::read_dir(content_folder(server.root(), 1, 2)).unwrap().map(|entry| entry.unwrap().path()).collect();
    let mut damaged = fs::read(&objects[0]).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&objects[0], damaged).unwrap();
    let outcome = uploader.download(&["-o", "new", "--retry"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    assert!(outcome.stderr.contains("attachment 2: Internal INTERNAL: "), "{outcome:?}");
    assert!(!outcome.stderr.contains("trying again"), "{outcome:?}");
    uploader.assert_nothing("new");
    let (outcome, written) = to_a_file(&uploader, &["-o", "-"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(written.len() < 1 << 20);
    // The harness would look that all content is sound.
    server.kill();
}
