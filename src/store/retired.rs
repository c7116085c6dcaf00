//! Content that a commit has replaced and that readers may still read: it is deleted after a grace. On a local file system a
//! reader keeps its file open, so there it is deleted at once.
//!
//! What waits is lost when the process ends, and is garbage then. Where more is replaced than may wait, the oldest is deleted
//! early: a reader of it is cut off, and never gets a mix.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::backend::Backend;
use super::receipt::Replaced;
use super::{Store, lock};

/// How many commits' content may wait. Each takes about 100 bytes.
const WAITING: usize = 16_384;

/// What waits to be deleted, oldest first.
#[derive(Debug)]
pub(super) struct Retired {
    grace: Duration,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    queue: VecDeque<(Instant, Replaced)>,
    /// Whether a task sees to the queue.
    is_seen_to: bool,
}

impl Retired {
    pub fn new(grace: Duration) -> Retired {
        Retired { grace, waiting: Mutex::default() }
    }
}

impl Store {
    /// Deletes content that a commit has replaced, after the grace for those who read it. It returns once that is done, or at
    /// once if there is a grace.
    pub async fn retire(self: &Arc<Self>, replaced: Replaced) {
        // One file was opened before the first byte of it was sent. Of several, the last may not be open yet.
        let is_open = matches!(self.backend, Backend::Local(_)) && replaced.segments.len() == 1;
        if self.retired.grace.is_zero() || is_open {
            return self.discard(replaced).await;
        }
        let due = Instant::now() + self.retired.grace;
        let (early, is_first) = {
            let mut waiting = lock(&self.retired.waiting);
            let early = if waiting.queue.len() < WAITING { None } else { waiting.queue.pop_front() };
            waiting.queue.push_back((due, replaced));
            (early, !std::mem::replace(&mut waiting.is_seen_to, true))
        };
        if is_first {
            tokio::spawn(Arc::clone(self).see_to_retired());
        }
        if let Some((_, replaced)) = early {
            self.discard(replaced).await;
        }
    }

    /// Deletes what is due, until nothing waits.
    async fn see_to_retired(self: Arc<Self>) {
        loop {
            let next = {
                let mut waiting = lock(&self.retired.waiting);
                match waiting.queue.front() {
                    Some((due, _)) if *due <= Instant::now() => Err(waiting.queue.pop_front()),
                    Some((due, _)) => Ok(*due),
                    None => {
                        waiting.is_seen_to = false;
                        return;
                    }
                }
            };
            match next {
                Ok(due) => sleep_until(due).await,
                Err(Some((_, replaced))) => self.discard(replaced).await,
                Err(None) => {}
            }
        }
    }
}
