//! The pipeline of an upload: authorise, begin, pump, verify, commit. Both doors come through here with the same words, so
//! this module knows neither HTTP nor gRPC. What arrives is handed to the storage in batches, which hashes and writes some
//! while the next arrives. A file that is small comes whole to its commit, without any of that.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use time::OffsetDateTime;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::attachment::{Content, Digest, Filename, MediaType, Record, State, Target};
use crate::budget::Budget;
use crate::error::{Error, Kind, Result};
use crate::fair::{Turn, Turns};
use crate::operation::Rpc;
use crate::places::{Place, Places};
use crate::request::Call;
use crate::rights::{self, Stands};
use crate::store::{Room, Sealed, Standing, Store};
use crate::telemetry::Limit;
use crate::throttle::Throttle;

pub use conditions::Conditions;
use presence::Presence;

mod alarm;
mod batch;
mod change;
mod conditions;
mod presence;
mod receive;

/// What uploads may do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many uploads may be under way.
    pub max_uploads: usize,
    /// The largest content, in bytes.
    pub max_upload_size: u64,
    /// How long a caller may send nothing.
    pub idle_timeout: Duration,
    /// How long one upload may take altogether.
    pub max_upload_time: Duration,
    /// Bytes a second, at least, that a caller must send over each window of waiting for it. 0 asks for none.
    pub min_rate: u64,
    /// The window.
    pub min_rate_window: Duration,
    /// Whether an upload makes an unknown attachment known.
    pub create_unknown: bool,
    /// How long a deletion can be undone.
    pub undelete_window: Duration,
}

/// What a caller declared of the content. What is declared must hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Declared {
    /// The size in bytes.
    pub size: Option<u64>,
    /// The digest.
    pub sha256: Option<Digest>,
}

/// What comes with the content.
#[derive(Clone, Debug)]
pub struct Header {
    /// The name for people.
    pub filename: Filename,
    /// The declared media type.
    pub content_type: MediaType,
    /// What was declared before the content.
    pub declared: Declared,
}

/// One step of arriving content.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes.
    Chunk(Bytes),
    /// The caller says that it has sent all. Without it nothing is stored, however the stream ends.
    Finish(Declared),
}

/// Leave to upload: the caller may, and there is something to upload to. It is asked again at the commit.
#[derive(Debug)]
pub struct Admitted {
    call: Call,
    target: Target,
    conditions: Conditions,
    /// The most that can arrive, in bytes, where it is known.
    at_most: Option<u64>,
    place: Place,
    /// The turn in which the record was read. Content that is small and there at once is received in it.
    turn: Option<Turn>,
    room: Room,
    /// The record that was read for it, in a box: it is held while the content arrives.
    standing: Box<Standing>,
}

/// Uploads and registrations.
#[derive(Debug)]
pub struct Uploads {
    store: Arc<Store>,
    budget: Arc<Budget>,
    turns: Turns,
    config: Config,
    tasks: TaskTracker,
    ended: CancellationToken,
    presence: Presence,
    places: Places,
    throttle: Throttle,
}

impl Uploads {
    /// Uploads into `store` with the memory of `budget`, which are worked on in `turns`. `throttle` has what clients may do.
    pub fn new(store: Arc<Store>, budget: Arc<Budget>, turns: Turns, throttle: Throttle, config: Config) -> Self {
        let (tasks, ended, presence) = (TaskTracker::new(), CancellationToken::new(), Presence::default());
        let places = Places::new(config.max_uploads, Limit::MaxUploads);
        Uploads { store, budget, turns, config, tasks, ended, presence, places, throttle }
    }

    /// Sees to it that callers are not held to a time in which this process stood still, for as long as it is driven.
    pub async fn watch(&self) {
        self.presence.keep().await;
    }

    /// The limits in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How many uploads are begun and neither committed nor taken back.
    pub fn in_flight(&self) -> usize {
        self.tasks.len() + self.store.late()
    }

