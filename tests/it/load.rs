//! Many uploads at once: the memory budget holds, those who came wait for it, and those for whom there is no place are
//! told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;
use tokio::task::JoinSet;
use tonic::Code;

use crate::harness::{Form, MAX_UPLOAD, Setup, chunk, eventually, finish, header, noise, token};

/// The smallest budget that a server accepts, in bytes.
const BUDGET: u64 = 8 << 20;

/// How many uploads want more than that together.
const PRESSING: usize = 192;

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

#[tokio::test(flavor = "multi_thread")]
async fn newcomers_are_told_to_come_back_while_too_many_wait_and_those_who_waited_succeed() {
    let limits = format!("memory_budget = {BUDGET}\nmax_waiting_uploads = 1\n");
    let server = Arc::new(Setup { limits, ..Setup::default() }.start());
    // Uploads that were let in while there was room, and that then want more memory than there is, for as long as they are
    // asked to: what each of them gathers for a write is together six times as much.
    let pressure = Arc::new(AtomicBool::new(true));
    let begin = Arc::new(tokio::sync::Barrier::new(PRESSING + 1));
    let mut pressing = JoinSet::new();
    for attachment in (1..).take(PRESSING) {
        let (server, pressure, begin) = (Arc::clone(&server), Arc::clone(&pressure), Arc::clone(&begin));
        pressing.spawn(async move {
            let (send, messages) = tokio::sync::mpsc::channel(1);
            let sending = async move {
                let piece = Bytes::from(noise(4 << 20, 1));
                send.send(Message::Header(header(1, attachment))).await.unwrap();
                begin.wait().await;
                while pressure.load(Ordering::Relaxed) {
                    send.send(Message::Chunk(piece.clone())).await.unwrap();
                }
                send.send(finish()).await.unwrap();
            };
            let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
            let token = token(&[1]);
            tokio::join!(server.grpc_upload_stream(&token, messages), sending).0
        });
    }
    eventually("all are let in", || server.readiness()["uploads_in_flight"] == PRESSING);
    begin.wait().await;

    let mut connection = server.connect();
    let newcomer = token(&[2]);
    // Between two writes there may be nobody who waits, so not each of them is refused.
    let mut over_rest = None;
    eventually("a newcomer is refused over REST", || {
        over_rest = Some(connection.upload(&newcomer, 2, 1, &Form::file(b"x"))).filter(|reply| reply.status != 201);
        over_rest.is_some()
    });
    let over_rest = over_rest.expect("a refusal");
    assert_eq!(over_rest.status, 503, "{over_rest:?}");
    assert_eq!(over_rest.details(), "The service is at its limit, try again later");
    assert!(over_rest.headers.contains_key("retry-after"), "{over_rest:?}");
    let mut over_grpc = None;
    for _ in 0..1000 {
        let messages = vec![Message::Header(header(2, 2)), chunk(b"x".to_vec()), finish()];
        over_grpc = server.grpc_upload(&newcomer, messages).await.err();
        if over_grpc.is_some() {
            break;
        }
    }
    let over_grpc = over_grpc.expect("a newcomer is refused over gRPC");
    assert_eq!((over_grpc.code, over_grpc.reason.as_str()), (Code::Unavailable, "OVERLOADED"));
    pressure.store(false, Ordering::Relaxed);
    while let Some(stored) = pressing.join_next().await {
        stored.unwrap().unwrap();
    }
    // The connection outlives its refusal, and once nobody waits its next upload is taken.
    assert_eq!(connection.upload(&newcomer, 2, 1, &Form::file(b"last")).status, 201);
    assert_eq!(server.stored(2, 1).unwrap(), b"last");
}

#[test]
fn many_slow_uploads_take_little_memory() {
    // On a machine that is busy with other things, the clients here may be slower than is usually forgiven.
    let limits = format!("max_upload_size = {MAX_UPLOAD}\nidle_timeout = \"5m\"");
    let server = Setup { limits, ..Setup::default() }.start();
    let form = Form::file(&noise(100_000, 1));
    let mut uploads: Vec<_> = (1..=300)
        .map(|attachment| {
            let mut connection = server.connect();
            let rest = connection.begin(&token(&[1]), 1, attachment, &form, 200);
            (connection, rest)
        })
        .collect();
    eventually("all are in flight", || server.readiness()["uploads_in_flight"] == 300);
    let before = server.peak_rss();
    for _ in 0..20 {
        for (connection, rest) in &mut uploads {
            connection.send(&rest[..1000]).unwrap();
            rest.drain(..1000);
        }
    }
    // What has arrived is written even though the clients say no more.
    eventually("nobody sits on memory", || server.readiness()["budget_used_bytes"] == 0);
    let grown = server.peak_rss() - before;
    println!("{} MiB before, {} KiB more", before >> 20, grown >> 10);
    assert!(server.peak_rss() < 64 << 20, "the peak was {} MiB", server.peak_rss() >> 20);
    for (connection, rest) in &mut uploads {
        connection.send(rest).unwrap();
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}
