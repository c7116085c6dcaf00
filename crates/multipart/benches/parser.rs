//! The form parser beside another one, on content that arrives in pieces: GiB/s on bytes without meaning, and on bytes that
//! nearly are the boundary again and again. `cargo bench -p attachd-multipart`.

#![allow(clippy::expect_used, reason = "a benchmark ends where it fails")]

use std::hint::black_box;
use std::io::Error;

use attachd_multipart::{Boundary, Event, Limits, Parser};
use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use futures_util::{FutureExt, stream};

/// The size of the content, in bytes.
const CONTENT: usize = 8 << 20;

/// How large the pieces are that it arrives in, in bytes: of a slow line, of the read buffer, of a library's.
const ARRIVALS: [usize; 3] = [16 << 10, 64 << 10, 400 << 10];

const BOUNDARY: &str = "----boundary-of-a-usual-length-7MA4YWxkTrZu0gW";

/// A form of one file, in pieces.
fn form(content: &[u8], arrival: usize) -> Vec<Bytes> {
    let mut form =
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n").into_bytes();
    form.extend_from_slice(content);
    form.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    let form = Bytes::from(form);
    (0..form.len()).step_by(arrival).map(|at| form.slice(at..form.len().min(at + arrival))).collect()
}

/// Bytes that look like nothing in particular.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(CONTENT + 8);
    while bytes.len() < CONTENT {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// The delimiter without its last byte, again and again.
fn near_misses() -> Vec<u8> {
    let delimiter = format!("\r\n--{}", &BOUNDARY[..BOUNDARY.len() - 1]);
    delimiter.bytes().cycle().take(CONTENT).collect()
}

/// How many bytes of content this project's parser finds.
fn ours(pieces: &[Bytes], boundary: &Boundary) -> usize {
    let mut parser = Parser::new(boundary, Limits::default());
    let mut found = 0;
    for piece in pieces {
        parser.push(piece.clone());
        while let Some(event) = parser.next().expect("a form") {
            if let Event::Data(bytes) = event {
                found += black_box(bytes).len();
            }
        }
    }
    parser.finish().expect("the end of a form");
    found
}

/// How many bytes of content multer finds.
fn multer(pieces: &[Bytes]) -> usize {
    let read = async {
        let mut form = multer::Multipart::new(stream::iter(pieces.iter().cloned().map(Ok::<_, Error>)), BOUNDARY);
        let mut found = 0;
        while let Some(mut field) = form.next_field().await.expect("a form") {
            while let Some(bytes) = field.chunk().await.expect("a form") {
                found += black_box(bytes).len();
            }
        }
        found
    };
    // All there is has arrived, so there is nothing to wait for; where a turn is given up, it is taken again.
    let mut read = Box::pin(read);
    loop {
        if let Some(found) = read.as_mut().now_or_never() {
            return found;
        }
    }
}

fn parsers(criterion: &mut Criterion) {
    let boundary = format!("multipart/form-data; boundary={BOUNDARY}");
    let boundary = Boundary::from_content_type(Some(boundary.as_bytes())).expect("a boundary");
    for (kind, content) in [("noise", noise()), ("near misses", near_misses())] {
        let mut group = criterion.benchmark_group(kind);
        group.throughput(Throughput::Bytes(content.len() as u64)).sample_size(20);
        for arrival in ARRIVALS {
            let pieces = form(&content, arrival);
            assert_eq!((ours(&pieces, &boundary), multer(&pieces)), (content.len(), content.len()));
            let arrival = format!("{} KiB", arrival >> 10);
            group.bench_with_input(BenchmarkId::new("attachd", &arrival), &pieces, |bencher, pieces| {
                bencher.iter(|| ours(pieces, &boundary));
            });
            group.bench_with_input(BenchmarkId::new("multer", &arrival), &pieces, |bencher, pieces| {
                bencher.iter(|| multer(pieces));
            });
        }
        group.finish();
    }
}

criterion_group!(benches, parsers);
criterion_main!(benches);
