//! A change of the storage on behalf of a request. It runs in a task of its own, so it outlives a request that is dropped: the
//! client may disconnect, reset its stream or let its deadline pass. Once a change has begun, its outcome is the reply, and the
//! request log, the metrics and the audit trail report that outcome, even if the client is gone.

use crate::error::{Error, Kind, Result};
use crate::request::RequestContext;
use crate::store::Settled;

use super::Uploads;

impl Uploads {
    /// Makes a change, and waits for its end. `change` is given whom to tell if an outcome that is unknown becomes known.
    pub(super) async fn change<T, F>(&self, request: &RequestContext, change: impl FnOnce(Settled) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        request.audit.changes().await?;
        let later = request.audit.clone();
        let change = change(Settled::new(move |made| later.settled(made)));
        let report = Report::begin(request);
        let task = self.tasks.spawn(async move {
            let changed = change.await;
            report.end(changed.as_ref().map(|_| ()));
            changed
        });
        task.await.map_err(|gone| Error::internal(gone).unsettled())?
    }
}

/// Where a change is reported. A change that is dropped in the middle, because the process ends, is reported as unknown.
struct Report {
    to: Option<RequestContext>,
}

impl Report {
    fn begin(request: &RequestContext) -> Report {
        request.trail.changing();
        Report { to: Some(request.clone()) }
    }

    fn end(mut self, outcome: Result<(), &Error>) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: Result<(), &Error>) {
        let Some(RequestContext { trail, audit, .. }) = self.to.take() else {
            return;
        };
        match outcome {
            Ok(()) => audit.done(),
            Err(error) => audit.refused(error),
        }
        trail.changed(outcome);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        let cut =
            Error::new(Kind::StorageUnavailable).because("it was cut off before the storage had answered").unsettled();
        self.tell(Err(&cut));
    }
}
