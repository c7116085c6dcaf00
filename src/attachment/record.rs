//! What is known of an attachment, in record format 2.
//!
//! A reader refuses a format that it does not know. It accepts fields that it does not know, and a rewrite keeps them: those of
//! the record always, those of the content and of the deletion as long as these stay.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::digest::Digest;
use super::id::{Id, Key, Target, UploadId};
use super::name::{Filename, MediaType};

/// The format that this build writes, and the only one that it reads.
const FORMAT: u32 = 2;

/// What is known of an attachment: the one small object that makes content visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Record {
    /// The attachment.
    pub key: Key,
    /// The project that it belongs to, if any.
    pub project_id: Option<Id>,
    /// The portfolio that it belongs to, if any.
    pub portfolio_id: Option<Id>,
    /// When it was registered.
    pub registered_at: OffsetDateTime,
    /// The subject of the token that registered it.
    pub registered_by: String,
    /// Whether it has content, and which.
    pub state: State,
    /// Fields of the record that this build does not know. Empty for a new one.
    pub other: Map<String, Value>,
}

/// Whether an attachment has content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Registered, without content.
    Registered,
    /// It has content.
    Stored(Content),
    /// It was deleted. The record stays for a while, so that a delete is compared and set like every other change.
    Deleted {
        /// When, and who did it.
        deletion: Deletion,
        /// The content that comes back if the deletion is undone.
        content: Option<Content>,
    },
}

/// The content that a record makes visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The upload that brought it.
    pub upload_id: UploadId,
    /// The name for people. Empty where none was given.
    pub filename: Filename,
    /// The declared media type.
    pub content_type: MediaType,
    /// The size in bytes: the sum of the segments, if there are any.
    pub size: u64,
    /// The digest of the bytes.
    pub sha256: Digest,
    /// The objects that hold the bytes, in order. If there is none, the bytes follow the record in its own object.
    pub segments: Vec<Segment>,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The subject of the token that stored it.
    pub uploaded_by: String,
    /// Fields of the content that this build does not know. Empty for new content.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// One object that holds bytes of the content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The number after the upload's id in the object's name, from 0.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// The digest of its bytes.
    pub sha256: Digest,
    /// Fields of the segment that this build does not know. Empty for a new one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// When an attachment was deleted, and who did it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// When it was deleted.
    #[serde(with = "time::serde::rfc3339")]
    pub deleted_at: OffsetDateTime,
    /// The subject of the token that deleted it.
    pub deleted_by: String,
    /// Until when the deletion can be undone. `None` if it cannot be.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub undeletable_until: Option<OffsetDateTime>,
    /// Fields of the deletion that this build does not know. Empty for a new one.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// The name of an object that holds content: `{upload_id}.{number}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SegmentId {
    /// The upload that wrote it.
    pub upload: UploadId,
    /// Its number among the objects of that upload, from 0.
    pub number: u32,
}

impl Record {
    /// A record without content for an attachment that is registered now.
    pub fn registered(target: Target, by: &str) -> Record {
        Record {
            key: target.key,
            project_id: target.project,
            portfolio_id: target.portfolio,
            registered_at: OffsetDateTime::now_utc(),
            registered_by: by.to_owned(),
            state: State::Registered,
            other: Map::new(),
        }
    }

    /// Reads a record from JSON.
    ///
    /// # Errors
    /// Why it is none, for an operator.
    pub fn parse(json: &[u8]) -> Result<Record, String> {
        serde_json::from_slice(json).map_err(|error| match serde_json::from_slice(json) {
            // Another format may lack any of the fields.
            Ok(Format { format }) if format != FORMAT => unknown(format),
            _ => error.to_string(),
        })
    }

