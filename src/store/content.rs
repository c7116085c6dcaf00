//! The content of one upload on its way to being named by a record: write, commit, or take back. It must not know what a
//! record says, only that one is put.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;

use super::backend::Sink;
use super::commit::{Refusal, Replacement};
use super::patience::Unfinished;
use super::{Step, Store, content_path};
use crate::attachment::{Key, Record, Segment, UploadId};
use crate::error::{Error, Result};

/// Takes the content of one upload. Its futures must be driven to their end: a sink cannot be dropped in the middle of a
/// call. A writer that is neither committed nor aborted aborts itself.
#[derive(Debug)]
pub struct ContentWriter {
    store: Arc<Store>,
    key: Key,
    id: UploadId,
    path: String,
    state: State,
    /// Whether a close was asked for: from then on there may be an object, whatever the answer says.
    closing: bool,
    size: u64,
}

/// A call of a sink that goes on by itself, and gives the sink back with its answer.
type Call = JoinHandle<(Sink, Result<()>)>;

enum State {
    Unopened,
    Open(Sink),
    /// A write failed. The sink may only be aborted: a close might complete the object without the failed part.
    Failed(Sink),
    /// A call is late. The sink comes back with its end.
    Late(Call),
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Unopened => "Unopened",
            State::Open(_) => "Open",
            State::Failed(_) => "Failed",
            State::Late(_) => "Late",
        })
    }
}

/// Proof that content is stored: it can only come from a commit.
#[derive(Debug)]
pub struct Receipt {
    record: Record,
    replaced: Replaced,
}

impl Receipt {
    /// The record as it is stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Takes out what the commit replaced, for [`Store::discard`].
    pub fn take_replaced(&mut self) -> Replaced {
        let ids = std::mem::take(&mut self.replaced.ids);
        Replaced { key: self.replaced.key, ids }
    }
}

impl ContentWriter {
    /// A writer under a fresh id that has created nothing yet.
    pub(super) fn new(store: Arc<Store>, key: Key) -> Self {
        let id = UploadId::fresh();
        ContentWriter { store, key, id, path: content_path(key, id), state: State::Unopened, closing: false, size: 0 }
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the next bytes, and drops `held` when the storage has let go of them. After an error only
    /// [`abort`](Self::abort) is left.
    pub async fn write(&mut self, batch: Vec<Bytes>, held: impl Send + 'static) -> Result<()> {
        let length = batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        if matches!(self.state, State::Unopened) {
            self.state = State::Open(self.store.backend.create(&self.path).await?);
            self.store.passed(Step::ContentOpened);
        }
        let write = |mut sink: Sink| async move {
            let written = sink.write(batch).await;
            drop(held);
            (sink, written)
        };
        self.call(write).await?;
        self.size += length;
        self.store.passed(Step::ContentWritten);
        Ok(())
    }

    /// Calls the open sink, in a task of its own, and keeps what state the call leaves it in.
    async fn call<C, F>(&mut self, call: C) -> Result<()>
    where
        C: FnOnce(Sink) -> F,
        F: Future<Output = (Sink, Result<()>)> + Send + 'static,
    {
        let sink = match std::mem::replace(&mut self.state, State::Unopened) {
            State::Open(sink) => sink,
            other => {
                self.state = other;
                return Err(Error::internal("a call of a writer that is not open"));
            }
        };
        match self.store.patience.run(call(sink)).await {
            Ok((sink, Ok(()))) => self.state = State::Open(sink),
            Ok((sink, Err(error))) => {
                self.state = State::Failed(sink);
                return Err(error);
            }
            Err(unfinished) => {
                let error = unfinished.error();
                if let Unfinished::Late(task) = unfinished {
                    self.state = State::Late(task);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the content durable, then visible: closes it, asks `decide` for the record that is to stand in place of the
    /// one that stands, puts that record, and reports what it replaced. If anything refuses, nothing has changed. `decide` is
    /// asked again where another replica was faster.
    pub async fn commit<F>(mut self, decide: F) -> Result<Receipt>
    where
        F: FnMut(Option<&Record>, Segment) -> Result<Record>,
    {
        if matches!(self.state, State::Unopened) {
            // An empty file: there was nothing to write, and there must be an object all the same.
            self.write(Vec::new(), ()).await?;
        }
        self.closing = true;
        let close = |mut sink: Sink| async move {
            let closed = sink.close().await;
            (sink, closed)
        };
        if let Err(error) = self.call(close).await {
            self.abort().await;
            return Err(error);
        }
        // Closed: there is nothing left to abort.
        self.state = State::Unopened;
        self.store.passed(Step::ContentClosed);
        let committed = self.publish(decide).await;
        if let Err(Refusal { settled: true, .. }) = &committed {
            self.store.discard(Replaced { key: self.key, ids: vec![self.id] }).await;
        }
        committed.map_err(|refusal| refusal.error)
    }

    async fn publish<F>(&self, mut decide: F) -> Result<Receipt, Refusal>
    where
        F: FnMut(Option<&Record>, Segment) -> Result<Record>,
    {
        self.store.sync_directories(&self.path).await.map_err(Refusal::unchanged)?;
        self.store.passed(Step::ContentSynced);
        let segment = Segment { id: self.id, size: self.size };
        let replaced = self.store.replace(self.key, |stands| decide(stands, segment).map(Some)).await?;
        let nothing = || Refusal::unchanged(Error::internal("a commit replaced nothing"));
        let Replacement { old, new } = replaced.ok_or_else(nothing)?;
        let segments = old.as_ref().and_then(Record::content).map(|content| content.segments.as_slice());
        let ids = segments.unwrap_or_default().iter().map(|segment| segment.id).collect();
        Ok(Receipt { record: new, replaced: Replaced { key: self.key, ids } })
    }

    /// Takes back all that was written. What cannot be taken back is garbage that no record names.
    pub async fn abort(mut self) {
        let Some(work) = self.take_back() else {
            return;
        };
        if let Err(Unfinished::Late(task)) = self.store.patience.run(work).await {
            self.store.patience.leave(task, |()| async {});
        }
    }

    /// What there is to do to take back what was written. It must be driven to its end.
    fn take_back(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let begun = Begun { store: Arc::clone(&self.store), key: self.key, id: self.id, closing: self.closing };
        match std::mem::replace(&mut self.state, State::Unopened) {
            State::Unopened => None,
            State::Open(sink) | State::Failed(sink) => Some(begun.take_back(sink)),
            State::Late(call) => {
                self.store.patience.leave(call, |(sink, _)| begun.take_back(sink));
                None
            }
        }
    }
}

/// Content that was begun and is not to be.
struct Begun {
    store: Arc<Store>,
    key: Key,
    id: UploadId,
    closing: bool,
}

impl Begun {
    async fn take_back(self, mut sink: Sink) {
        if let Err(error) = sink.abort().await {
            tracing::warn!(%error, upload_id = %self.id, "an upload could not be aborted cleanly");
        }
        if self.closing {
            // A close may have happened although its answer says otherwise.
            self.store.discard(Replaced { key: self.key, ids: vec![self.id] }).await;
        }
    }
}

impl Drop for ContentWriter {
    fn drop(&mut self) {
        if tokio::runtime::Handle::try_current().is_ok()
            && let Some(work) = self.take_back()
        {
            self.store.patience.beside(work);
        }
    }
}

/// Content that a commit replaced and no record names any more.
#[derive(Debug)]
pub struct Replaced {
    pub(super) key: Key,
    pub(super) ids: Vec<UploadId>,
}

impl Replaced {
    /// Whether the commit replaced nothing.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}
