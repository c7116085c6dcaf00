//! Storage: `begin / write / commit / abort` on top of OpenDAL, and the only place that knows where things lie.
//!
//! The layout, below the root that is configured:
//!
//! ```text
//! clients/{client_id}/attachments/{attachment_id}/record.json            the record: small, replaced atomically
//! clients/{client_id}/attachments/{attachment_id}/content/{upload_id}    the bytes: immutable, a fresh id each time
//! ```
//!
//! Content is invisible until a record names it, so a commit is the one atomic PUT of the record, after the content is
//! durable. This module knows neither HTTP nor gRPC nor who may do what.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opendal::{Buffer, ErrorKind, Operator, Writer};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::attachment::{Key, RECORD_FORMAT, Record, Segment, UploadId};
use crate::error::{Error, Kind, Result};

use patience::{Patience, Unfinished};
use steps::Steps;

mod audit;
#[cfg(feature = "faults")]
mod faults;
mod finding;
mod inventory;
mod local;
mod patience;
mod steps;
mod sweep;

pub use audit::Audit;
pub use finding::{Fate, Finding};
pub use inventory::{End, Walk};
pub use steps::Step;
pub use sweep::Sweep;

/// How many locks all attachments share. More than the commits that run at once, so that two rarely wait for each other.
/// Processes that share a directory must agree on it.
const LOCKS: usize = 256;

/// Where the storage is tried out.
const PROBE: &str = "probe";

/// How long one look at the storage may take when its health is asked for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Which storage backend, and how to reach it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// An OpenDAL service: `fs` or `memory`.
    pub service: String,
    /// The service's own options. `fs`: `root` (required) and `atomic_write_dir` (default `.attachd-tmp` in the root; must
    /// be on the same file system). `memory`: `root`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// How long one storage operation may take: a read, a write of about a megabyte, a close. Past it the upload is
    /// answered 503 / UNAVAILABLE, and what was begun has as long again to end and be taken back. Default 60 s.
    #[serde(default = "default_timeout", deserialize_with = "crate::config::duration")]
    pub timeout: Duration,
    /// Which storage operations fail, for tests.
    #[cfg(feature = "faults")]
    #[serde(default)]
    pub faults: Vec<faults::Rule>,
    /// Where the process ends itself, for tests.
    #[cfg(feature = "faults")]
    pub crash: Option<faults::Crash>,
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

/// The services that keep the promises of a commit, and the options that each of them takes.
const SERVICES: [(&str, &[&str]); 2] = [("fs", &["root", "atomic_write_dir"]), ("memory", &["root"])];

/// Why the storage could not be opened: the configuration key, and what is wrong with it, for an operator.
#[derive(Debug, thiserror::Error)]
#[error("storage.{key}: {why}")]
pub struct OpenError {
    key: String,
    why: String,
}

impl OpenError {
    fn new(key: impl Into<String>, why: impl ToString) -> Self {
        OpenError { key: key.into(), why: why.to_string() }
    }

    /// The configuration key.
    pub fn key(&self) -> String {
        format!("storage.{}", self.key)
    }

    /// What is wrong with it.
    pub fn why(&self) -> &str {
        &self.why
    }
}

/// The storage backend.
#[derive(Debug)]
pub struct Store {
    operator: Operator,
    /// What a local file system needs beyond OpenDAL.
    local: Option<local::Directory>,
    /// A record is read, decided upon and replaced under the lock of its key. These hold within this process; on a local
    /// file system a file lock beside each holds between all processes on the directory.
    locks: Vec<Arc<Mutex<()>>>,
    patience: Patience,
    steps: Steps,
}

/// The leave to replace a record. It goes along with a put that is late, so that nothing overtakes that.
#[derive(Debug)]
struct Turn {
    _process: tokio::sync::OwnedMutexGuard<()>,
    _between_processes: Option<std::fs::File>,
}

impl Config {
    /// A service and its options, with the defaults for the rest.
    pub fn new(service: &str, options: BTreeMap<String, String>) -> Config {
        Config {
            service: service.to_owned(),
            options,
            timeout: default_timeout(),
            #[cfg(feature = "faults")]
            faults: Vec::new(),
            #[cfg(feature = "faults")]
            crash: None,
        }
    }

    /// Checks the service and the names of its options, without touching the storage.
    pub fn validate(&self) -> Result<(), OpenError> {
        let Some((_, known)) = SERVICES.iter().find(|(service, _)| *service == self.service) else {
            let names = SERVICES.map(|(service, _)| service).join(", ");
            return Err(OpenError::new("service", format!("unknown service `{}`; known are: {names}", self.service)));
        };
        for option in self.options.keys() {
            if !known.contains(&option.as_str()) {
                let nearest = crate::config::nearest(option, known.iter().copied());
                return Err(OpenError::new(
                    format!("options.{option}"),
                    format!("the service {} has no such option; {nearest}", self.service),
                ));
            }
        }
        if self.timeout.is_zero() {
            return Err(OpenError::new("timeout", "must be more than zero"));
        }
        if self.service == "fs" && self.options.get("root").is_none_or(String::is_empty) {
            return Err(OpenError::new("options.root", "the service fs needs a root directory"));
        }
        Ok(())
    }
}

