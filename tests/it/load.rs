//! Many uploads at once: the memory budget holds, and those who came wait for it. Those for whom there is no place are in
//! `tests/faults`, where a storage can be made to keep what it is given.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;

use crate::harness::{Ask, Form, MAX_UPLOAD, Server, Setup, eventually, finish, header, noise, token};

/// The smallest budget that a server accepts, in bytes.
const BUDGET: u64 = 8 << 20;

/// How many clients send slowly at once.
const SLOW: u64 = 300;

/// The most that each of them may cost, in bytes, with its connection and with what the allocator keeps. A batch for each would be
/// twice that.
const EACH: u64 = 96 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn more_uploads_than_the_budget_holds_wait_for_each_other_and_all_succeed() {
    let server = Setup { limits: format!("memory_budget = {BUDGET}\n"), ..Setup::default() }.start();
    let bytes = Bytes::from(noise(4 << 20, 1));
    let connections: Vec<_> = (1..=32).map(|attachment| (attachment, server.connect())).collect();
    let token = token(&[1]);
    let rest = connections.into_iter().map(|(attachment, mut connection)| {
        let (token, form) = (token.clone(), Form::file(&bytes));
        thread::spawn(move || connection.upload(&token, 1, attachment, &form))
    });
    let rest: Vec<_> = rest.collect();
    let mut grpc = Vec::new();
    for attachment in 33..=64 {
        // One chunk, the largest that there may be: half of the budget.
        let messages = vec![Message::Header(header(1, attachment)), Message::Chunk(bytes.clone()), finish()];
        grpc.push(server.grpc_upload(&token, messages));
    }
    for stored in futures_util::future::join_all(grpc).await {
        assert_eq!(stored.unwrap().size, Some(4 << 20));
    }
    for reply in rest {
        let reply = reply.join().expect("a reply");
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    for attachment in 1..=64 {
        assert!(server.stored(1, attachment).unwrap() == bytes, "attachment {attachment} is as it was sent");
    }
    println!("the peak was {} MiB", server.peak_rss() >> 20);
}

#[test]
fn many_slow_uploads_take_little_memory() {
    // On a machine that is busy with other things, the clients here may be slower than is usually forgiven.
    let limits = format!("max_upload_size = {MAX_UPLOAD}\nidle_timeout = \"5m\"");
    let server = Setup { limits, ..Setup::default() }.start();
    let form = Form::file(&noise(100_000, 1));
    // What the program itself takes is not counted: most of it are its own pages, as many as the system read ahead.
    server.connect().assert_serves();
    let before = server.peak_rss();
    let mut uploads: Vec<_> = (1..=SLOW.cast_signed())
        .map(|attachment| {
            let mut connection = server.connect();
            let rest = connection.begin(&token(&[1]), 1, attachment, &form, 200);
            (connection, rest)
        })
        .collect();
    eventually("all are in flight", || server.readiness()["uploads_in_flight"] == SLOW);
    for _ in 0..20 {
        for (connection, rest) in &mut uploads {
            connection.send(&rest[..1000]).unwrap();
            rest.drain(..1000);
        }
    }
    // What has arrived is written even though the clients say no more.
    eventually("nobody sits on memory", || server.readiness()["budget_used_bytes"] == 0);
    let each = (server.peak_rss() - before) / SLOW;
    println!("{} MiB before, {} KiB more for each", before >> 20, each >> 10);
    assert!(each < EACH, "{} KiB more for each", each >> 10);
    for (connection, rest) in &mut uploads {
        connection.send(rest).unwrap();
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}

#[test]
fn clients_that_ask_at_the_same_time_take_turns_and_one_that_is_alone_does_not() {
    const ACTIVE: &str = "attachd_queue_active{queue=\"processors\"}";
    let server = Server::start();
    let over = AtomicBool::new(false);
    let turns = || server.numbers()[ACTIVE];
    thread::scope(|scope| {
        let _end = scopeguard::guard((), |()| over.store(true, Ordering::Relaxed));
        let ask = |client: i64| {
            let (server, over) = (&server, &over);
            scope.spawn(move || {
                let mut connection = server.connect();
                let upload = Ask::upload(client, 1, &Form::file(&noise(4096, 1)));
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(connection.ask(&upload).status, 201);
                }
            })
        };
        (0..4).for_each(|_| drop(ask(1)));
        eventually("it is busy", || server.numbers()["attachd_queue_active{queue=\"commit_threads\"}"] > 0.0);
        assert!((0..20).all(|_| turns() == 0.0), "nobody else asks");
        (0..4).for_each(|_| drop(ask(2)));
        eventually("turns are taken", || turns() > 0.0);
    });
    eventually("all turns are over", || turns() == 0.0);
}
