//! Gives files, whole or a range of them, and hashes what it gives. One piece is read while the one before is being sent.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::serve::ListenerExt;
use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_LENGTH, RANGE};
use http::{HeaderMap, StatusCode};
use tokio::net::TcpListener;
use tokio::task::spawn_blocking;

/// How much is read at once, in bytes.
const PIECE: u64 = 256 << 10;

/// Serves the files of a folder.
pub async fn serve(listener: TcpListener, root: Arc<PathBuf>) -> io::Result<()> {
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("{error}");
        }
    });
    axum::serve(listener, Router::new().fallback(give).with_state(root)).await
}

async fn give(State(root): State<Arc<PathBuf>>, request: Request) -> Response {
    let path = root.join(request.uri().path().trim_start_matches('/'));
    file(path, range(request.headers())).await.unwrap_or_else(|error| {
        eprintln!("{error}");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
}

async fn file(path: PathBuf, range: Option<Range<u64>>) -> io::Result<Response> {
    let opened = spawn_blocking(move || {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        io::Result::Ok((file, size))
    });
    let (file, size) = opened.await??;
    let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let range = range.unwrap_or(0..size);
    let length = range.end.saturating_sub(range.start);
    let reading = (Arc::new(file), range, Context::new(&SHA256));
    let pieces = stream::try_unfold(reading, async |(file, range, hash)| match range.is_empty() {
        true => io::Result::Ok(None),
        false => spawn_blocking(move || piece(file, range, hash).map(Some)).await?,
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    Ok(response)
}

type Left = (Arc<File>, Range<u64>, Context);

fn piece(file: Arc<File>, range: Range<u64>, mut hash: Context) -> io::Result<(Bytes, Left)> {
    let length = PIECE.min(range.end - range.start);
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    hash.update(&bytes);
    let left = range.start + length..range.end;
    if left.is_empty() {
        std::hint::black_box(hash.clone().finish());
    }
    Ok((bytes.into(), (file, left, hash)))
}

/// The range of a request, which has both ends.
fn range(headers: &HeaderMap) -> Option<Range<u64>> {
    let (first, last) = headers.get(RANGE)?.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}
