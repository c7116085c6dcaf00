//! The body of a reply that is a stream over HTTP: the request ends when the body does. A client that goes away before that has
//! lost it, and a failure cuts the connection, so that no client takes a part for the whole.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use crate::error::Error;
use crate::telemetry::Exit;

/// Tells how the request ended.
pub(super) struct Told {
    body: Body,
    /// How many bytes are still to come.
    left: u64,
    exit: Option<Exit>,
}

impl Told {
    /// A body of so many bytes.
    pub(super) fn new(body: Body, length: u64, exit: Exit) -> Told {
        Told { body, left: length, exit: Some(exit) }
    }

    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        let Some(exit) = self.exit.take() else { return };
        let mut link = Some(error);
        while let Some(error) = link {
            if let Some(error) = error.downcast_ref::<Error>() {
                return exit.failed(error);
            }
            link = error.source();
        }
        exit.failed(&Error::internal(error.to_string()));
    }
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                self.left = self.left.saturating_sub(length);
                // Nobody asks for what comes after the last byte.
                if self.left == 0
                    && let Some(exit) = self.exit.take()
                {
                    exit.succeeded();
                }
            }
            Some(Err(error)) => self.failed(error),
            None => self.failed(&Error::internal("a reply ended before its end")),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
