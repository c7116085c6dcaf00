//! Objects behind OpenDAL: content in parts, and puts that name the version which they replace. It must not know what the
//! objects are for.
//!
//! An answer that comes over a network can be lost, and a request that was given up can still come about. A put of a record
//! therefore counts what it does not know: a condition that does not hold at the first try was another's, at a later one it
//! may have been the first try's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use opendal::layers::{RetryLayer, TimeoutLayer};
use opendal::options::WriteOptions;
use opendal::{Buffer, ErrorKind, Operator, Writer};
use tokio::sync::{Mutex, OnceCell};
use tokio_util::task::AbortOnDropHandle;

use super::backend::{Failure, Kept, Version};
use super::commit::Locks;
use super::failure;
use super::services::{Compares, Service};
use super::steps::{Step, Steps};
use crate::attachment::{Key, UploadId};
use crate::error::{Error, Kind, Result};

/// How often an operation is tried.
const TRIES: usize = 3;

/// The pause before the second try; it doubles, and a random part is added to each.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How much of an operation's time one try has, in tenths: all of them and their pauses fit into it.
const TENTHS_OF_A_TRY: u32 = 3;

/// The size of the pieces that a part is gathered in, in bytes.
const PIECE: usize = 1 << 20;

/// A service of OpenDAL's.
#[derive(Debug)]
pub struct Objects {
    /// Tries again by itself.
    operator: Operator,
    /// Does not.
    once: Operator,
    remote: bool,
    names_missing_bucket: bool,
    compares: Compares,
    /// The size of a part, where content is sent in parts.
    part: Option<usize>,
    /// How many parts an upload keeps in memory at once.
    parts_kept: usize,
    /// Whether the service was seen to compare versions.
    proven: OnceCell<()>,
    /// The locks of attachments within this process.
    locks: Locks,
}

/// Takes the bytes of one object.
pub struct Sink {
    outgoing: Outgoing,
    operator: Operator,
    path: String,
    size: u64,
    part: Option<usize>,
    gathered: Gathered,
    /// Whether what the close came to can be asked for afterwards.
    remote: bool,
    kept: Arc<Kept>,
}

/// Where the writer of OpenDAL is.
enum Outgoing {
    Idle(Writer),
    /// It sends a part, while the next one is gathered.
    Sending(AbortOnDropHandle<(Writer, opendal::Result<()>)>),
    /// A call of it panicked.
    Gone,
}

/// The part that is not complete.
#[derive(Default)]
struct Gathered {
    pieces: Vec<BytesMut>,
    size: usize,
    /// Whether there were parts before it. The first piece of the first part grows with what is in it, as it may be all there is; the
    /// others have their whole size at once, since to grow is to copy.
    later: bool,
}

impl Objects {
    /// The service behind `operator`, which has no layers but those for tests. `time` is what one operation has.
    pub fn new(
        service: &Service,
        operator: Operator,
        part: Option<usize>,
        sole_writer: bool,
        time: Duration,
    ) -> Objects {
        let compares = if sole_writer { Compares::Never } else { service.compares };
        let remote = service.is_remote();
        let (once, operator) = if remote {
            let try_time = time / 10 * TENTHS_OF_A_TRY;
            let once = operator.layer(TimeoutLayer::new().with_timeout(try_time).with_io_timeout(try_time));
            let retry = RetryLayer::new()
                .with_max_times(TRIES - 1)
                .with_min_delay(PAUSE)
                .with_max_delay(LONGEST_PAUSE)
                .with_jitter();
            (once.clone(), once.layer(retry))
        } else {
            (operator.clone(), operator)
        };
        Objects {
            operator,
            once,
            remote,
            names_missing_bucket: service.names_missing_bucket,
            compares,
            part,
            parts_kept: service.parts_kept,
            proven: OnceCell::default(),
            locks: Locks::default(),
        }
    }

    /// What reads, lists and deletes.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The lock of an attachment within this process.
    pub fn lock_of(&self, key: Key) -> &Arc<Mutex<()>> {
        self.locks.of(key)
    }

    /// Whether that there is no object may mean that there is no bucket.
    pub fn is_vague(&self) -> bool {
        !self.names_missing_bucket
    }

    /// Whether the bucket is there.
    pub async fn present(&self) -> opendal::Result<()> {
        if self.remote {
            let mut lister = self.operator.lister_with("clients/").limit(1).await?;
            futures_util::StreamExt::next(&mut lister).await.transpose()?;
        }
        Ok(())
    }

