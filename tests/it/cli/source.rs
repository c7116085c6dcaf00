//! What `attachd upload` reads: files, pipes, standard input, and what is none of them.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::proxy::{proxy, splice};
use super::upload::Uploader;
use crate::harness::{Server, hex, noise, sha256, token};

impl Uploader {
    /// The program with an upload of these paths, as attachment 2 unless `more` says otherwise.
    fn command(&self, paths: &[&OsStr], more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        let target = ["--client", "1", "--to", &self.to, "--token-file", "token"];
        command.env_clear().current_dir(self.here.path()).arg("upload").args(paths).args(target).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Runs an upload with these bytes in a pipe at its standard input.
fn piped(mut command: Command, bytes: &[u8]) -> Output {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(bytes).unwrap();
    drop(input);
    child.wait_with_output().unwrap()
}

fn stored(output: &Output) -> Value {
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn standard_input_is_uploaded_to_its_end_whatever_it_is() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"");
    let bytes = noise(2_500_000, 1);
    for (path, more, name) in [
        ("-", &["--filename", "noise.bin"][..], "noise.bin"),
        ("-", &[], ""),
        ("/dev/stdin", &[], "stdin"),
        ("/proc/self/fd/0", &["--filename", "x"], "x"),
    ] {
        let more = [more, &["--attachment", "2"]].concat();
        let attachment = stored(&piped(uploader.command(&[OsStr::new(path)], &more), &bytes));
        assert_eq!(attachment["filename"], name, "{path}");
        assert_eq!(attachment["sha256"], hex(&sha256(&bytes)), "{path}");
        assert_eq!(server.stored(1, 2).unwrap(), bytes, "{path}");
    }
    let empty = stored(&piped(uploader.command(&[OsStr::new("-")], &["--attachment", "3"]), b""));
    assert_eq!(empty["size"], 0);
    // Of a file that somebody has read the beginning of, the rest is uploaded.
    fs::write(uploader.here.path().join("lines"), "first\nsecond\n").unwrap();
    let mut lines = File::open(uploader.here.path().join("lines")).unwrap();
    std::io::Read::read_exact(&mut lines, &mut [0; 6]).unwrap();
    let mut command = uploader.command(&[OsStr::new("-")], &["--attachment", "4"]);
    stored(&command.stdin(lines).output().unwrap());
    assert_eq!(server.stored(1, 4).unwrap(), b"second\n");
}

#[test]
fn a_file_that_shows_no_size_or_a_wrong_one_is_uploaded_whole() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"");
    for (path, attachment) in [("/proc/version", 2), ("/sys/kernel/mm/transparent_hugepage/enabled", 3)] {
        // What this machine does not have shows nothing.
        if !PathBuf::from(path).exists() {
            continue;
        }
        let id = attachment.to_string();
        stored(&uploader.command(&[OsStr::new(path)], &["--attachment", &id]).output().unwrap());
        assert_eq!(server.stored(1, attachment).unwrap(), fs::read(path).unwrap(), "{path}");
    }
}

#[test]
fn a_file_that_changes_its_size_while_it_is_read_is_not_stored() {
    let server = Server::start();
    for (size, words) in [
        (4 << 20, "the file shrank while it was read: 4194304 of 6291456 bytes"),
        (7 << 20, "the file grew while it was read: it had 6291456 bytes"),
    ] {
        let mut uploader = Uploader::new(&server, &noise(6 << 20, 1));
        let path = uploader.here.path().join("some file.bin");
        // The file was opened before the connection was.
        let address = proxy(server.grpc, move |_, client, server| {
            File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
            splice(client, server);
        });
        uploader.to = format!("http://{address}");
        let outcome = uploader.upload("some file.bin", &["--token-file", "token"]);
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("some file.bin: {words}")), "{outcome:?}");
        assert!(server.record(1, 2).is_none());
    }
}

#[test]
fn what_is_no_file_is_refused_by_its_name() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"x");
    fs::create_dir(uploader.here.path().join("folder")).unwrap();
    let strange = OsStr::from_bytes(b"caf\xe9.txt");
    fs::write(uploader.here.path().join(strange), "coffee").unwrap();
    for (path, code, words) in [
        (OsStr::new("folder"), 1, "folder: is a directory; name the files in it"),
        (OsStr::new("."), 1, ".: is a directory"),
        (OsStr::new("nothing"), 1, "nothing: No such file"),
        (strange, 2, "the name of the file is not UTF-8; give the name to record with --filename"),
    ] {
        let output = uploader.command(&[path], &["--attachment", "2"]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(code), &b""[..]), "{path:?}: {said}");
        assert!(said.contains(words), "{path:?}: {said}");
    }
    assert!(server.record(1, 2).is_none());
    let named = uploader.command(&[strange], &["--attachment", "2", "--filename", "caf\u{e9}.txt"]).output().unwrap();
    assert_eq!(stored(&named)["filename"], "caf\u{e9}.txt");
}

