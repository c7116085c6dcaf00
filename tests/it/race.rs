//! Writers who mean the same attachment at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{UploadAttachmentRequest, UploadHeader};
use futures_util::stream;
use tokio::sync::Barrier;
use tonic::{Code, Request};

use crate::harness::storage::read_whole;
use crate::harness::{Form, Server, authorised, chunk, eventually, finish, header, noise, token};

/// What both writers of a round were told: the HTTP status and the gRPC code.
async fn round(server: &Server, attachment: i64, if_absent: bool, contents: [Vec<u8>; 2]) -> (u16, Code) {
    let start = Arc::new(Barrier::new(2));
    let [over_rest, over_grpc] = contents;

    let mut connection = server.connect();
    let ready = Arc::clone(&start);
    let rest = tokio::spawn(async move {
        let form = Form::file(&over_rest);
        ready.wait().await;
        let more: &[(&str, &str)] = if if_absent { &[("If-None-Match", "*")] } else { &[] };
        let path = format!("/api/v2/clients/1/attachments/{attachment}");
        tokio::task::block_in_place(|| connection.upload_with(&token(&[1]), &path, more, &form).status)
    });

    let mut client = server.channel().await;
    let header = UploadHeader { if_absent, ..header(1, attachment) };
    let messages = [Message::Header(header), chunk(over_grpc), finish()];
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let request = authorised(Request::new(stream::iter(messages)), &token(&[1]));
    start.wait().await;
    let grpc = client.upload_attachment(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
    (rest.await.expect("a request ends"), grpc)
}

/// Reads an attachment as any reader would, until it is told to stop: each time all of what some writer sent.
fn read_on(root: std::path::PathBuf, stop: Arc<AtomicBool>) -> usize {
    let mut read = 0;
    while !stop.load(Ordering::Relaxed) {
        read += usize::from(read_whole(&root, 1, 1).is_some());
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_writers_one_wins_whole_and_the_other_leaves_nothing() {
    let server = Server::start();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (root, stop) = (server.root(), Arc::clone(&stop));
        move || read_on(root, stop)
    });
    for number in 0..200 {
        // Two lengths, so that a mix of the two could not be taken for either.
        let contents = [noise(30_000, 2 * number + 1), noise(31_000, 2 * number + 2)];
        assert_eq!(round(&server, 1, false, contents.clone()).await, (201, Code::Ok), "round {number}");
        let stored = server.stored(1, 1).expect("one of them is stored");
        assert!(contents.contains(&stored), "round {number}: {} bytes that neither sent", stored.len());
    }
    stop.store(true, Ordering::Relaxed);
    assert!(reader.join().expect("a reader sees whole files only") > 0);
    let left = || server.contents(1);
    eventually("the content of the losers is gone", || left() == 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_writers_who_create_exactly_one_is_told_that_it_did() {
    let server = Server::start();
    for number in 1..=50 {
        let attachment = i64::try_from(number).expect("a small number");
        let contents = [noise(30_000, 2 * number + 1), noise(31_000, 2 * number + 2)];
        let told = round(&server, attachment, true, contents.clone()).await;
        let winner = match told {
            (201, Code::AlreadyExists) => 0,
            (412, Code::Ok) => 1,
            other => panic!("round {number}: {other:?}"),
        };
        assert!(server.stored(1, attachment).as_ref() == Some(&contents[winner]), "round {number}");
    }
}