    /// Reads a small object, and says which version of it that is.
    pub async fn read(&self, path: &str) -> opendal::Result<(Bytes, Version)> {
        let reader = self.operator.reader(path).await?;
        let bytes = reader.read(..).await?.to_bytes();
        let metadata = reader.metadata();
        let version = match self.compares {
            Compares::Never => return Ok((bytes, Version::Any)),
            Compares::Tag => metadata.and_then(|metadata| metadata.etag()).map(str::to_owned).map(Version::Tag),
            Compares::Generation => {
                metadata.and_then(|metadata| metadata.version()).map(str::to_owned).map(Version::Generation)
            }
        };
        let none = || opendal::Error::new(ErrorKind::Unsupported, "the storage does not say which version it returned");
        version.map(|version| (bytes, version)).ok_or_else(none)
    }

    /// How many bytes an upload keeps to its end, if it is known that no more than `size` arrive.
    pub fn kept_by_upload(&self, size: Option<u64>) -> usize {
        let most = self.part.unwrap_or_default() * self.parts_kept;
        size.and_then(|size| usize::try_from(size).ok()).map_or(most, |size| most.min(room(size)))
    }

    /// Begins an object. The sink drops `kept` when it has let go of all its memory.
    pub async fn create(&self, path: &str, kept: Kept) -> Result<Sink> {
        let options = match self.compares {
            // With a condition OpenDAL uses the resumable uploads of GCS. Its name is fresh, so there is none.
            Compares::Generation => WriteOptions { if_not_exists: true, ..WriteOptions::default() },
            Compares::Tag | Compares::Never => WriteOptions::default(),
        };
        let writer = self.operator.writer_options(path, options).await.map_err(failure)?;
        Ok(Sink {
            outgoing: Outgoing::Idle(writer),
            operator: self.operator.clone(),
            path: path.to_owned(),
            size: 0,
            part: self.part,
            gathered: Gathered::default(),
            remote: self.remote,
            kept: Arc::new(kept),
        })
    }

    /// Puts a small object in one step in place of the version that is named. Must be driven to its end.
    pub async fn put(&self, path: &str, bytes: Vec<u8>, version: Version, steps: &Steps) -> Result<(), Failure> {
        self.prove().await.map_err(Failure::Refused)?;
        // What nobody compares may be put whatever stands.
        let version = if self.compares == Compares::Never { Version::Any } else { version };
        self.try_put(path, Buffer::from(bytes), &version, steps).await
    }

    async fn try_put(&self, path: &str, bytes: Buffer, version: &Version, steps: &Steps) -> Result<(), Failure> {
        let mut unclear = false;
        let mut pause = PAUSE;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let Err(error) = self.put_once(path, bytes.clone(), version, steps).await else {
                return Ok(());
            };
            match error.kind() {
                // Which of the two it was, nobody knows: the caller may try again, and has done nothing wrong.
                ErrorKind::ConditionNotMatch if unclear => {
                    return Err(Failure::Unclear(Error::new(Kind::StorageUnavailable).because(error)));
                }
                ErrorKind::ConditionNotMatch => return Err(Failure::Overtaken),
                // The service has said that it did nothing.
                ErrorKind::Conflict
                | ErrorKind::RateLimited
                | ErrorKind::PermissionDenied
                | ErrorKind::NotFound
                | ErrorKind::ConfigInvalid
                | ErrorKind::Unsupported => {}
                // An answer that is none, or one from somewhere on the way.
                _ => unclear |= self.remote,
            }
            if attempt == TRIES || !self.remote || !error.is_temporary() {
                return Err(match error.kind() {
                    ErrorKind::Conflict if !unclear => Failure::Overtaken,
                    _ if unclear => Failure::Unclear(failure(error)),
                    _ => Failure::Refused(failure(error)),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn put_once(&self, path: &str, bytes: Buffer, version: &Version, steps: &Steps) -> opendal::Result<()> {
        let options = match version.clone() {
            Version::Any => WriteOptions::default(),
            Version::Absent => WriteOptions { if_not_exists: true, ..WriteOptions::default() },
            Version::Tag(tag) => WriteOptions { if_match: Some(tag), ..WriteOptions::default() },
            Version::Generation(number) => WriteOptions { if_version_match: Some(number), ..WriteOptions::default() },
        };
        let mut writer = self.once.writer_options(path, options).await?;
        let put = match writer.write(bytes).await {
            Ok(()) => {
                steps.passed(Step::RecordWritten);
                writer.close().await.map(drop)
            }
            Err(error) => Err(error),
        };
        if put.is_err()
            && let Err(error) = writer.abort().await
        {
            tracing::warn!(%error, "a put could not be aborted cleanly");
        }
        put
    }

    /// Looks once that the service compares versions, and does not only take the words: two that believe it did could each
    /// tell a client that its file is stored.
    pub async fn prove(&self) -> Result<()> {
        if self.compares == Compares::Never {
            return Ok(());
        }
        self.proven.get_or_try_init(|| self.look_whether_it_compares()).await.map(drop)
    }

    async fn look_whether_it_compares(&self) -> Result<()> {
        let path = format!("probe/{}", UploadId::fresh());
        let put = |text: &'static str, version: Version| {
            let path = &path;
            async move { self.try_put(path, Buffer::from(text), &version, &Steps::default()).await }
        };
        let looked = async {
            put("first", Version::Absent).await.map_err(Failure::into_error)?;
            let (_, first) = self.read(&path).await.map_err(failure)?;
            put("second", first.clone()).await.map_err(Failure::into_error)?;
            let again = [put("third", first).await, put("third", Version::Absent).await];
            let (bytes, _) = self.read(&path).await.map_err(failure)?;
            let refused = |put: &Result<(), Failure>| matches!(put, Err(Failure::Overtaken));
            Ok(again.iter().all(refused) && bytes == "second")
        };
        let looked: Result<bool> = looked.await;
        if let Err(error) = self.operator.delete(&path).await {
            tracing::warn!(%error, path, "what the storage was tried with could not be deleted");
        }
        if looked? {
            return Ok(());
        }
        Err(Error::internal(
            "the storage does not compare versions when it replaces an object (If-Match, If-None-Match), so of two replicas \
             each could believe that it stored; if only one process ever writes there, set storage.sole_writer",
        ))
    }
}

impl Sink {
    /// Takes the next bytes. A part that is complete is sent while the next one is gathered, and what becomes of it is told by a later
    /// call.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.size += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        let Some(part) = self.part else {
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
                self.gathered.push(&bytes.split_to(room.min(bytes.len())));
                if self.gathered.size == part {
                    self.send().await?;
                }
            }
        }
        Ok(())
    }

