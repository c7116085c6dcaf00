//! Memory does not grow with the size of an upload. Each test has a server of its own, since a peak is never taken back.

use std::sync::{Arc, Mutex};

use attachd::pb::upload_attachment_request::Message;
use aws_lc_rs::digest::{Context, Digest, SHA256};
use bytes::Bytes;
use futures_util::stream;

use crate::harness::{Server, Setup, finish, header, hex, noise, token};

/// The size of an upload, in bytes: many times what the server may hold.
const SIZE: u64 = 1 << 30;

/// The most memory that the server may have had at any time, in bytes.
const MOST: u64 = 64 << 20;

/// An endless file in pieces, each of them different, so that pieces that were lost, doubled or swapped change the digest.
struct Pieces {
    piece: Vec<u8>,
    count: u64,
    hash: Context,
}

impl Pieces {
    fn new() -> Pieces {
        Pieces { piece: noise(1 << 20, 7), count: 0, hash: Context::new(&SHA256) }
    }

    fn next(&mut self) -> &[u8] {
        self.count += 1;
        self.piece[..8].copy_from_slice(&self.count.to_le_bytes());
        self.hash.update(&self.piece);
        &self.piece
    }

    fn sent(&self) -> u64 {
        self.count * self.piece.len() as u64
    }
}

fn roomy() -> Server {
    Setup { limits: format!("max_upload_size = {SIZE}\n"), ..Setup::default() }.start()
}

/// Looks that the file is there as it was sent; that its bytes have the recorded digest is looked at when the server ends.
fn assert_stored_in_little_memory(server: &Server, sent: &Digest) {
    let content = server.content(1, 2);
    assert_eq!(content["size"], SIZE);
    assert_eq!(content["sha256"], hex(sent.as_ref()));
    let peak = server.peak_rss();
    println!("the peak was {} MiB", peak >> 20);
    assert!(peak < MOST, "the peak was {} MiB", peak >> 20);
}

#[test]
fn a_large_upload_over_rest_takes_little_memory() {
    let server = roomy();
    let (before, after) =
        ("--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"large\"\r\n\r\n", "\r\n--b--\r\n");
    let mut connection = server.connect();
    let headers = [
        ("Authorization", format!("Bearer {}", token(&[1]))),
        ("Content-Type", "multipart/form-data; boundary=b".to_owned()),
        ("Content-Length", (before.len() as u64 + SIZE + after.len() as u64).to_string()),
    ];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    connection.head("POST", "/api/v2/clients/1/attachments/2", &headers);
    connection.send(before.as_bytes()).unwrap();
    let mut pieces = Pieces::new();
    while pieces.sent() < SIZE {
        connection.send(pieces.next()).unwrap();
    }
    connection.send(after.as_bytes()).unwrap();
    let reply = connection.reply().expect("a reply");
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_stored_in_little_memory(&server, &pieces.hash.finish());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_over_grpc_takes_little_memory() {
    let server = roomy();
    let pieces = Arc::new(Mutex::new(Pieces::new()));
    let sending = Arc::clone(&pieces);
    let chunks = std::iter::from_fn(move || {
        let mut pieces = sending.lock().unwrap();
        (pieces.sent() < SIZE).then(|| Message::Chunk(Bytes::copy_from_slice(pieces.next())))
    });
    let messages = std::iter::once(Message::Header(header(1, 2))).chain(chunks).chain(std::iter::once(finish()));
    let stored = server.grpc_upload_stream(&token(&[1]), stream::iter(messages)).await.unwrap();
    assert_eq!(stored.size, Some(SIZE.cast_signed()));
    let hash = pieces.lock().unwrap().hash.clone();
    assert_stored_in_little_memory(&server, &hash.finish());
}
