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
/// [`crate::error::Kind::Internal`] if the bytes at hand are not as many as the record says.
pub fn encode(old: Option<&Stored>, new: &Record, fresh: &[Bytes]) -> Result<Bytes> {
    let kept = old.map(|old| std::slice::from_ref(&old.inline));
    let inline = match (new.kept_content(), old.and_then(|old| old.record.kept_content())) {
        (Some(content), _) if !content.is_inline() => &[],
        (Some(new), Some(old)) if new.upload_id == old.upload_id => kept.unwrap_or_default(),
        (Some(_), _) => fresh,
        (None, _) => &[],
    };
    let length = inline.iter().map(Bytes::len).sum::<usize>();
    if new.kept_content().is_some_and(|content| content.is_inline() && content.size != length as u64) {
        return Err(Error::internal("a record would be put without all of its content"));
    }
    let mut bytes = Vec::with_capacity(LENGTH + length);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{Content, Digest, Filename, Id, MediaType, Segment, State, Target, UploadId};

    fn key() -> Key {
        Key { client: Id::new("x", 1).unwrap(), attachment: Id::new("x", 2).unwrap() }
    }

    fn registered() -> Record {
        Record::registered(Target { key: key(), project: None, portfolio: None }, "someone")
    }

    /// A record of content of so many bytes, in an object of its own or not.
    fn stored(size: u64, in_object: bool) -> Record {
        let sha256 = Digest::of([1; 32]);
        let segment = Segment { number: 0, size, sha256, other: serde_json::Map::new() };
        let content = Content {
            upload_id: UploadId::fresh(),
            filename: Filename::new("a.txt").unwrap(),
            content_type: MediaType::new("").unwrap(),
            size,
            sha256,
            segments: if in_object { vec![segment] } else { Vec::new() },
            created_at: time::OffsetDateTime::now_utc(),
            uploaded_by: "line\nfeed".to_owned(),
            other: serde_json::Map::new(),
        };
        Record { state: State::Stored(content), ..registered() }
    }

    #[test]
    fn small_content_follows_the_first_line_feed_byte_for_byte() {
        let record = stored(8, false);
        let bytes = encode(None, &record, &["\n{}\0".into(), "\nabc".into()]).unwrap();
        let read = decode(bytes, key()).unwrap();
        assert_eq!((read.record, &read.inline[..]), (record, &b"\n{}\0\nabc"[..]));
        for record in [registered(), stored(8, true)] {
            let read = decode(encode(None, &record, &["not its own".into()]).unwrap(), key()).unwrap();
            assert_eq!((read.record, read.inline.len()), (record, 0));
        }
    }

    #[test]
    fn a_change_of_the_record_carries_small_content_over_and_other_content_replaces_it() {
        let old = decode(encode(None, &stored(3, false), &["old".into()]).unwrap(), key()).unwrap();
        let changed = Record { project_id: Id::new("x", 9).ok(), ..old.record.clone() };
        let read = decode(encode(Some(&old), &changed, &[]).unwrap(), key()).unwrap();
        assert_eq!((read.record, &read.inline[..]), (changed, &b"old"[..]));
        let read = decode(encode(Some(&old), &stored(5, false), &["newer".into()]).unwrap(), key()).unwrap();
        assert_eq!(&read.inline[..], b"newer");
        let read = decode(encode(Some(&old), &stored(5, true), &[]).unwrap(), key()).unwrap();
        assert!(read.inline.is_empty());
    }

    #[test]
    fn no_record_is_put_without_all_of_its_content() {
        let whole = decode(encode(None, &stored(3, false), &["old".into()]).unwrap(), key()).unwrap();
        let cut = Stored { inline: Bytes::from_static(b"ol"), ..whole.clone() };
        encode(Some(&cut), &whole.record, &[]).unwrap_err();
        for given in ["", "ol", "olds"] {
            encode(None, &whole.record, &[given.into()]).unwrap_err();
        }
    }

    #[test]
    fn a_record_under_the_key_of_another_attachment_is_refused() {
        let other = Key { attachment: Id::new("x", 3).unwrap(), ..key() };
        decode(encode(None, &registered(), &[]).unwrap(), other).unwrap_err();
    }
}
