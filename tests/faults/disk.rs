//! A disk that is full, and one that is read-only: the documented reply, nothing left, and service when it is well again.
//! It mounts a small tmpfs, which takes root.

use std::path::{Path, PathBuf};
use std::process::Command;

use attachd::pb::upload_attachment_request::Message;
use tempfile::TempDir;
use tonic::Code;

use crate::harness::{Form, Reply, Server, Setup, chunk, eventually, finish, header, noise, token};

/// A tmpfs as a storage root.
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one with these options, such as its size.
    pub fn mount(folder: &TempDir, options: &str) -> Disk {
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let disk = Disk(root);
        disk.command("mount", &["-t", "tmpfs", "-o", options, "tmpfs"]);
        disk
    }

    /// Makes it read-only for every call that names a path. The mount itself cannot turn read-only while a file on it is
    /// open for writing, as the lock of the temporary directory is; a bind mount of it over itself can.
    fn turn_read_only(&self) {
        let itself = self.0.to_str().unwrap().to_owned();
        self.command("mount", &["--bind", &itself]);
        self.command("mount", &["-o", "remount,bind,ro"]);
    }

    fn turn_writable(&self) {
        self.command("umount", &[]);
    }

    fn command(&self, name: &str, arguments: &[&str]) {
        let done = Command::new(name).args(arguments).arg(&self.0).output().expect("there is a mount command");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "this test must be run as root, with leave to mount: {name}: {said}");
    }

    /// The path of the storage root.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// What is free: bytes, and inodes.
    pub fn free(&self) -> (u64, u64) {
        let found = rustix::fs::statvfs(&self.0).unwrap();
        (found.f_bavail * found.f_frsize, found.f_favail)
    }

    /// Bytes that are used.
    fn used(&self) -> u64 {
        let done = Command::new("df").args(["--output=used", "-B1"]).arg(&self.0).output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        said.lines().nth(1).unwrap().trim().parse().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

const SIZE: &str = "size=16m";

fn start(folder: TempDir) -> Server {
    // The file system itself is to refuse.
    let (limits, storage) = ("max_upload_size = \"64MiB\"\n".to_owned(), "min_free = 0\n".to_owned());
    Setup { limits, storage, ..Setup::default() }.start_in(folder)
}

fn upload(server: &Server, attachment: i64, bytes: &[u8]) -> Reply {
    server.connect().upload(&token(&[1]), 1, attachment, &Form::file(bytes))
}

fn assert_refused(reply: &Reply, path: &Path) {
    assert!(matches!(reply.status, 500 | 503), "{reply:?}");
    let text = reply.body.to_string();
    for word in ["space", "disk", "read-only", "os error", "root", path.to_str().unwrap()] {
        assert!(!text.to_lowercase().contains(word), "{text}");
    }
}

/// Sends chunks until the server answers, in messages that it takes.
async fn upload_over_grpc(server: &Server, attachment: i64, bytes: &[u8]) -> Code {
    let mut messages = vec![Message::Header(header(1, attachment))];
    messages.extend(bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())));
    messages.push(finish());
    server.grpc_upload(&token(&[1]), messages).await.map_or_else(|refusal| refusal.code, |_| Code::Ok)
}

#[tokio::test]
async fn an_upload_larger_than_the_disk_is_refused_its_space_returns_and_the_next_one_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder, SIZE);
    let server = start(folder);
    let (old, large) = (noise(1 << 20, 1), noise(40 << 20, 2));
    assert_eq!(upload(&server, 1, &old).status, 201);
    let before = disk.used();

    // Over what has content, and over what has none.
    for attachment in [1, 2] {
        let reply = upload(&server, attachment, &large);
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_refused(&reply, &disk.0);
        assert_eq!(upload_over_grpc(&server, attachment, &large).await, Code::Unavailable);
    }
    // Empty directories may stay; they hold no page of a tmpfs.
    eventually("the space returns", || disk.used() <= before + 4096 * 4);
    assert_eq!(server.stored(1, 1).unwrap(), old);
    assert_eq!(server.record(1, 2), None);

    let small = noise(2 << 20, 3);
    assert_eq!(upload(&server, 1, &small).status, 201);
    assert_eq!(upload_over_grpc(&server, 2, &small).await, Code::Ok);
    assert_eq!(server.stored(1, 1).unwrap(), small);
    assert_eq!(server.stored(1, 2).unwrap(), small);
    server.assert_tidy();
    end(server, disk);
}

#[tokio::test]
async fn a_disk_without_a_free_byte_refuses_and_serves_again_when_there_is_space() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder, SIZE);
    let server = start(folder);
    assert_eq!(upload(&server, 1, &noise(1000, 1)).status, 201);
    let filler = disk.0.join("filler");
    // It fails when the disk is full, which is what it is for.
    let _ = std::fs::write(&filler, noise(20 << 20, 9));

    for bytes in [noise(1, 2), noise(100_000, 2)] {
        let reply = upload(&server, 1, &bytes);
        assert_refused(&reply, &disk.0);
        assert_ne!(upload_over_grpc(&server, 1, &bytes).await, Code::Ok);
    }
    assert_eq!(server.stored(1, 1).unwrap(), noise(1000, 1));
    server.assert_tidy();

    std::fs::remove_file(&filler).unwrap();
    assert_eq!(upload(&server, 1, &noise(100_000, 3)).status, 201);
    assert_eq!(server.stored(1, 1).unwrap(), noise(100_000, 3));
    end(server, disk);
}

#[tokio::test]
async fn a_disk_that_turns_read_only_refuses_and_serves_again_when_it_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder, SIZE);
    let server = start(folder);
    assert_eq!(upload(&server, 1, &noise(1000, 1)).status, 201);
    eventually("no file is open for writing", || server.readiness()["uploads_in_flight"] == 0);
    disk.turn_read_only();

    for attachment in [1, 2] {
        assert_refused(&upload(&server, attachment, &noise(5000, 2)), &disk.0);
        assert!(matches!(
            upload_over_grpc(&server, attachment, &noise(5000, 2)).await,
            Code::Internal | Code::Unavailable
        ));
    }
    assert_eq!(server.stored(1, 1).unwrap(), noise(1000, 1));

    disk.turn_writable();
    for attachment in [1, 2] {
        assert_eq!(upload(&server, attachment, &noise(5000, 3)).status, 201);
        assert_eq!(server.stored(1, attachment).unwrap(), noise(5000, 3));
    }
    server.assert_tidy();
    end(server, disk);
}

/// Ends the server before the disk is taken away from under it.
pub fn end(mut server: Server, disk: Disk) {
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    drop(disk);
}
