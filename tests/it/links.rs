//! Symbolic links below a storage root: no command follows one, wherever it is planted and wherever it leads.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use attachd::pb::upload_attachment_request::Message;
use tempfile::TempDir;

use crate::harness::storage::{Ended, HOUR, MARKER, plant, record, record_path, upload_id};
use crate::harness::{Form, Setup, chunk, finish, header, noise, run, token};

/// The name of the content that the record names.
fn named() -> String {
    upload_id(1000 * HOUR)
}

/// Writes a storage with one attachment of client 1, content that no record names, and what a process leaves.
fn lay_out(root: &Path, named: &str) {
    fs::create_dir_all(root).unwrap();
    fs::write(root.join("attachd.json"), MARKER).unwrap();
    plant(root, 1, 1, named, b"the content");
    let path = record_path(root, 1, 1);
    fs::create_dir_all(path.parent().expect("a record has a folder")).unwrap();
    fs::write(path, format!("{}\n", record(1, 1, named, b"the content"))).unwrap();
    plant(root, 1, 1, &upload_id(500 * HOUR), b"garbage");
    for (folder, file) in [(".attachd-tmp/gone", "half"), (".attachd-locks", "00"), ("probe", "left")] {
        fs::create_dir_all(root.join(folder)).unwrap();
        fs::write(root.join(folder).join(file), "").unwrap();
    }
    for lock in [".attachd-tmp/lock", ".attachd-tmp/gone/lock"] {
        fs::write(root.join(lock), "").unwrap();
    }
}

/// All below a folder: what each thing is, when it was changed, and its bytes.
fn look(folder: &Path) -> BTreeMap<PathBuf, ([i64; 5], Vec<u8>)> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let found = fs::symlink_metadata(&path).unwrap();
            let bytes = if found.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
            let (inode, mode) = (found.ino().cast_signed(), found.mode().into());
            all.insert(path.clone(), ([inode, mode, found.mtime(), found.ctime(), found.ctime_nsec()], bytes));
            if found.is_dir() {
                folders.push(path);
            }
        }
    }
    all
}

/// Where a link leads.
#[derive(Clone, Copy, Debug)]
enum Target {
    /// To what looks the same, outside of the root.
    Outside,
    /// There too, by a relative path.
    Relative,
    /// To what looks the same, at another place in the root.
    Inside,
    /// To nothing, outside of the root, where something could be made.
    Dangling,
    /// To itself.
    Loop,
}

/// A folder with a storage at `root`, one that looks the same at `outside`, and a link in the storage.
fn planted(level: &str, target: Target, named: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
    for storage in [&root, &outside, &root.join("twin")] {
        lay_out(storage, named);
    }
    let at = root.join(level);
    fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)).unwrap();
    let target = match target {
        Target::Outside => outside.join(level),
        Target::Relative => Path::new(&"../".repeat(level.split('/').count())).join("outside").join(level),
        Target::Inside => root.join("twin").join(level),
        Target::Dangling => outside.join("new"),
        Target::Loop => at.clone(),
    };
    symlink(target, at).unwrap();
    folder
}

async fn nothing_is_followed(target: Target) {
    let named = named();
    let (record, contents) = ("clients/1/records/0000000000000000001", "clients/1/content/0000000000000000001");
    let named_by_the_record = format!("{contents}/{named}.0");
    let all =
        ["clients", "clients/1", "clients/1/records", record, "clients/1/content", contents, &named_by_the_record];
    let of_client = all.map(str::to_owned).into_iter();
    let beside =
        ["probe", ".attachd-tmp", ".attachd-tmp/lock", ".attachd-tmp/gone", ".attachd-locks", ".attachd-locks/00"];
    let deep = [".attachd-tmp/gone/lock", ".attachd-tmp/gone/half"];
    for level in of_client.chain(beside.into_iter().chain(deep).map(str::to_owned)) {
        let what = format!("{level} to {target:?}");
        let folder = planted(&level, target, &named);
        let (outside, root) = (folder.path().join("outside"), folder.path().join("root"));
        let others = [outside.clone(), root.join("twin")];
        let before = others.clone().map(|other| look(&other));
        let config = Setup::default().write(folder.path());
        let command = |words: &[&str]| Ended::from(run(&[words, &["--config", config.to_str().unwrap()]].concat()));
        let unchanged = |by: &str| {
            let after = others.clone().map(|other| look(&other));
            assert!(after == before, "{what}: {by} changed what the link leads to");
            assert!(root.join(&level).is_symlink() || level.starts_with(".attachd-tmp/gone/"), "{what}: {by}");
        };

        if !deep.contains(&&*level) {
            for words in [&["verify"][..], &["gc"], &["gc", "--delete"]] {
                let ended = command(words);
                let named_here = words[0] == "gc" && level == named_by_the_record;
                let expected = if named_here { (Some(0), 0) } else { (Some(1), 1) };
                assert_eq!((ended.code, ended.count("link")), expected, "{what}: {words:?}: {ended:?}");
                assert!(named_here || ended.out.contains(&format!("link: \"{level}")), "{what}: {ended:?}");
                unchanged(words[0]);
            }
        }
        let checked = command(&["check"]);
        unchanged("check");
        if checked.code != Some(0) {
            assert!(checked.err.contains("is a symbolic link"), "{what}: {checked:?}");
        }
        // A server that cannot read or lock what it shares with others does not start.
        let starts = ![".attachd-tmp", ".attachd-tmp/lock", ".attachd-locks"].contains(&&*level);
        if !starts {
            assert_eq!(checked.code, Some(2), "{what}: {checked:?}");
            continue;
        }
        let server = Setup::default().start_in(folder);
        let mut codes = Vec::new();
        for attachment in [1, 2] {
            let reply = server.connect().upload(&token(&[1]), 1, attachment, &Form::file(&noise(300_000, 1)));
            let messages = vec![Message::Header(header(1, attachment)), chunk(noise(300_000, 2)), finish()];
            let over_grpc = server.grpc_upload(&token(&[1]), messages).await;
            assert_eq!(reply.status == 201, over_grpc.is_ok(), "{what}: {reply:?}, {over_grpc:?}");
            codes.push(reply.status);
        }
        let refused: &[u16] = match level.as_str() {
            "clients" | "clients/1" | "clients/1/records" | "clients/1/content" => &[500, 500],
            ".attachd-locks/00" => &codes.clone(),
            of_one if [record, contents].contains(&of_one) => &[500, 201],
            _ => &[201, 201],
        };
        assert_eq!(codes, refused, "{what}");
        let _folder = server.kill();
        unchanged("serve");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_follows_a_link_to_what_lies_outside_of_the_root() {
    nothing_is_followed(Target::Outside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_follows_a_relative_link_out_of_the_root() {
    nothing_is_followed(Target::Relative).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_follows_a_link_to_another_place_in_the_root() {
    nothing_is_followed(Target::Inside).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_makes_what_a_dangling_link_names() {
    nothing_is_followed(Target::Dangling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_command_follows_a_link_to_itself() {
    nothing_is_followed(Target::Loop).await;
}