    /// The record of the same attachment after its deletion now, which can be undone within `window`. With a window of zero it
    /// cannot be, and the content is given up.
    pub fn deleted(&self, by: &str, window: Duration) -> Record {
        let deleted_at = OffsetDateTime::now_utc();
        let undeletable_until = (!window.is_zero()).then(|| deleted_at + window);
        let content = self.content().filter(|_| undeletable_until.is_some()).cloned();
        let deletion = Deletion { deleted_at, deleted_by: by.to_owned(), undeletable_until, other: Map::new() };
        Record { state: State::Deleted { deletion, content }, ..self.clone() }
    }

    /// The record after its deletion is undone at `now`. `None` if it was not deleted, or cannot be undone (any more).
    pub fn undeleted(&self, now: OffsetDateTime) -> Option<Record> {
        let State::Deleted { deletion, content } = &self.state else { return None };
        deletion.undeletable_until.filter(|until| now <= *until)?;
        let state = content.clone().map_or(State::Registered, State::Stored);
        Some(Record { state, ..self.clone() })
    }

    /// The record of a deletion that can no longer be undone, without the content that it kept. `None` if there is nothing to
    /// give up yet.
    pub fn given_up(&self, now: OffsetDateTime) -> Option<Record> {
        let State::Deleted { deletion, content } = &self.state else { return None };
        deletion.undeletable_until.filter(|until| now > *until && content.is_some())?;
        let deletion = Deletion { undeletable_until: None, ..deletion.clone() };
        Some(Record { state: State::Deleted { deletion, content: None }, ..self.clone() })
    }

    /// The content that callers see, if there is any.
    pub fn content(&self) -> Option<&Content> {
        match &self.state {
            State::Stored(content) => Some(content),
            State::Registered | State::Deleted { .. } => None,
        }
    }

    /// The content that is kept for this record: what callers see, or what comes back if a deletion is undone.
    pub fn kept_content(&self) -> Option<&Content> {
        match &self.state {
            State::Deleted { content, .. } => content.as_ref(),
            State::Registered | State::Stored(_) => self.content(),
        }
    }

    /// When it was deleted, and who did it. To callers it is as if there were no record.
    pub fn deletion(&self) -> Option<&Deletion> {
        match &self.state {
            State::Deleted { deletion, .. } => Some(deletion),
            State::Registered | State::Stored(_) => None,
        }
    }

    /// Whether the attachment was deleted: to callers it is as if there were no record.
    pub fn is_deleted(&self) -> bool {
        self.deletion().is_some()
    }
}

impl Content {
    /// Whether the bytes follow the record in its own object.
    pub fn is_inline(&self) -> bool {
        self.segments.is_empty()
    }

    /// The names of the objects that hold the bytes, in order.
    pub fn segment_ids(&self) -> impl Iterator<Item = SegmentId> + '_ {
        self.segments.iter().map(|segment| SegmentId { upload: self.upload_id, number: segment.number })
    }
}

impl SegmentId {
    /// The one object that an upload writes.
    pub fn first(upload: UploadId) -> SegmentId {
        SegmentId { upload, number: 0 }
    }

    /// Reads a name in the one form in which it is written.
    pub fn parse(name: &str) -> Option<SegmentId> {
        let (upload, number) = name.split_once('.')?;
        let id = SegmentId { upload: UploadId::parse(upload)?, number: number.parse().ok()? };
        Some(id).filter(|id| id.to_string() == name)
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.upload, self.number)
    }
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

fn unknown(format: u32) -> String {
    format!("the record has format {format}, and this version of attachd reads format {FORMAT}")
}

/// A record as JSON.
#[derive(Serialize, Deserialize)]
struct Form {
    format: u32,
    client_id: Id,
    attachment_id: Id,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    project_id: Option<Id>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    portfolio_id: Option<Id>,
    #[serde(with = "time::serde::rfc3339")]
    registered_at: OffsetDateTime,
    registered_by: String,
    state: StateName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<Content>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<Deletion>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateName {
    Registered,
    Stored,
    Deleted,
}

impl TryFrom<Form> for Record {
    type Error = String;

