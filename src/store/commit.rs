//! The commit: a record is read, decided upon, and replaced, so that nothing comes between. It must not know what a record
//! says, only that one stands in place of another.
//!
//! Locks keep the processes apart that can see them: those of one process, and on a local file system those of all
//! processes on the directory. Where the storage can compare, the put names the version that was read, so that it fails
//! where another replica was faster; then what stands is read and decided upon anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::backend::{Backend, Failure, Version};
use super::local::{Abandoned, Local};
use super::patience::Unfinished;
use super::receipt::Updated;
use super::record::{self, Stored};
use super::{Step, Store, layout};
use crate::attachment::{Key, Record};
use crate::error::{Error, Kind, Result};
use crate::telemetry::{Operation, Outcome};

/// How often a commit is decided upon anew since another replica was faster. Each time one of them got on.
const TRIES: u32 = 32;

/// How long to wait before it is, times the number of tries.
const PAUSE: Duration = Duration::from_millis(5);

/// How many locks all attachments share. More than the commits that run at once, so that two rarely wait for each other.
/// Processes that share a directory must agree on it.
const LOCKS: usize = 256;

/// The locks of all attachments within one process.
#[derive(Debug)]
pub(super) struct Locks(Vec<Arc<Mutex<()>>>);

impl Default for Locks {
    fn default() -> Locks {
        Locks(std::iter::repeat_with(Arc::default).take(LOCKS).collect())
    }
}

impl Locks {
    /// The lock of an attachment.
    pub fn of(&self, key: Key) -> &Arc<Mutex<()>> {
        &self.0[stripe(key)]
    }
}

/// The leave to replace a record. It goes along with a put that is late, so that nothing overtakes that.
type Turn = OwnedMutexGuard<()>;

/// The record that was read, if there is one, and which version of it that is.
#[derive(Debug)]
pub struct Standing {
    record: Option<Record>,
    version: Version,
}

impl Standing {
    pub(super) fn new(record: Option<Record>, version: Version) -> Standing {
        Standing { record, version }
    }

    /// The record, if there is one.
    pub fn record(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    /// What a put may be compared with. `None` if the storage does not compare: then the record must be read under the lock.
    fn compared(self) -> Option<(Option<Stored>, Version)> {
        let stored = self.record.map(|record| Stored { record, inline: Bytes::new() });
        Some((stored, self.version)).filter(|(_, version)| *version != Version::Any)
    }
}

/// What a commit changed.
#[derive(Debug)]
pub(super) struct Replacement {
    /// The record that stood.
    pub old: Option<Record>,
    /// The one that stands instead, if it was to change.
    pub new: Option<Record>,
}

/// A commit that did not come about.
pub(super) struct Refusal {
    pub error: Error,
    /// Whether it is certain that the record was not put and will not be. If not, whatever it names must be left alone.
    pub settled: bool,
}

/// What is told whether a record was put, if the put outlives its time. It is dropped if that never becomes known.
pub struct Settled(Box<dyn FnOnce(bool) + Send>);

impl Settled {
    /// Calls `told` with whether the record was put.
    pub fn new(told: impl FnOnce(bool) + Send + 'static) -> Settled {
        Settled(Box::new(told))
    }

    /// Nothing is told.
    pub fn unheard() -> Settled {
        Settled::new(|_| {})
    }

    pub(super) fn tell(self, put: bool) {
        (self.0)(put);
    }
}

impl Refusal {
    /// What this is for the caller.
    pub fn into_error(self) -> Error {
        if self.settled { self.error } else { self.error.unsettled() }
    }

    pub fn unchanged(error: Error) -> Refusal {
        Refusal { error, settled: true }
    }

    pub fn unsettled(error: Error) -> Refusal {
        Refusal { error, settled: false }
    }
}

impl Store {
    /// Replaces the record of `key` by what `decide` makes of the one that stands, and returns what stands then, and the content that
    /// no record names any more, for [`Store::retire`]. `None` from
    /// `decide` leaves the record as it is. It is asked again where another replica was faster. An error that is unsettled may
    /// be followed by a word to `settled`.
    pub async fn update<F>(&self, key: Key, decide: F, settled: Settled) -> Result<Updated>
    where
        F: FnMut(Option<&Record>) -> Result<Option<Record>> + Send + 'static,
    {
        let replaced = match &self.backend {
            Backend::Local(local) => self.replace_file(local, key, decide, settled).await,
            Backend::Objects(_) => Box::pin(self.replace_object(key, None, &[], decide, settled)).await,
        };
        Ok(Updated::of(key, replaced.map_err(Refusal::into_error)?))
    }

    async fn replace_file<F>(
        &self,
        local: &Arc<Local>,
        key: Key,
        decide: F,
        settled: Settled,
    ) -> Result<Replacement, Refusal>
    where
        F: FnOnce(Option<&Record>) -> Result<Option<Record>> + Send + 'static,
    {
        let abandoned = Abandoned::default();
        let (replace, metrics) = (Arc::clone(local).replace(key, decide, abandoned.clone()), self.metrics.clone());
        let replace = async move {
            let timing = metrics.operation(Operation::Put);
            let replaced = replace.await;
            timing.end(Outcome::of(replaced.as_ref().err().map(|refusal| refusal.error.kind())));
            replaced
        };
        match self.patience.run(replace).await {
            Ok(replaced) => replaced,
            Err(unfinished) => {
                abandoned.set();
                let error = unfinished.error();
                if let Unfinished::Late(task) = unfinished {
                    self.patience.leave(task, |replaced| async move {
                        tracing::warn!(done = replaced.is_ok(), "a record was put after its time");
                        if replaced.as_ref().map_or_else(|refusal| refusal.settled, |_| true) {
                            settled.tell(replaced.is_ok());
                        }
                    });
                }
                Err(Refusal::unsettled(error))
            }
        }
    }

