//! How long the storage is waited for. Every storage operation has the same time; what it does when the time has passed
//! depends on whether it may be dropped in the middle. This module does not know what the operations are for.

use std::pin::pin;
use std::time::Duration;

use scopeguard::{ScopeGuard, guard};
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{Error, Kind, Result};

/// The time that storage operations have, and those that outlived it.
#[derive(Clone, Debug)]
pub struct Patience {
    limit: Duration,
    late: TaskTracker,
}

/// Why an operation has no result.
#[derive(Debug)]
pub enum Unfinished<T> {
    /// Its time has passed and it goes on. Whoever is handed this says what is to become of it, by [`Patience::leave`].
    Late(JoinHandle<T>),
    /// It panicked.
    Gone(JoinError),
}

impl Patience {
    /// Patience of `limit` for each operation.
    pub fn new(limit: Duration) -> Patience {
        Patience { limit, late: TaskTracker::new() }
    }

    /// Waits for an operation that may be dropped in the middle: one that only looks, or that can be done again.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] when its time has passed.
    pub async fn wait<T>(&self, operation: impl Future<Output = T>) -> Result<T> {
        timeout(self.limit, operation).await.map_err(|_| too_late())
    }

    /// Waits for what depends on operations of others, of which the one that is under way has its time from when `begun` says.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] when the time of one of them has passed.
    pub async fn wait_from<T>(&self, begun: impl Fn() -> Instant, operation: impl Future<Output = T>) -> Result<T> {
        let mut operation = pin!(operation);
        loop {
            let until = begun() + self.limit;
            match timeout_at(until, &mut operation).await {
                Ok(done) => return Ok(done),
                Err(_) if begun() + self.limit <= until => return Err(too_late()),
                Err(_) => {}
            }
        }
    }

    /// Runs an operation that must not be dropped in the middle, as a task of its own. Where the caller goes away meanwhile it
    /// goes on like one that is late.
    pub fn run<T, F>(&self, operation: F) -> impl Future<Output = std::result::Result<T, Unfinished<T>>> + use<'_, T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        // Begun here, so that whoever waits has no room for it.
        let mut task = guard(tokio::spawn(operation.in_current_span()), |task| {
            // Without a runtime nothing goes on.
            if Handle::try_current().is_ok() {
                self.leave(task, |_| async {});
            }
        });
        async move {
            let done = timeout(self.limit, &mut *task).await;
            let task = ScopeGuard::into_inner(task);
            match done {
                Ok(done) => done.map_err(Unfinished::Gone),
                Err(_) => Err(Unfinished::Late(task)),
            }
        }
    }

    /// Leaves a late operation to itself, and does `then` when it ends. Each is given as much time again; after that it is
    /// dropped wherever it stands, since what it holds cannot be held for ever.
    pub fn leave<T, F, R>(&self, mut task: JoinHandle<T>, then: F)
    where
        T: Send + 'static,
        F: FnOnce(T) -> R + Send + 'static,
        R: Future<Output = ()> + Send,
    {
        let limit = self.limit;
        self.late.spawn(async move {
            match timeout(limit, &mut task).await {
                Ok(Ok(done)) => {
                    if timeout(limit, then(done)).await.is_err() {
                        tracing::error!("what a late storage operation left was given up");
                    }
                }
                Ok(Err(error)) => tracing::error!(%error, "a storage operation ended badly after its time"),
                Err(_) => {
                    task.abort();
                    tracing::error!("a storage operation was given up");
                }
            }
        });
    }

    /// Does `work` beside what the caller does, for as long as an operation may take.
    pub fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.late.spawn(timeout(self.limit, work));
    }

    /// How many operations go on that nobody waits for.
    pub fn late(&self) -> usize {
        self.late.len()
    }

    /// Waits until none is left.
    pub async fn settle(&self) {
        self.late.close();
        self.late.wait().await;
    }
}

impl<T> Unfinished<T> {
    /// What this is for the caller.
    pub fn error(&self) -> Error {
        match self {
            Unfinished::Late(_) => too_late(),
            Unfinished::Gone(error) => Error::internal(error.to_string()),
        }
    }
}

fn too_late() -> Error {
    Error::new(Kind::StorageUnavailable).because("the storage did not answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn what_is_late_goes_on_and_is_followed_up() {
        let (hasty, patience) = (Patience::new(Duration::from_millis(1)), Patience::new(Duration::from_secs(60)));
        let (go, followed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let waits = Arc::clone(&go);
        let Err(Unfinished::Late(task)) = hasty.run(async move { waits.notified().await }).await else {
            panic!("it had no end");
        };
        let done = Arc::clone(&followed);
        patience.leave(task, move |()| async move { done.notify_one() });
        assert_eq!(patience.late(), 1);
        go.notify_one();
        followed.notified().await;
        patience.settle().await;
        assert_eq!(patience.late(), 0);
    }

    #[tokio::test]
    async fn each_operation_has_its_time_from_when_it_was_begun_and_not_from_when_it_is_waited_for() {
        let patience = Patience::new(Duration::from_millis(500));
        // Long ago: it has had its time, unless it is done.
        let begun = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
        let endless = std::future::pending::<()>();
        let waited = timeout(Duration::from_secs(60), patience.wait_from(|| begun, endless)).await.unwrap();
        assert!(waited.is_err() && begun.elapsed() < Duration::from_secs(61));
        patience.wait_from(|| begun, async {}).await.unwrap();
        // Another one was begun meanwhile: it has its own time.
        let (once, later) = (Instant::now(), Instant::now() + Duration::from_millis(500));
        let begun = || if Instant::now() < later { once } else { later };
        patience.wait_from(begun, tokio::time::sleep(Duration::from_millis(700))).await.unwrap();
    }

    #[tokio::test]
    async fn what_was_begun_goes_on_and_counts_where_its_caller_goes_away() {
        let patience = Patience::new(Duration::from_secs(60));
        let (go, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (waits, tells) = (Arc::clone(&go), Arc::clone(&ended));
        let operation = patience.run(async move {
            waits.notified().await;
            tells.notify_one();
        });
        assert!(timeout(Duration::from_millis(1), operation).await.is_err());
        assert_eq!(patience.late(), 1);
        go.notify_one();
        ended.notified().await;
        patience.settle().await;
        assert_eq!(patience.late(), 0);
        patience.run(async {}).await.unwrap();
        assert_eq!(patience.late(), 0);
    }

    #[tokio::test]
    async fn what_never_ends_is_given_up_after_as_long_again_and_lets_go_of_what_it_holds() {
        let patience = Patience::new(Duration::from_millis(1));
        let held = Arc::new(());
        let theirs = Arc::clone(&held);
        let endless = async move {
            std::future::pending::<()>().await;
            drop(theirs);
        };
        let Err(Unfinished::Late(task)) = patience.run(endless).await else {
            panic!("it has no end");
        };
        patience.leave(task, |()| async {});
        patience.settle().await;
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