    fn try_from(form: Form) -> Result<Record, String> {
        if form.format != FORMAT {
            return Err(unknown(form.format));
        }
        let state = match (form.state, form.content, form.deletion) {
            (StateName::Registered, None, None) => State::Registered,
            (StateName::Stored, Some(content), None) => State::Stored(content),
            // Without a time until which it comes back nobody would ever give the content up.
            (StateName::Deleted, content, Some(deletion))
                if content.is_none() || deletion.undeletable_until.is_some() =>
            {
                State::Deleted { deletion, content }
            }
            _ => return Err("the record's state does not go with its content".to_owned()),
        };
        Ok(Record {
            key: Key { client: form.client_id, attachment: form.attachment_id },
            project_id: form.project_id,
            portfolio_id: form.portfolio_id,
            registered_at: form.registered_at,
            registered_by: form.registered_by,
            state,
            other: form.other,
        })
    }
}

impl From<Record> for Form {
    fn from(record: Record) -> Form {
        let (state, content, deletion) = match record.state {
            State::Registered => (StateName::Registered, None, None),
            State::Stored(content) => (StateName::Stored, Some(content), None),
            State::Deleted { deletion, content } => (StateName::Deleted, content, Some(deletion)),
        };
        Form {
            format: FORMAT,
            client_id: record.key.client,
            attachment_id: record.key.attachment,
            project_id: record.project_id,
            portfolio_id: record.portfolio_id,
            registered_at: record.registered_at,
            registered_by: record.registered_by,
            state,
            content,
            deletion,
            other: record.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let id = |number| Id::new("x", number).unwrap();
        Target { key: Key { client: id(1), attachment: id(2) }, project: Some(id(3)), portfolio: None }
    }

    fn content() -> Content {
        Content {
            upload_id: UploadId::fresh(),
            filename: Filename::new("a.txt").unwrap(),
            content_type: MediaType::new("").unwrap(),
            size: 5,
            sha256: Digest::of([0xab; 32]),
            segments: vec![Segment { number: 0, size: 5, sha256: Digest::of([0xab; 32]), other: Map::new() }],
            created_at: OffsetDateTime::now_utc(),
            uploaded_by: "someone".to_owned(),
            other: Map::new(),
        }
    }

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    #[test]
    fn a_record_in_each_state_reads_back_as_it_was_written() {
        let registered = Record::registered(target(), "someone");
        let stored = Record { state: State::Stored(content()), ..registered.clone() };
        for (name, record) in [
            ("registered", registered.clone()),
            ("stored", stored.clone()),
            ("deleted", registered.deleted("someone", Duration::ZERO)),
            ("deleted", registered.deleted("someone", DAY)),
            ("deleted", stored.deleted("someone", Duration::ZERO)),
            ("deleted", stored.deleted("someone", DAY)),
        ] {
            let text = serde_json::to_string(&record).unwrap();
            assert!(text.contains(&format!(r#""state":"{name}""#)), "{text}");
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    #[test]
    fn a_deletion_is_undone_to_what_stood_until_its_time_and_not_after_it() {
        let registered =
            Record { other: Map::from_iter([("hold".to_owned(), "x".into())]), ..Record::registered(target(), "s") };
        let stored = Record { state: State::Stored(content()), ..registered.clone() };
        let tick = Duration::from_nanos(1);
        for record in [registered, stored] {
            assert_eq!(
                (record.undeleted(OffsetDateTime::now_utc()), record.given_up(OffsetDateTime::now_utc())),
                (None, None)
            );
            let deleted = record.deleted("someone", DAY);
            assert_eq!((deleted.content(), deleted.kept_content()), (None, record.content()));
            let until = deleted.deletion().unwrap().undeletable_until.unwrap();
            assert_eq!(until - deleted.deletion().unwrap().deleted_at, DAY);
            assert_eq!(deleted.undeleted(until - tick).as_ref(), Some(&record));
            assert_eq!((deleted.undeleted(until).as_ref(), deleted.given_up(until)), (Some(&record), None));
            assert_eq!(deleted.undeleted(until + tick), None);
            let given_up = deleted.given_up(until + tick);
            assert_eq!(given_up.is_some(), record.content().is_some(), "there is nothing to give up without content");
            if let Some(given_up) = given_up {
                assert_eq!((given_up.kept_content(), given_up.undeleted(until)), (None, None));
                assert_eq!(given_up.deletion().unwrap().deleted_at, deleted.deletion().unwrap().deleted_at);
            }
            let gone = record.deleted("someone", Duration::ZERO);
            assert_eq!((gone.kept_content(), gone.undeleted(OffsetDateTime::UNIX_EPOCH)), (None, None));
        }
    }

    #[test]
    fn fields_that_are_not_known_survive_at_each_level() {
        let record = Record { state: State::Stored(content()), ..Record::registered(target(), "someone") };
        let mut json = serde_json::to_value(&record).unwrap();
        json["hold"] = "legal".into();
        json["content"]["verdict"] = serde_json::json!({"engine": "clam", "clean": true});
        json["content"]["segments"][0]["key_id"] = 9_007_199_254_740_993_u64.into();
        let read: Record = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        // New content has nothing of the old one's, and the record keeps its own.
        let json = serde_json::to_value(Record { state: State::Stored(content()), ..read }).unwrap();
        assert_eq!(json["hold"], "legal");
        assert!(json["content"].get("verdict").is_none(), "{json}");
        // Those of a deletion stay when its content is given up.
        let deleted = Record::registered(target(), "someone").deleted("someone", DAY);
        let deleted = Record {
            state: State::Deleted { deletion: deleted.deletion().unwrap().clone(), content: Some(content()) },
            ..deleted
        };
        let mut json = serde_json::to_value(&deleted).unwrap();
        json["deletion"]["reason"] = "asked for".into();
        let read: Record = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), json);
        let given_up = read.given_up(OffsetDateTime::now_utc() + 2 * DAY).unwrap();
        assert_eq!(given_up.deletion().unwrap().other["reason"], "asked for");
    }

    #[test]
    fn a_fraction_in_a_field_that_is_not_known_survives_any_number_of_rewrites() {
        let text = serde_json::to_string(&Record::registered(target(), "someone")).unwrap();
        for number in ["1.30e50", "98446744073709551616", "0.1", "-1.5e300"] {
            let text = text.replacen('{', &format!(r#"{{"score":{number},"#), 1);
            let read = Record::parse(text.as_bytes()).unwrap();
            assert_eq!(read.other["score"].as_f64(), number.parse::<f64>().ok(), "{number}");
            let again = Record::parse(&serde_json::to_vec(&read).unwrap()).unwrap();
            assert_eq!(again, read, "{number}");
        }
    }

    #[test]
    fn another_format_and_a_state_without_its_fields_are_refused() {
        let record = Record { state: State::Stored(content()), ..Record::registered(target(), "someone") };
        let good = serde_json::to_value(record).unwrap();
        for (field, value, why) in [
            ("format", Value::from(3), "the record has format 3, and this version of attachd reads format 2"),
            ("format", Value::from(1), "the record has format 1, and this version of attachd reads format 2"),
            ("content", Value::Null, "the record's state does not go with its content"),
            ("state", "registered".into(), "the record's state does not go with its content"),
            ("state", "deleted".into(), "the record's state does not go with its content"),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            let error = Record::parse(bad.to_string().as_bytes()).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let error = Record::parse(br#"{"format":3}"#).unwrap_err();
        assert_eq!(error, "the record has format 3, and this version of attachd reads format 2");
    }

    #[test]
    fn a_segment_has_one_spelling() {
        let id = SegmentId { upload: UploadId::fresh(), number: 10 };
        let upload = id.upload;
        assert_eq!(SegmentId::parse(&id.to_string()), Some(id));
        for other in [
            format!("{upload}"),
            format!("{upload}."),
            format!("{upload}.01"),
            format!("{upload}.+1"),
            format!("{upload}.4294967296"),
        ] {
            assert_eq!(SegmentId::parse(&other), None, "{other:?}");
        }
    }
}
