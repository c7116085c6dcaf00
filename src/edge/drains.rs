//! What is read of refused requests and thrown away. A server that stops reading and closes makes the client's system discard the
//! reply that has arrived already, and all that a client sees that is still sending is a reset connection, or stream. So the rest of
//! a request is drained: up to so many bytes and for so long, of so many requests at once, and no faster than so many bytes a second
//! in all.
//! This module must not know why a request was refused.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use http::Version;
use http::header::EXPECT;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::rate::{SECOND, charge, cost};
use crate::telemetry::{Limit, Metrics};

/// What a client expects that waits before it sends its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"100-continue";

/// Up to how many bytes of a refused request's body are read so that the connection can serve the next request. If more are
/// to come, the reply asks the client to close the connection: many clients send a body to its end otherwise.
const QUICK: u64 = 8 << 20;

/// How long the reply waits for the end of a refused body whose length is not known, so that it can say whether the connection
/// goes on.
const QUICK_TIME: Duration = Duration::from_millis(200);

/// How much of refused requests is drained.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes of each, at most. Past them its connection is closed.
    pub bytes: u64,
    /// Time for each, at most. Past it its connection is closed.
    pub time: Duration,
    /// How many are drained at once, 1 or more. For a further one, the one that has been drained longest is given up.
    pub at_once: usize,
    /// Bytes a second of all together, and as many at once. Past it they are read more slowly. 0 sets no limit.
    pub bytes_per_second: u64,
}

/// The requests of a process that are drained. Clones are the same.
#[derive(Clone, Debug)]
pub struct Drains(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    began: Instant,
    state: Mutex<State>,
    metrics: Metrics,
}

#[derive(Debug)]
struct State {
    /// By number, the oldest first, with what ends it.
    under_way: VecDeque<(u64, CancellationToken)>,
    next: u64,
    /// When the next byte would be due, in nanoseconds.
    due: u64,
}

/// One request that is drained, until this is dropped.
#[derive(Debug)]
pub struct Drain {
    shared: Arc<Shared>,
    number: u64,
    given_up: CancellationToken,
    left: u64,
    /// Whether it had to wait for the rate of all.
    slowed: bool,
}

impl Drains {
    /// Nothing is drained yet. What the limits end is counted in `metrics`.
    pub fn new(config: Config, metrics: &Metrics) -> Drains {
        let state = Mutex::new(State { under_way: VecDeque::new(), next: 0, due: 0 });
        Drains(Arc::new(Shared { config, began: Instant::now(), state, metrics: metrics.clone() }))
    }

    /// Begins to drain a request. If as many are drained as may be, the oldest is given up.
    pub fn begin(&self) -> Drain {
        let Config { bytes, at_once, .. } = self.0.config;
        let given_up = CancellationToken::new();
        let mut state = self.0.lock();
        let number = state.next;
        state.next += 1;
        state.under_way.push_back((number, given_up.clone()));
        let oldest = if state.under_way.len() > at_once { state.under_way.pop_front() } else { None };
        drop(state);
        if let Some((_, oldest)) = oldest {
            oldest.cancel();
            self.0.metrics.limited(Limit::MaxDrains, None);
        }
        Drain { shared: Arc::clone(&self.0), number, given_up, left: bytes, slowed: false }
    }

    /// How long a request is drained at most.
    pub fn time(&self) -> Duration {
        self.0.config.time
    }
}

