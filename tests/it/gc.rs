//! `attachd gc`: content that no record names goes, and nothing else.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::storage::{Ended, HOUR, Storage, plant, record, upload_id};
use crate::harness::{Form, Server, Setup, content_folder, noise, record_path, run, token};

#[test]
fn garbage_past_the_grace_is_deleted_and_nothing_else() {
    let storage = Storage::new();
    storage.stored(1, 1, b"live", 1000 * HOUR);
    let beside_live = storage.garbage(1, 1, 25 * HOUR);
    storage.stored(1, 2, b"live", HOUR);
    let young = storage.garbage(1, 2, 23 * HOUR);
    let without_record = storage.garbage(2, 7, 1000 * HOUR);
    let registered = json!({
        "format": 2, "client_id": 3, "attachment_id": 1, "registered_at": "2026-01-31T12:00:00Z",
        "registered_by": "tester", "state": "registered",
    });
    storage.put_record(3, 1, &registered);
    let registered = storage.garbage(3, 1, 25 * HOUR);
    let garbage = [&beside_live, &without_record, &registered];
    let before = storage.files();

    let dry = storage.run(&["gc", "--verbose"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert!(garbage.iter().all(|path| dry.says("garbage", path)), "{dry:?}");
    assert!(dry.says("young", &young), "{dry:?}");
    assert_eq!((dry.count("garbage"), dry.count("deleted"), dry.count("young")), (3, 0, 1));
    assert!(dry.out.contains("would delete 3 objects (21 B) of 6, for 3 attachments; 1 within the grace"), "{dry:?}");
    assert_eq!(storage.files(), before, "a dry run changes nothing");

    let wet = storage.run(&["gc", "--verbose", "--delete"]);
    assert_eq!(wet.code, Some(0), "{wet:?}");
    assert!(garbage.iter().all(|path| wet.says("deleted", path)), "{wet:?}");
    assert!(wet.out.contains("\ndeleted 3 objects (21 B) of 6, for 3 attachments"), "{wet:?}");
    let mut expected = before;
    expected.retain(|path, _| !garbage.contains(&path));
    assert_eq!(storage.files(), expected);

    let again = storage.run(&["gc", "--delete"]);
    assert_eq!(again.code, Some(0));
    assert!(again.out.starts_with("deleted 0 objects (0 B) of 3, for 3 attachments"), "{again:?}");
}

#[test]
fn a_grace_that_an_upload_may_outlive_is_refused() {
    let storage = Storage::new();
    let garbage = storage.garbage(1, 1, 1000 * HOUR);
    for (grace, code) in [("5h 59m", 2), ("6h", 2), ("6h 1ms", 0)] {
        let ended = storage.run(&["gc", "--grace", grace]);
        assert_eq!(ended.code, Some(code), "{grace}: {ended:?}");
        assert_eq!(ended.err.contains("limits.max_upload_time, which is 6h"), code == 2, "{ended:?}");
    }
    assert_eq!(storage.run(&["gc", "--grace", "6h", "--delete"]).code, Some(2));
    assert!(garbage.exists());

    let folder = tempfile::tempdir().unwrap();
    let config = Setup { limits: "max_upload_time = \"90s\"".to_owned(), ..Setup::default() }.write(folder.path());
    for (grace, code) in [("89s", 2), ("90s", 2), ("90s 1ms", 0)] {
        for command in [&["gc"][..], &["verify", "--allow-empty"]] {
            let ended = run(&[command, &["--config", config.to_str().unwrap(), "--grace", grace]].concat());
            assert_eq!(ended.status.code(), Some(code), "{grace}: {ended:?}");
        }
    }
}

#[test]
fn a_folder_that_is_not_there_is_refused_and_not_made() {
    let storage = Storage::new();
    let missing = storage.root().join("missing");
    for command in ["gc", "verify"] {
        let ended = run(&[command, "--data", missing.to_str().unwrap()]);
        assert_eq!(ended.status.code(), Some(2), "{ended:?}");
    }
    assert!(!missing.exists());
}

#[test]
fn what_attachd_did_not_name_is_reported_and_kept() {
    let storage = Storage::new();
    storage.stored(1, 1, b"live", 1000 * HOUR);
    let old = upload_id(1000 * HOUR);
    let names = [
        "notes.txt".to_owned(),
        old.to_uppercase(),
        old.replace('-', ""),
        format!("{old}.bak"),
        "3b241101-e2bb-4255-8caf-4136c566a962".to_owned(),
    ];
    let mut foreign: Vec<_> = names.iter().map(|name| plant(storage.root(), 1, 1, name, b"x")).collect();
    let folder = content_folder(storage.root(), 1, 1).join(format!("{}.0", upload_id(1000 * HOUR)));
    fs::create_dir(&folder).unwrap();
    foreign.push(folder);
    for name in ["clients/007", "clients/1/records/+1", "clients/x.txt"] {
        fs::write(storage.root().join(name), b"x").unwrap();
    }
    let before = storage.files();

    let ended = storage.run(&["gc", "--delete"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.count("foreign"), foreign.len() + 3, "{ended:?}");
    for path in &foreign {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(ended.out.contains(&format!("/{name}\"")), "{name}: {ended:?}");
    }
    assert_eq!(storage.files(), before);
}

#[test]
fn a_link_among_garbage_is_reported_and_kept() {
    let storage = Storage::new();
    let target = storage.root().join("target");
    fs::write(&target, b"x").unwrap();
    let gone = storage.garbage(1, 1, 1000 * HOUR);
    let link = gone.with_file_name(format!("{}.0", upload_id(1001 * HOUR)));
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let ended = storage.run(&["gc", "--delete"]);
    assert_eq!((ended.code, ended.count("link")), (Some(1), 1), "{ended:?}");
    assert!(link.is_symlink() && !gone.exists());
    assert_eq!(fs::read(&target).unwrap(), b"x");
}

#[test]
fn a_folder_that_is_a_link_is_not_looked_into() {
    for linked in ["clients/1/content/0000000000000000001", "clients/1/content", "clients/1"] {
        let (storage, other) = (Storage::new(), Storage::new());
        let kept = other.garbage(1, 1, 1000 * HOUR);
        let gone = storage.garbage(2, 1, 1000 * HOUR);
        let link = storage.root().join(linked);
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(other.root().join(linked), &link).unwrap();
        let ended = storage.run(&["gc", "--delete"]);
        assert!(kept.exists(), "{linked}: {ended:?}");
        assert!(!gone.exists(), "{linked}: {ended:?}");
        assert_eq!((ended.code, ended.count("link")), (Some(1), 1), "{linked}: {ended:?}");
        let ended = storage.run(&["verify"]);
        assert_eq!((ended.code, ended.count("link")), (Some(1), 1), "{linked}: {ended:?}");
    }
}

#[test]
fn where_the_record_cannot_be_read_nothing_is_deleted() {
    let storage = Storage::new();
    let mut kept = Vec::new();
    let bytes = b"content";
    let upload = upload_id(1000 * HOUR);
    let good = record(1, 1, &upload, bytes);
    let mut other_format = record(1, 2, &upload, bytes);
    other_format["format"] = json!(3);
    for (attachment, bad) in [(1, json!("text")), (2, other_format), (3, good)] {
        storage.put_record(1, attachment, &bad);
        kept.push(storage.garbage(1, attachment, 1000 * HOUR));
    }
    let cut = storage.put_record(1, 4, &json!(null));
    fs::write(&cut, b"{\"format\":2,").unwrap();
    kept.push(storage.garbage(1, 4, 1000 * HOUR));
    fs::create_dir_all(record_path(storage.root(), 1, 5)).unwrap();
    kept.push(storage.garbage(1, 5, 1000 * HOUR));
    let gone = storage.garbage(1, 6, 1000 * HOUR);

    let ended = storage.run(&["gc", "--delete"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.count("unreadable"), 5, "{ended:?}");
    assert!(ended.out.contains("5 errors"), "{ended:?}");
    assert!(kept.iter().all(|path| path.exists()));
    assert!(!gone.exists());
}

#[test]
fn several_sweeps_at_once_delete_the_same_garbage() {
    let storage = Storage::new();
    for client in 1..=20 {
        storage.stored(client, 1, b"live", 1000 * HOUR);
        for _ in 0..20 {
            storage.garbage(client, 1, 25 * HOUR);
        }
    }
    // More than one page of one attachment.
    storage.stored(30, 1, b"live", 1000 * HOUR);
    for _ in 0..2500 {
        storage.garbage(30, 1, 25 * HOUR);
    }
    let sweeps: Vec<_> =
        (0..4).map(|_| storage.command(&["gc", "--delete"]).spawn().expect("the program can be run")).collect();
    for sweep in sweeps {
        let ended = Ended::from(sweep.wait_with_output().expect("it ends"));
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let left = storage.files();
    assert_eq!(left.len(), 2 * 21, "{left:?}");
    assert_eq!(storage.run(&["verify"]).code, Some(0));
}

#[test]
fn a_sweep_that_was_stopped_says_where_to_go_on() {
    let storage = Storage::new();
    for client in 1..=100 {
        storage.stored(client, 1, b"live", 1000 * HOUR);
        for _ in 0..60 {
            storage.garbage(client, 1, 25 * HOUR);
        }
    }
    // It prints more than fits into a pipe that nobody reads, so it cannot be done before it hears the signal.
    let mut child = storage.command(&["gc", "--delete", "--verbose", "--concurrency", "1"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut printed = String::new();
    out.read_line(&mut printed).unwrap();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    out.read_to_string(&mut printed).unwrap();
    let mut complaint = String::new();
    child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{complaint}");
    let from = complaint.split("--from ").nth(1).and_then(|rest| rest.split('`').next()).expect("where to go on");
    let garbage = |client: i64| fs::read_dir(content_folder(storage.root(), client, 1)).unwrap().count() - 1;
    let first_left: i64 = from.parse().unwrap();
    assert!((1..first_left).all(|client| garbage(client) == 0), "{complaint}");
    let left: usize = (first_left..=100).map(garbage).sum();
    assert!(left > 0);
    let deleted = printed.lines().filter(|line| line.starts_with("deleted: ")).count();
    assert_eq!(deleted + left, 6000, "what it did is what it printed");
    assert!(printed.contains(&format!("\ndeleted {deleted} objects (")), "the totals so far");

    let rest = storage.run(&["gc", "--delete", "--from", from]);
    assert_eq!(rest.code, Some(0), "{rest:?}");
    assert!(rest.out.starts_with(&format!("deleted {left} objects")), "{rest:?}");
    assert_eq!(storage.files().len(), 200);
}

/// Uploads to `clients` × 4 attachments from one thread each until `done`, and returns what was acknowledged last for each.
fn replace(server: &Server, clients: i64, done: &AtomicBool) -> HashMap<(i64, i64), Vec<u8>> {
    let acknowledged = Mutex::new(HashMap::new());
    std::thread::scope(|threads| {
        for client in 1..=clients {
            let acknowledged = &acknowledged;
            threads.spawn(move || {
                let token = token(&[client]);
                let mut connection = server.connect();
                for round in 0_u64.. {
                    let attachment = i64::try_from(round % 4).unwrap() + 1;
                    let size = if round % 3 == 0 { 3000 } else { 30_000 };
                    let bytes = noise(size, round * 100 + client.cast_unsigned());
                    let reply = connection.upload(&token, client, attachment, &Form::file(&bytes));
                    assert_eq!(reply.status, 201, "{reply:?}");
                    acknowledged.lock().unwrap().insert((client, attachment), bytes);
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
    });
    acknowledged.into_inner().unwrap()
}

/// Says that it is done when it goes out of scope, so that a test that fails ends as well.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn loaded() -> Server {
    let limits = "max_upload_time = \"3s\"\n".to_owned();
    Setup { limits, ..Setup::default() }.start()
}

#[test]
fn sweeps_beside_uploads_delete_nothing_that_is_live() {
    let server = loaded();
    let long_ago = noise(50_000, 1);
    let stored = server.connect().upload(&token(&[99]), 99, 1, &Form::file(&long_ago));
    assert_eq!(stored.status, 201, "{stored:?}");
    let begun = Instant::now();
    let done = AtomicBool::new(false);
    let acknowledged = std::thread::scope(|threads| {
        let uploads = threads.spawn(|| replace(&server, 3, &done));
        let guard = Done(&done);
        let config = server.config();
        let gc = ["gc", "--delete", "--grace", "3001ms", "--config", config.to_str().unwrap()];
        // Until what was stored first has been older than the grace for some sweeps.
        let mut sweeps = 0;
        while begun.elapsed() < Duration::from_secs(5) || sweeps < 20 {
            let garbage = plant(&server.root(), 1 + sweeps % 3, 1, &upload_id(HOUR), b"garbage");
            let ended = Ended::from(run(&gc));
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(!garbage.exists());
            sweeps += 1;
        }
        drop(guard);
        uploads.join().unwrap()
    });
    assert_eq!(server.stored(99, 1).unwrap(), long_ago);
    for ((client, attachment), bytes) in acknowledged {
        assert!(
            server.stored(client, attachment).unwrap() == bytes,
            "{client}/{attachment} is not what was acknowledged"
        );
    }
    // The harness looks that there is no garbage, once the server is idle.
}

#[test]
fn a_check_beside_uploads_reports_nothing_false() {
    let server = loaded();
    // An empty storage would not pass.
    assert_eq!(server.connect().upload(&token(&[99]), 99, 1, &Form::file(b"x")).status, 201);
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let uploads = threads.spawn(|| replace(&server, 3, &done));
        let guard = Done(&done);
        let config = server.config();
        for _ in 0..20 {
            let ended = Ended::from(run(&["verify", "--config", config.to_str().unwrap()]));
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(
                ended.out.contains(
                    " objects of content: 0 missing, 0 damaged, 0 unreadable, 0 orphaned, 0 failed, 0 links;"
                ),
                "{ended:?}"
            );
        }
        drop(guard);
        uploads.join().unwrap();
    });
}
