//! Objects behind OpenDAL: what an upload needs beyond its writers. It must not know what the objects are for.

use bytes::Bytes;
use opendal::{Buffer, Operator, Writer};

use super::backend::{Failure, Version};
use super::failure;
use super::steps::{Step, Steps};
use crate::error::Result;

/// A service of OpenDAL's.
#[derive(Clone, Debug)]
pub struct Objects {
    operator: Operator,
}

impl Objects {
    /// The service behind an operator.
    pub fn new(operator: Operator) -> Objects {
        Objects { operator }
    }

    /// Begins an object.
    pub async fn create(&self, path: &str) -> Result<Sink> {
        self.operator.writer(path).await.map(Sink).map_err(failure)
    }

    /// Puts a small object in one step, and takes back what a failure leaves. Must be driven to its end.
    pub async fn put(&self, path: &str, bytes: Vec<u8>, _version: Version, steps: &Steps) -> Result<(), Failure> {
        let refused = |error| Failure::Refused(failure(error));
        let mut writer = self.operator.writer(path).await.map_err(refused)?;
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
        put.map_err(refused)
    }
}

/// Takes the bytes of one object.
pub struct Sink(Writer);

impl Sink {
    /// Writes the next bytes.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.0.write(Buffer::from(batch)).await.map_err(failure)
    }

    /// Makes the object visible.
    pub async fn close(&mut self) -> Result<()> {
        self.0.close().await.map(drop).map_err(failure)
    }

    /// Takes back what was written.
    pub async fn abort(&mut self) -> Result<()> {
        self.0.abort().await.map_err(failure)
    }
}
