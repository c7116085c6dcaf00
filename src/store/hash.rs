//! The digest of content while it passes, and how many bytes there are of it.

use aws_lc_rs::digest;
use bytes::Bytes;

use super::backend::Kept;
use super::queue::Batch;
use crate::attachment::Digest;

/// The digest of what was written so far.
#[derive(Clone)]
pub struct Hash(digest::Context);

impl Default for Hash {
    fn default() -> Hash {
        Hash(digest::Context::new(&digest::SHA256))
    }
}

impl Hash {
    /// Adds the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// Adds a batch, and gives its bytes and what stands for their memory.
    pub fn take_in(&mut self, batch: Batch) -> (Vec<Bytes>, Kept) {
        let (bytes, held) = batch.into_parts();
        bytes.iter().for_each(|bytes| self.update(bytes));
        (bytes, held)
    }

    /// The digest of all.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        // SHA-256 has 32 bytes.
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest::of(bytes)
    }
}

/// How many bytes a batch has.
pub(super) fn length(batch: &[Bytes]) -> u64 {
    batch.iter().map(|bytes| bytes.len() as u64).sum()
}
