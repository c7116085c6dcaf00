//! Storage on a local file system, where durability and atomicity are ours to make. A file is written under a temporary name,
//! fsynced and renamed, and the directories that lead to it are fsynced; a commit does all of that, for content and record,
//! under the lock of the attachment. Whatever blocks does so on threads that may. It must not know what a record says.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use opendal::Operator;
use rustix::fs::Dir;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::commit::{Locks, Refusal, Replacement, stripe};
use super::config::OpenError;
#[cfg(feature = "faults")]
use super::faults::Faults;
use super::hash::Hash;
use super::listing::Lowest;
use super::record::{self, Stored};
use super::steps::{Step, Steps};
use super::{Access, WRITE, io_failure, layout, lock};
use crate::attachment::{Id, Key, Record};
use crate::error::{Error, Kind, Result};
use crate::fair::{Load, Semaphore};
use crate::telemetry::Metrics;

use directory::Directory;
use draft::Draft;
use entries::{Entries, Folder};
use service::Below;
use space::Space;
use threads::{Pool, on_thread};

pub use directory::TROUBLE;
pub use service::Options;
pub use sink::Sink;
pub use space::{Free, Room};
pub use threads::Abandoned;

mod beneath;
mod directory;
mod draft;
mod entries;
mod root;
mod service;
mod sink;
mod space;
mod threads;

/// How many threads write content at once. They copy and hash, which keeps a core busy, and wait for a disk only where more is
/// written than it takes.
const WRITING: usize = 16;

/// What keeps them all writing, in bytes: while each writes a batch another one is gathered.
pub const USEFUL_MEMORY: u64 = (2 * WRITING * WRITE) as u64;

/// How many threads commit at once, where the disk is what they wait for. More of them share a sync.
const COMMITTING: usize = 64;

/// What a pass over a directory counts for among what waits for a thread, in bytes.
const LISTED: usize = 1 << 20;

/// How many read records at once. More than commit: a few that hang must not keep all others from being known.
const READING: usize = 256;

/// A storage root, and how files are written in it.
#[derive(Debug)]
pub struct Local {
    directory: Arc<Directory>,
    entries: Entries,
    /// The locks of attachments within this process. A file lock beside each holds between processes.
    locks: Locks,
    /// How many writes are under way at once: each has a thread, whose stack and caches are memory too.
    writing: Arc<Semaphore>,
    /// How many writes under way keep all cores busy.
    crowd: usize,
    committing: Pool,
    reading: Pool,
    space: Arc<Space>,
    steps: Steps,
    #[cfg(feature = "faults")]
    faults: Faults,
}

/// The leave to replace a record, within this process.
type Turn = OwnedMutexGuard<()>;

/// A kind of operation, as the faults know it.
#[derive(Clone, Copy, Debug)]
enum Operation {
    Read,
    Write,
    Close,
    Abort,
}

impl Local {
    /// Opens the root that the options name. Uploads leave `min_free` bytes of its file system free.
    pub fn open(
        options: &std::collections::BTreeMap<String, String>,
        access: Access,
        min_free: u64,
        metrics: &Metrics,
        steps: Steps,
        #[cfg(feature = "faults")] faults: Faults,
    ) -> Result<Local, OpenError> {
        let directory = Arc::new(Directory::open(options, access)?);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let space = Arc::new(Space::new(Arc::clone(&directory), min_free, metrics.clone()));
        Ok(Local {
            directory,
            space,
            entries: Entries::default(),
            locks: Locks::default(),
            writing: Semaphore::new(WRITING),
            crowd: cores.min(WRITING),
            committing: Pool::new(cores, COMMITTING),
            reading: Pool::new(cores, READING),
            steps,
            #[cfg(feature = "faults")]
            faults,
        })
    }

