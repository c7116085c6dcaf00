//! Content on its way out: a range of it, in order, piece by piece, verified as it is read. A segment that is read whole is
//! compared with its digest before its last bytes are returned, and all of the content with the digest of the whole. It must not
//! know who reads.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use opendal::{Buffer, BufferStream, ErrorKind};

use super::backend::Backend;
use super::hash::Hash;
use super::record::Stored;
use super::{Store, failure, layout};
use crate::attachment::{Content, Digest, Id, Key, Record, Segment, SegmentId};
use crate::error::{Error, Result};
use crate::telemetry::Operation;

/// A record with what is needed to read its content.
#[derive(Clone, Debug)]
pub struct Readable(Stored);

/// Content that a record names and that is not there: another request has replaced or deleted it, or it is lost.
#[derive(Debug, thiserror::Error)]
#[error("{0} is missing")]
pub struct Vanished(String);

/// Content that is not what its record says.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {why}")]
struct Damaged {
    path: String,
    why: String,
}

/// Reads a range of the content of one attachment.
pub struct ContentReader {
    store: Arc<Store>,
    key: Key,
    content: Content,
    inline: Bytes,
    /// The bytes that are still to be returned.
    left: Range<u64>,
    /// The segment that is being read.
    open: Option<Open>,
    /// The digest of all, if all of several segments is read.
    whole: Option<Hash>,
}

/// A segment that is being read.
struct Open {
    /// Whose content it is.
    client: Id,
    path: String,
    sha256: Digest,
    source: Source,
    /// How many of its bytes are still to be returned.
    left: u64,
    /// The digest of what was returned, if the segment is read whole.
    hash: Option<Hash>,
}

enum Source {
    /// A file, and the offset of the next byte. It can be read to its end after it was deleted.
    File(Arc<File>, u64),
    /// What a service sends, and what of it was not returned yet.
    Stream(Box<BufferStream>, Buffer),
}

impl Readable {
    /// The record.
    pub fn record(&self) -> &Record {
        &self.0.record
    }
}

impl Store {
    /// The record of an attachment with what is needed to read its content, if there is one.
    pub async fn readable(&self, key: Key) -> Result<Option<Readable>> {
        Ok(self.read(key).await?.0.map(Readable))
    }

    /// Begins to read a range of the content that `readable` names. Nothing is read yet.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if there is no content, or not as much as the record says.
    pub fn read_content(self: &Arc<Self>, readable: &Readable, range: Range<u64>) -> Result<ContentReader> {
        let Readable(Stored { record, inline }) = readable;
        let content = record.content().ok_or_else(|| Error::internal("a record without content is read"))?.clone();
        let is_all = range == (0..content.size);
        let whole = (is_all && content.segments.len() > 1).then(Hash::default);
        let reader = ContentReader {
            store: Arc::clone(self),
            key: record.key,
            content,
            inline: inline.clone(),
            left: range,
            open: None,
            whole,
        };
        reader.check_sizes()?;
        Ok(reader)
    }
}

impl ContentReader {
    /// The next bytes, at most so many. None at the end of the range.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if the stored bytes are not what the record says, with [`Vanished`] as its cause if they
    /// are not there, and what storage raises.
    pub async fn next(&mut self, most: usize) -> Result<Option<Bytes>> {
        if self.left.is_empty() {
            return Ok(None);
        }
        let bytes = if self.content.is_inline() { self.next_inline(most)? } else { self.next_of_segment(most).await? };
        self.left.start += bytes.len() as u64;
        if self.left.is_empty()
            && let Some(whole) = self.whole.take()
            && whole.finish() != self.content.sha256
        {
            let why = "the digest of its segments is not the one in the record";
            return Err(self.store.damaged(layout::record(self.key), why.to_owned()));
        }
        Ok(Some(bytes))
    }

    /// Whether all of the range was returned.
    pub fn is_done(&self) -> bool {
        self.left.is_empty()
    }