    /// Waits until what was begun is committed or taken back.
    pub async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.store.settle().await;
    }

    /// Takes no more content from now on: uploads that are not at their commit yet are refused and taken back.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// Whether the caller may do this by its token, and its client has not done too much.
    fn permit(&self, call: &Call, rpc: Rpc, target: Target) -> Result<()> {
        rights::decide(&call.caller, rpc.row().scope, target, Stands::Unread)?;
        self.throttle.request(target.key.client)
    }

    /// Decides whether the caller may upload to `target`, before any content is asked for.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::NotFound`], [`Kind::AlreadyExists`], [`Kind::PreconditionFailed`], [`Kind::RateLimited`],
    /// [`Kind::Overloaded`], and what storage raises.
    pub async fn admit(&self, call: Call, target: Target, conditions: Conditions) -> Result<Admitted> {
        self.permit(&call, Rpc::UploadAttachment, target)?;
        let (client, metrics) = (target.key.client, call.request.trail.metrics());
        self.budget.check_queue(client).map_err(|full| {
            metrics.limited(Limit::MaxWaitingUploads, Some(client));
            self.places.later(full)
        })?;
        let place = self.places.take(client, metrics, |own| self.throttle.upload(client, own))?;
        let turn = Some(self.turns.take(client, 0).await);
        let standing = Box::new(self.store.record(target.key).await?);
        self.config.accepts(&call, target, &conditions, standing.record())?;
        let (at_most, room) = (None, Room::default());
        Ok(Admitted { call, target, conditions, at_most, place, turn, room, standing })
    }

    /// Says that no more than `at_most` bytes can arrive, of which the caller `declared` as many to be content, where that is
    /// known, and takes room in the storage for them. Without it the upload is not bound to leave room to others.
    ///
    /// # Errors
    /// [`Kind::TooLarge`], and [`Kind::StorageUnavailable`] if the storage has too little room.
    pub async fn make_room(&self, admitted: Admitted, declared: Option<u64>, at_most: Option<u64>) -> Result<Admitted> {
        self.fits(declared)?;
        let at_most = declared.into_iter().chain(at_most).min();
        let room = self.store.room(admitted.target.key.client, at_most).await?;
        Ok(Admitted { at_most, room, ..admitted })
    }

    /// Makes an attachment known. Doing it again with the same project and portfolio changes nothing.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::Conflict`] where it is known otherwise, and what storage raises.
    pub async fn register(&self, call: &Call, target: Target) -> Result<Record> {
        self.permit(call, Rpc::RegisterAttachment, target)?;
        let subject = call.caller.subject().to_owned();
        let decide = move |stands: Option<&Record>| match stands {
            Some(stands) if stands.is_deleted() => Ok(Some(Record::registered(target, &subject))),
            Some(stands) if (stands.project_id, stands.portfolio_id) == (target.project, target.portfolio) => Ok(None),
            Some(_) => {
                Err(Error::new(Kind::Conflict).detail("the attachment is registered with another project or portfolio"))
            }
            None => Ok(Some(Record::registered(target, &subject))),
        };
        let store = Arc::clone(&self.store);
        let update = |settled| async move {
            let known = store.update(target.key, decide, settled).await?;
            known.record.ok_or_else(|| Error::internal("a registration left no record"))
        };
        self.change(&call.request, update).await
    }

    /// Deletes an attachment with its content. Deleting it again changes nothing.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::NotFound`], [`Kind::PreconditionFailed`], and what storage raises.
    pub async fn delete(&self, call: &Call, target: Target, conditions: Conditions) -> Result<()> {
        let scope = Rpc::DeleteAttachment.row().scope;
        self.permit(call, Rpc::DeleteAttachment, target)?;
        let (caller, window) = (call.caller.clone(), self.config.undelete_window);
        let decide = move |stands: Option<&Record>| {
            rights::decide(&caller, scope, target, stands.map_or(Stands::Missing, Stands::Found))?;
            let stands = stands.filter(|record| !record.is_deleted());
            let Some(stands) = stands else { return Ok(None) };
            conditions.judge(stands.content().map(|content| content.sha256))?;
            Ok(Some(stands.deleted(caller.subject(), window)))
        };
        let (store, tasks) = (Arc::clone(&self.store), self.tasks.clone());
        let delete = |settled| async move {
            let replaced = store.update(target.key, decide, settled).await?.replaced;
            if !replaced.is_empty() {
                // The caller does not wait for the tidying.
                tasks.spawn(async move { store.retire(replaced).await });
            }
            Ok(())
        };
        self.change(&call.request, delete).await
    }

    /// Undoes the deletion of an attachment.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::NotFound`] if there is no deletion that can be undone,
    /// [`Kind::Conflict`] if the attachment is not deleted, and what storage raises.
    pub async fn undelete(&self, call: &Call, target: Target) -> Result<Record> {
        let scope = Rpc::UndeleteAttachment.row().scope;
        self.permit(call, Rpc::UndeleteAttachment, target)?;
        let caller = call.caller.clone();
        let decide = move |stands: Option<&Record>| {
            rights::decide(&caller, scope, target, stands.map_or(Stands::Missing, Stands::Found))?;
            let Some(stands) = stands.filter(|record| record.is_deleted()) else {
                return Err(Error::new(Kind::Conflict).detail("the attachment is not deleted"));
            };
            let undeleted = stands.undeleted(OffsetDateTime::now_utc());
            let none = || Error::new(Kind::NotFound).detail("the deletion of the attachment can no longer be undone");
            undeleted.map(Some).ok_or_else(none)
        };
        let store = Arc::clone(&self.store);
        let undelete = |settled| async move {
            let record = store.update(target.key, decide, settled).await?.record;
            record.ok_or_else(|| Error::internal("an undone deletion left no record"))
        };
        self.change(&call.request, undelete).await
    }

    /// Waits for what a caller is to send, as long as it may take.
    ///
    /// # Errors
    /// [`Kind::ClientTooSlow`].
    pub async fn in_time<F: Future>(&self, arrival: F) -> Result<F::Output> {
        let (asked, mut arrival) = (Instant::now(), pin!(arrival));
        let mut end = asked + self.config.idle_timeout;
        loop {
            match timeout_at(end, &mut arrival).await {
                Ok(arrived) => return Ok(arrived),
                Err(_) => end = self.still_idle(asked, end)?,
            }
        }
    }

    /// A caller has sent nothing from `asked` to `end`, which is too long, unless this process stood still meanwhile. Then there is
    /// a later end.
    fn still_idle(&self, asked: Instant, end: Instant) -> Result<Instant> {
        let later = asked + self.config.idle_timeout + self.presence.missed(asked);
        if later > end {
            return Ok(later);
        }
        let seconds = self.config.idle_timeout.as_secs_f32();
        Err(Error::new(Kind::ClientTooSlow).detail(format!("nothing arrived for {seconds} s")))
    }
}