    /// What the threads have to do, by name.
    pub fn load(&self) -> [(&'static str, Load); 2] {
        [("commit_threads", self.committing.load()), ("read_threads", self.reading.load())]
    }

    /// What reads, lists and deletes below the root.
    pub fn operator(&self) -> opendal::Result<Operator> {
        Operator::new(Below::new(Arc::clone(&self.directory)))
    }

    /// What an operator should know of the root, beside its configuration.
    pub fn warnings(&self) -> Vec<String> {
        self.directory.warnings()
    }

    /// What is wrong with the room that uploads leave free, if it is more than the file system has.
    pub fn warning_of_size(&self) -> Option<String> {
        self.space.warning()
    }

    /// Whether there is a symbolic link at a path.
    pub async fn is_link(self: &Arc<Self>, path: &str) -> bool {
        let (local, path) = (Arc::clone(self), path.to_owned());
        let looked = on_thread(Abandoned::default(), move |_| {
            let found = beneath::stat(local.directory.place()?.root(), &path)?;
            io::Result::Ok(beneath::is_link(&found))
        });
        // Whatever keeps it from being seen is reported by who asked for more than this.
        looked.await.is_ok_and(|looked| looked.unwrap_or_default())
    }

    /// The symbolic links among what attachd keeps beside the clients, as seen from the root.
    pub async fn links(self: &Arc<Self>) -> Result<Vec<String>> {
        let local = Arc::clone(self);
        on_thread(Abandoned::default(), move |_| local.directory.links()).await?.map_err(io_failure)
    }

    /// The room on the file system.
    pub fn space(&self) -> &Arc<Space> {
        &self.space
    }

    /// Whether as many writes are under way as there are cores.
    fn is_crowded(&self) -> bool {
        WRITING - self.writing.free() >= self.crowd
    }

    /// Whether the root is there. A file system says of a volume that is not mounted what it says of a file that does not
    /// exist.
    pub async fn present(self: &Arc<Self>) -> Result<()> {
        let local = Arc::clone(self);
        on_thread(Abandoned::default(), move |_| local.present_now()).await?
    }

    fn present_now(&self) -> Result<()> {
        // Whatever it is that keeps it from view, a file system that is mounted late or again brings it back.
        self.directory.present().map_err(|error| Error::new(Kind::StorageUnavailable).because(error))
    }

    /// The record of an attachment, if there is one.
    pub async fn record(self: &Arc<Self>, key: Key) -> Result<Option<Stored>> {
        let local = Arc::clone(self);
        self.reading
            .run((key.client, 0), Abandoned::default(), move |abandoned| local.record_now(key, abandoned))
            .await?
    }

    fn record_now(&self, key: Key, abandoned: &Abandoned) -> Result<Option<Stored>> {
        let path = layout::record(key);
        match self.act(Operation::Read, &path, abandoned, || beneath::read(self.directory.place()?.root(), &path)) {
            Ok(bytes) => record::decode(bytes.into(), key).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.present_now().map(|()| None),
            Err(error) => Err(self.failure(&path, error)),
        }
    }

    /// Opens a file, if there is one.
    pub async fn open_file(self: &Arc<Self>, client: Id, path: String) -> Result<Option<File>> {
        let local = Arc::clone(self);
        let open = move |abandoned: &Abandoned| {
            let open = || beneath::file(local.directory.place()?.root(), &path);
            match local.act(Operation::Read, &path, abandoned, open) {
                Ok(file) => Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => local.present_now().map(|()| None),
                Err(error) => Err(local.failure(&path, error)),
            }
        };
        self.reading.run((client, 0), Abandoned::default(), open).await?
    }

    /// Reads `most` bytes of an open file from an offset on, fewer only at its end, and adds them to a digest.
    pub async fn read_at(
        self: &Arc<Self>,
        client: Id,
        path: String,
        file: Arc<File>,
        at: u64,
        most: usize,
        mut hash: Option<Hash>,
    ) -> Result<(Bytes, Option<Hash>)> {
        let local = Arc::clone(self);
        let read = move |abandoned: &Abandoned| {
            let read = || {
                let mut bytes = BytesMut::zeroed(most);
                let mut filled = 0;
                while filled < most {
                    match file.read_at(&mut bytes[filled..], at + filled as u64) {
                        Ok(0) => break,
                        Ok(read) => filled += read,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
                bytes.truncate(filled);
                Ok(bytes.freeze())
            };
            let bytes =
                local.act(Operation::Read, &path, abandoned, read).map_err(|error| local.failure(&path, error))?;
            if let Some(hash) = &mut hash {
                hash.update(&bytes);
            }
            Ok((bytes, hash))
        };
        self.reading.run((client, most), Abandoned::default(), read).await?
    }

    /// The lowest ids of a client's attachments that are higher than `after`, `most` of them at most.
    pub async fn attachments_after(self: &Arc<Self>, client: Id, after: Option<Id>, most: usize) -> Result<Vec<Id>> {
        let local = Arc::clone(self);
        let list = move |_: &Abandoned| {
            let path = layout::records(client);
            let mut lowest = Lowest::new(most);
            let listed = local.directory.place().and_then(|place| {
                for entry in Dir::read_from(&beneath::folder(place.root(), &path)?)? {
                    let name = entry?.file_name().to_string_lossy().into_owned();
                    let id = layout::attachment_of(&name);
                    if let Some(id) = id.filter(|id| after.is_none_or(|after| *id > after)) {
                        lowest.offer(id);
                    }
                }
                Ok(())
            });
            match listed {
                Ok(()) => Ok(lowest.into_ids()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => local.present_now().map(|()| Vec::new()),
                Err(error) => Err(local.failure(&path, error)),
            }
        };
        self.reading.run((client, LISTED), Abandoned::default(), list).await?
    }

    /// Puts a small file in one step, durably, and takes back what a failure leaves.
    pub async fn put(self: &Arc<Self>, path: String, bytes: Bytes, steps: Steps) -> Result<()> {
        let local = Arc::clone(self);
        let put = on_thread(Abandoned::default(), move |abandoned| {
            let folder = local.put_now(&path, bytes, &steps, abandoned)?;
            local.entries.sync(&folder).map_err(|error| local.failure(&path, error))
        });
        put.await?
    }

    /// Puts a small file into its folder, which is yet to be synced, and takes back what a failure leaves.
    fn put_now(&self, path: &str, bytes: Bytes, steps: &Steps, abandoned: &Abandoned) -> Result<Folder> {
        let (above, name) = split(path);
        let mut draft = None;
        let put = self
            .act(Operation::Write, path, abandoned, || {
                let draft = draft.insert(self.draft(name)?);
                draft.write(&[bytes])?;
                draft.sync()
            })
            .and_then(|()| {
                steps.passed(Step::RecordWritten);
                self.act(Operation::Close, path, abandoned, || {
                    let folder = self.entries.open(&self.directory.place()?, above)?;
                    draft.take().map_or(Ok(()), |draft| draft.rename(folder.own(), name))?;
                    Ok(folder)
                })
            });
        if put.is_err() {
            self.discard(path, draft, abandoned);
        }
        put.map_err(|error| self.failure(path, error))
    }

    fn discard(&self, path: &str, draft: Option<Draft>, abandoned: &Abandoned) {
        let discarded = self.act(Operation::Abort, path, abandoned, || draft.map_or(Ok(()), Draft::discard));
        if let Err(error) = discarded {
            tracing::warn!(%error, "what was written could not be taken back cleanly");
        }
    }

    fn draft(&self, name: &str) -> io::Result<Draft> {
        Draft::create(&self.directory.place()?, name)
    }

    /// What a failed call means for the caller: where something is missing, it may be all.
    fn failure(&self, path: &str, error: io::Error) -> Error {
        let told = || io_failure(io::Error::new(error.kind(), format!("{path}: {error}")));
        match error.kind() {
            io::ErrorKind::NotFound => self.present_now().err().unwrap_or_else(told),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => self.space.failed(&error),
            _ => told(),
        }
    }

    /// Replaces the record of `key` by what `decide` makes of the one that stands.
    pub async fn replace<D>(self: Arc<Self>, key: Key, decide: D, abandoned: Abandoned) -> Result<Replacement, Refusal>
    where
        D: FnOnce(Option<&Record>) -> Result<Option<Record>> + Send + 'static,
    {
        let turn = Arc::clone(self.lock_of(key)).lock_owned().await;
        let pool = self.committing.clone();
        let replaced =
            pool.run((key.client, 0), abandoned, move |abandoned| self.replace_now(key, turn, &[], decide, abandoned));
        replaced.await.map_err(Refusal::unsettled)?
    }

    /// Removes the record of `key`, durably, if `decide` says so of the one that stands. Returns whether it did.
    pub async fn remove<D>(self: Arc<Self>, key: Key, decide: D, abandoned: Abandoned) -> Result<bool>
    where
        D: FnOnce(&Record) -> bool + Send + 'static,
    {
        let turn = Arc::clone(self.lock_of(key)).lock_owned().await;
        let pool = self.committing.clone();
        pool.run((key.client, 0), abandoned, move |abandoned| self.remove_now(key, turn, decide, abandoned)).await?
    }

    /// The lock of an attachment within this process.
    pub fn lock_of(&self, key: Key) -> &Arc<Mutex<()>> {
        self.locks.of(key)
    }

    fn replace_now<D>(
        &self,
        key: Key,
        _turn: Turn,
        inline: &[Bytes],
        decide: D,
        abandoned: &Abandoned,
    ) -> Result<Replacement, Refusal>
    where
        D: FnOnce(Option<&Record>) -> Result<Option<Record>>,
    {
        let unchanged = |error| Refusal::unchanged(self.failure("the lock of an attachment", error));
        let _between_processes = self.directory.lock(stripe(key)).map_err(unchanged)?;
        let stored = self.record_now(key, abandoned).map_err(Refusal::unchanged)?;
        let Some(new) = decide(stored.as_ref().map(|stored| &stored.record)).map_err(Refusal::unchanged)? else {
            return Ok(Replacement { old: stored.map(|stored| stored.record), new: None });
        };
        if abandoned.is_set() {
            return Err(Refusal::unchanged(
                Error::new(Kind::StorageUnavailable).because("nobody waits for it any more"),
            ));
        }
        let path = layout::record(key);
        let bytes = record::encode(stored.as_ref(), &new, inline).map_err(Refusal::unchanged)?;
        let folder = match self.put_now(&path, bytes, &self.steps, abandoned) {
            Ok(folder) => Ok(folder),
            // It may have happened although its answer says otherwise: look, never guess.
            Err(error) => match self.record_now(key, abandoned) {
                Ok(Some(stands)) if stands.record == new => {
                    let above = layout::records(key.client);
                    self.directory.place().and_then(|place| self.entries.open(&place, &above))
                }
                Ok(_) => return Err(Refusal::unchanged(error)),
                Err(_) => return Err(Refusal::unsettled(error)),
            },
        };
        self.steps.passed(Step::RecordPut);
        // The record stands. If this fails nobody knows whether it is durable, and a second try would prove nothing: the
        // system reports a failed sync once.
        let synced = folder.and_then(|folder| self.entries.sync(&folder));
        synced.map_err(|error| Refusal::unsettled(self.failure(&path, error)))?;
        self.steps.passed(Step::RecordSynced);
        Ok(Replacement { old: stored.map(|stored| stored.record), new: Some(new) })
    }

    fn remove_now<D>(&self, key: Key, _turn: Turn, decide: D, abandoned: &Abandoned) -> Result<bool>
    where
        D: FnOnce(&Record) -> bool,
    {
        let path = layout::record(key);
        let failed = |error| self.failure(&path, error);
        let _between_processes = self.directory.lock(stripe(key)).map_err(failed)?;
        let stored = self.record_now(key, abandoned)?;
        if abandoned.is_set() || !stored.is_some_and(|stored| decide(&stored.record)) {
            return Ok(false);
        }
        let place = self.directory.place().map_err(failed)?;
        let folder = self.entries.open(&place, &layout::records(key.client)).map_err(failed)?;
        beneath::remove(place.root(), &path).map_err(failed)?;
        self.entries.sync(&folder).map_err(failed)?;
        Ok(true)
    }

    /// Does an operation, as the faults that were asked for have it.
    #[cfg(feature = "faults")]
    fn act<T>(
        &self,
        operation: Operation,
        path: &str,
        abandoned: &Abandoned,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        use super::faults::Operation as Faulty;
        let operation = match operation {
            Operation::Read => Faulty::Read,
            Operation::Write => Faulty::Write,
            Operation::Close => Faulty::Close,
            Operation::Abort => Faulty::Abort,
        };
        self.faults.act_now(operation, path, || abandoned.is_set(), work)
    }

    /// Does an operation.
    #[cfg(not(feature = "faults"))]
    #[expect(clippy::unused_self, reason = "it has something to look at with `faults`")]
    fn act<T>(&self, _: Operation, _: &str, _: &Abandoned, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        work()
    }
}

/// The folder of a file, and its name there.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}
