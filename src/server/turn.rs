//! Who is speaking on an HTTP/1 connection: the service, or nobody. The HTTP library answers a head that it cannot read by
//! itself, with a status and nothing else. Those bytes come while nobody is speaking, which is how `stream` knows them. This
//! module does not know what is said.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use http_body::{Body as HttpBody, Frame, SizeHint};

use super::idle::UnderWay;
use super::standing::Exchange;
use super::streams::Progress;
use super::unsent::Unsent;

/// No reply is under way.
const NOBODY: u8 = 0;
/// A request has reached the service, and its reply is not complete.
const SERVICE: u8 = 1;
/// The reply is complete, and may not have been sent.
const SENDING: u8 = 2;

/// Who is speaking on one connection. Clones speak of the same one.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    speaker: AtomicU8,
    cut: AtomicBool,
    silenced: AtomicBool,
}

impl Turn {
    /// A request has reached the service. It speaks until what is returned is dropped.
    pub(super) fn begin(&self) -> Speaking {
        self.0.speaker.store(SERVICE, Ordering::Relaxed);
        Speaking(self.clone())
    }

    /// Whether bytes that are about to be sent are the service's. If they are not, that is remembered.
    pub(super) fn may_send(&self) -> bool {
        let may = self.0.speaker.load(Ordering::Relaxed) != NOBODY;
        if !may {
            self.0.silenced.store(true, Ordering::Relaxed);
        }
        may
    }

    /// Whether somebody else than the service wanted to send.
    pub(super) fn was_silenced(&self) -> bool {
        self.0.silenced.load(Ordering::Relaxed)
    }

    /// All that was said has been sent.
    pub(super) fn sent(&self) {
        let _ = self.0.speaker.compare_exchange(SENDING, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The last reply came before its request had ended, and the rest of the request is not read.
    pub(super) fn cut(&self) {
        self.0.cut.store(true, Ordering::Relaxed);
    }

    /// Whether a request was cut.
    pub(super) fn was_cut(&self) -> bool {
        self.0.cut.load(Ordering::Relaxed)
    }
}

/// The service is speaking.
#[derive(Debug)]
pub(super) struct Speaking(Turn);

impl Drop for Speaking {
    fn drop(&mut self) {
        self.0.0.speaker.store(SENDING, Ordering::Relaxed);
    }
}

/// How much the library is given at once over HTTP/2, in bytes: a frame of the usual size. It holds that much of each stream whose
/// window is too small for it, and whether a client takes anything is only seen when all of it was taken.
const PART: usize = 16 << 10;

/// The body of a reply. The service speaks until the library has taken all of it.
pub(super) struct Reply {
    body: Body,
    exchange: Exchange,
    /// None over HTTP/1, where the response is all that is sent.
    stream: Option<(Progress, Unsent)>,
    /// What the library is not given yet of the content that the body has given.
    rest: Bytes,
    /// What the response ends with, once that is known and while more than a little of it is unsent.
    end: Option<Option<Frame<Bytes>>>,
    /// None over HTTP/2, where the library takes turns by itself.
    _speaking: Option<Speaking>,
    /// None over HTTP/1, where a request at a time is under way.
    _under_way: Option<UnderWay>,
}

impl Reply {
    /// The body of the reply to a request.
    pub(super) fn new(
        body: Body,
        exchange: Exchange,
        speaking: Option<Speaking>,
        under_way: Option<UnderWay>,
    ) -> Reply {
        let stream = Progress::of_stream().map(|progress| (progress, Unsent::default()));
        let rest = Bytes::new();
        let mut reply = Reply { body, exchange, stream, rest, end: None, _speaking: speaking, _under_way: under_way };
        reply.offers(0);
        reply
    }

    fn offers(&mut self, bytes: usize) {
        self.exchange.offers();
        self.stream.iter().for_each(|(progress, _)| progress.offers(bytes));
    }

    fn waits(&mut self) {
        self.exchange.waits();
        self.stream.iter().for_each(|(progress, _)| progress.waits());
    }

    /// What the library is given next of the content.
    fn part(&mut self) -> Frame<Bytes> {
        let part = match &self.stream {
            Some((_, unsent)) => unsent.count(self.rest.split_to(PART.min(self.rest.len()))),
            None => std::mem::take(&mut self.rest),
        };
        self.offers(part.len());
        Frame::data(part)
    }

    /// Ends the response, over HTTP/2 once it is sent but for a little.
    fn end(&mut self, frame: Option<Frame<Bytes>>, context: &mut Context<'_>) -> Poll<Option<Frame<Bytes>>> {
        match &self.stream {
            Some((_, unsent)) if unsent.poll_little(context).is_pending() => {
                self.end = Some(frame);
                Poll::Pending
            }
            _ => Poll::Ready(frame),
        }
    }
}

impl HttpBody for Reply {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(self.part())));
        }
        if let Some(end) = self.end.take() {
            return self.end(end, context).map(|frame| frame.map(Ok));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            self.waits();
            return Poll::Pending;
        };
        match frame.transpose()?.map(Frame::into_data) {
            Some(Ok(content)) => {
                self.rest = content;
                Poll::Ready(Some(Ok(self.part())))
            }
            Some(Err(trailers)) => self.end(Some(trailers), context).map(|frame| frame.map(Ok)),
            None => self.end(None, context).map(|frame| frame.map(Ok)),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && self.end.is_none()
            && self.body.is_end_stream()
            && self.stream.as_ref().is_none_or(|(_, unsent)| unsent.is_little())
    }

    fn size_hint(&self) -> SizeHint {
        let (rest, mut hint) = (self.rest.len() as u64, self.body.size_hint());
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(hint.lower().saturating_add(rest));
        hint
    }
}
