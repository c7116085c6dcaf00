//! What a power cut leaves: the server runs under strace, and its system calls are replayed into a model of a disk that keeps
//! only what was synced. At the moment of each 201 the record and its content must be on that disk.

use std::path::Path;
use std::process::Command;

use crate::harness::{Form, Setup, eventually, noise, token};

/// The calls that change files, and those that send replies.
const CALLS: &str = "trace=openat,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync,rename,renameat,renameat2,linkat,unlink,\
                     unlinkat,mkdir,mkdirat,close";

#[test]
fn at_the_time_of_the_reply_a_power_cut_loses_nothing_and_would_without_any_one_kind_of_sync() {
    assert!(Command::new("strace").arg("-V").output().is_ok(), "strace is needed: apt-get install strace");
    let folder = tempfile::tempdir().unwrap();
    let trace = tempfile::NamedTempFile::new().unwrap();
    let trace = trace.path().to_str().unwrap().to_owned();
    // -D leaves the server the child of the test; -y names the file behind each descriptor.
    let words = ["strace", "-D", "-f", "-y", "-s", "4096", "-e", CALLS, "-o", &trace];
    let wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    let mut server = Setup { wrapper, ..Setup::default() }.start_in(folder);
    let root = server.root();
    let uploads = [(1, 1, 10), (1, 2, 100_000), (2, 1, 3_000_000), (1, 1, 5000), (1, 1, 0), (1, 1, 20_000), (2, 2, 3)];
    for (seed, (client, attachment, size)) in (1..).zip(uploads) {
        let reply = server.connect().upload(&token(&[client]), client, attachment, &Form::file(&noise(size, seed)));
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    let pid = server.pid();
    server.signal("TERM");
    server.wait();
    eventually("strace has written all", || {
        let text = String::from_utf8_lossy(&std::fs::read(&trace).unwrap()).into_owned();
        text.lines().any(|line| line.starts_with(&pid.to_string()) && line.contains("+++ exited"))
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/replay.py");
    let replayed = Command::new("python3").arg(script).args([&trace, root.to_str().unwrap()]).output().unwrap();
    print!("{}", String::from_utf8_lossy(&replayed.stdout));
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    let said = String::from_utf8_lossy(&replayed.stdout).into_owned();
    assert!(said.contains(&format!("{} replies", uploads.len())), "{said}");
}
