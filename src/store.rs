//! Storage: `begin / write / commit / abort` on top of OpenDAL, and the only place that knows where things lie.
//!
//! Content is invisible until a record names it, so a commit is the one atomic PUT of the record: with content up to
//! `storage.inline_below` in the same object, and with larger content after that is durable in objects of its own. This module
//! knows neither HTTP nor gRPC nor who may do what.

use std::sync::{self, Arc};
use std::time::Duration;

use bytes::Bytes;
use opendal::{ErrorKind, Operator};

use crate::attachment::{Id, Key, UploadId};
use crate::error::{Error, Kind, Result};
use crate::fair::Load;
use crate::telemetry::{Metrics, Operation};

use backend::{Backend, Failure, Kept, Version};
use layout::PROBE;
use local::Local;
use meaning::{Meanings, plain};
use patience::Patience;
use record::Stored;
use retired::Retired;
use steps::Steps;

mod address;
mod backend;
mod commit;
mod config;
mod content;
#[cfg(feature = "faults")]
mod faults;
mod hash;
mod layout;
mod listing;
mod local;
mod maintenance;
mod meaning;
mod measured;
mod objects;
mod patience;
mod queue;
mod reader;
mod receipt;
mod record;
mod retired;
mod services;
mod steps;
mod transport;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/store.rs"]
pub mod fuzzing;

pub use address::{Address, Presented};
pub use commit::{Settled, Standing};
pub use config::{Config, OpenError};
pub use content::ContentWriter;
pub use local::{Free, Room};
pub use maintenance::{End, Fate, Finding, Gc, Verify, Walk};
pub use reader::{ContentReader, Vanished};
pub use receipt::{Receipt, Replaced, Sealed};
pub use services::Sizing;
pub use steps::Step;

/// How many bytes one write should have: it has a fixed cost, and what is hashed and copied in one go stays in the cache of a core.
pub const WRITE: usize = 256 << 10;

/// How long one look at the storage may take when its health is asked for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a storage is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To take uploads.
    Write,
    /// To read, list and delete what is there. Opening it changes nothing.
    Inspect,
}

/// The storage backend.
#[derive(Debug)]
pub struct Store {
    /// Reads, lists and deletes.
    operator: Operator,
    /// Writes.
    backend: Backend,
    patience: Patience,
    meanings: Meanings,
    /// Content of at most so many bytes is put with its record, in one object.
    inline_below: u64,
    retired: Retired,
    steps: Steps,
    metrics: Metrics,
}

impl Store {
    /// Opens the storage. To write to a local file system it sweeps what ended processes left behind. No request is sent to a
    /// service.
    pub fn open(config: &Config, access: Access, sizing: Sizing, metrics: &Metrics) -> Result<Store, OpenError> {
        config.validate()?;
        #[cfg(feature = "faults")]
        let (faults, steps) = (faults::Faults::new(&config.faults), Steps::new(config.crash));
        #[cfg(not(feature = "faults"))]
        let steps = Steps::default();
        let service = config.service()?;
        let options = config.opened_options()?;
        let local = if service.name == "fs" {
            let local = Local::open(
                &options,
                access,
                config.min_free.as_u64(),
                metrics,
                steps.clone(),
                #[cfg(feature = "faults")]
                faults.clone(),
            )?;
            Some(Arc::new(local))
        } else {
            None
        };
        let mut operator = match &local {
            Some(local) => local.operator(),
            None => Operator::via_iter(service.name, options),
        }
        .map_err(|error| Meanings::of_setup(&error))?;
        if service.is_remote() {
            let context = transport::context(config.ca_file.as_deref())?;
            #[cfg(feature = "faults")]
            let context = faults::on_the_way(&config.faults, context);
            operator = operator.with_context(context);
        }
        #[cfg(feature = "faults")]
        let operator = if service.is_remote() { operator } else { operator.layer(faults) };
        let operator = operator.layer(measured::Measured::new(metrics.clone()));
        let (operator, backend) = match local {
            Some(local) => (operator, Backend::Local(local)),
            None => {
                let parts = service.parts(sizing);
                let objects = objects::Objects::new(service, operator, parts, config.sole_writer, config.timeout);
                (objects.operator().clone(), Backend::Objects(Arc::new(objects)))
            }
        };
        let patience = Patience::new(config.timeout);
        let meanings = Meanings::of(service, &config.options);
        let inline_below = config.inline_below.as_u64();
        let retired = Retired::new(Duration::ZERO);
        Ok(Store { operator, backend, patience, meanings, inline_below, retired, steps, metrics: metrics.clone() })
    }

