//! Objects behind OpenDAL: content in parts, and puts that name the version which they replace. It must not know what the
//! objects are for.
//!
//! An answer that comes over a network can be lost, and a request that was given up can still come about. A put of a record
//! therefore counts what it does not know: a condition that does not hold at the first try was another's, at a later one it
//! may have been the first try's own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use opendal::layers::TimeoutLayer;
use opendal::options::WriteOptions;
use opendal::{Buffer, ErrorKind, Operator};
use tokio::sync::Mutex;

use super::backend::{Failure, Version};
use super::commit::Locks;
use super::failure;
use super::layout::{self, CLIENTS, MARKER, PROBE};
use super::meaning::plain;
use super::services::{Compares, Parts, Service};
use super::steps::{Step, Steps};
use crate::attachment::Key;
use crate::error::{Error, Kind, Result};

mod proof;
mod sink;
mod tries;

pub use sink::Sink;

use proof::Proof;
use tries::{LONGEST_PAUSE, PAUSE, Retries, TRIES};

/// A service of OpenDAL's.
#[derive(Debug)]
pub struct Objects {
    /// Tries again by itself.
    operator: Operator,
    /// Does not.
    once: Operator,
    /// Writes content in parts: each request has the time of a try, but for the one that puts the parts together.
    in_parts: Operator,
    remote: bool,
    names_missing_bucket: bool,
    compares: Compares,
    /// How content is sent, where it is sent in parts.
    parts: Option<Parts>,
    /// What one operation has.
    time: Duration,
    /// Whether the service was seen to compare versions.
    proof: Proof,
    /// The locks of attachments within this process.
    locks: Locks,
}

impl Objects {
    /// The service behind `operator`, which has no layers but those for tests. `time` is what one operation has.
    pub fn new(
        service: &Service,
        operator: Operator,
        parts: Option<Parts>,
        sole_writer: bool,
        time: Duration,
    ) -> Objects {
        let compares = if sole_writer { Compares::Never } else { service.compares };
        let remote = service.is_remote();
        let (once, operator, in_parts) = if remote {
            let try_time = tries::of(time);
            let in_parts = tries::limited(&operator, try_time, service.completes);
            let once = operator.layer(TimeoutLayer::new().with_timeout(try_time).with_io_timeout(try_time));
            (once.clone(), tries::again(&once, TRIES - 1, Retries::default()), in_parts)
        } else {
            (operator.clone(), operator.clone(), operator)
        };
        Objects {
            operator,
            once,
            in_parts,
            remote,
            names_missing_bucket: service.names_missing_bucket,
            compares,
            parts,
            time,
            proof: Proof::default(),
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

    /// Whether a listing comes in the order of names.
    pub fn lists_in_order(&self) -> bool {
        self.remote
    }

    /// What a put replaces of which nothing was found.
    pub fn absent(&self) -> Version {
        if self.compares == Compares::Never { Version::Any } else { Version::Absent }
    }

    /// Whether the bucket is there, and there is nothing of attachd's in it.
    pub async fn is_empty(&self) -> opendal::Result<bool> {
        if !self.remote {
            return Ok(false);
        }
        let mut lister = self.operator.lister_with(CLIENTS).limit(1).await?;
        Ok(lister.next().await.transpose()?.is_none())
    }

    /// Whether the storage says that it has the layout of this version. If it does not, it holds nothing.
    ///
    /// # Errors
    /// [`Kind::Internal`] if it says something else, or holds other things, and what storage raises.
    pub async fn is_marked(&self) -> Result<bool> {
        let refused = |why| Error::internal(format!("the storage {why}"));
        if !self.remote {
            return Ok(true);
        }
        let mut other: Option<String> = None;
        // Another process may have marked it between the first look and the listing.
        loop {
            match self.operator.read(MARKER).await {
                Ok(marker) => return layout::check_marker(&marker.to_bytes()).map(|()| true).map_err(Error::internal),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failure(error)),
            }
            if let Some(other) = &other {
                return Err(refused(layout::not_a_storage(other)));
            }
            other = self.stranger().await.map_err(failure)?;
            if other.is_none() {
                return Ok(false);
            }
        }
    }

    /// Something at the root that no new storage has.
    async fn stranger(&self) -> opendal::Result<Option<String>> {
        let mut lister = self.operator.lister("").await?;
        while let Some(entry) = lister.next().await.transpose()? {
            if !["", "/", PROBE].contains(&entry.path().trim_end_matches('/')) {
                return Ok(Some(entry.path().to_owned()));
            }
        }
        Ok(None)
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

    /// The size of a part in bytes, where content is sent in parts.
    fn part(&self) -> Option<usize> {
        self.parts.and_then(|parts| usize::try_from(parts.size).ok())
    }

    /// How many parts an upload sends at once.
    fn at_once(&self) -> usize {
        self.parts.map_or(1, |parts| parts.at_once)
    }

    /// How many bytes an upload keeps to its end, if it is known that no more than `size` arrive.
    pub fn kept_by_upload(&self, size: Option<u64>) -> usize {
        let most = self.parts.map_or(0, |parts| usize::try_from(parts.kept).unwrap_or(usize::MAX));
        size.and_then(|size| usize::try_from(size).ok()).map_or(most, |size| most.min(sink::room(size)))
    }

    /// Puts a small object in one step in place of the version that is named. Must be driven to its end.
    pub async fn put(
        self: &Arc<Self>,
        path: &str,
        bytes: Bytes,
        version: Version,
        steps: &Steps,
    ) -> Result<(), Failure> {
        let form = self.prove().await.map_err(Failure::Refused)?;
        self.try_put(path, Buffer::from(bytes), &form.of(version), steps).await
    }

    /// An operator for the content of one object, in parts or not, that counts in `retries` what it tries again.
    fn writing(&self, in_parts: bool, retries: Retries) -> Operator {
        match (self.remote, in_parts) {
            (false, _) => self.operator.clone(),
            (true, false) => tries::again(&self.once, TRIES - 1, retries),
            // A call fails for each part beside it that has failed, and may run out of time before that part does.
            (true, true) => tries::again(&self.in_parts, TRIES - 1 + 2 * (self.at_once() - 1), retries),
        }
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
                    return Err(Failure::Unclear(Error::new(Kind::StorageUnavailable).because(plain(&error))));
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
            tries::log("write", attempt, &error);
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
            tracing::warn!(error = plain(&error), "a put could not be aborted cleanly");
        }
        put
    }
}
