//! The content of one upload in a file: written as it arrives, ended by a commit of content and record in one go. It must not
//! know what a record says.

use std::sync::{self, Arc};

use bytes::Bytes;
use scopeguard::guard;

use super::draft::Draft;
use super::threads::{Abandoned, on_thread};
use super::{Local, Operation, WRITE, lock, split};
use crate::attachment::{Digest, Id, Record};
use crate::error::{Error, Result};
use crate::store::commit::Refusal;
use crate::store::hash::{Hash, length};
use crate::store::queue::Queue;
use crate::store::receipt::{Committed, Sealed, Written};
use crate::store::steps::Step;
use crate::telemetry::{self, Metrics, Outcome, Timing};

/// Takes the bytes of one file.
pub struct Sink {
    local: Arc<Local>,
    /// Whose content it is.
    client: Id,
    path: String,
    draft: Option<Draft>,
}

impl Sink {
    /// Writes what is in the queue and adds it to the digest, on a thread, so that both are done while the bytes are warm, and
    /// beside the arrival of more. Where others wait for a thread it leaves with what is in the queue by then. Where all cores are
    /// busy it leaves at once, and the digest is made here, where the bytes have arrived and are warmer still.
    pub async fn write(&mut self, mut queue: Queue, hash: &mut Hash, metrics: Metrics) -> Result<()> {
        let (local, path, draft, mut running) =
            (Arc::clone(&self.local), self.path.clone(), self.draft.take(), std::mem::take(hash));
        let _place = self.local.writing.acquire(self.client, 0, WRITE, 1).await.map_err(Error::internal)?;
        let timing: Arc<sync::Mutex<Option<Timing>>> = Arc::default();
        // A write that hangs is counted when it is given up: it may have no end of its own.
        let _given_up = guard(Arc::clone(&timing), |timing| drop(lock(&timing).take()));
        let mut hashed = Vec::new();
        if self.local.is_crowded() {
            queue.close();
            hashed.extend(std::iter::from_fn(|| queue.next().map(|batch| running.take_in(batch))));
        }
        let written = on_thread(Abandoned::default(), move |abandoned| {
            let (mut draft, mut running, mut hashed) = (draft, running, hashed.into_iter());
            while let Some((bytes, held)) = hashed.next().or_else(|| queue.next().map(|batch| running.take_in(batch))) {
                *lock(&timing) = Some(metrics.operation(telemetry::Operation::Write));
                let written = local.write_now(&path, &mut draft, &bytes, abandoned);
                if let Some(timing) = lock(&timing).take() {
                    timing.end(Outcome::of(written.as_ref().err().map(Error::kind)));
                }
                drop((bytes, held));
                if written.is_err() {
                    return (draft, running, written);
                }
                if local.writing.free() == 0 {
                    queue.close();
                }
            }
            (draft, running, Ok(()))
        });
        let (draft, running, written) = written.await?;
        (self.draft, *hash) = (draft, running);
        written
    }

    /// Takes back what was written.
    pub async fn abort(&mut self) -> Result<()> {
        let (local, path, draft) = (Arc::clone(&self.local), std::mem::take(&mut self.path), self.draft.take());
        on_thread(Abandoned::default(), move |abandoned| local.discard(&path, draft, abandoned)).await
    }