    fn check_sizes(&self) -> Result<()> {
        let segments = self.content.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.size));
        let (there, what) = if self.content.is_inline() {
            (Some(self.inline.len() as u64), "bytes are behind it")
        } else {
            (segments, "bytes are in its segments")
        };
        match there {
            Some(there) if there == self.content.size => Ok(()),
            there => {
                let there = there.map_or_else(|| "too many".to_owned(), |there| there.to_string());
                let why = format!("{there} {what}, and it says {}", self.content.size);
                Err(self.store.damaged(layout::record(self.key), why))
            }
        }
    }

    /// The next bytes of content that is in the record's object: all of it is at hand, so all of it is verified first.
    fn next_inline(&self, most: usize) -> Result<Bytes> {
        let mut hash = Hash::default();
        hash.update(&self.inline);
        if hash.finish() != self.content.sha256 {
            let why = "the digest of its content is not the one that it says";
            return Err(self.store.damaged(layout::record(self.key), why.to_owned()));
        }
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.inline.len());
        let start = at(self.left.start);
        Ok(self.inline.slice(start..at(self.left.end).min(start.saturating_add(most))))
    }

    async fn next_of_segment(&mut self, most: usize) -> Result<Bytes> {
        let mut open = match self.open.take() {
            Some(open) => open,
            None => {
                let (segment, id, range) = self.next_segment()?;
                // Of a clone, since what a service sends cannot be shared between threads.
                let (store, key) = (Arc::clone(&self.store), self.key);
                Open::segment(&store, key, segment, id, range).await?
            }
        };
        let bytes = open.read(&Arc::clone(&self.store), most).await?;
        if let Some(whole) = &mut self.whole {
            whole.update(&bytes);
        }
        if open.left > 0 {
            self.open = Some(open);
        } else if open.hash.is_some_and(|hash| hash.finish() != open.sha256) {
            return Err(self.store.damaged(open.path, "its digest is not the one in the record".to_owned()));
        } else if let [only] = &self.content.segments[..]
            && only.sha256 != self.content.sha256
        {
            let why = "the digest of its segment is not the one of the content";
            return Err(self.store.damaged(layout::record(self.key), why.to_owned()));
        }
        Ok(bytes)
    }

    /// The segment that has the next byte, and the range of it that is to be read.
    fn next_segment(&self) -> Result<(Segment, SegmentId, Range<u64>)> {
        let mut start = 0;
        let next = self.content.segments.iter().zip(self.content.segment_ids()).find_map(|(segment, id)| {
            let begins = start;
            start += segment.size;
            (self.left.start < start).then_some((segment, id, begins))
        });
        let (segment, id, begins) = next.ok_or_else(|| Error::internal("a range is past its segments"))?;
        let range = (self.left.start - begins)..(self.left.end - begins).min(segment.size);
        Ok((segment.clone(), id, range))
    }
}

impl Open {
    async fn segment(store: &Store, key: Key, segment: Segment, id: SegmentId, range: Range<u64>) -> Result<Open> {
        let path = layout::segment(key, id);
        let source = match &store.backend {
            Backend::Local(local) => {
                let open = store.metrics.time(Operation::Read, local.open_file(key.client, path.clone()));
                match store.patience.wait(open).await?? {
                    Some(file) => Source::File(Arc::new(file), range.start),
                    None => return Err(store.vanished(path)),
                }
            }
            Backend::Objects(_) => {
                let reader = store.patience.wait(store.operator.reader(&path)).await?.map_err(failure)?;
                let stream = store.patience.wait(reader.into_stream(range.clone())).await?;
                Source::Stream(Box::new(stream.map_err(|error| unreadable(store, &path, error))?), Buffer::new())
            }
        };
        let hash = (range == (0..segment.size)).then(Hash::default);
        Ok(Open { client: key.client, path, sha256: segment.sha256, source, left: range.end - range.start, hash })
    }

    /// The next bytes, which are added to the digest.
    async fn read(&mut self, store: &Store, most: usize) -> Result<Bytes> {
        let most = usize::try_from(self.left).map_or(most, |left| left.min(most));
        let bytes = match (&mut self.source, &store.backend) {
            (Source::File(file, at), Backend::Local(local)) => {
                let read = local.read_at(self.client, self.path.clone(), Arc::clone(file), *at, most, self.hash.take());
                let (bytes, hash) = store.patience.wait(read).await??;
                *at += bytes.len() as u64;
                self.hash = hash;
                bytes
            }
            (Source::Stream(stream, rest), _) => {
                if rest.is_empty() {
                    let next = store.patience.wait(stream.next()).await?;
                    *rest = next.transpose().map_err(|error| unreadable(store, &self.path, error))?.unwrap_or_default();
                }
                let bytes = rest.copy_to_bytes(most.min(rest.chunk().len()));
                if let Some(hash) = &mut self.hash {
                    hash.update(&bytes);
                }
                bytes
            }
            (Source::File(..), Backend::Objects(_)) => return Err(Error::internal("a file among objects")),
        };
        if bytes.is_empty() {
            return Err(store.damaged(self.path.clone(), format!("it ends {} bytes before its end", self.left)));
        }
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }
}

impl Store {
    /// Tells the operator of content that is missing although its record stands.
    pub fn lost(&self, vanished: Error) -> Error {
        match vanished.source_as::<Vanished>() {
            Some(Vanished(path)) => self.damaged(path.clone(), "it is missing".to_owned()),
            None => vanished,
        }
    }

    fn vanished(&self, path: String) -> Error {
        Error::internal(Vanished(path))
    }

    /// Tells the operator of content that is not what its record says.
    fn damaged(&self, path: String, why: String) -> Error {
        self.metrics.damaged();
        tracing::error!(path, why, "stored content is damaged");
        Error::internal(Damaged { path, why })
    }
}

fn unreadable(store: &Store, path: &str, error: opendal::Error) -> Error {
    match error.kind() {
        ErrorKind::NotFound => store.vanished(path.to_owned()),
        ErrorKind::RangeNotSatisfied => {
            store.damaged(path.to_owned(), "it ends before the range that is read".to_owned())
        }
        _ => failure(error),
    }
}
