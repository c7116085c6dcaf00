//! A record as an object of the storage: one line of JSON, and the bytes of small content behind it.

use bytes::Bytes;

use crate::attachment::{Key, Record};
use crate::error::{Error, Result};

/// What a record takes without content, in most cases, in bytes.
const LENGTH: usize = 1 << 10;

/// A record and the content in its object.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The record.
    pub record: Record,
    /// All bytes behind it. Where the record says that its content is there, they are it, if nothing has damaged them.
    pub inline: Bytes,
}

/// Writes the record that is to stand in place of `old`. The bytes of inline content are `fresh`, unless it is the content that
/// `old` has.
///
/// # Errors
/// [`crate::error::Kind::Internal`].
pub fn encode(old: Option<&Stored>, new: &Record, fresh: &[Bytes]) -> Result<Bytes> {
    let kept = old.map(|old| std::slice::from_ref(&old.inline));
    let inline = match (new.content(), old.and_then(|old| old.record.content())) {
        (Some(content), _) if !content.is_inline() => &[],
        (Some(new), Some(old)) if new.upload_id == old.upload_id => kept.unwrap_or_default(),
        (Some(_), _) => fresh,
        (None, _) => &[],
    };
    let mut bytes = Vec::with_capacity(LENGTH + inline.iter().map(Bytes::len).sum::<usize>());
    serde_json::to_writer(&mut bytes, new).map_err(Error::internal)?;
    bytes.push(b'\n');
    inline.iter().for_each(|piece| bytes.extend_from_slice(piece));
    Ok(bytes.into())
}

/// Reads the record of `key`.
///
/// # Errors
/// [`crate::error::Kind::Internal`] if it is not one of this version of attachd, or of another attachment.
pub fn decode(bytes: Bytes, key: Key) -> Result<Stored> {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let record = Record::parse(&bytes[..end]).map_err(Error::internal)?;
    if record.key != key {
        return Err(Error::internal("a record lies under the key of another attachment"));
    }
    let inline = bytes.slice((end + 1).min(bytes.len())..);
    Ok(Stored { record, inline })
}