impl Store {
    /// Opens the storage, and on a local file system sweeps what ended processes left behind.
    pub fn open(config: &Config) -> Result<Store, OpenError> {
        config.validate()?;
        let mut options = config.options.clone();
        let local = if config.service == "fs" {
            let directory = local::Directory::open(&options)?;
            options.insert("atomic_write_dir".to_owned(), directory.temporary()?);
            Some(directory)
        } else {
            None
        };
        let operator =
            Operator::via_iter(&config.service, options).map_err(|error| OpenError::new("options", error))?;
        #[cfg(feature = "faults")]
        let operator = operator.layer(faults::Faults::new(&config.faults));
        #[cfg(feature = "faults")]
        let steps = Steps::new(config.crash);
        #[cfg(not(feature = "faults"))]
        let steps = Steps::default();
        let locks = std::iter::repeat_with(Arc::default).take(LOCKS).collect();
        Ok(Store { operator, local, locks, patience: Patience::new(config.timeout), steps })
    }

    /// How many storage operations go on that nobody waits for, since their time has passed.
    pub fn late(&self) -> usize {
        self.patience.late()
    }

    /// Waits until none of them is left.
    pub async fn settle(&self) {
        self.patience.settle().await;
    }

    /// Says that an upload has passed a step.
    pub fn passed(&self, step: Step) {
        self.steps.passed(step);
    }

    /// Whether the storage answers.
    pub async fn health(&self) -> Result<()> {
        let look = async {
            self.present().await?;
            // An object that is not there: OpenDAL answers for the root without a look.
            match self.operator.stat(PROBE).await {
                Err(error) if error.kind() != ErrorKind::NotFound => Err(failure(error)),
                _ => Ok(()),
            }
        };
        let late = |_| Error::new(Kind::StorageUnavailable).because("the storage did not answer in time");
        tokio::time::timeout(PROBE_TIMEOUT, look).await.map_err(late)?
    }

    /// Whether the root is there. A file system says of a volume that is not mounted what it says of an object that does not
    /// exist, and OpenDAL would make the directories anew.
    async fn present(&self) -> Result<()> {
        match &self.local {
            Some(directory) => directory.present().await,
            None => Ok(()),
        }
    }

    /// Whether the storage does all that an upload needs: writes a small object, reads it back and deletes it.
    pub async fn probe(&self) -> Result<()> {
        let path = format!("{PROBE}/{}", UploadId::fresh());
        let sent = path.clone().into_bytes();
        let put = put(self.operator.clone(), path.clone(), sent.clone(), Steps::default());
        self.patience.run(put).await.map_err(|unfinished| unfinished.error())?.map_err(failure)?;
        let back = self.patience.wait(self.operator.read(&path)).await?.map_err(failure);
        self.patience.wait(self.operator.delete(&path)).await?.map_err(failure)?;
        if back?.to_vec() != sent {
            return Err(Error::internal("the storage returned other bytes than it was given"));
        }
        Ok(())
    }

    /// The record of an attachment, if it is known.
    pub async fn record(&self, key: Key) -> Result<Option<Record>> {
        let bytes = match self.patience.wait(self.operator.read(&record_path(key))).await? {
            Ok(bytes) => bytes.to_bytes(),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.present().await?;
                return Ok(None);
            }
            Err(error) => return Err(failure(error)),
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(Error::internal)?;
        if record.format != RECORD_FORMAT {
            return Err(Error::internal(format!(
                "a record of format {} was written by another version",
                record.format
            )));
        }
        if (record.client_id, record.attachment_id) != (key.client, key.attachment) {
            return Err(Error::internal("a record lies under the key of another attachment"));
        }
        Ok(Some(record))
    }

    /// Replaces the record of `key` by what `decide` makes of the one that stands. Nothing comes between the look and the
    /// replacement, as far as the locks hold. `None` from `decide` leaves the record as it is.
    pub async fn update<F>(&self, key: Key, decide: F) -> Result<()>
    where
        F: FnOnce(Option<Record>) -> Result<Option<Record>>,
    {
        let turn = self.turn(key).await?;
        let Some(record) = decide(self.record(key).await?)? else {
            return Ok(());
        };
        let (put, _turn) = self.put(key, &record, turn).await;
        put?;
        self.sync_directories(&record_path(key)).await
    }

    /// Begins to take the content of an attachment. Nothing is created before the first write.
    pub fn begin(self: &Arc<Self>, key: Key) -> ContentWriter {
        let id = UploadId::fresh();
        ContentWriter {
            store: Arc::clone(self),
            key,
            id,
            path: content_path(key, id),
            state: Sink::Unopened,
            closing: false,
            size: 0,
        }
    }

