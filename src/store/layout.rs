//! Storage layout 2: where everything lies below the root that is configured. No other module builds or reads a path of it.
//!
//! ```text
//! attachd.json                                                  {"layout":2}
//! clients/{client_id}/records/{attachment_id}                   the record, and small content behind it
//! clients/{client_id}/content/{attachment_id}/{upload_id}.{n}   larger content: immutable, n counts its segments from 0
//! ```
//!
//! The id of an attachment has 19 digits there, so that names sort as numbers do, and a listing of `records/` is the list of
//! attachments in the order of their ids.

use serde::{Deserialize, Serialize};

use crate::attachment::{Id, Key, SegmentId};

/// The object that says which layout a storage has.
pub const MARKER: &str = "attachd.json";

/// The folder of all clients.
pub const CLIENTS: &str = "clients/";

/// Where the storage is tried out.
pub const PROBE: &str = "probe";

/// The layout that this build reads and writes.
const LAYOUT: u32 = 2;

#[derive(Serialize, Deserialize)]
struct Marker {
    layout: u32,
}

/// What the marker of this layout says.
pub fn marker() -> Vec<u8> {
    format!("{{\"layout\":{LAYOUT}}}\n").into_bytes()
}

/// Checks what a marker says.
///
/// # Errors
/// Why this build cannot use the storage, for an operator.
pub fn check_marker(bytes: &[u8]) -> Result<(), String> {
    match serde_json::from_slice::<Marker>(bytes) {
        Ok(Marker { layout: LAYOUT }) => Ok(()),
        Ok(Marker { layout }) => Err(format!(
            "{MARKER} says that the storage has layout {layout}, and this version of attachd uses layout {LAYOUT}; use a version \
             for that layout, or another storage"
        )),
        Err(error) => Err(format!("{MARKER} is not one of attachd's: {error}; restore it: {{\"layout\":{LAYOUT}}}")),
    }
}

/// Why a storage without a marker is refused: it holds `other`.
pub fn not_a_storage(other: &str) -> String {
    let is_clients = other.trim_end_matches('/') == CLIENTS.trim_end_matches('/');
    if is_clients {
        return format!(
            "holds {CLIENTS} but no {MARKER}: it was written by another version of attachd, or the file was lost; if this \
             version wrote it, restore {MARKER}: {{\"layout\":{LAYOUT}}}"
        );
    }
    format!("holds no {MARKER}, but {other:?}: name the root of a storage, or an empty place for a new one")
}

/// The folder of a client's records.
pub fn records(client: Id) -> String {
    format!("{CLIENTS}{client}/records/")
}

/// The record of an attachment.
pub fn record(key: Key) -> String {
    format!("{CLIENTS}{}/records/{:019}", key.client, key.attachment.get())
}

/// The folder of all content of a client, with a folder for each attachment.
pub fn contents(client: Id) -> String {
    format!("{CLIENTS}{client}/content/")
}

/// The folder of an attachment's content.
pub fn content(key: Key) -> String {
    format!("{CLIENTS}{}/content/{:019}/", key.client, key.attachment.get())
}

/// An object that holds content of an attachment.
pub fn segment(key: Key, id: SegmentId) -> String {
    format!("{CLIENTS}{}/content/{:019}/{id}", key.client, key.attachment.get())
}

/// The client that a folder in [`CLIENTS`] is named after.
pub fn client_of(name: &str) -> Option<Id> {
    Id::parse("name", name).ok().filter(|id| id.to_string() == name)
}

/// The attachment that a record, or a folder of content, is named after.
pub fn attachment_of(name: &str) -> Option<Id> {
    Id::parse("name", name).ok().filter(|id| format!("{:019}", id.get()) == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_attachments_have_nineteen_digits_and_sort_as_numbers() {
        let key = |number| Key { client: Id::new("x", 42).unwrap(), attachment: Id::new("x", number).unwrap() };
        assert_eq!(record(key(7)), "clients/42/records/0000000000000000007");
        assert_eq!(record(key(i64::MAX)), "clients/42/records/9223372036854775807");
        assert!(record(key(9)) < record(key(10)));
        assert_eq!(attachment_of("0000000000000000007"), Id::new("x", 7).ok());
        for other in
            ["7", "0000000000000000000", "00000000000000000007", "9999999999999999999", "000000000000000000a", ""]
        {
            assert_eq!(attachment_of(other), None, "{other:?}");
        }
        assert_eq!(client_of("42"), Id::new("x", 42).ok());
        for other in ["042", "0", "-1", ""] {
            assert_eq!(client_of(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_marker_of_another_layout_is_refused() {
        check_marker(&marker()).unwrap();
        check_marker(br#"{"layout": 2, "note": "added later"}"#).unwrap();
        for layout in [1, 3] {
            let refused = check_marker(format!("{{\"layout\":{layout}}}").as_bytes()).unwrap_err();
            assert!(
                refused.starts_with(&format!("attachd.json says that the storage has layout {layout}")),
                "{refused}"
            );
        }
        for bad in ["", "{}", "layout: 2"] {
            assert!(
                check_marker(bad.as_bytes()).unwrap_err().starts_with("attachd.json is not one of attachd's"),
                "{bad}"
            );
        }
    }
}
