//! How much, how many, how long: the limits of uploads over gRPC, and what they do to the uploads beside them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadAttachmentRequest};
use futures_util::{StreamExt, stream};
use prost::Message as _;
use tokio::sync::watch;
use tonic::{Code, Request};

use crate::harness::{
    GrpcRefusal, MAX_UPLOAD, RawConnection, Server, Setup, authorised, chunk, eventually, finish, framed, header,
    message_frame, noise, record_path, token,
};

const MAX_CHUNK: usize = 4 << 20;

/// How many streams of one connection are not read.
const STALLED: u64 = 100;

fn limited(lines: &str) -> Server {
    Setup { limits: format!("max_upload_size = {MAX_UPLOAD}\n{lines}\n"), ..Setup::default() }.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_of_4_mib_is_taken_and_a_larger_one_refused() {
    let server = Server::start();
    for size in [MAX_CHUNK - 1, MAX_CHUNK] {
        let bytes = noise(size, 1);
        let messages = vec![Message::Header(header(1, 1)), chunk(bytes.clone()), finish()];
        server.grpc_upload(&token(&[1]), messages).await.expect("it is small enough");
        assert!(server.stored(1, 1).expect("it is stored") == bytes);
    }
    let old = server.record(1, 1);
    for (size, fields) in [(MAX_CHUNK + 1, vec!["chunk"]), (MAX_CHUNK + (64 << 10), vec![])] {
        let messages = vec![Message::Header(header(1, 1)), chunk(noise(size, 1)), finish()];
        let refusal = server.grpc_upload(&token(&[1]), messages).await.expect_err("it is too large");
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{size}");
        assert_eq!(refusal.fields, fields, "{size}");
        assert_eq!(server.record(1, 1), old);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_much_of_a_stream_is_taken_unread_as_is_configured_and_no_more() {
    for window in [65_536, 65_537, 200_000] {
        let server = limited(&format!("http2_window = {window}"));
        let stream = &mut RawConnection::open(server.grpc).await.upload(&token(&[1]), &[]).await;
        assert_eq!(stream.room().await, window);
    }
    let server = limited("memory_budget = \"128MiB\"");
    let stream = &mut RawConnection::open(server.grpc).await.upload(&token(&[1]), &[]).await;
    assert_eq!(stream.room().await, 128 << 10);
}

/// Sends the header, so many chunks of so many bytes each at once, and the finish.
async fn chunks(server: &Server, count: usize, size: usize) -> Result<Vec<u8>, GrpcRefusal> {
    let bytes = noise(count * size, 3);
    let mut connection = RawConnection::open(server.grpc).await;
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    let of = |index: usize| framed(chunk(bytes[index * size..(index + 1) * size].to_vec()));
    let chunks: Vec<u8> = (0..count).flat_map(of).collect();
    stream.send([framed(Message::Header(header(1, 1))), chunks, framed(finish())].concat());
    stream.end();
    stream.reply().await.map(|_| bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_empty_and_tiny_chunks_are_stored_in_order_and_a_flood_of_them_is_refused() {
    let server = Server::start();
    let before = server.peak_rss();
    for (count, size) in [(9000, 0), (9000, 1), (9000, 63), (100_000, 64)] {
        let bytes = chunks(&server, count, size).await.expect("it is stored");
        assert!(server.stored(1, 1).expect("it is stored") == bytes, "{count} of {size}");
    }
    let stands = server.record(1, 1);
    for size in [0, 1, 32] {
        let refusal = chunks(&server, 100_000, size).await.expect_err("they are too small");
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{refusal:?}");
        assert!(
            refusal.message.ends_with(": too many chunks have less than 64 bytes; send larger chunks"),
            "{refusal:?}"
        );
        assert_eq!(server.record(1, 1), stands);
    }
    let grown = server.peak_rss() - before;
    assert!(grown < 32 << 20, "{grown} bytes more than before");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_streams_than_a_connection_may_have_wait_and_are_all_served() {
    let server = Server::start();
    assert_eq!(RawConnection::open(server.grpc).await.max_streams(), 200);
    let (open, opened) = watch::channel(false);
    let client = server.channel().await;
    let uploads = (1..=300).map(|attachment| {
        let (mut client, mut opened) = (client.clone(), opened.clone());
        let last = stream::once(async move {
            opened.wait_for(|open| *open).await.expect("the gate is not lost");
            finish()
        });
        let content = chunk(attachment.to_string());
        let messages = stream::iter([Message::Header(header(1, attachment)), content]).chain(last);
        let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
        let request = authorised(Request::new(messages), &token(&[1]));
        tokio::spawn(async move { client.upload_attachment(request).await })
    });
    let uploads: Vec<_> = uploads.collect();
    eventually("as many are in flight as may", || server.readiness()["uploads_in_flight"] == 200);
    open.send(true).expect("they wait");
    for upload in uploads {
        upload.await.expect("an upload ends").expect("an upload is stored");
    }
    for attachment in 1..=300 {
        assert_eq!(server.stored(1, attachment).expect("it is stored"), attachment.to_string().as_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_the_server_does_not_read_leave_room_for_the_others_on_its_connection() {
    let server = Server::start();
    // A record that is a pipe: the server waits for it as it would for a storage that hangs, and reads nothing of the
    // upload meanwhile.
    let record = record_path(server.root(), 1, 99);
    fs::create_dir_all(record.parent().expect("a record has a folder")).expect("a folder can be made");
    assert!(Command::new("mkfifo").arg(&record).status().expect("mkfifo can be run").success());

    // Each has a thread that waits at the pipe.
    let mut connection = RawConnection::open(server.grpc).await;
    let mut stalled = Vec::new();
    for number in 0..STALLED {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(framed(Message::Header(header(1, 99))));
        stream.send(framed(chunk(noise(1 << 20, number))));
        stalled.push(stream);
    }
    connection.delivered().await;
    for attachment in 1..=10 {
        let bytes = noise(3 << 20, 20);
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(framed(Message::Header(header(1, attachment))));
        stream.send(framed(chunk(bytes.clone())));
        stream.send(framed(finish()));
        stream.end();
        let reply = tokio::time::timeout(Duration::from_secs(20), stream.reply()).await;
        reply.expect("it is not held up").expect("it is stored");
        assert!(server.stored(1, attachment).expect("it is stored") == bytes);
    }

    // Whoever opens a pipe lets its reader go on, and nothing in it is no record.
    drop(fs::File::options().write(true).open(&record).expect("the server waits at the other end"));
    for stream in stalled {
        let refusal = stream.reply().await.expect_err("there is no record");
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Internal, "INTERNAL"));
    }
    fs::remove_file(&record).expect("a pipe can be removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_refused() {
    let server = limited("idle_timeout = \"300ms\"");
    let begun = || framed(Message::Header(header(1, 1)));
    let mut connection = RawConnection::open(server.grpc).await;
    for (name, sent) in [
        ("before the header", Vec::new()),
        ("within the header", begun()[..9].to_vec()),
        ("after the header", begun()),
        ("after a chunk", [begun(), framed(chunk("some"))].concat()),
        ("within a chunk", [begun(), framed(chunk("some"))[..7].to_vec()].concat()),
        ("after an empty chunk", [begun(), framed(chunk(""))].concat()),
        ("after the finish, the stream still open", [begun(), framed(chunk("some")), framed(finish())].concat()),
    ] {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(sent);
        let refusal = stream.reply().await.expect_err(name);
        let expected = (Code::DeadlineExceeded, "CLIENT_TOO_SLOW");
        assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{name}: {refusal:?}");
        assert_eq!(refusal.message.contains("half-close"), name.contains("after the finish"), "{name}: {refusal:?}");
        assert_eq!(server.record(1, 1), None, "{name}");
    }
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    stream.send([begun(), framed(finish())].concat());
    stream.end();
    stream.reply().await.expect("the next upload on the connection is served");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_falls_silent_is_refused_and_registers_nothing() {
    let server = limited("idle_timeout = \"300ms\"");
    let message = RegisterAttachmentRequest { client_id: 1, attachment_id: 1, ..Default::default() }.encode_to_vec();
    let whole = message_frame(0, &message);
    let mut connection = RawConnection::open(server.grpc).await;
    for (name, sent) in [
        ("before the message", Vec::new()),
        ("within the prefix", whole[..3].to_vec()),
        ("within the message", whole[..6].to_vec()),
        ("after the message, the stream still open", whole.clone()),
    ] {
        let mut stream = connection.call("RegisterAttachment", &token(&[1]), &[]).await;
        stream.send(sent);
        let reply = tokio::time::timeout(Duration::from_secs(20), stream.reply()).await;
        let refusal = reply.expect("it is ended").expect_err(name);
        let expected = (Code::DeadlineExceeded, "CLIENT_TOO_SLOW");
        assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{name}: {refusal:?}");
        assert_eq!(server.record(1, 1), None, "{name}");
    }
    let mut stream = connection.call("RegisterAttachment", &token(&[1]), &[]).await;
    stream.send(whole);
    stream.end();
    stream.reply().await.expect("the next registration on the connection is served");
}

/// Sends `first`, then `again` for as long as the server takes it, with little time in between.
async fn drip(server: &Server, first: &'static str, again: &'static str) {
    let begun = stream::iter([Message::Header(header(1, 1)), chunk(first)]);
    let pause = tokio::time::interval(Duration::from_millis(20));
    let drops = stream::unfold(pause, move |mut pause| async move {
        pause.tick().await;
        Some((chunk(again), pause))
    });
    let token = token(&[1]);
    let upload = server.grpc_upload_stream(&token, begun.chain(drops));
    let reply = tokio::time::timeout(Duration::from_secs(20), upload).await;
    let refusal = reply.expect("it is ended").expect_err("it takes too long");
    let expected = (Code::DeadlineExceeded, "CLIENT_TOO_SLOW");
    assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{first:?} then {again:?}: {refusal:?}");
    assert_eq!(server.record(1, 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_goes_on_for_too_long_is_refused_however_little_it_sends() {
    let server = limited("idle_timeout = \"10s\"\nmax_upload_time = \"500ms\"");
    for (first, again) in [("", ""), ("a", ""), ("a", "b"), ("", "b")] {
        drip(&server, first, again).await;
    }
    let messages = vec![Message::Header(header(1, 1)), chunk("in time"), finish()];
    server.grpc_upload(&token(&[1]), messages).await.expect("the next upload is served");
}