impl Shared {
    /// Counts bytes that came at `now`, and returns how long to wait before more are read.
    fn wait_at(&self, bytes: u64, now: u64) -> Duration {
        let Config { bytes_per_second, .. } = self.config;
        if bytes_per_second == 0 {
            return Duration::ZERO;
        }
        let mut state = self.lock();
        let (due, wait) = charge(state.due, now, cost(bytes, bytes_per_second), SECOND);
        state.due = due;
        Duration::from_nanos(wait)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drain {
    /// Drains no more than `bytes`.
    fn at_most(mut self, bytes: u64) -> Drain {
        self.left = self.left.min(bytes);
        self
    }

    /// Waits until more requests are drained than may be, and this one is to end for that.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }

    /// Reads a body to its end, and returns whether that came before the drain had to end.
    async fn read(mut self, mut body: Body, time: Duration) -> bool {
        let read = async {
            loop {
                // In no order: what is always ready would hide that it is given up.
                tokio::select! {
                    frame = body.frame() => match frame {
                        None => return true,
                        Some(Ok(frame)) if self.passes(frame.data_ref().map_or(0, Bytes::len)).await => {}
                        Some(_) => return false,
                    },
                    () = self.given_up() => return false,
                }
            }
        };
        timeout(time, read).await.unwrap_or(false)
    }

    /// Counts bytes that were thrown away, and waits if they came faster than they may. Whether more may come.
    pub async fn passes(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let Some(left) = self.left.checked_sub(bytes) else { return false };
        self.left = left;
        let now = u64::try_from(self.shared.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let wait = self.shared.wait_at(bytes, now);
        if wait.is_zero() {
            return true;
        }
        if !std::mem::replace(&mut self.slowed, true) {
            self.shared.metrics.limited(Limit::DrainBytesPerSecond, None);
        }
        timeout(wait, self.given_up()).await.is_err()
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Ok(at) = state.under_way.binary_search_by_key(&self.number, |(number, _)| *number) {
            state.under_way.remove(at);
        }
    }
}

/// What of a request's body was left unread when its reply was ready.
#[derive(Clone, Default)]
pub(super) struct Rest(Arc<Mutex<Option<Left>>>);

/// A body that was dropped before its end.
struct Left {
    body: Body,
    /// The client waits for a `100 Continue`, which the first read sends. Until then it is not sending, and to drain would
    /// be to ask it to.
    waits: bool,
}

impl Rest {
    /// The request with a body that comes here when it is dropped before its end.
    pub(super) fn watch(&self, request: Request) -> Request {
        let waits = request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
        let rest = self.clone();
        request.map(|body| Body::new(Watched { left: Some(Left { body, waits }), rest }))
    }

    /// Sees to it that the client can read its reply while it is still sending, and returns whether the connection must end
    /// with that reply. `leaves` says that it is to end in any case.
    pub(super) async fn settle(self, drains: &Drains, version: Version, leaves: bool) -> bool {
        let Some(Left { body, waits }) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return false;
        };
        let Config { bytes, time, .. } = drains.0.config;
        let quick = QUICK.min(bytes);
        match body.size_hint().exact() {
            // HTTP/2 has a way of its own, a reset of the stream without an error. curl before version 8 takes it for one.
            _ if version == Version::HTTP_2 => {
                if !waits {
                    tokio::spawn(drains.begin().read(body, time));
                }
                false
            }
            _ if waits || leaves => true,
            Some(left) if left <= quick => {
                tokio::spawn(drains.begin().read(body, time));
                false
            }
            Some(_) => true,
            None => !drains.begin().at_most(quick).read(body, QUICK_TIME.min(time)).await,
        }
    }
}

/// A body that leaves what was not read of it.
struct Watched {
    left: Option<Left>,
    rest: Rest,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(left) = &mut self.left else {
            return Poll::Ready(None);
        };
        left.waits = false;
        let frame = Pin::new(&mut left.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.left = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.left.as_ref().is_none_or(|left| left.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.as_ref().map(|left| left.body.size_hint()).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(left) = self.left.take().filter(|left| !left.body.is_end_stream()) {
            *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drains(at_once: usize, bytes: u64, bytes_per_second: u64) -> Drains {
        Drains::new(Config { bytes, time: Duration::from_secs(30), at_once, bytes_per_second }, &Metrics::default())
    }

    #[test]
    fn past_so_many_at_once_the_oldest_is_given_up() {
        let drains = drains(2, 1, 0);
        let [first, second] = [drains.begin(), drains.begin()];
        assert!(!first.given_up.is_cancelled());
        let third = drains.begin();
        assert!(first.given_up.is_cancelled() && !second.given_up.is_cancelled());
        drop(first);
        drop(second);
        let _fourth = drains.begin();
        assert!(!third.given_up.is_cancelled());
    }

    #[tokio::test]
    async fn so_many_bytes_of_each_are_drained() {
        let limited = drains(9, 1000, 0);
        for (bytes, passes) in [(999, true), (1000, true), (1001, false)] {
            assert_eq!(limited.begin().passes(bytes).await, passes, "{bytes}");
        }
    }

    #[test]
    fn past_so_many_bytes_a_second_of_all_each_waits_until_they_are_due() {
        let Drains(shared) = drains(9, u64::MAX, 1000);
        let wait = |bytes, now| shared.wait_at(bytes, now).as_millis();
        assert_eq!([999, 1, 1, 499].map(|bytes| wait(bytes, 0)), [0, 0, 1, 500]);
        assert_eq!(wait(1, SECOND), 0, "what is due has had its time");
        assert_eq!([1000, 1].map(|bytes| wait(bytes, 60 * SECOND)), [0, 1]);
    }

    #[tokio::test]
    async fn who_waits_for_the_rate_is_given_up_at_once() {
        let drains = drains(1, u64::MAX, 1);
        let mut slow = drains.begin();
        let waiting = tokio::spawn(async move { slow.passes(1 << 30).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let _newer = drains.begin();
        assert!(!waiting.await.unwrap());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_read_once_it_is_given_up() {
        let drains = drains(1, 1000, 0);
        let endless = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, axum::Error>>());
        let first = tokio::spawn(drains.begin().read(endless(), Duration::from_secs(600)));
        let whole = drains.begin().read(Body::from("whole"), Duration::from_secs(600));
        assert!(!first.await.unwrap());
        assert!(whole.await);
        assert_eq!(drains.0.lock().under_way.len(), 0);
    }
}