    async fn turn(&self, key: Key) -> Result<Turn> {
        let stripe = stripe(key);
        let process = self.patience.wait(Arc::clone(&self.locks[stripe]).lock_owned()).await?;
        match &self.local {
            Some(directory) => {
                let taken = directory.lock(stripe, |file| Turn { _process: process, _between_processes: Some(file) });
                self.patience.wait(taken).await?
            }
            None => Ok(Turn { _process: process, _between_processes: None }),
        }
    }

    /// Puts a record, and gives the turn back. Without the turn the put is late: it goes on, and may yet come about.
    async fn put(&self, key: Key, record: &Record, turn: Turn) -> (Result<()>, Option<Turn>) {
        let bytes = match serde_json::to_vec_pretty(record) {
            Ok(bytes) => bytes,
            Err(error) => return (Err(Error::internal(error)), Some(turn)),
        };
        let put = put(self.operator.clone(), record_path(key), bytes, self.steps.clone());
        match self.patience.run(async move { (put.await, turn) }).await {
            Ok((put, turn)) => (put.map_err(failure), Some(turn)),
            Err(unfinished) => {
                let error = unfinished.error();
                if let Unfinished::Late(task) = unfinished {
                    self.patience.leave(task, |(put, _turn)| async move {
                        tracing::warn!(done = put.is_ok(), "a record was put after its time");
                    });
                }
                (Err(error), None)
            }
        }
    }

    /// Makes the directory entries above `path` durable, where the backend leaves that to us.
    async fn sync_directories(&self, path: &str) -> Result<()> {
        match &self.local {
            Some(directory) => self.patience.wait(directory.sync_above(path)).await?,
            None => Ok(()),
        }
    }

    /// Deletes content that no record names. What cannot be deleted is garbage, not a failure of the request.
    pub async fn discard(&self, replaced: Replaced) {
        for id in replaced.ids {
            let deleted = self.patience.wait(self.operator.delete(&content_path(replaced.key, id))).await;
            if let Err(error) = deleted.and_then(|deleted| deleted.map_err(failure)) {
                tracing::warn!(%error, upload_id = %id, "content that no record names could not be deleted");
            }
        }
        self.passed(Step::ReplacedDeleted);
    }
}

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
    key: Key,
    ids: Vec<UploadId>,
}

impl Replaced {
    /// Whether the commit replaced nothing.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }
}

/// Puts a small object in one step, and takes back what a failure leaves. Must be driven to its end.
async fn put(operator: Operator, path: String, bytes: Vec<u8>, steps: Steps) -> opendal::Result<()> {
    let mut writer = operator.writer(&path).await?;
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

/// The lock of an attachment, the same in all processes. Ids of one client that follow one another have different ones.
fn stripe(key: Key) -> usize {
    let spread = key.client.get().cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let stripe = spread.wrapping_add(key.attachment.get().cast_unsigned()) % LOCKS as u64;
    usize::try_from(stripe).unwrap_or_default()
}

fn record_path(key: Key) -> String {
    format!("clients/{}/attachments/{}/record.json", key.client, key.attachment)
}

fn content_folder(key: Key) -> String {
    format!("clients/{}/attachments/{}/content/", key.client, key.attachment)
}

fn content_path(key: Key, id: UploadId) -> String {
    format!("{}{id}", content_folder(key))
}

/// What a failed storage operation means for the caller. The text goes to the log alone.
fn failure(error: opendal::Error) -> Error {
    // OpenDAL marks nearly every errno as temporary. A full disk is: space returns. A file where a directory should be
    // is not, and telling the caller to come back would only hide it.
    let io = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
    let kind = match io {
        Some(io) if is_permanent(io) => Kind::Internal,
        _ if error.is_temporary() || error.kind() == ErrorKind::RateLimited => Kind::StorageUnavailable,
        _ => Kind::Internal,
    };
    Error::new(kind).because(error)
}

/// What a failed call of the local file system means for the caller.
fn io_failure(error: std::io::Error) -> Error {
    let kind = if is_permanent(&error) { Kind::Internal } else { Kind::StorageUnavailable };
    Error::new(kind).because(error)
}

/// Whether trying again will not mend it.
fn is_permanent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, ReadOnlyFilesystem};
    matches!(error.kind(), NotADirectory | IsADirectory | ReadOnlyFilesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(service: &str, options: &[(&str, &str)]) -> Config {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config::new(service, options)
    }

    #[test]
    fn an_unknown_service_or_option_is_refused_by_name() {
        let refusal = |config: Config| config.validate().unwrap_err().to_string();
        assert_eq!(refusal(config("fss", &[])), "storage.service: unknown service `fss`; known are: fs, memory");
        let typo = refusal(config("fs", &[("rot", "/x")]));
        assert!(typo.starts_with("storage.options.rot: ") && typo.contains("`root`"), "{typo}");
        assert!(refusal(config("fs", &[])).starts_with("storage.options.root: "));
        assert!(config("memory", &[]).validate().is_ok());
    }
}
