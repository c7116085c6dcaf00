//! The content of one upload on its way to being named by a record: write, commit, or take back. It must not know what a
//! record says, only that one is put.

use std::sync::Arc;

use bytes::Bytes;
use opendal::{Buffer, Writer};
use tokio::task::JoinHandle;

use super::patience::Unfinished;
use super::{Step, Store, content_path, failure, record_path};
use crate::attachment::{Key, Record, Segment, UploadId};
use crate::error::{Error, Result};

/// Takes the content of one upload. Its futures must be driven to their end: OpenDAL's writers cannot be dropped in the
/// middle of a call. A writer that is neither committed nor aborted aborts itself.
#[derive(Debug)]
pub struct ContentWriter {
    store: Arc<Store>,
    key: Key,
    id: UploadId,
    path: String,
    state: Sink,
    /// Whether a close was asked for: from then on there may be an object, whatever the answer says.
    closing: bool,
    size: u64,
}

/// A call of an OpenDAL writer that goes on by itself, and gives the writer back with its answer.
type Call = JoinHandle<(Writer, opendal::Result<()>)>;

enum Sink {
    Unopened,
    Open(Writer),
    /// A write failed. The writer may only be aborted: a close might complete the object without the failed part.
    Failed(Writer),
    /// A call is late. The writer comes back with its end.
    Late(Call),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sink::Unopened => "Unopened",
            Sink::Open(_) => "Open",
            Sink::Failed(_) => "Failed",
            Sink::Late(_) => "Late",
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
        ContentWriter { store, key, id, path: content_path(key, id), state: Sink::Unopened, closing: false, size: 0 }
    }

    /// How many bytes were written.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Writes the next bytes, and drops `held` when the storage has let go of them. After an error only
    /// [`abort`](Self::abort) is left.
    pub async fn write(&mut self, batch: Vec<Bytes>, held: impl Send + 'static) -> Result<()> {
        let batch = Buffer::from(batch);
        let length = batch.len() as u64;
        if matches!(self.state, Sink::Unopened) {
            self.state = Sink::Open(self.store.operator.writer(&self.path).await.map_err(failure)?);
            self.store.passed(Step::ContentOpened);
        }
        let write = |mut writer: Writer| async move {
            let written = writer.write(batch).await;
            drop(held);
            (writer, written)
        };
        self.call(write).await?;
        self.size += length;
        self.store.passed(Step::ContentWritten);
        Ok(())
    }

    /// Calls the open writer, in a task of its own, and keeps what state the call leaves it in.
    async fn call<C, F>(&mut self, call: C) -> Result<()>
    where
        C: FnOnce(Writer) -> F,
        F: Future<Output = (Writer, opendal::Result<()>)> + Send + 'static,
    {
        let writer = match std::mem::replace(&mut self.state, Sink::Unopened) {
            Sink::Open(writer) => writer,
            other => {
                self.state = other;
                return Err(Error::internal("a call of a writer that is not open"));
            }
        };
        match self.store.patience.run(call(writer)).await {
            Ok((writer, Ok(()))) => self.state = Sink::Open(writer),
            Ok((writer, Err(error))) => {
                self.state = Sink::Failed(writer);
                return Err(failure(error));
            }
            Err(unfinished) => {
                let error = unfinished.error();
                if let Unfinished::Late(task) = unfinished {
                    self.state = Sink::Late(task);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// Makes the content durable, then visible: closes it, asks `decide` for the record that is to stand in place of the
    /// one that stands, puts that record, and reports what it replaced. If anything refuses, nothing has changed.
    pub async fn commit<F>(mut self, decide: F) -> Result<Receipt>
    where
        F: FnOnce(Option<Record>, Segment) -> Result<Record>,
    {
        if matches!(self.state, Sink::Unopened) {
            // An empty file: there was nothing to write, and there must be an object all the same.
            self.write(Vec::new(), ()).await?;
        }
        self.closing = true;
        let close = |mut writer: Writer| async move {
            let closed = writer.close().await.map(drop);
            (writer, closed)
        };
        if let Err(error) = self.call(close).await {
            self.abort().await;
            return Err(error);
        }
        // Closed: there is nothing left to abort.
        self.state = Sink::Unopened;
        self.store.passed(Step::ContentClosed);
        let committed = self.publish(decide).await;
        if let Err(Publication { settled: true, .. }) = &committed {
            self.store.discard(Replaced { key: self.key, ids: vec![self.id] }).await;
        }
        committed.map_err(|publication| publication.error)
    }

    async fn publish<F>(&self, decide: F) -> Result<Receipt, Publication>
    where
        F: FnOnce(Option<Record>, Segment) -> Result<Record>,
    {
        let unchanged = |error| Publication { error, settled: true };
        let unsettled = |error| Publication { error, settled: false };
        self.store.sync_directories(&self.path).await.map_err(unchanged)?;
        self.store.passed(Step::ContentSynced);
        let turn = self.store.turn(self.key).await.map_err(unchanged)?;
        let old = self.store.record(self.key).await.map_err(unchanged)?;
        let replaced = old.as_ref().and_then(Record::content).map(|content| content.segments.clone());
        let segment = Segment { id: self.id, size: self.size };
        let record = decide(old, segment).map_err(unchanged)?;
        let (put, turn) = self.store.put(self.key, &record, turn).await;
        if let Err(error) = put {
            // A put that is late may still come about: the content must be left for it.
            if turn.is_none() {
                return Err(unsettled(error));
            }
            // It may have happened although its answer says otherwise: look, never guess.
            match self.store.record(self.key).await {
                Ok(Some(stands)) if stands.content().map(|content| content.upload_id) == Some(self.id) => {}
                Ok(_) => return Err(unchanged(error)),
                Err(_) => return Err(unsettled(error)),
            }
        }
        self.store.passed(Step::RecordPut);
        // The record stands. If this fails nobody knows whether it is durable, and a second try would prove nothing: the
        // system reports a failed sync once.
        self.store.sync_directories(&record_path(self.key)).await.map_err(unsettled)?;
        self.store.passed(Step::RecordSynced);
        let ids = replaced.unwrap_or_default().into_iter().map(|segment| segment.id).collect();
        Ok(Receipt { record, replaced: Replaced { key: self.key, ids } })
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
        match std::mem::replace(&mut self.state, Sink::Unopened) {
            Sink::Unopened => None,
            Sink::Open(writer) | Sink::Failed(writer) => Some(begun.take_back(writer)),
            Sink::Late(call) => {
                self.store.patience.leave(call, |(writer, _)| begun.take_back(writer));
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
    async fn take_back(self, mut writer: Writer) {
        if let Err(error) = writer.abort().await {
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

/// A commit that did not come about.
struct Publication {
    error: Error,
    /// Whether it is certain that the old record stands. If not, the content must be left alone: a record may name it.
    settled: bool,
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
