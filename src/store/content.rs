//! The content of one upload on its way to being named by a record: write, commit, or take back. It must not know what a
//! record says, only that one is put.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::backend::{Backend, Kept, Sink};
use super::commit::{Replacement, Settled};
use super::hash::{Hash, length};
use super::local::{self, Abandoned, Room};
use super::patience::Unfinished;
use super::queue::{Batch, Behind, Queue};
use super::receipt::{Committed, Receipt, Replaced, Sealed, Written};
use super::{Standing, Step, Store, layout};
use crate::attachment::{Digest, Key, Record, SegmentId, UploadId};
use crate::error::{Error, Result};
use crate::telemetry::{Operation, Outcome};

/// Takes the content of one upload. A writer that is neither committed nor aborted aborts itself.
#[derive(Debug)]
pub struct ContentWriter {
    store: Arc<Store>,
    key: Key,
    id: UploadId,
    path: String,
    state: State,
    room: Room,
    /// What the sink is to keep, until there is one.
    kept: Option<Kept>,
    /// Whether a close was asked for: from then on there may be an object, whatever the answer says.
    closing: bool,
    size: u64,
}

/// A sink, and the digest of what it was given.
pub(super) struct Pen {
    sink: Sink,
    hash: Hash,
}

/// A call of a sink that goes on by itself, and gives the sink back with its answer.
type Call = JoinHandle<(Pen, Result<()>)>;

enum State {
    Unopened,
    Open(Pen),
    /// A call is under way. The sink comes back with its end. Where it writes, more can be put behind that.
    Busy(Call, Option<Behind>),
    /// A call has outlived its time, and is not waited for again.
    Late(Call),
    /// A write failed. The sink may only be aborted: a close might complete the object without the failed part.
    Failed(Pen),
    /// A call panicked, and its sink is gone.
    Gone,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            State::Unopened => "Unopened",
            State::Open(_) => "Open",
            State::Busy(..) => "Busy",
            State::Late(_) => "Late",
            State::Failed(_) => "Failed",
            State::Gone => "Gone",
        })
    }
}

impl ContentWriter {
    /// A writer under a fresh id that has created nothing yet.
    pub(super) fn new(store: Arc<Store>, key: Key, room: Room, kept: Kept) -> Self {
        let (id, state, kept) = (UploadId::fresh(), State::Unopened, Some(kept));
        ContentWriter {
            store,
            key,
            id,
            path: layout::segment(key, SegmentId::first(id)),
            state,
            room,
            kept,
            closing: false,
            size: 0,
        }
    }

    /// The id under which the content is written.
    pub fn id(&self) -> UploadId {
        self.id
    }

