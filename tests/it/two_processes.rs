//! Two processes on one directory: what one of them promises holds against the other.

use std::collections::BTreeMap;
use std::sync::Barrier;

use crate::harness::{Connection, Form, Server, Setup, noise, token};

/// How often the two race.
const ROUNDS: i64 = 200;

fn two() -> (Server, Server) {
    let one = Server::start();
    let root = one.root().to_str().unwrap().to_owned();
    let variables = BTreeMap::from([("ATTACHD_STORAGE__OPTIONS__ROOT", root)]);
    let other = Setup { variables, ..Setup::default() }.start();
    (one, other)
}

/// Uploads through both at once, round by round, and hands the two statuses of each round to `look`.
fn race(one: &Server, other: &Server, rounds: i64, headers: &[(&str, &str)], look: impl Fn(i64, [u16; 2])) {
    let together = Barrier::new(2);
    let upload = |connection: &mut Connection, round: i64, seed: u64| {
        let path = format!("/api/v2/clients/1/attachments/{round}");
        together.wait();
        connection.upload_with(&token(&[1]), &path, headers, &Form::file(&noise(3000, seed))).status
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
        assert_eq!(one.stored(1, round).unwrap(), noise(3000, seed), "round {round}");
    });
}

#[test]
fn of_two_replacing_uploads_through_two_processes_one_whole_content_stands_and_nothing_else() {
    let (one, other) = two();
    race(&one, &other, 20, &[], |round, statuses| {
        assert_eq!(statuses, [201, 201]);
        let stored = one.stored(1, round).unwrap();
        assert!(stored == noise(3000, 1) || stored == noise(3000, 2), "round {round}");
    });
}
