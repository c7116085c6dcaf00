//! What of a response the HTTP library was given over HTTP/2 and has not sent. The library takes a whole piece as soon as the window of
//! its stream has room for one byte, and the last piece with the end of the response. Nobody would notice then that the client
//! takes no more of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use axum::body::Bytes;
use futures_util::task::AtomicWaker;

/// How much may be unsent when a response ends, in bytes. Streams are bounded for each connection, so little of it is held.
const LITTLE: usize = 4 << 10;

/// The pieces of one response. Clones are about the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Unsent(Arc<Pieces>);

#[derive(Debug, Default)]
struct Pieces {
    bytes: AtomicUsize,
    sent: AtomicWaker,
}

/// One piece, which is sent when it is dropped.
struct Piece {
    bytes: Bytes,
    unsent: Unsent,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.unsent.0.bytes.fetch_sub(self.bytes.len(), Ordering::AcqRel);
        self.unsent.0.sent.wake();
    }
}

impl Unsent {
    /// The same bytes, which count as unsent until they are dropped.
    pub(super) fn count(&self, bytes: Bytes) -> Bytes {
        self.0.bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        Bytes::from_owner(Piece { bytes, unsent: self.clone() })
    }

    /// Whether the response may end.
    pub(super) fn is_little(&self) -> bool {
        self.0.bytes.load(Ordering::Acquire) <= LITTLE
    }

    /// Ready once the response may end.
    pub(super) fn poll_little(&self, context: &mut Context<'_>) -> Poll<()> {
        self.0.sent.register(context.waker());
        if self.is_little() { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_response_may_end_once_all_but_a_little_is_sent() {
        let unsent = Unsent::default();
        assert!(unsent.is_little());
        let little = unsent.count(vec![7; LITTLE].into());
        assert!(unsent.is_little() && little == vec![7; LITTLE]);
        let more = unsent.count(vec![7].into());
        assert!(!unsent.is_little());
        let waits = unsent.clone();
        let ends = tokio::spawn(async move { poll_fn(|context| waits.poll_little(context)).await });
        tokio::task::yield_now().await;
        assert!(!ends.is_finished());
        drop(more);
        timeout(Duration::from_secs(10), ends).await.expect("it is woken").unwrap();
        drop(little);
    }
}
