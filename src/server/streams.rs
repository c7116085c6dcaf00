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
#[derive(Clone, Debug, Default)]
pub(super) struct Progress(Arc<Mutex<Option<Instant>>>);

impl Progress {
    /// That of the stream that is polled. None over HTTP/1.
    pub(super) fn of_stream() -> Option<Progress> {
        PROGRESS.try_with(Progress::clone).ok()
    }

    /// A part of the response is ready for the client.
    pub(super) fn offers(&self) {
        self.set(Some(Instant::now()));
    }

    /// The response waits for content.
    pub(super) fn waits(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs streams, each until its client takes nothing of its response for so long. A stream that is ended is reset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Streams(pub(super) Duration);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(until_stalled(stream, self.0));
    }
}

async fn until_stalled(stream: impl Future<Output = ()>, patience: Duration) {
    let mut stream = pin!(stream);
    let (progress, mut ends) = (Progress::default(), None);
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

    /// Whether a stream is ended whose response does something every 10 ms: it offers a part (`o`), or it waits for content (`w`).
    async fn is_ended(steps: &str) -> bool {
        let steps: Vec<char> = steps.chars().collect();
        let stream = async move {
            let progress = Progress::of_stream().expect("it is a stream");
            for step in steps {
                if step == 'o' {
                    progress.offers()
                } else {
                    progress.waits()
                }
                tokio::time::sleep(PATIENCE / 10).await;
            }
            pending().await
        };
        timeout(10 * PATIENCE, until_stalled(stream, PATIENCE)).await.is_ok()
    }

    #[tokio::test]
    async fn a_stream_is_ended_if_its_client_takes_nothing_for_too_long() {
        for steps in ["o", "wo", "owo"] {
            assert!(is_ended(steps).await, "{steps}");
        }
        assert!(Progress::of_stream().is_none(), "there is no stream");
    }

    #[tokio::test]
    async fn a_stream_that_gets_on_or_waits_for_content_goes_on() {
        for steps in ["", "w", "ow", &["o".repeat(30), "w".to_owned()].concat()] {
            assert!(!is_ended(steps).await, "{steps}");
        }
    }
}