    /// Does what [`Store::update`] does among objects, and says what was replaced. `inline` are the bytes of content that the new
    /// record has in its own object. `known` is decided upon first if the put can be compared with it, so that the record need
    /// not be read again.
    pub(super) async fn replace_object<F>(
        &self,
        key: Key,
        known: Option<Standing>,
        inline: &[Bytes],
        mut decide: F,
        settled: Settled,
    ) -> Result<Replacement, Refusal>
    where
        F: FnMut(Option<&Record>) -> Result<Option<Record>>,
    {
        let mut turn = self.turn(key).await.map_err(Refusal::unchanged)?;
        let mut known = known.and_then(Standing::compared);
        for attempt in 1..=TRIES {
            let (stored, version) = match known.take() {
                Some(known) => known,
                None => self.read(key).await.map_err(Refusal::unchanged)?,
            };
            let Some(new) = decide(stored.as_ref().map(|stored| &stored.record)).map_err(Refusal::unchanged)? else {
                return Ok(Replacement { old: stored.map(|stored| stored.record), new: None });
            };
            let bytes = record::encode(stored.as_ref(), &new, inline).map_err(Refusal::unchanged)?;
            let old = stored.map(|stored| stored.record);
            let (put, back) = match self.put(key, bytes.clone(), version, turn).await {
                Put::Answered(put, back) => (put, back),
                // It may yet come about.
                Put::Late(late) => return Err(Refusal::unsettled(self.leave(late, settled))),
            };
            turn = back;
            let Err(failure) = put else {
                self.stand(turn);
                return Ok(Replacement { old, new: Some(new) });
            };
            // It may have happened although its answer says otherwise: look, never guess.
            match (self.read(key).await, failure) {
                (Ok((Some(stands), version)), _) if stands.record == new => {
                    self.confirm(key, bytes, version, turn).await.map_err(Refusal::unsettled)?;
                    return Ok(Replacement { old, new: Some(new) });
                }
                (Ok(_), Failure::Overtaken) => {}
                (Ok(_), Failure::Refused(error)) => return Err(Refusal::unchanged(error)),
                // If it has happened, another replica has replaced it since, and may be deleting what it names.
                (Ok(_), Failure::Unclear(error)) => return Err(Refusal::unsettled(error)),
                (Err(error), Failure::Overtaken) => return Err(Refusal::unchanged(error)),
                (Err(_), Failure::Refused(error) | Failure::Unclear(error)) => return Err(Refusal::unsettled(error)),
            }
            tokio::time::sleep(PAUSE * attempt).await;
        }
        Err(Refusal::unchanged(Error::new(Kind::StorageUnavailable).because("other replicas were faster each time")))
    }

    /// Puts a record again that stands though its put was not acknowledged. A storage of several nodes may show what too few
    /// of them hold, and no longer show it once one of those is away: only an answer says that it stays.
    async fn confirm(&self, key: Key, record: Bytes, version: Version, turn: Turn) -> Result<()> {
        match self.put(key, record, version, turn).await {
            Put::Answered(Ok(()), turn) => {
                self.stand(turn);
                Ok(())
            }
            Put::Answered(Err(Failure::Overtaken), _) => {
                Err(Error::new(Kind::StorageUnavailable).because("another replica was faster than the second put"))
            }
            Put::Answered(Err(Failure::Refused(error) | Failure::Unclear(error)), _) => Err(error),
            Put::Late(late) => Err(self.leave(late, Settled::unheard())),
        }
    }

    /// The record stands: lets others have their turn.
    fn stand(&self, _turn: Turn) {
        self.passed(Step::RecordPut);
        self.passed(Step::RecordSynced);
    }

    async fn turn(&self, key: Key) -> Result<Turn> {
        self.patience.wait(Arc::clone(self.backend.lock_of(key)).lock_owned()).await
    }

    /// Leaves a late put to itself, and gives what it is for the caller.
    fn leave(&self, late: Unfinished<(Result<(), Failure>, Turn)>, settled: Settled) -> Error {
        let error = late.error();
        if let Unfinished::Late(task) = late {
            self.patience.leave(task, |(put, _turn)| async move {
                tracing::warn!(done = put.is_ok(), "a record was put after its time");
                if !matches!(put, Err(Failure::Unclear(_))) {
                    settled.tell(put.is_ok());
                }
            });
        }
        error
    }

    /// Puts a record, and gives the turn back, unless the put is late: it goes on with the turn.
    async fn put(&self, key: Key, record: Bytes, version: Version, turn: Turn) -> Put {
        let put = self.backend.clone().put(layout::record(key), record, version, self.steps.clone());
        match self.patience.run(async move { (put.await, turn) }).await {
            Ok((put, turn)) => Put::Answered(put, turn),
            Err(unfinished) => Put::Late(unfinished),
        }
    }
}

/// How the put of a record ended.
enum Put {
    /// With an answer, and the turn is given back.
    Answered(Result<(), Failure>, Turn),
    /// Not in its time.
    Late(Unfinished<(Result<(), Failure>, Turn)>),
}

/// The lock of an attachment, the same in all processes. Ids of one client that follow one another have different ones.
pub(super) fn stripe(key: Key) -> usize {
    let spread = key.client.get().cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let stripe = spread.wrapping_add(key.attachment.get().cast_unsigned()) % LOCKS as u64;
    usize::try_from(stripe).unwrap_or_default()
}
