//! Reads the pieces of a download in order, each with memory for it. The next piece can be read while the caller takes the one
//! before. It must not know how pieces are sent.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, MaybeDone, maybe_done};
use tokio_util::sync::CancellationToken;

use crate::budget::{Reading, Reservation};
use crate::error::{Error, Kind, Result};
use crate::store::ContentReader;

/// The pieces that are still to be returned.
pub(super) struct Pieces {
    /// What is read. `None` while a piece is being read.
    source: Option<Box<Source>>,
    /// The piece that is being read. Its future is there only for that time, so that a download that waits for its caller is
    /// small.
    next: Option<MaybeDone<BoxFuture<'static, Read>>>,
    /// Whether the caller is slow, so that small pieces are enough for it.
    pub(super) is_slow: bool,
}

type Read = (Box<Source>, Result<Option<Bytes>>);

struct Source {
    reader: ContentReader,
    memory: Reading,
    ended: CancellationToken,
    /// How many bytes were read.
    read: u64,
}

/// A piece, which gives its memory back when nobody has any of it.
struct Piece {
    bytes: Bytes,
    _memory: Reservation,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Pieces {
    /// The pieces of what `reader` reads, until `ended`.
    pub(super) fn new(reader: ContentReader, memory: Reading, ended: CancellationToken) -> Pieces {
        Pieces { source: Some(Box::new(Source { reader, memory, ended, read: 0 })), next: None, is_slow: false }
    }

    /// Begins to read the next piece.
    pub(super) async fn begin(&mut self) {
        if let Some(source) = self.source.take() {
            self.next = Some(maybe_done(source.read(self.is_slow).boxed()));
        }
        if let Some(next) = &mut self.next {
            // Work on a thread goes on by itself once it was asked for.
            poll_fn(|context| {
                let _ = Pin::new(&mut *next).poll(context);
                Poll::Ready(())
            })
            .await;
        }
    }

    /// The next piece. None at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        self.begin().await;
        let Some(next) = &mut self.next else { return Ok(None) };
        Pin::new(&mut *next).await;
        let (source, piece) = Pin::new(next).take_output().ok_or_else(|| Error::internal("a piece was read twice"))?;
        (self.source, self.next) = (Some(source), None);
        piece
    }

    /// Whether all pieces were returned.
    pub(super) fn is_done(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.reader.is_done())
    }

    /// Whether the caller is to have one piece at a time: it is slow, or many downloads are active.
    pub(super) fn is_one_at_a_time(&self) -> bool {
        self.is_slow || self.source.as_ref().is_some_and(|source| source.memory.is_crowded())
    }
}

impl Source {
    async fn read(mut self: Box<Self>, is_slow: bool) -> Read {
        let piece = self.next(is_slow).await;
        (self, piece)
    }

    async fn next(&mut self, is_slow: bool) -> Result<Option<Bytes>> {
        let most = self.memory.piece(self.read, is_slow);
        let mut memory = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            memory = self.memory.take(most) => memory?,
        };
        let bytes = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            bytes = self.reader.next(most) => bytes?,
        };
        let Some(bytes) = bytes else { return Ok(None) };
        memory.shrink(bytes.len());
        self.read += bytes.len() as u64;
        Ok(Some(Bytes::from_owner(Piece { bytes, _memory: memory })))
    }
}