#[test]
fn several_files_go_each_to_the_id_that_stands_in_its_place() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"first");
    fs::write(uploader.here.path().join("b"), "second").unwrap();
    let [a, b, none, input] = ["some file.bin", "b", "nothing", "-"].map(OsStr::new);
    let output = uploader.command(&[a, b], &["--attachment", "7,3"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]), "{output:?}");
    let printed = serde_json::Deserializer::from_slice(&output.stdout).into_iter::<Value>();
    let ids: Vec<_> = printed.map(|attachment| attachment.unwrap()["attachment_id"].clone()).collect();
    assert_eq!(ids, [7, 3]);
    assert_eq!((server.stored(1, 7).unwrap(), server.stored(1, 3).unwrap()), (b"first".to_vec(), b"second".to_vec()));

    // One that fails does not keep the others from being stored.
    let mixed = uploader.command(&[a, none, input], &["--attachment", "11", "--attachment", "12,13"]);
    let mixed = piped(mixed, b"third");
    assert_eq!(mixed.status.code(), Some(1));
    let said = String::from_utf8(mixed.stderr).unwrap();
    assert!(said.contains("nothing: No such file") && said.contains("attachd: 1 of 3 failed"), "{said}");
    assert_eq!((server.stored(1, 11).unwrap(), server.stored(1, 13).unwrap()), (b"first".to_vec(), b"third".to_vec()));
    assert!(server.record(1, 12).is_none());

    for (paths, more, words) in [
        (&[a, b][..], &["--attachment", "1"][..], "2 files need 2 ids, not 1"),
        (&[a], &["--attachment", "1,2"], "1 files need 1 ids, not 2"),
        (&[a, b], &["--attachment", "21,21"], "21 is given twice"),
        (&[a, b], &["--attachment", "21,22", "--filename", "x"], "--filename names one file"),
        (&[input, input], &["--attachment", "21,22"], "standard input (-) can be uploaded once"),
    ] {
        let output = uploader.command(paths, more).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
    assert!(server.record(1, 21).is_none() && server.record(1, 1).is_none());
}

#[test]
fn a_token_comes_from_its_file_else_from_the_environment() {
    let server = Server::start();
    let uploader = Uploader::new(&server, b"x");
    let (good, other) = (token(&[1]), token(&[2]));
    fs::write(uploader.here.path().join("empty"), "\n").unwrap();
    fs::write(uploader.here.path().join("bearer"), format!("Bearer {good}\n")).unwrap();
    let upload = |more: &[&str], variable: Option<&str>| {
        let variables: Vec<_> = variable.into_iter().map(|token| ("ATTACHD_TOKEN", token)).collect();
        let target = ["upload", "some file.bin", "--client", "1", "--attachment", "2", "--to", &uploader.to];
        super::attachd(uploader.here.path(), &[&target, more].concat(), &variables)
    };
    assert_eq!(upload(&[], Some(&good)).code, Some(0));
    assert_eq!(upload(&["--token-file", "token"], Some(&other)).code, Some(0));
    assert_eq!(upload(&["--token-file", "bearer"], None).code, Some(0));
    for (more, variable, code, word) in [
        (&[][..], Some(other.as_str()), 1, "FORBIDDEN"),
        (&[], Some(""), 1, "TOKEN_MISSING"),
        (&[], Some("a\u{e9}b"), 2, "ATTACHD_TOKEN: the token has characters"),
        (&["--token-file", "empty"], Some(&good), 2, "--token-file: empty: is empty"),
    ] {
        let outcome = upload(more, variable);
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stderr.contains(word) && !outcome.stderr.contains(&good), "{outcome:?}");
    }
    // The help never shows it.
    let help = super::attachd(uploader.here.path(), &["upload", "--help"], &[("ATTACHD_TOKEN", &good)]);
    assert!(help.stdout.contains("ATTACHD_TOKEN") && !help.stdout.contains(&good), "{help:?}");
}
