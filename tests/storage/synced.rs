//! Whether the storage servers of the suite sync what they have been given before they acknowledge it: `docs/how-to/storage.md` says so
//! of each. The system calls of a server are looked at while an upload is stored, whole and in parts.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::conformance::{Door, PART, upload};
use crate::engines::{BUCKET, Engine, Place, Running, free_port, minio, spawn, versitygw};
use crate::harness::{eventually, noise};
use crate::look::Look;

/// The calls that sync, and the flags of files that sync by themselves.
const CALLS: &str = "trace=fsync,fdatasync,syncfs,sync,sync_file_range,msync,openat,open";

/// `command` with its system calls written to `calls`. strace runs beside it, and it is the process that is ended.
pub fn traced(command: &Command, calls: &Path, expressions: &[&str]) -> Command {
    let mut traced = Command::new("strace");
    traced.args(["-D", "-f", "-qq", "-ttt", "--seccomp-bpf", "-e", "signal=!urg"]);
    traced.args(expressions.iter().flat_map(|expression| ["-e", expression])).arg("-o").arg(calls);
    traced.arg(command.get_program()).args(command.get_args());
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    traced
}

/// The seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// How many of the calls sync, of those that were made between two times. A line has the number of the thread and the time first.
fn syncs(calls: &str, [from, to]: [f64; 2]) -> usize {
    let syncs = |line: &&str| {
        let time: f64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let called = ["fsync(", "fdatasync(", "syncfs(", " sync(", "sync_file_range(", "msync("];
        let by_itself = line.contains("O_DSYNC") || line.contains("O_SYNC");
        (from..to).contains(&time) && (by_itself || called.iter().any(|call| line.contains(call)))
    };
    calls.lines().filter(syncs).count()
}

/// How many calls that sync a server makes while it stores one small upload, and one in three parts.
fn while_it_stores(name: &str, sole_writer: bool, command: impl FnOnce(&Path, u16) -> Command) -> [usize; 2] {
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let (port, calls) = (free_port(), folder.path().join("calls"));
    let mut server = spawn(&mut traced(&command(&data, port), &calls, &[CALLS]));
    let endpoint = format!("http://127.0.0.1:{port}");
    let look = Look::at("s3", &endpoint, BUCKET);
    look.make();
    let place = Place::at("s3", Arc::new(Running::elsewhere(endpoint, look)), "synced");
    let mut setup = place.setup();
    setup.variables.insert("ATTACHD_STORAGE__SOLE_WRITER", sole_writer.to_string());
    let attachd = setup.start();
    let times = [1000, 2 * PART + 1000].map(|size| {
        let from = now();
        assert_eq!(upload(&attachd, Door::Rest, size as i64, &noise(size, 1), false), 201);
        [from, now()]
    });
    drop(attachd);
    server.kill().unwrap();
    server.wait().unwrap();
    let written = || std::fs::read_to_string(&calls).unwrap();
    eventually("strace has written all", || written().contains("+++ killed"));
    let counts = times.map(|times| syncs(&written(), times));
    println!("| {name} | {} | {} |", counts[0], counts[1]);
    counts
}

#[test]
fn minio_syncs_before_it_acknowledges() {
    let counts = while_it_stores("MinIO", false, |data, port| minio(&[data.display().to_string()], "127.0.0.1", port));
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn versitygw_syncs_nothing_before_it_acknowledges() {
    assert_eq!(while_it_stores("versitygw", false, |data, port| versitygw(data, port, &[])), [0, 0]);
}

#[test]
fn s3mock_syncs_nothing_before_it_acknowledges() {
    let command = |data: &Path, port| {
        let mut command = Engine::s3mock(port);
        command.env("COM_ADOBE_TESTING_S3MOCK_STORE_ROOT", data);
        command
    };
    assert_eq!(while_it_stores("S3Mock", true, command), [0, 0]);
}