    /// Begins to send what was gathered, once the part before it is sent.
    async fn send(&mut self) -> Result<()> {
        self.idle().await?;
        let (part, kept) = (self.gathered.take(), Arc::clone(&self.kept));
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
        match &mut self.outgoing {
            Outgoing::Idle(writer) => Ok(writer),
            Outgoing::Sending(_) | Outgoing::Gone => Err(Error::internal("a writer that is gone")),
        }
    }

    /// Hands on the end, and waits until no part is under way. The last one is sent by the close.
    pub async fn flush(&mut self) -> Result<()> {
        if self.part.is_some() && (self.gathered.size > 0 || self.size == 0) {
            let end = self.gathered.take();
            self.idle().await?.write(end).await.map_err(|error| self.failure(error))?;
        }
        self.idle().await.map(drop)
    }

    /// Makes the object visible, once it is flushed.
    pub async fn close(&mut self) -> Result<()> {
        let Err(error) = self.idle().await?.close().await else {
            return Ok(());
        };
        // That it is not there to be closed, or is there already, says of a later try that an earlier one came about. An object
        // appears whole or not at all. One that is only seen, with no answer that speaks of it, need not stay.
        if self.remote
            && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConditionNotMatch)
            && let Ok(metadata) = self.operator.stat(&self.path).await
            && metadata.content_length() == self.size
        {
            return Ok(());
        }
        Err(self.failure(error))
    }

    /// What a failure means for the caller. An upload in parts that was there and is not any more was lost by the storage, or ended
    /// by a rule of the bucket: to send it again helps.
    fn failure(&self, error: opendal::Error) -> Error {
        let in_parts = self.part.is_some_and(|part| self.size > part as u64);
        if self.remote && in_parts && error.kind() == ErrorKind::NotFound {
            return Error::new(Kind::StorageUnavailable).because(error);
        }
        failure(error)
    }

    /// Takes back what was written.
    pub async fn abort(&mut self) -> Result<()> {
        // What is under way ends first, however it ends.
        let _ = self.idle().await;
        self.idle().await?.abort().await.map_err(failure)
    }
}

/// How much memory so many bytes take that are gathered in pieces.
fn room(size: usize) -> usize {
    if size < PIECE { size.next_power_of_two() } else { size.next_multiple_of(PIECE) }
}

impl Gathered {
    /// Copies, so that the memory of a part is what it holds and not the buffers that it came in.
    fn push(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len();
        while !bytes.is_empty() {
            let room = self.pieces.last().map_or(0, |piece| PIECE - piece.len());
            if room == 0 {
                let first = self.pieces.is_empty() && !self.later;
                let capacity = if first { bytes.len().next_power_of_two().min(PIECE) } else { PIECE };
                self.pieces.push(BytesMut::with_capacity(capacity));
            }
            let Some(piece) = self.pieces.last_mut() else { return };
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
            piece.extend_from_slice(now);
            bytes = later;
        }
    }

    fn take(&mut self) -> Buffer {
        let Gathered { pieces, .. } = std::mem::replace(self, Gathered { later: true, ..Gathered::default() });
        Buffer::from(pieces.into_iter().map(BytesMut::freeze).collect::<Vec<Bytes>>())
    }
}
