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

use opendal::{ErrorKind, Operator};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::attachment::{Key, RECORD_FORMAT, Record, UploadId};
use crate::error::{Error, Kind, Result};

use patience::{Patience, Unfinished};
use steps::Steps;

mod audit;
mod content;
#[cfg(feature = "faults")]
mod faults;
mod finding;
mod inventory;
mod local;
mod patience;
mod steps;
mod sweep;

pub use audit::Audit;
pub use content::{ContentWriter, Receipt, Replaced};
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
        ContentWriter::new(Arc::clone(self), key)
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
