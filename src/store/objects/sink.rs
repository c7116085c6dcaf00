//! The content of one upload in an object: gathered into parts, and each of them sent while the next one is gathered. It must
//! not know how a record is put.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opendal::options::WriteOptions;
use opendal::raw::BoxedStaticFuture;
use opendal::{Buffer, ErrorKind, Execute, Executor, Operator, Writer};
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::tries::{LONGEST_PAUSE, PAUSE, Retries};
use super::{Compares, Objects};
use crate::error::{Error, Kind, Result};
use crate::store::backend::Kept;
use crate::store::failure;
use crate::store::meaning::plain;

/// The size of the pieces that a part is gathered in, in bytes.
const PIECE: usize = 1 << 20;

/// Takes the bytes of one object.
pub struct Sink {
    objects: Arc<Objects>,
    path: String,
    outgoing: Outgoing,
    size: u64,
    gathered: Gathered,
    retries: Retries,
    /// The parts that the writer sends by itself.
    beside: TaskTracker,
    kept: Arc<Kept>,
}

/// Where the writer of OpenDAL is.
enum Outgoing {
    /// There is none yet.
    Unopened,
    Idle(Writer),
    /// It sends a part, while the next one is gathered.
    Sending(AbortOnDropHandle<(Writer, opendal::Result<()>)>),
    /// A call of it panicked.
    Gone,
}

/// Runs what a writer sends by itself. It is known when all of that has ended, and its memory is kept until then.
struct Beside {
    inner: Arc<dyn Execute>,
    tasks: TaskTracker,
    kept: Arc<Kept>,
}

/// The part that is not complete.
#[derive(Default)]
struct Gathered {
    pieces: Vec<BytesMut>,
    size: usize,
}

impl Execute for Beside {
    fn execute(&self, task: BoxedStaticFuture<()>) {
        let kept = Arc::clone(&self.kept);
        let task = self.tasks.track_future(async move {
            task.await;
            drop(kept);
        });
        self.inner.execute(Box::pin(task));
    }

    fn timeout(&self) -> Option<BoxedStaticFuture<()>> {
        self.inner.timeout()
    }
}

impl Sink {
    /// Begins an object. The sink drops `kept` when it has let go of all its memory.
    pub fn new(objects: &Arc<Objects>, path: &str, kept: Kept) -> Sink {
        Sink {
            objects: Arc::clone(objects),
            path: path.to_owned(),
            outgoing: Outgoing::Unopened,
            size: 0,
            gathered: Gathered::default(),
            retries: Retries::default(),
            beside: TaskTracker::new(),
            kept: Arc::new(kept),
        }
    }

    /// A writer for what is known to be in several parts, or not.
    async fn open(&self, in_parts: bool) -> Result<Writer> {
        let objects = &self.objects;
        let options = WriteOptions {
            // With a condition OpenDAL uses the resumable uploads of GCS. Its name is fresh, so there is none.
            if_not_exists: matches!(objects.compares, Compares::Generation),
            ..WriteOptions::default()
        };
        let operator = objects.writing(in_parts, self.retries.clone());
        if !in_parts || objects.at_once() == 1 {
            return operator.writer_options(&self.path, options).await.map_err(failure);
        }
        let (context, service) = operator.into_parts();
        let inner = context.executor().clone().into_inner();
        let executor = Executor::with(Beside { inner, tasks: self.beside.clone(), kept: Arc::clone(&self.kept) });
        let operator = Operator::from_parts(context.with_executor(executor), service);
        let options = WriteOptions { concurrent: objects.at_once(), ..options };
        operator.writer_options(&self.path, options).await.map_err(failure)
    }

