//! The streams of HTTP/2 as tasks. A client can keep the window of a stream closed while its connection takes bytes. The HTTP
//! library then waits for ever and does not poll the response. This module ends such a stream. It does not know what is sent.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until};

tokio::task_local! {
    /// The response of the stream that is polled.
    static PROGRESS: Progress;
}

/// Since when the response of a stream waits for the client, if it does. Clones are about the same stream.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    since: Arc<Mutex<Option<Instant>>>,
    min_rate: u64,
}

impl Progress {
    /// That of the stream that is polled. None over HTTP/1.
    pub(super) fn of_stream() -> Option<Progress> {
        PROGRESS.try_with(Progress::clone).ok()
    }

    fn new(min_rate: u64) -> Progress {
        Progress { since: Arc::default(), min_rate }
    }

    /// A part of the response is ready for the client, of so many bytes. It is only seen when all of it was taken, so the time
    /// that a slow client may need for it does not count.
    pub(super) fn offers(&self, bytes: usize) {
        let seconds = (bytes as u64).checked_div(self.min_rate).unwrap_or_default();
        self.set(Some(Instant::now() + Duration::from_secs(seconds)));
    }

    /// The response waits for content.
    pub(super) fn waits(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs streams, each until its client takes nothing of its response for too long. A stream that is ended is reset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams {
    /// For how long it may take nothing.
    pub(super) patience: Duration,
    /// How many bytes a second it takes at least. 0 asks for none, and then a part has no more time than `patience`.
    pub(super) min_rate: u64,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(until_stalled(stream, *self));
    }
}

async fn until_stalled(stream: impl Future<Output = ()>, Streams { patience, min_rate }: Streams) {
    let mut stream = pin!(stream);
    let (progress, mut ends) = (Progress::new(min_rate), None);
    poll_fn(|context| {
        if PROGRESS.sync_scope(progress.clone(), || stream.as_mut().poll(context)).is_ready() {
            return Poll::Ready(());
        }
        stalled(context, &progress, &mut ends, patience)
    })
    .await;
}

/// Ready once the response waits for the client for too long. The timer is not moved for each piece that the client takes, but
/// when it fires.
fn stalled(
    context: &mut Context<'_>,
    progress: &Progress,
    ends: &mut Option<Pin<Box<Sleep>>>,
    patience: Duration,
) -> Poll<()> {
    loop {
        let Some(at) = progress.since().map(|since| since + patience) else {
            *ends = None;
            return Poll::Pending;
        };
        let timer = ends.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if timer.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        if at <= Instant::now() {
            tracing::debug!("a stream is reset, since its client takes nothing of the response");
            return Poll::Ready(());
        }
        timer.as_mut().reset(at);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(100);

    /// The bytes of a part.
    const PART: usize = 1000;

    /// Whether a stream is ended whose response does something every 10 ms: it offers a part (`o`), or it waits for content (`w`).
    async fn is_ended(steps: &str, min_rate: u64) -> bool {
        let steps: Vec<char> = steps.chars().collect();
        let stream = async move {
            let progress = Progress::of_stream().expect("it is a stream");
            for step in steps {
                if step == 'o' {
                    progress.offers(PART)
                } else {
                    progress.waits()
                }
                tokio::time::sleep(PATIENCE / 10).await;
            }
            pending().await
        };
        timeout(10 * PATIENCE, until_stalled(stream, Streams { patience: PATIENCE, min_rate })).await.is_ok()
    }

    #[tokio::test]
    async fn a_stream_is_ended_if_its_client_takes_nothing_for_too_long() {
        for steps in ["o", "wo", "owo"] {
            assert!(is_ended(steps, 0).await, "{steps}");
        }
        assert!(Progress::of_stream().is_none(), "there is no stream");
    }

    #[tokio::test]
    async fn a_stream_has_as_long_for_a_part_as_the_slowest_client_that_is_permitted() {
        assert!(!is_ended("o", 100).await);
        assert!(is_ended("o", PART as u64 + 1).await);
    }

    #[tokio::test]
    async fn a_stream_that_gets_on_or_waits_for_content_goes_on() {
        for steps in ["", "w", "ow", &["o".repeat(30), "w".to_owned()].concat()] {
            assert!(!is_ended(steps, 0).await, "{steps}");
        }
    }
}
