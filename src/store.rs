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
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use opendal::{Buffer, ErrorKind, Operator, Writer};
use serde::Deserialize;
use tokio::sync::{Mutex, MutexGuard};

use crate::attachment::{Key, RECORD_FORMAT, Record, Segment, UploadId};
use crate::error::{Error, Kind, Result};

mod audit;
mod finding;
mod inventory;
mod local;
mod sweep;

pub use audit::Audit;
pub use finding::{Fate, Finding};
pub use inventory::{End, Walk};
pub use sweep::Sweep;

/// How many locks all attachments share. More than the commits that run at once, so that two rarely wait for each other.
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
    /// A record is read, decided upon and replaced under the lock of its key. This holds within this process only.
    locks: Vec<Mutex<()>>,
    hasher: std::hash::RandomState,
}

impl Config {
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
        let locks = std::iter::repeat_with(Mutex::default).take(LOCKS).collect();
        Ok(Store { operator, local, locks, hasher: std::hash::RandomState::new() })
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
        self.operator.write(&path, sent.clone()).await.map_err(failure)?;
        let back = self.operator.read(&path).await.map_err(failure);
        self.operator.delete(&path).await.map_err(failure)?;
        if back?.to_vec() != sent {
            return Err(Error::internal("the storage returned other bytes than it was given"));
        }
        Ok(())
    }

    /// The record of an attachment, if it is known.
    pub async fn record(&self, key: Key) -> Result<Option<Record>> {
        let bytes = match self.operator.read(&record_path(key)).await {
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

    /// Replaces the record of `key` by what `decide` makes of the one that stands. Within this process nothing comes
    /// between the look and the replacement. `None` from `decide` leaves the record as it is.
    pub async fn update<F>(&self, key: Key, decide: F) -> Result<()>
    where
        F: FnOnce(Option<Record>) -> Result<Option<Record>>,
    {
        let _turn = self.turn(key).await;
        match decide(self.record(key).await?)? {
            Some(record) => self.put(key, &record).await,
            None => Ok(()),
        }
    }

    /// Begins to take the content of an attachment. Nothing is created before the first write.
    pub fn begin(self: &Arc<Self>, key: Key) -> ContentWriter {
        let id = UploadId::fresh();
        ContentWriter { store: Arc::clone(self), key, id, path: content_path(key, id), state: Sink::Unopened, size: 0 }
    }

    async fn turn(&self, key: Key) -> MutexGuard<'_, ()> {
        let hash = usize::try_from(self.hasher.hash_one(key) % LOCKS as u64).unwrap_or_default();
        self.locks[hash].lock().await
    }

    async fn put(&self, key: Key, record: &Record) -> Result<()> {
        let path = record_path(key);
        let bytes = serde_json::to_vec_pretty(record).map_err(Error::internal)?;
        self.operator.write(&path, bytes).await.map_err(failure)?;
        self.sync_directories(&path).await
    }

    /// Makes the directory entries above `path` durable, where the backend leaves that to us.
    async fn sync_directories(&self, path: &str) -> Result<()> {
        match &self.local {
            Some(directory) => directory.sync_above(path).await,
            None => Ok(()),
        }
    }

    /// Deletes content that no record names. What cannot be deleted is garbage, not a failure of the request.
    pub async fn discard(&self, replaced: Replaced) {
        for id in replaced.ids {
            if let Err(error) = self.operator.delete(&content_path(replaced.key, id)).await {
                tracing::warn!(%error, upload_id = %id, "content that no record names could not be deleted");
            }
        }
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
    size: u64,
}

enum Sink {
    Unopened,
    Open(Writer),
    /// A write failed. The writer may only be aborted: a close might complete the object without the failed part.
    Failed(Writer),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Sink::Unopened => "Unopened",
            Sink::Open(_) => "Open",
            Sink::Failed(_) => "Failed",
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

    /// Writes the next bytes. After an error only [`abort`](Self::abort) is left.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        let batch = Buffer::from(batch);
        let length = batch.len() as u64;
        let mut writer = match std::mem::replace(&mut self.state, Sink::Unopened) {
            Sink::Open(writer) => writer,
            Sink::Unopened => self.store.operator.writer(&self.path).await.map_err(failure)?,
            Sink::Failed(writer) => {
                self.state = Sink::Failed(writer);
                return Err(Error::internal("a write after a write that failed"));
            }
        };
        let written = writer.write(batch).await;
        self.state = if written.is_ok() { Sink::Open(writer) } else { Sink::Failed(writer) };
        self.size += length;
        written.map_err(failure)
    }

    /// Makes the content durable, then visible: closes it, asks `decide` for the record that is to stand in place of the
    /// one that stands, puts that record, and reports what it replaced. If anything refuses, nothing has changed.
    pub async fn commit<F>(mut self, decide: F) -> Result<Receipt>
    where
        F: FnOnce(Option<Record>, Segment) -> Result<Record>,
    {
        if matches!(self.state, Sink::Unopened) {
            // An empty file: there was nothing to write, and there must be an object all the same.
            self.write(Vec::new()).await?;
        }
        let Sink::Open(mut writer) = std::mem::replace(&mut self.state, Sink::Unopened) else {
            return Err(Error::internal("a commit after a write that failed"));
        };
        if let Err(error) = writer.close().await {
            self.state = Sink::Failed(writer);
            self.abort().await;
            return Err(failure(error));
        }
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
        self.store.sync_directories(&self.path).await.map_err(unchanged)?;
        let _turn = self.store.turn(self.key).await;
        let old = self.store.record(self.key).await.map_err(unchanged)?;
        let replaced = old.as_ref().and_then(Record::content).map(|content| content.segments.clone());
        let segment = Segment { id: self.id, size: self.size };
        let record = decide(old, segment).map_err(unchanged)?;
        if let Err(error) = self.store.put(self.key, &record).await {
            // The put may have happened although its answer says otherwise: look, never guess.
            match self.store.record(self.key).await {
                Ok(Some(stands)) if stands.content().map(|content| content.upload_id) == Some(self.id) => {}
                Ok(_) => return Err(unchanged(error)),
                Err(_) => return Err(Publication { error, settled: false }),
            }
            // It stands, but whether it is durable is unknown: only another sync can say so.
            let synced = self.store.sync_directories(&record_path(self.key)).await;
            synced.map_err(|error| Publication { error, settled: false })?;
        }
        let ids = replaced.unwrap_or_default().into_iter().map(|segment| segment.id).collect();
        Ok(Receipt { record, replaced: Replaced { key: self.key, ids } })
    }

    /// Takes back all that was written. What cannot be taken back is garbage that no record names.
    pub async fn abort(mut self) {
        if let Sink::Open(mut writer) | Sink::Failed(mut writer) = std::mem::replace(&mut self.state, Sink::Unopened)
            && let Err(error) = writer.abort().await
        {
            tracing::warn!(%error, upload_id = %self.id, "an upload could not be aborted cleanly");
        }
    }
}

impl Drop for ContentWriter {
    fn drop(&mut self) {
        if let Sink::Open(mut writer) | Sink::Failed(mut writer) = std::mem::replace(&mut self.state, Sink::Unopened)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { writer.abort().await });
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
    let kind = match io.map(std::io::Error::kind) {
        Some(
            std::io::ErrorKind::NotADirectory
            | std::io::ErrorKind::IsADirectory
            | std::io::ErrorKind::ReadOnlyFilesystem,
        ) => Kind::Internal,
        _ if error.is_temporary() || error.kind() == ErrorKind::RateLimited => Kind::StorageUnavailable,
        _ => Kind::Internal,
    };
    Error::new(kind).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(service: &str, options: &[(&str, &str)]) -> Config {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Config { service: service.to_owned(), options }
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