    /// Takes the next bytes. A part that is complete is sent while the next one is gathered, and what becomes of it is told by a later
    /// call.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.size += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let Some(part) = self.objects.part() else {
            return self.idle().await?.write(Buffer::from(batch)).await.map_err(failure);
        };
        if let Outgoing::Sending(sending) = &self.outgoing
            && sending.is_finished()
        {
            // That it failed is told now, not when the next part is complete.
            self.idle().await?;
        }
        for mut bytes in batch {
            while !bytes.is_empty() {
                let room = part - self.gathered.size;
                let first = matches!(self.outgoing, Outgoing::Unopened);
                self.gathered.push(&bytes.split_to(room.min(bytes.len())), first);
                if self.gathered.size == part {
                    self.send().await?;
                }
            }
        }
        Ok(())
    }

    /// Begins to send what was gathered, once there is room for it beside what is under way.
    async fn send(&mut self) -> Result<()> {
        let part = self.gathered.take();
        if self.objects.at_once() > 1 {
            return self.idle().await?.write(part).await.map_err(|error| self.failure(error));
        }
        self.idle().await?;
        let kept = Arc::clone(&self.kept);
        if let Outgoing::Idle(mut writer) = std::mem::replace(&mut self.outgoing, Outgoing::Gone) {
            let sending = tokio::spawn(async move {
                let sent = writer.write(part).await;
                drop(kept);
                (writer, sent)
            });
            self.outgoing = Outgoing::Sending(AbortOnDropHandle::new(sending));
        }
        Ok(())
    }

    /// The writer, once it sends nothing.
    async fn idle(&mut self) -> Result<&mut Writer> {
        if let Outgoing::Sending(sending) = &mut self.outgoing {
            match sending.await {
                Ok((writer, sent)) => {
                    self.outgoing = Outgoing::Idle(writer);
                    sent.map_err(|error| self.failure(error))?;
                }
                Err(panic) => {
                    self.outgoing = Outgoing::Gone;
                    return Err(Error::internal(panic));
                }
            }
        }
        if let Outgoing::Unopened = self.outgoing {
            let in_parts = self.objects.part().is_some_and(|part| self.size >= part as u64);
            self.outgoing = Outgoing::Idle(Box::pin(self.open(in_parts)).await?);
        }
        match &mut self.outgoing {
            Outgoing::Idle(writer) => Ok(writer),
            Outgoing::Unopened | Outgoing::Sending(_) | Outgoing::Gone => Err(Error::internal("a writer that is gone")),
        }
    }

    /// Hands on the end, and waits until no part is under way. The last one is sent by the close.
    pub async fn flush(&mut self) -> Result<()> {
        if self.objects.part().is_some() && (self.gathered.size > 0 || self.size == 0) {
            let end = self.gathered.take();
            self.idle().await?.write(end).await.map_err(|error| self.failure(error))?;
        }
        self.idle().await?;
        self.ended().await;
        Ok(())
    }

    /// Waits until nothing is under way, whatever came of it.
    async fn ended(&self) {
        self.beside.close();
        self.beside.wait().await;
    }

    /// Makes the object visible, once it is flushed. Where the close was tried again, its answer is not enough: some services
    /// acknowledge a second completion while they still carry out the first. Then the object must be seen.
    pub async fn close(&mut self) -> Result<()> {
        let before = self.retries.count();
        let closed = self.idle().await?.close().await;
        let again = self.retries.count() > before;
        match closed {
            Ok(_) if !again || self.seen(self.objects.time).await => Ok(()),
            Ok(_) => {
                let text = "the storage acknowledged content that it does not show";
                Err(Error::new(Kind::StorageUnavailable).because(text))
            }
            // That it is not there to be closed, or is there already, says of a later try that an earlier one came about. One that
            // is only seen, with no answer that speaks of it, need not stay.
            Err(error)
                if self.objects.remote
                    && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConditionNotMatch)
                    && self.seen(if again { self.objects.time } else { Duration::ZERO }).await =>
            {
                Ok(())
            }
            // The try before may have come about, so this answer says nothing of the upload.
            Err(error) if again => Err(Error::new(Kind::StorageUnavailable).because(plain(&error))),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Whether the object is there with all its bytes, which is looked at once, and again for as long as `wait`.
    async fn seen(&self, wait: Duration) -> bool {
        let began = Instant::now();
        let mut pause = PAUSE;
        loop {
            match self.objects.operator.stat(&self.path).await {
                Ok(metadata) if metadata.content_length() == self.size => return true,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(error = plain(&error), "content could not be looked at"),
            }
            if began.elapsed() + pause > wait {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What a failure means for the caller. An upload in parts that was there and is not any more was lost by the storage, or ended
    /// by a rule of the bucket: to send it again helps.
    fn failure(&self, error: opendal::Error) -> Error {
        let in_parts = self.objects.part().is_some_and(|part| self.size > part as u64);
        if self.objects.remote && in_parts && error.kind() == ErrorKind::NotFound {
            return Error::new(Kind::StorageUnavailable).because(plain(&error));
        }
        failure(error)
    }

    /// Takes back what was written.
    pub async fn abort(&mut self) -> Result<()> {
        if let Outgoing::Unopened = self.outgoing {
            return Ok(());
        }
        // What is under way ends first, however it ends: a part that arrives after the abort would stay.
        let _ = self.idle().await;
        self.ended().await;
        self.idle().await?.abort().await.map_err(failure)
    }
}

/// How much memory so many bytes take that are gathered in pieces.
pub(super) fn room(size: usize) -> usize {
    if size < PIECE { size.next_power_of_two() } else { size.next_multiple_of(PIECE) }
}

impl Gathered {
    /// Copies, so that the memory of a part is what it holds and not the buffers that it came in. The first piece of the first part
    /// grows with what is in it, as it may be all there is; the others have their whole size at once, since to grow is to copy.
    fn push(&mut self, mut bytes: &[u8], first: bool) {
        self.size += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| PIECE - piece.len());
            if room == 0 {
                let grows = first && self.pieces.is_empty();
                let capacity = if grows { bytes.len().next_power_of_two().min(PIECE) } else { PIECE };
                self.pieces.push(BytesMut::with_capacity(capacity));
            }
            let Some(piece) = self.pieces.last_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
            piece.extend_from_slice(now);
            bytes = later;
        }
    }

    fn take(&mut self) -> Buffer {
        let Gathered { pieces, .. } = std::mem::take(self);
        Buffer::from(pieces.into_iter().map(BytesMut::freeze).collect::<Vec<Bytes>>())
    }
}