impl Config {
    fn late(self) -> Error {
        let seconds = self.max_upload_time.as_secs_f32();
        Error::new(Kind::ClientTooSlow).detail(format!("an upload may take {seconds} s at most"))
    }

    /// Whether an upload may be stored over the record that stands. It is asked before the content, and once more at the
    /// commit, since others may have changed the record in between.
    fn accepts(self, call: &Call, target: Target, conditions: &Conditions, record: Option<&Record>) -> Result<()> {
        let record = record.filter(|record| !record.is_deleted());
        let stands = match record {
            Some(record) => Stands::Found(record),
            None if self.create_unknown => Stands::Absent,
            None => Stands::Missing,
        };
        rights::decide(&call.caller, Rpc::UploadAttachment.row().scope, target, stands)?;
        conditions.judge(record.and_then(Record::content).map(|content| content.sha256))
    }
}

/// All that a commit needs to know.
struct Commit {
    config: Config,
    call: Call,
    target: Target,
    conditions: Conditions,
    header: Header,
    declared: Declared,
}

impl Commit {
    fn verify(&self, size: u64, sha256: Digest) -> Result<()> {
        for declared in [self.header.declared, self.declared] {
            if let Some(declared) = declared.size.filter(|declared| *declared != size) {
                return Err(size_mismatch(declared, &size.to_string()));
            }
            if declared.sha256.is_some_and(|declared| declared != sha256) {
                return Err(Error::new(Kind::DigestMismatch).detail("the content does not have the declared digest"));
            }
        }
        Ok(())
    }

    /// The record that is to stand in place of the one that stands.
    fn record(&self, stands: Option<&Record>, sealed: &Sealed) -> Result<Record> {
        // Content of this age may be taken for garbage, whatever it was that took so long.
        if sealed.upload_id.age(SystemTime::now()) > self.config.max_upload_time {
            return Err(self.config.late());
        }
        let Commit { call, target, conditions, .. } = self;
        self.config.accepts(call, *target, conditions, stands)?;
        let content = Content {
            upload_id: sealed.upload_id,
            filename: self.header.filename.clone(),
            content_type: self.header.content_type.clone(),
            size: sealed.size,
            sha256: sealed.sha256,
            segments: sealed.segments.clone(),
            created_at: OffsetDateTime::now_utc(),
            uploaded_by: call.caller.subject().to_owned(),
            other: serde_json::Map::new(),
        };
        let known = stands.filter(|record| !record.is_deleted()).cloned();
        let record = known.unwrap_or_else(|| Record::registered(*target, call.caller.subject()));
        Ok(Record { state: State::Stored(content), ..record })
    }
}

fn size_mismatch(declared: u64, arrived: &str) -> Error {
    Error::new(Kind::SizeMismatch).detail(format!("{declared} bytes were declared and {arrived} arrived"))
}