    /// The same storage, which keeps content that was replaced so long for those who read it.
    #[must_use]
    pub fn with_read_grace(self, grace: Duration) -> Store {
        Store { retired: Retired::new(grace), ..self }
    }

    /// What an operator should know of the storage, beside its configuration: the key, and what follows.
    pub fn warnings(&self) -> Vec<OpenError> {
        match &self.backend {
            Backend::Local(local) => {
                let root = local.warnings().into_iter().map(|why| OpenError::new("options.root", why));
                root.chain(local.warning_of_size().map(|why| OpenError::new("min_free", why))).collect()
            }
            Backend::Objects(_) => Vec::new(),
        }
    }

    /// What an operator should know of a storage service that answers, if there is something: that it holds nothing.
    pub async fn warning_when_empty(&self) -> Option<OpenError> {
        let Backend::Objects(objects) = &self.backend else { return None };
        let why = "holds no attachments: the storage is new, or this is not the one that should be there";
        matches!(objects.is_empty().await, Ok(true)).then(|| OpenError::new("options", why))
    }

    /// Looks that a storage which is not written to has the layout of this version, or holds nothing.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it has not, and what storage raises.
    pub async fn inspect(&self) -> Result<()> {
        match &self.backend {
            // Its root was opened.
            Backend::Local(_) => Ok(()),
            Backend::Objects(objects) => {
                self.patience.wait(objects.is_marked()).await?.map(drop).map_err(|error| self.meanings.explain(error))
            }
        }
    }

    /// What a failed look at the storage says that anybody may read.
    pub fn trouble(&self, error: &Error) -> String {
        let said = error.log_source().filter(|said| said.starts_with(local::TROUBLE));
        said.unwrap_or_else(|| "the storage does not answer".to_owned())
    }

    /// How many storage operations go on that nobody waits for, since their time has passed or their caller went away.
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

    /// Whether the storage answers, and was found fit for uploads since the start.
    pub async fn health(&self) -> Result<()> {
        let look = async {
            self.present().await?;
            match &self.backend {
                // An object that is not there: OpenDAL answers for the root without a look.
                Backend::Local(_) => match self.operator.stat(PROBE).await {
                    Err(error) if error.kind() != ErrorKind::NotFound => Err(failure(error)),
                    _ => Ok(()),
                },
                Backend::Objects(objects) if objects.is_proven() => Ok(()),
                Backend::Objects(_) => {
                    Err(Error::new(Kind::StorageUnavailable).because("the storage has not been tried out yet"))
                }
            }
        };
        let late = |_| Error::new(Kind::StorageUnavailable).because("the storage did not answer in time");
        tokio::time::timeout(PROBE_TIMEOUT, look).await.map_err(late)?.map_err(|error| self.meanings.explain(error))
    }

    /// Whether the root or the bucket is there. A file system says of a volume that is not mounted what it says of an object
    /// that does not exist, and OpenDAL would make the directories anew.
    async fn present(&self) -> Result<()> {
        match &self.backend {
            Backend::Local(local) => local.present().await,
            Backend::Objects(objects) => objects.is_empty().await.map(drop).map_err(failure),
        }
    }

    /// Whether the storage does all that an upload needs: writes a small object, reads it back and deletes it.
    pub async fn probe(&self) -> Result<()> {
        self.prove().await?;
        self.try_out().await.map_err(|error| self.meanings.explain(error))
    }

    async fn try_out(&self) -> Result<()> {
        let path = format!("{PROBE}/{}", UploadId::fresh());
        let sent = Bytes::from(path.clone());
        let put = self.backend.clone().put(path.clone(), sent.clone(), Version::Any, Steps::default());
        let put = self.patience.run(put).await.map_err(|unfinished| unfinished.error())?;
        put.map_err(Failure::into_error)?;
        let back = self.patience.wait(self.operator.read(&path)).await?.map_err(failure);
        self.patience.wait(self.operator.delete(&path)).await?.map_err(failure)?;
        if back?.to_bytes() != sent {
            return Err(Error::internal("the storage returned other bytes than it was given"));
        }
        Ok(())
    }

    /// Whether the storage compares versions where two replicas need it to. It is asked once.
    ///
    /// # Errors
    /// [`Kind::Internal`] where it does not, and what storage raises.
    pub async fn prove(&self) -> Result<()> {
        match &self.backend {
            Backend::Local(_) => Ok(()),
            Backend::Objects(objects) => objects.prove().await.map(drop).map_err(|error| self.meanings.explain(error)),
        }
    }

    /// The record of an attachment, if there is one, and which version of it that is.
    pub async fn record(&self, key: Key) -> Result<Standing> {
        let (stored, version) = self.read(key).await?;
        Ok(Standing::new(stored.map(|stored| stored.record), version))
    }

