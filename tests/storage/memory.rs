//! What uploads into an object store keep of the memory budget where nobody knows how large they become.

use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::conformance::{PART, digest, runtime};
use crate::engines::Engine;
use crate::harness::{Setup, chunk, eventually, finish, header, noise, token};

/// A budget of which 24 MiB are for what uploads keep, in bytes. It has room for one large upload and a half.
const BUDGET: usize = 32 << 20;

/// The size of a small upload, in bytes.
const SMALL: usize = 100_000;

/// How long what must not wait is waited for.
const AT_ONCE: Duration = Duration::from_secs(20);

/// What there is to send of an upload, in pieces as they are sent.
fn messages(attachment: i64, bytes: &[u8]) -> Vec<Message> {
    let mut messages = vec![Message::Header(header(1, attachment))];
    messages.extend(bytes.chunks(SMALL).map(|bytes| chunk(bytes.to_vec())));
    messages
}

#[test]
fn small_uploads_of_unknown_size_that_pause_do_not_keep_others_waiting() {
    const OPEN: i64 = 30;
    let place = Engine::Moto.place();
    let server = Setup { limits: format!("memory_budget = {BUDGET}\n"), ..place.setup() }.start();
    let good = token(&[1]);
    let content = |attachment: i64| noise(SMALL, attachment.unsigned_abs());
    let (go_on, told) = watch::channel(());
    std::thread::scope(|scope| {
        let open: Vec<_> = (1..=OPEN)
            .map(|attachment| {
                let mut told = told.clone();
                let last = futures_util::stream::once(async move {
                    told.changed().await.expect("it is told to go on");
                    finish()
                });
                let messages = futures_util::stream::iter(messages(attachment, &content(attachment))).chain(last);
                let (server, good) = (&server, &good);
                scope.spawn(move || runtime().block_on(server.grpc_upload_stream(good, messages)).is_ok())
            })
            .collect();
        let received = || server.numbers()["attachd_upload_received_bytes_total{door=\"grpc\"}"];
        eventually("all have sent what they have", || received() >= 30.0 * 100_000.0);
        eventually("no more is held for each than its bytes take", || {
            server.readiness()["budget_used_bytes"].as_u64().is_some_and(|used| used <= 30 * (128 << 10))
        });
        let mut another = messages(OPEN + 1, &content(OPEN + 1));
        another.push(finish());
        let stored = runtime().block_on(async { timeout(AT_ONCE, server.grpc_upload(&good, another)).await });
        assert!(stored.expect("it does not wait for those that pause").is_ok());
        go_on.send(()).expect("they wait to be told");
        assert!(open.into_iter().all(|upload| upload.join().unwrap()));
    });
    for attachment in 1..=OPEN + 1 {
        assert_eq!(place.stored(&server, attachment), Some(digest(&content(attachment))));
    }
    place.assert_nothing_left(&[&server]);
}

#[test]
fn large_uploads_of_unknown_size_come_to_their_end_beside_each_other_and_within_the_budget() {
    const SIZES: [usize; 10] =
        [PART, 6 * PART, 1, 3 * PART + 1, 2 * PART, 1 << 20, (1 << 20) + 1, 4 * PART, SMALL, 5 * PART];
    let place = Engine::Minio.place();
    let server = Setup { limits: format!("memory_budget = {BUDGET}\n"), ..place.setup() }.start();
    let good = token(&[1]);
    let content = |attachment: i64, size: usize| noise(size, attachment.unsigned_abs());
    let waits = || server.numbers()["attachd_memory_budget_waits_total"];
    std::thread::scope(|scope| {
        let begin = |(attachment, size): (i64, &usize)| {
            let mut messages = messages(attachment, &content(attachment, *size));
            messages.push(finish());
            let (server, good) = (&server, &good);
            scope.spawn(move || runtime().block_on(server.grpc_upload(good, messages)).is_ok())
        };
        let uploads: Vec<_> = (1..).zip(&SIZES).map(begin).collect();
        while uploads.iter().any(|upload| !upload.is_finished()) {
            let used = server.readiness()["budget_used_bytes"].as_u64().unwrap();
            assert!(used <= BUDGET as u64, "{used}");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(uploads.into_iter().all(|upload| upload.join().unwrap()));
    });
    assert!(waits() > 0.0, "none had to wait");
    for (attachment, size) in (1..).zip(&SIZES) {
        assert_eq!(place.stored(&server, attachment), Some(digest(&content(attachment, *size))));
    }
    assert_eq!(server.readiness()["budget_used_bytes"], 0);
    place.assert_nothing_left(&[&server]);
}
