//! A storage root on a volume of its own: one that is not mounted any more, one that is mounted again, one that cannot be
//! written, and one whose files stay for as long as they are open. It mounts, which takes root, and needs bindfs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::harness::storage::{Ended, HOUR, Storage};
use crate::harness::{Form, Server, Setup, eventually, run, token};

/// Runs a command that must succeed.
fn command(words: &[&str]) {
    let done = Command::new(words[0]).args(&words[1..]).output().expect("the command can be run");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "this test must be run as root, with leave to mount: {words:?}: {said}");
}

/// Something that is mounted, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(words: &[&str], at: &Path) -> Mounted {
        let mounted = Mounted(at.to_owned());
        command(&[words, &[at.to_str().unwrap()]].concat());
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn volume(at: &Path) -> Mounted {
    Mounted::new(&["mount", "-t", "tmpfs", "tmpfs"], at)
}

fn bind(from: &Path, at: &Path) -> Mounted {
    Mounted::new(&["mount", "--bind", from.to_str().unwrap()], at)
}

fn upload(server: &Server, bytes: &[u8]) -> u16 {
    server.connect().upload(&token(&[1]), 1, 1, &Form::file(bytes)).status
}

fn reason(server: &Server) -> String {
    server.readiness()["reasons"][0].as_str().unwrap_or_default().to_owned()
}

fn names(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// Ends the server before its volume is taken away.
fn end(mut server: Server) -> TempDir {
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    server.kill()
}

#[test]
fn a_volume_that_is_not_mounted_is_not_taken_for_an_empty_storage() {
    let folder = tempfile::tempdir().unwrap();
    let (root, disk) = (folder.path().join("root"), folder.path().join("disk"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&disk).unwrap();
    let mount = bind(&disk, &root);
    let server = Setup::default().start_in(folder);
    assert_eq!(upload(&server, b"old"), 201);
    drop(mount);
    let expected = "the storage folder is empty, and the volume that it was on is not mounted";
    for _ in 0..2 {
        assert_eq!(reason(&server), expected);
        assert_eq!(upload(&server, b"x"), 503);
    }
    assert_eq!(names(&root), 0, "nothing is made where the volume should be");

    let mount = bind(&disk, &root);
    assert_eq!(reason(&server), "");
    assert_eq!(server.stored(1, 1).unwrap(), b"old");
    assert_eq!(upload(&server, b"new"), 201);
    assert_eq!(server.stored(1, 1).unwrap(), b"new");
    drop(end(server));
    drop(mount);
}

#[test]
fn another_volume_in_the_place_of_the_one_before_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let first = volume(&root);
    let server = Setup::default().start_in(folder);
    assert_eq!(upload(&server, b"on the first"), 201);
    // Over it, then away again, then in its place.
    let second = volume(&root);
    eventually("it is ready", || reason(&server).is_empty());
    assert!(server.record(1, 1).is_none());
    assert_eq!(upload(&server, b"on the second"), 201);
    assert_eq!(server.stored(1, 1).unwrap(), b"on the second");
    drop(second);
    eventually("it is ready", || reason(&server).is_empty());
    assert_eq!(server.stored(1, 1).unwrap(), b"on the first");
    drop(first);
    assert!(reason(&server).ends_with("is not mounted"));
    let third = volume(&root);
    eventually("it is ready", || reason(&server).is_empty());
    assert_eq!(upload(&server, b"on the third"), 201);
    assert_eq!(server.events("the storage is available again").len(), 1);
    drop(end(server));
    drop(third);
}

#[test]
fn a_storage_that_cannot_be_written_is_verified_and_looked_through() {
    let storage = Storage::new();
    storage.stored(1, 1, b"12345", HOUR);
    let garbage = storage.garbage(1, 1, 1000 * HOUR);
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    fs::create_dir(&root).unwrap();
    let mount = Mounted::new(&["mount", "--bind", "-o", "ro", storage.root().to_str().unwrap()], &root);
    assert!(fs::write(root.join("x"), "").is_err(), "it is read-only");
    let over = |words: &[&str]| Ended::from(run(&[words, &["--data", root.to_str().unwrap()]].concat()));
    let verified = over(&["verify", "--grace", "2000h"]);
    assert_eq!((verified.code, verified.err.as_str()), (Some(0), ""), "{verified:?}");
    let looked = over(&["gc", "--verbose"]);
    assert_eq!((looked.code, looked.count("garbage"), looked.err.as_str()), (Some(0), 1, ""), "{looked:?}");
    let deleted = over(&["gc", "--delete"]);
    assert_eq!((deleted.code, deleted.count("failed")), (Some(1), 1), "{deleted:?}");
    assert!(garbage.exists());
    drop(mount);
}

#[test]
fn an_identity_that_may_only_read_verifies_and_looks_through() {
    let storage = Storage::new();
    storage.stored(1, 1, b"12345", HOUR);
    storage.garbage(1, 1, 1000 * HOUR);
    fs::set_permissions(storage.root(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where a test's program lies may not be for everybody to see.
    let program = tempfile::tempdir_in("/usr/local").unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let attachd = program.path().join("attachd");
    fs::copy(env!("CARGO_BIN_EXE_attachd"), &attachd).unwrap();
    let before = storage.files();
    for words in [&["verify", "--grace", "2000h"][..], &["gc"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&attachd).args(words);
        let ended = Ended::from(command.arg("--data").arg(storage.root()).output().unwrap());
        assert_eq!((ended.code, ended.err.as_str()), (Some(0), ""), "{words:?}: {ended:?}");
    }
    assert_eq!(storage.files(), before);
    assert_eq!(names(storage.root()), 2, "nothing is made beside the clients and the marker");
}

#[test]
fn a_file_system_that_keeps_open_files_keeps_no_process_from_starting() {
    let folder = tempfile::tempdir().unwrap();
    let (root, real) = (folder.path().join("root"), folder.path().join("real"));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&real).unwrap();
    let mount = Mounted::new(&["bindfs", real.to_str().unwrap()], &root);
    let config = Setup::default().write(folder.path());
    for _ in 0..3 {
        let checked = Ended::from(run(&["check", "--config", config.to_str().unwrap()]));
        assert_eq!(checked.code, Some(0), "{checked:?}");
        assert!(checked.err.contains("root is on FUSE, whose locks may not reach other machines"), "{checked:?}");
    }
    assert_eq!(names(&real.join(".attachd-tmp")), 1, "each takes its directory away");
    let mut folder = folder;
    for _ in 0..3 {
        let server = Setup { garbage: true, ..Setup::default() }.start_in(folder);
        assert_eq!(upload(&server, b"stored"), 201);
        assert!(server.events("storage").iter().any(|event| event["why"].as_str().unwrap().contains("is on FUSE")));
        // What a process leaves that is killed, the next one sweeps.
        folder = server.kill();
    }
    // A file there cannot be deleted: the log names it, and the start goes on.
    let leftover = real.join(".attachd-tmp/leftover");
    fs::create_dir_all(leftover.join(".nfs0001/kept")).unwrap();
    let server = Setup { garbage: true, ..Setup::default() }.start_in(folder);
    let told =
        server.events("the temporary files of an ended process could not be deleted; the next start tries again");
    assert!(told.iter().any(|event| event["directory"] == "leftover"), "{told:?}");
    assert_eq!(upload(&server, b"stored"), 201);
    drop(end(server));
    drop(mount);
}