    /// Does all of a commit: writes the end of the content, has all of it verified, makes it durable under its name, then puts
    /// the record that `decide` makes. Inline content goes with the record instead. If nobody else has the attachment's turn, it
    /// is done on one thread without a break.
    pub async fn commit<V, D>(
        self,
        written: Written,
        batch: Vec<Bytes>,
        held: impl Send + 'static,
        verify: V,
        decide: D,
        abandoned: Abandoned,
    ) -> Committed
    where
        V: FnOnce(u64, Digest) -> Result<()> + Send + 'static,
        D: FnOnce(Option<&Record>, &Sealed) -> Result<Record> + Send + 'static,
    {
        let (local, key) = (Arc::clone(&self.local), written.key);
        let replace = move |local: &Local, turn, (sealed, inline): (Sealed, Vec<Bytes>), abandoned: &Abandoned| {
            let decide = |stands: Option<&Record>| decide(stands, &sealed).map(Some);
            Committed::of(local.replace_now(key, turn, &inline, decide, abandoned), &sealed)
        };
        let unchanged = |error| Committed::Refused(Refusal::unchanged(error));
        let bytes = batch.iter().map(Bytes::len).sum();
        let first = local.committing.run((key.client, bytes), abandoned.clone(), move |abandoned| {
            let local = Arc::clone(&self.local);
            let (content, held) = if written.inline {
                let sealed = Sealed::inline(written.id, &batch, verify).map_err(unchanged)?;
                ((sealed, batch), Some(held))
            } else {
                (self.end(written, (batch, held), verify, abandoned)?, None)
            };
            match Arc::clone(local.lock_of(key)).try_lock_owned() {
                Ok(turn) => Err(replace(&local, turn, content, abandoned)),
                Err(_) => Ok((replace, content, held)),
            }
        });
        let unsettled = |error| Committed::Closed(Refusal::unsettled(error));
        match first.await {
            Err(error) => unsettled(error),
            Ok(Err(committed)) => committed,
            Ok(Ok((replace, content, held))) => {
                let turn = Arc::clone(local.lock_of(key)).lock_owned().await;
                let pool = local.committing.clone();
                let second = pool.run((key.client, 0), abandoned, move |abandoned| {
                    let committed = replace(&local, turn, content, abandoned);
                    drop(held);
                    committed
                });
                second.await.unwrap_or_else(unsettled)
            }
        }
    }

    /// Writes the end of the content, has all of it verified, and makes it durable under its name. Lets go of the memory of the
    /// end as soon as it is written.
    fn end<V>(
        self,
        written: Written,
        (batch, held): (Vec<Bytes>, impl Send),
        verify: V,
        abandoned: &Abandoned,
    ) -> Result<(Sealed, Vec<Bytes>), Committed>
    where
        V: FnOnce(u64, Digest) -> Result<()>,
    {
        let Sink { local, path, mut draft, .. } = self;
        let Written { id, mut size, mut hash, .. } = written;
        // An empty file has nothing to write, and there must be one all the same.
        let ended = if batch.is_empty() && draft.is_some() {
            Ok(())
        } else {
            batch.iter().for_each(|bytes| hash.update(bytes));
            local.write_now(&path, &mut draft, &batch, abandoned)
        };
        size += length(&batch);
        drop((batch, held));
        let sha256 = hash.finish();
        if let Err(error) = ended.and_then(|()| verify(size, sha256)) {
            local.discard(&path, draft, abandoned);
            return Err(Committed::Refused(Refusal::unchanged(error)));
        }
        if let Err(error) = local.close_now(&path, &mut draft, abandoned) {
            local.discard(&path, draft, abandoned);
            return Err(Committed::Closed(Refusal::unchanged(error)));
        }
        Ok((Sealed::in_object(id, size, sha256), Vec::new()))
    }
}

impl Local {
    /// Begins a file. Nothing is there before the first write.
    pub fn create(self: &Arc<Self>, client: Id, path: &str) -> Sink {
        Sink { local: Arc::clone(self), client, path: path.to_owned(), draft: None }
    }

    fn write_now(&self, path: &str, draft: &mut Option<Draft>, batch: &[Bytes], abandoned: &Abandoned) -> Result<()> {
        if draft.is_none() {
            self.steps.passed(Step::ContentOpened);
        }
        let written = self.act(Operation::Write, path, abandoned, || {
            let draft = match draft {
                Some(draft) => draft,
                None => draft.insert(self.draft(split(path).1)?),
            };
            draft.write(batch)
        });
        written.map_err(|error| self.failure(path, error))?;
        self.steps.passed(Step::ContentWritten);
        Ok(())
    }

