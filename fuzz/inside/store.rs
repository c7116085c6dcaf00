//! The target that tries records.

#![allow(clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use bytes::Bytes;
use serde_json::Value;

use super::record::{decode, encode};
use crate::attachment::Record;

/// The fields of a record that are known, at each level.
const KNOWN: [&str; 22] = [
    "format",
    "client_id",
    "attachment_id",
    "project_id",
    "portfolio_id",
    "registered_at",
    "registered_by",
    "state",
    "content",
    "deletion",
    "upload_id",
    "filename",
    "content_type",
    "size",
    "sha256",
    "segments",
    "created_at",
    "uploaded_by",
    "number",
    "deleted_at",
    "deleted_by",
    "undeletable_until",
];

/// A record that is read is written as one that reads the same, and fields that are not known are kept.
pub fn record(object: &[u8]) {
    let end = object.iter().position(|byte| *byte == b'\n').unwrap_or(object.len());
    let Ok(record) = Record::parse(&object[..end]) else { return };
    let stored = decode(Bytes::copy_from_slice(object), record.key).unwrap();
    assert_eq!(stored.record, record);
    assert_eq!(&stored.inline[..], object.get(end + 1..).unwrap_or_default());
    let old = serde_json::from_slice::<Value>(&object[..end]).unwrap();
    let new = serde_json::to_value(&record).unwrap();
    kept(&old, &new);
    if let Some(deletion) = old.get("deletion").filter(|deletion| !deletion.is_null()) {
        kept(deletion, &new["deletion"]);
    }
    if let Some(content) = old.get("content").filter(|content| !content.is_null()) {
        kept(content, &new["content"]);
        let segments = |content: &Value| content["segments"].as_array().cloned().unwrap_or_default();
        let (old, new) = (segments(content), segments(&new["content"]));
        assert_eq!(old.len(), new.len());
        old.iter().zip(&new).for_each(|(old, new)| kept(old, new));
    }
    // Inline content of another size than the record says is found when it is written or read.
    if let Ok(written) = encode(Some(&stored), &record, &[]) {
        let again = decode(written, record.key).unwrap();
        assert_eq!(again.record, record);
        assert!(again.inline.is_empty() || again.inline == stored.inline);
    }
}

fn kept(old: &Value, new: &Value) {
    for (name, value) in old.as_object().unwrap() {
        if !KNOWN.contains(&name.as_str()) {
            assert_eq!(new.get(name), Some(value), "{name}");
        }
    }
}
