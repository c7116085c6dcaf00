//! Two processes on one directory: what one of them promises holds against the other.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use crate::harness::{Connection, Form, Reply, Server, Setup, eventually, hold_all_locks, noise, run, token};

/// How often the two race.
const ROUNDS: i64 = 200;

fn two() -> (Server, Server) {
    let one = Server::start();
    let other = beside(&one);
    (one, other)
}

/// A server on the directory of another.
fn beside(one: &Server) -> Server {
    let root = one.root().to_str().unwrap().to_owned();
    let variables = BTreeMap::from([("ATTACHD_STORAGE__OPTIONS__ROOT", root)]);
    // What the other has closed and not committed yet is there.
    Setup { variables, garbage: true, ..Setup::default() }.start()
}

fn upload(server: &Server, attachment: i64, bytes: &[u8]) -> Reply {
    server.connect().upload(&token(&[1]), 1, attachment, &Form::file(bytes))
}

/// Content that is put with its record in one round, and has an object of its own in the next.
fn content(round: i64, seed: u64) -> Vec<u8> {
    noise(if round % 2 == 0 { 3000 } else { 30_000 }, seed)
}

/// Uploads through both at once, round by round, and hands the two statuses of each round to `look`.
fn race(one: &Server, other: &Server, rounds: i64, headers: &[(&str, &str)], look: impl Fn(i64, [u16; 2])) {
    let together = Barrier::new(2);
    let upload = |connection: &mut Connection, round: i64, seed: u64| {
        let path = format!("/api/v2/clients/1/attachments/{round}");
        together.wait();
        connection.upload_with(&token(&[1]), &path, headers, &Form::file(&content(round, seed))).status
    };
    for round in 1..=rounds {
        let statuses = std::thread::scope(|scope| {
            let first = scope.spawn(|| upload(&mut one.connect(), round, 1));
            let second = scope.spawn(|| upload(&mut other.connect(), round, 2));
            [first.join().unwrap(), second.join().unwrap()]
        });
        look(round, statuses);
    }
}

#[test]
fn of_two_create_only_uploads_through_two_processes_exactly_one_is_stored() {
    let (one, other) = two();
    race(&one, &other, ROUNDS, &[("If-None-Match", "*")], |round, statuses| {
        let seed = match statuses {
            [201, 412] => 1,
            [412, 201] => 2,
            _ => panic!("round {round}: {statuses:?}"),
        };
        assert_eq!(one.stored(1, round).unwrap(), content(round, seed), "round {round}");
    });
}

#[test]
fn of_two_replacing_uploads_through_two_processes_one_whole_content_stands_and_nothing_else() {
    let (one, other) = two();
    race(&one, &other, 20, &[], |round, statuses| {
        assert_eq!(statuses, [201, 201]);
        let stored = one.stored(1, round).unwrap();
        assert!(stored == content(round, 1) || stored == content(round, 2), "round {round}");
    });
}

#[test]
fn a_commit_that_comes_after_its_content_may_have_been_swept_is_refused() {
    let limits = "max_upload_time = \"2s\"\n".to_owned();
    let server = Setup { limits, ..Setup::default() }.start();
    let old = noise(30_000, 1);
    assert_eq!(upload(&server, 1, &old).status, 201);
    let locks = hold_all_locks(&server.root());
    let (known, unknown) = thread::scope(|scope| {
        let uploads = [1, 2].map(|attachment| {
            let server = &server;
            scope.spawn(move || upload(server, attachment, &noise(40_000, 2)))
        });
        // The contents are whole, and wait for their records.
        eventually("both are at their commit", || server.contents(1) == 2 && server.contents(2) == 1);
        let config = server.config();
        let gc = ["gc", "--delete", "--grace", "2001ms", "--config", config.to_str().unwrap()];
        eventually("a sweep takes both for garbage", || {
            let swept = run(&gc);
            assert_eq!(swept.status.code(), Some(0), "{swept:?}");
            server.contents(1) == 1 && server.contents(2) == 0
        });
        drop(locks);
        let [known, unknown] = uploads.map(|upload| upload.join().unwrap());
        (known, unknown)
    });
    for reply in [known, unknown] {
        reply.assert_refusal(408, "The request did not arrive in time: an upload may take 2 s at most");
    }
    assert_eq!(server.stored(1, 1), Some(old));
    assert_eq!(server.record(1, 2), None);
    let verified = run(&["verify", "--config", server.config().to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(0), "{verified:?}");
}

#[test]
fn what_starts_beside_a_process_that_is_ending_leaves_it_what_it_is_committing() {
    let mut ending = Server::start();
    let (arriving, arrived) = (noise(2 << 20, 1), noise(40_000, 2));
    let mut connection = ending.connect();
    let rest = connection.begin(&token(&[1]), 1, 1, &Form::file(&arriving), 1 << 20);
    eventually("one upload is half written", || !ending.temporary().is_empty());
    let locks = hold_all_locks(&ending.root());
    thread::scope(|scope| {
        let committing = scope.spawn(|| upload(&ending, 2, &arrived));
        eventually("the other is at its commit", || ending.contents(2) == 1);
        ending.signal("TERM");
        eventually("the process is ending", || Connection::try_open(ending.rest).is_err());

        let next = beside(&ending);
        let root = ending.root();
        for command in [&["gc", "--delete"][..], &["verify"]] {
            let ended = run(&[command, &["--data", root.to_str().unwrap()]].concat());
            assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        }
        assert!(!ending.temporary().is_empty());
        drop(locks);
        assert_eq!(committing.join().unwrap().status, 201);
        connection.send(&rest).unwrap();
        assert_eq!(connection.reply().expect("a reply").status, 201);
        eventually("the next one is idle", || next.readiness()["uploads_in_flight"] == 0);
        let reply = upload(&next, 3, &arrived);
        assert_eq!(reply.status, 201);
    });
    assert_eq!(ending.wait(), Some(0));
    assert_eq!(ending.stored(1, 1), Some(arriving));
    assert_eq!([2, 3].map(|attachment| ending.stored(1, attachment)), [Some(arrived.clone()), Some(arrived)]);
}