    /// Makes content durable under its name, in the folder of its attachment, which is made where there is none yet.
    fn close_now(&self, path: &str, draft: &mut Option<Draft>, abandoned: &Abandoned) -> Result<()> {
        let closed = self.act(Operation::Close, path, abandoned, || {
            if let Some(draft) = &draft {
                draft.sync()?;
            }
            let (folder, name) = split(path);
            let folder = self.entries.open(&self.directory.place()?, folder)?;
            draft.take().map_or(Ok(()), |draft| draft.rename(folder.own(), name))?;
            Ok(folder)
        });
        let folder = closed.map_err(|error| self.failure(path, error))?;
        self.steps.passed(Step::ContentClosed);
        self.entries.sync(&folder).map_err(|error| self.failure(path, error))?;
        self.steps.passed(Step::ContentSynced);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fair::Semaphore;
    #[cfg(feature = "faults")]
    use crate::store::faults::Faults;
    use crate::store::queue::Batch;
    use crate::store::steps::Steps;

    fn open(folder: &tempfile::TempDir) -> Local {
        let root = folder.path().display().to_string();
        let opened = Local::open(
            &[("root".to_owned(), root)].into(),
            crate::store::Access::Write,
            0,
            &Metrics::default(),
            Steps::default(),
            #[cfg(feature = "faults")]
            Faults::new(&[]),
        );
        opened.unwrap()
    }

    fn batch(byte: u8) -> Batch {
        Batch::new(vec![Bytes::from(vec![byte; 4 << 20])], ())
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_thread_leaves_an_upload_that_has_more_where_all_places_are_taken() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local { writing: Semaphore::new(1), crowd: usize::MAX, ..open(&folder) };
        let (behind, queue) = Queue::new(batch(0));
        let mut sink = Arc::new(local).create(Id::try_from(1).unwrap(), "x/y");
        let call = tokio::spawn(async move {
            let mut hash = Hash::default();
            sink.write(queue, &mut hash, Metrics::default()).await?;
            sink.abort().await
        });
        let mut taken = 0;
        while taken < 50 && behind.put(batch(0)).await.is_ok() {
            taken += 1;
        }
        assert!(taken <= 1, "{taken} were taken after the one that was being written");
        call.await.unwrap().unwrap();
    }

    /// With no thread to be had for what blocks, since the only one waits until the other end of the channel is dropped.
    fn without_threads<F: Future>(work: impl FnOnce(std::sync::mpsc::Sender<()>) -> F) -> F::Output {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).max_blocking_threads(1).enable_all().build().unwrap();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || gone.recv());
        runtime.block_on(work(go))
    }

    #[test]
    fn where_all_cores_are_busy_who_has_received_what_is_to_be_written_takes_and_hashes_it() {
        let folder = tempfile::tempdir().unwrap();
        without_threads(async |go| {
            let local = Arc::new(Local { crowd: 1, ..open(&folder) });
            let (mut sink, mut hash) = (local.create(Id::try_from(1).unwrap(), "x/y"), Hash::default());
            let (behind, queue) = Queue::new(batch(1));
            assert!(behind.put(batch(2)).await.is_ok());
            {
                let mut write = std::pin::pin!(sink.write(queue, &mut hash, Metrics::default()));
                assert!(futures_util::poll!(write.as_mut()).is_pending());
                assert!(
                    behind.put(batch(3)).await.is_err(),
                    "no more is taken, and there is no thread yet that could say so"
                );
                drop(go);
                write.await.unwrap();
            }
            let mut expected = Hash::default();
            expected.update(&vec![1; 4 << 20]);
            expected.update(&vec![2; 4 << 20]);
            assert_eq!(hash.finish(), expected.finish());
            let processes = std::fs::read_dir(folder.path().join(".attachd-tmp")).unwrap();
            let mut files = processes.filter_map(|process| std::fs::read_dir(process.unwrap().path()).ok()).flatten();
            assert!(files.any(|file| file.unwrap().metadata().unwrap().len() == 8 << 20));
            sink.abort().await.unwrap();
        });
    }
}
