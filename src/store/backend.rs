//! The seam between the two kinds of storage: a local file system, where durability and atomicity are ours to make, and
//! objects behind OpenDAL, where they come with an answer. What is read, listed and deleted is the same for both.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::hash::Hash;
use super::queue::Queue;
use super::steps::{Step, Steps};
use super::{local, objects};
use crate::attachment::Key;
use crate::error::{Error, Result};
use crate::telemetry::{Metrics, Operation};

/// Which kind of storage.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A directory.
    Local(Arc<local::Local>),
    /// A service of OpenDAL's.
    Objects(Arc<objects::Objects>),
}

/// What stands for the memory that a sink keeps: who hands it over learns by its drop that it is free.
pub struct Kept {
    _kept: Box<dyn Send + Sync>,
}

impl Kept {
    /// Keeps something until it is dropped.
    pub fn new(kept: impl Send + Sync + 'static) -> Kept {
        Kept { _kept: Box::new(kept) }
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// Which version of an object is to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// None: there is no such object.
    Absent,
    /// The one of this entity tag.
    Tag(String),
    /// The one of this number.
    Generation(String),
    /// Whichever there is: the storage does not compare, or has no need to.
    Any,
}

/// Why a put failed, and what may have come of it.
#[derive(Debug)]
pub enum Failure {
    /// Another version stands. Nothing was put, and nothing will be.
    Overtaken,
    /// Nothing was put, or what was put can be seen at once.
    Refused(Error),
    /// It may have been put, or may yet be.
    Unclear(Error),
}

/// Takes the bytes of one object, which is visible and durable when it is closed. Its futures must be driven to their end.
pub enum Sink {
    /// On a local file system.
    Local(local::Sink, Metrics),
    /// As an object.
    Object(Box<objects::Sink>, Steps),
}

impl Backend {
    /// Begins an object. Nothing need be there before the first write. The sink drops `kept` when it has let go of all its memory.
    pub fn create(&self, key: Key, path: &str, steps: &Steps, metrics: &Metrics, kept: Kept) -> Sink {
        match self {
            Backend::Local(local) => Sink::Local(local.create(key.client, path), metrics.clone()),
            Backend::Objects(objects) => {
                steps.passed(Step::ContentOpened);
                Sink::Object(Box::new(objects::Sink::new(objects, path, kept)), steps.clone())
            }
        }
    }

    /// The lock of an attachment within this process.
    pub fn lock_of(&self, key: Key) -> &Arc<Mutex<()>> {
        match self {
            Backend::Local(local) => local.lock_of(key),
            Backend::Objects(objects) => objects.lock_of(key),
        }
    }

    /// Puts a small object in one step in place of the version that is named. Must be driven to its end.
    pub async fn put(self, path: String, bytes: Bytes, version: Version, steps: Steps) -> Result<(), Failure> {
        match self {
            // The lock that comes with a turn holds between all who write there, so there is nothing to compare.
            Backend::Local(local) => local.put(path, bytes, steps).await.map_err(Failure::Refused),
            Backend::Objects(objects) => objects.put(&path, bytes, version, &steps).await,
        }
    }
}

impl Failure {
    /// What this is for who does not ask what may have come of it.
    pub fn into_error(self) -> Error {
        match self {
            Failure::Overtaken => Error::internal("another version stands"),
            Failure::Refused(error) | Failure::Unclear(error) => error,
        }
    }
}

impl Sink {
    /// Writes what is in the queue, adds it to the digest, and lets go of each batch once it is written. After an error only
    /// [`abort`](Self::abort) is left.
    pub async fn write(&mut self, mut queue: Queue, hash: &mut Hash) -> Result<()> {
        match self {
            Sink::Local(sink, metrics) => sink.write(queue, hash, metrics.clone()).await,
            Sink::Object(sink, steps) => {
                while let Some(batch) = queue.next() {
                    let (bytes, held) = hash.take_in(batch);
                    sink.write(bytes).await?;
                    drop(held);
                    steps.passed(Step::ContentWritten);
                }
                Ok(())
            }
        }
    }

    /// Waits until an object is with the storage but for what its close sends. No write may follow.
    pub async fn flush(&mut self) -> Result<()> {
        match self {
            Sink::Local(..) => Ok(()),
            Sink::Object(sink, _) => sink.flush().await,
        }
    }

    /// Makes an object visible that is flushed. A file is closed by its commit.
    pub async fn close(&mut self) -> Result<()> {
        match self {
            Sink::Local(..) => Err(Error::internal("a file is closed by its commit")),
            Sink::Object(sink, steps) => sink.close().await.inspect(|()| steps.passed(Step::ContentClosed)),
        }
    }

    /// Takes back what was written, if it is not visible.
    pub async fn abort(&mut self) -> Result<()> {
        match self {
            Sink::Local(sink, metrics) => metrics.time(Operation::Abort, sink.abort()).await,
            Sink::Object(sink, _) => sink.abort().await,
        }
    }
}