    /// Has the next bytes written, after those before them, and drops `held` when the storage has let go of them. It waits while
    /// as many batches wait as may. What becomes of them is told by [`ready`](Self::ready), or by a later write. After an error
    /// only [`abort`](Self::abort) is left.
    pub async fn write(&mut self, bytes: Vec<Bytes>, held: impl Send + Sync + 'static) -> Result<()> {
        let length = length(&bytes);
        self.store.patience.wait(self.room.take(length)).await??;
        self.size += length;
        let mut batch = Batch::new(bytes, held);
        if let State::Busy(_, Some(behind)) = &self.state {
            match self.store.patience.wait_from(|| behind.taken(), behind.put(batch)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(refused)) => batch = refused,
                Err(late) => {
                    self.late();
                    return Err(late);
                }
            }
        }
        self.ready().await?;
        let Pen { mut sink, mut hash } = self.open()?;
        let (behind, queue) = Queue::new(batch);
        let call = tokio::spawn(async move {
            let written = sink.write(queue, &mut hash).await;
            (Pen { sink, hash }, written)
        });
        self.state = State::Busy(call, Some(behind));
        Ok(())
    }

    fn open(&mut self) -> Result<Pen> {
        match std::mem::replace(&mut self.state, State::Unopened) {
            State::Unopened => {
                let kept = self.kept.take().unwrap_or_else(|| Kept::new(()));
                let Store { backend, steps, metrics, .. } = &*self.store;
                let sink = backend.create(self.key, &self.path, steps, metrics, kept);
                Ok(Pen { sink, hash: Hash::default() })
            }
            State::Open(pen) => Ok(pen),
            other => {
                self.state = other;
                Err(Error::internal("a call of a writer that is not open"))
            }
        }
    }

    /// Waits until what was begun has ended. Where it is dropped before that, more may be put behind it.
    pub async fn ready(&mut self) -> Result<()> {
        let State::Busy(call, behind) = &mut self.state else {
            return Ok(());
        };
        let asked = Instant::now();
        let begun = || behind.as_ref().map_or(asked, Behind::taken);
        match self.store.patience.wait_from(begun, call).await {
            Ok(Ok((pen, Ok(())))) => {
                self.state = State::Open(pen);
                Ok(())
            }
            Ok(Ok((pen, Err(error)))) => {
                self.state = State::Failed(pen);
                Err(error)
            }
            Ok(Err(panic)) => {
                self.state = State::Gone;
                Err(Error::internal(panic))
            }
            Err(late) => {
                self.late();
                Err(late)
            }
        }
    }

    /// The call that is under way has had its time.
    fn late(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Busy(call, _) => State::Late(call),
            other => other,
        };
    }

    /// Writes the end of the content and drops `held`, asks `verify` about the size and the digest of all, makes the content
    /// durable, then visible: asks `decide` for the record that is to stand in place of the one that stands, puts that
    /// record, and reports what it replaced. Content of which nothing was written before, and that is small enough, is put with
    /// the record. If anything refuses, nothing has changed. `known` is decided upon first if the put can be compared with it;
    /// `decide` is asked again where another replica was faster. An error that is unsettled may be followed by a word to
    /// `settled`. It must be driven to its end.
    pub async fn commit<V, D>(
        mut self,
        known: Standing,
        batch: Vec<Bytes>,
        held: impl Send + Sync + 'static,
        verify: V,
        decide: D,
        settled: Settled,
    ) -> Result<Receipt>
    where
        V: FnOnce(u64, Digest) -> Result<()> + Send + 'static,
        D: FnMut(Option<&Record>, &Sealed) -> Result<Record> + Send + 'static,
    {
        let room = self.store.patience.wait(self.room.take(length(&batch))).await.flatten();
        if let Err(error) = room.and(self.ready().await) {
            self.abort().await;
            return Err(error);
        }
        let inline = matches!(self.state, State::Unopened)
            && length(&batch) <= self.store.inline_below
            && self.store.inline_below > 0;
        if let Backend::Objects(_) = self.store.backend {
            // In a box, as all that is long and not done on a local file system, or rarely: the futures around have room for it.
            return Box::pin(self.commit_object((known, inline), batch, held, verify, decide, settled)).await;
        }
        let Pen { sink: Sink::Local(sink, _), hash } = self.open()? else {
            return Err(Error::internal("a sink of another storage"));
        };
        self.commit_file((sink, hash, inline), batch, held, verify, decide, settled).await
    }

    async fn commit_file<V, D>(
        self,
        (sink, hash, inline): (local::Sink, Hash, bool),
        batch: Vec<Bytes>,
        held: impl Send + Sync + 'static,
        verify: V,
        decide: D,
        settled: Settled,
    ) -> Result<Receipt>
    where
        V: FnOnce(u64, Digest) -> Result<()> + Send + 'static,
        D: FnMut(Option<&Record>, &Sealed) -> Result<Record> + Send + 'static,
    {
        let store = Arc::clone(&self.store);
        let abandoned = Abandoned::default();
        let written = Written { key: self.key, id: self.id, size: self.size, hash, inline };
        let (commit, metrics) =
            (sink.commit(written, batch, held, verify, decide, abandoned.clone()), store.metrics.clone());
        let commit = async move {
            let timing = metrics.operation(Operation::Commit);
            let committed = commit.await;
            timing.end(Outcome::of(match &committed {
                Committed::Stands(_) => None,
                Committed::Closed(refusal) | Committed::Refused(refusal) => Some(refusal.error.kind()),
            }));
            committed
        };
        match store.patience.run(commit).await {
            Ok(committed) => self.committed(committed).await,
            Err(unfinished) => {
                abandoned.set();
                let error = unfinished.error();
                if let Unfinished::Late(task) = unfinished {
                    store.patience.leave(task, move |committed| async move {
                        let committed = self.committed(committed).await;
                        tracing::warn!(done = committed.is_ok(), "a commit came to its end after its time");
                        match committed {
                            Ok(mut receipt) => {
                                settled.tell(true);
                                let replaced = receipt.take_replaced();
                                if !replaced.is_empty() {
                                    self.store.retire(replaced).await;
                                }
                            }
                            Err(error) if error.is_unsettled() => {}
                            Err(_) => settled.tell(false),
                        }
                    });
                }
                Err(error.unsettled())
            }
        }
    }

    /// Takes back what a commit that did not come about has left.
    async fn committed(&self, committed: Committed) -> Result<Receipt> {
        match committed {
            Committed::Stands(replacement) => self.receipt(*replacement),
            Committed::Refused(refusal) => Err(refusal.into_error()),
            Committed::Closed(refusal) => {
                if refusal.settled {
                    Box::pin(self.store.discard(Replaced { key: self.key, segments: vec![SegmentId::first(self.id)] }))
                        .await;
                }
                Err(refusal.into_error())
            }
        }
    }

    fn receipt(&self, Replacement { old, new }: Replacement) -> Result<Receipt> {
        let record = new.ok_or_else(|| Error::internal("a commit replaced nothing"))?;
        let replaced = Replaced::between(self.key, old.as_ref(), Some(&record));
        Ok(Receipt { record, replaced })
    }

    /// A commit where each step is an operation of the storage that is waited for by itself.
    async fn commit_object<V, D>(
        mut self,
        (known, inline): (Standing, bool),
        batch: Vec<Bytes>,
        held: impl Send + Sync + 'static,
        verify: V,
        mut decide: D,
        settled: Settled,
    ) -> Result<Receipt>
    where
        V: FnOnce(u64, Digest) -> Result<()>,
        D: FnMut(Option<&Record>, &Sealed) -> Result<Record> + Send,
    {
        let (sealed, batch, held) = if inline {
            (Sealed::inline(self.id, &batch, verify)?, batch, Some(held))
        } else {
            match self.close(batch, held, verify).await {
                Ok(sha256) => {
                    self.store.passed(Step::ContentSynced);
                    (Sealed::in_object(self.id, self.size, sha256), Vec::new(), None)
                }
                Err(error) => {
                    self.abort().await;
                    return Err(error);
                }
            }
        };
        // Closed, or never begun: there is nothing left to abort.
        self.state = State::Unopened;
        let decide = |stands: Option<&Record>| decide(stands, &sealed).map(Some);
        let replaced = self.store.replace_object(self.key, Some(known), &batch, decide, settled).await;
        drop((batch, held));
        self.committed(Committed::of(replaced, &sealed)).await
    }

    async fn close<V>(&mut self, batch: Vec<Bytes>, held: impl Send + Sync + 'static, verify: V) -> Result<Digest>
    where
        V: FnOnce(u64, Digest) -> Result<()>,
    {
        // An empty file has nothing to write, and there must be an object all the same.
        if !batch.is_empty() || self.size == 0 {
            self.write(batch, held).await?;
            self.ready().await?;
        }
        let Pen { mut sink, hash } = self.open()?;
        let sha256 = hash.clone().finish();
        if let Err(error) = verify(self.size, sha256) {
            self.state = State::Open(Pen { sink, hash });
            return Err(error);
        }
        // What is under way has a time of its own, beside that of the close.
        let call = tokio::spawn(async move {
            let flushed = sink.flush().await;
            (Pen { sink, hash }, flushed)
        });
        self.state = State::Busy(call, None);
        self.ready().await?;
        let Pen { mut sink, hash } = self.open()?;
        self.closing = true;
        let call = tokio::spawn(async move {
            let closed = sink.close().await;
            (Pen { sink, hash }, closed)
        });
        self.state = State::Busy(call, None);
        self.ready().await.map(|()| sha256)
    }

    /// Takes back all that was written. What cannot be taken back is garbage that no record names.
    pub async fn abort(mut self) {
        // What is under way ends first, however it ends, unless it has had its time.
        let _ = self.ready().await;
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
            State::Unopened | State::Gone => None,
            State::Open(pen) | State::Failed(pen) => Some(begun.take_back(pen)),
            State::Busy(call, _) | State::Late(call) => {
                self.store.patience.leave(call, |(pen, _)| begun.take_back(pen));
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
    /// Whether a close was asked for: from then on there may be an object, whatever the answer says.
    closing: bool,
}

impl Begun {
    async fn take_back(self, mut pen: Pen) {
        if let Err(error) = pen.sink.abort().await {
            tracing::warn!(%error, upload_id = %self.id, "an upload could not be aborted cleanly");
        }
        if self.closing {
            self.store.discard(Replaced { key: self.key, segments: vec![SegmentId::first(self.id)] }).await;
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
