//! What a commit begins with and comes to: content that is complete, and what stands and was replaced after it.

use bytes::Bytes;

use super::commit::{Refusal, Replacement};
use super::hash::{Hash, length};
use crate::attachment::{Digest, Key, Record, Segment, SegmentId, UploadId};
use crate::error::Result;

/// What was written of a content.
pub struct Written {
    /// The attachment that it is for.
    pub key: Key,
    /// The upload.
    pub id: UploadId,
    /// How many bytes.
    pub size: u64,
    /// Their digest.
    pub hash: Hash,
    /// Whether nothing was written, and what is to come is put with the record.
    pub inline: bool,
}

/// Content that is complete and verified, for the record that is to name it.
#[derive(Clone, Debug)]
pub struct Sealed {
    /// The upload that brought it.
    pub upload_id: UploadId,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
    /// The objects that hold it. None if it is put with the record.
    pub segments: Vec<Segment>,
}

impl Sealed {
    /// Content that is put with its record, in one object, once `verify` has nothing against its size and digest.
    pub(super) fn inline<V>(upload_id: UploadId, content: &[Bytes], verify: V) -> Result<Sealed>
    where
        V: FnOnce(u64, Digest) -> Result<()>,
    {
        let (size, mut hash) = (length(content), Hash::default());
        content.iter().for_each(|bytes| hash.update(bytes));
        let sha256 = hash.finish();
        verify(size, sha256)?;
        Ok(Sealed { upload_id, size, sha256, segments: Vec::new() })
    }

    /// Content in the first object of its upload.
    pub(super) fn in_object(upload_id: UploadId, size: u64, sha256: Digest) -> Sealed {
        let segment = Segment { number: 0, size, sha256, other: serde_json::Map::new() };
        Sealed { upload_id, size, sha256, segments: vec![segment] }
    }
}

/// How a commit ended.
pub enum Committed {
    /// The record stands.
    Stands(Box<Replacement>),
    /// It does not, and there may be content.
    Closed(Refusal),
    /// It does not, and there is no content.
    Refused(Refusal),
}

impl Committed {
    /// What became of the put of the record that names `sealed`.
    pub(super) fn of(replaced: Result<Replacement, Refusal>, sealed: &Sealed) -> Committed {
        match replaced {
            Ok(replacement) => Committed::Stands(Box::new(replacement)),
            Err(refusal) if sealed.segments.is_empty() => Committed::Refused(refusal),
            Err(refusal) => Committed::Closed(refusal),
        }
    }
}

/// Proof that content is stored: it can only come from a commit.
#[derive(Debug)]
pub struct Receipt {
    pub(super) record: Record,
    pub(super) replaced: Replaced,
}

impl Receipt {
    /// The record as it is stored.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Takes out what the commit replaced, for [`Store::retire`](crate::store::Store::retire).
    pub fn take_replaced(&mut self) -> Replaced {
        let segments = std::mem::take(&mut self.replaced.segments);
        Replaced { key: self.replaced.key, segments }
    }
}

/// What a change of a record came to.
#[derive(Debug)]
pub struct Updated {
    /// The record that stands, if there is one.
    pub record: Option<Record>,
    /// The content that it replaced.
    pub replaced: Replaced,
}

impl Updated {
    pub(super) fn of(key: Key, Replacement { old, new }: Replacement) -> Updated {
        let replaced = Replaced::between(key, old.as_ref(), new.as_ref());
        Updated { record: new.or(old), replaced }
    }
}

/// Content that a commit replaced and no record names any more.
#[derive(Debug)]
pub struct Replaced {
    pub(super) key: Key,
    pub(super) segments: Vec<SegmentId>,
}

impl Replaced {
    /// The content that `old` kept and `new` does not, if there is a new record.
    pub(super) fn between(key: Key, old: Option<&Record>, new: Option<&Record>) -> Replaced {
        let upload = |record: &Record| record.kept_content().map(|content| content.upload_id);
        let gone = old.filter(|old| new.is_some_and(|new| upload(new) != upload(old)));
        let segments = gone.and_then(Record::kept_content).map(|content| content.segment_ids().collect());
        Replaced { key, segments: segments.unwrap_or_default() }
    }

    /// Whether the commit replaced nothing.
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }
}