    /// The record of an attachment with the content behind it, if there is one, and which version of it that is.
    async fn read(&self, key: Key) -> Result<(Option<Stored>, Version)> {
        let objects = match &self.backend {
            Backend::Local(local) => {
                let stored = self.patience.wait(self.metrics.time(Operation::Read, local.record(key))).await??;
                return Ok((stored, Version::Any));
            }
            Backend::Objects(objects) => objects,
        };
        match self.patience.wait(Box::pin(objects.read(&layout::record(key)))).await? {
            Ok((bytes, version)) => record::decode(bytes, key).map(|stored| (Some(stored), version)),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if objects.is_vague() {
                    self.present().await?;
                }
                Ok((None, objects.absent()))
            }
            Err(error) => Err(failure(error)),
        }
    }

    /// Gives room in the storage to an upload of a client of at most `size` bytes, where that is known.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] if there is too little.
    pub async fn room(&self, client: Id, size: Option<u64>) -> Result<Room> {
        match &self.backend {
            Backend::Local(local) => self.patience.wait(local.space().room(client, size)).await?,
            Backend::Objects(_) => Ok(Room::default()),
        }
    }

    /// Why all uploads are refused though the storage answers, if they are. Asks the storage.
    pub async fn shortage(&self) -> Option<&'static str> {
        let Backend::Local(local) = &self.backend else { return None };
        // Whether the storage answers is asked elsewhere.
        tokio::time::timeout(PROBE_TIMEOUT, local.space().shortage()).await.ok()?.ok()?
    }

    /// What was free in the storage when that was last asked, where it has an end.
    pub fn free(&self) -> Option<Free> {
        match &self.backend {
            Backend::Local(local) => local.space().free(),
            Backend::Objects(_) => None,
        }
    }

    /// What its threads have to do, by name, where it has any.
    pub fn load(&self) -> Vec<(&'static str, Load)> {
        match &self.backend {
            Backend::Local(local) => local.load().to_vec(),
            Backend::Objects(_) => Vec::new(),
        }
    }

    /// How many bytes the writer of one upload keeps to its end, if it is known that no more than `size` arrive.
    pub fn kept_by_upload(&self, size: Option<u64>) -> usize {
        match &self.backend {
            Backend::Local(_) => 0,
            Backend::Objects(objects) => objects.kept_by_upload(size),
        }
    }

    /// Begins to take the content of an attachment, which is written into `room`. Nothing is created before the first write. The
    /// writer drops `kept` when it has let go of all its memory.
    pub fn begin(self: &Arc<Self>, key: Key, room: Room, kept: impl Send + Sync + 'static) -> ContentWriter {
        ContentWriter::new(Arc::clone(self), key, room, Kept::new(kept))
    }

    /// Deletes content that no record names, at once. What cannot be deleted is garbage, not a failure of the request.
    pub async fn discard(&self, replaced: Replaced) {
        for id in replaced.segments {
            let deleted = self.patience.wait(self.operator.delete(&layout::segment(replaced.key, id))).await;
            if let Err(error) = deleted.and_then(|deleted| deleted.map_err(failure)) {
                tracing::warn!(%error, upload_id = %id.upload, "content that no record names could not be deleted");
            }
        }
        self.passed(Step::ReplacedDeleted);
    }
}

/// A panic in between leaves nothing half done that these guard.
fn lock<T>(mutex: &sync::Mutex<T>) -> sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(sync::PoisonError::into_inner)
}

/// What a failed storage operation means for the caller. The text goes to the log alone.
fn failure(error: opendal::Error) -> Error {
    // OpenDAL marks nearly every errno as temporary. A full disk is: space returns. A file where a directory should be
    // is not, and telling the caller to come back would only hide it.
    let io = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<std::io::Error>());
    // What was tried again says no more than that, whether or not it could have helped, so its kind decides: what has no
    // kind of its own comes from a service that does not work at the moment.
    let passes = match error.kind() {
        ErrorKind::RateLimited | ErrorKind::Conflict => true,
        ErrorKind::Unexpected => error.is_temporary() || error.is_persistent(),
        _ => error.is_temporary(),
    };
    let kind = match io {
        Some(io) if is_permanent(io) => Kind::Internal,
        _ if passes => Kind::StorageUnavailable,
        _ => Kind::Internal,
    };
    Error::new(kind).because(plain(&error))
}

/// What a failed call of the local file system means for the caller.
fn io_failure(error: std::io::Error) -> Error {
    let kind = if is_permanent(&error) { Kind::Internal } else { Kind::StorageUnavailable };
    Error::new(kind).because(error)
}

/// Whether trying again will not mend it.
fn is_permanent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), NotADirectory | IsADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem)
}
