//! The words of the domain: ids, names, digests, the record of an attachment. Every type here holds only values that were
//! found to be good, so whoever is handed one need not ask again. This module knows neither HTTP nor gRPC nor storage.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::{Uuid, Variant};

use crate::error::{Error, Result};

mod digest;
mod tags;

pub use digest::Digest;
pub use tags::Tags;

/// The longest file name and the longest media type, in bytes.
pub const NAME_BYTES: usize = 255;

/// The media type of content whose uploader named none (RFC 9110 §8.3).
pub const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// The number of a client, attachment, project or portfolio: 1 to 2^63−1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub struct Id(NonZeroU64);

impl Id {
    /// Reads a decimal number of ASCII digits: no sign, no space, no other notation. `field` names it in the error.
    pub fn parse(field: &'static str, text: &str) -> Result<Id> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Error::invalid_field(field, "must be a decimal integer"));
        }
        // All digits, so the one thing that can go wrong is the size.
        text.parse::<i64>().map_err(|_| Id::out_of_range(field)).and_then(|number| Id::new(field, number))
    }

    /// Takes a number in range. `field` names it in the error.
    pub fn new(field: &'static str, number: i64) -> Result<Id> {
        Id::try_from(number).map_err(|_| Id::out_of_range(field))
    }

    /// The number.
    pub fn get(self) -> i64 {
        self.0.get().cast_signed()
    }

    fn out_of_range(field: &'static str) -> Error {
        Error::invalid_field(field, "must be from 1 to 9223372036854775807")
    }
}

impl TryFrom<i64> for Id {
    type Error = &'static str;

    fn try_from(number: i64) -> Result<Id, &'static str> {
        u64::try_from(number).ok().and_then(NonZeroU64::new).map(Id).ok_or("an id is from 1 to 9223372036854775807")
    }
}

impl From<Id> for i64 {
    fn from(id: Id) -> i64 {
        id.get()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which attachment: its client and its id within the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client that the attachment belongs to.
    pub client: Id,
    /// The attachment's id, unique within the client.
    pub attachment: Id,
}

/// Which attachment a caller means, and the project and portfolio that it says the attachment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The attachment.
    pub key: Key,
    /// The project that the caller names, if it names one.
    pub project: Option<Id>,
    /// The portfolio that the caller names, if it names one.
    pub portfolio: Option<Id>,
}

/// The id of one upload: a UUIDv7 (RFC 9562), so that listings come in the order of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct UploadId(Uuid);

impl UploadId {
    /// An id that no upload has had.
    pub fn fresh() -> UploadId {
        UploadId(Uuid::now_v7())
    }

    /// Reads an id in the one form in which this program writes it. Anything else, another spelling of the same number
    /// included, is not an id of ours.
    pub fn parse(text: &str) -> Option<UploadId> {
        let uuid = Uuid::try_parse(text).ok()?;
        let ours = uuid.get_version() == Some(uuid::Version::SortRand) && uuid.get_variant() == Variant::RFC4122;
        Some(UploadId(uuid)).filter(|id| ours && id.to_string() == text)
    }

    /// How long before `now` the upload began, by the clock of the process that took it. Zero where that is yet to come.
    pub fn age(self, now: SystemTime) -> Duration {
        let (seconds, nanos) = self.0.get_timestamp().map(|time| time.to_unix()).unwrap_or((u64::MAX, 0));
        let begun = SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanos));
        begun.and_then(|begun| now.duration_since(begun).ok()).unwrap_or_default()
    }

    /// An id as if its upload had begun `age` before `now`.
    #[cfg(test)]
    pub fn aged(now: SystemTime, age: Duration) -> UploadId {
        let begun = (now - age).duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let time = uuid::Timestamp::from_unix(uuid::NoContext, begun.as_secs(), begun.subsec_nanos());
        UploadId(Uuid::new_v7(time))
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

/// A file's name, for people: at most 255 bytes of UTF-8 without control characters. Never a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filename(String);

impl Filename {
    /// Takes a name as a caller sent it. Of a path the last component is kept: some browsers send the whole path, and no later
    /// reader should be tempted by it (RFC 7578 §4.2). Slash and backslash both separate components, and are dropped at the
    /// end. `""`, `.` and `..` become the empty name.
    pub fn new(sent: &str) -> Result<Filename> {
        if sent.chars().any(char::is_control) {
            return Err(Error::invalid_field("filename", "must not hold control characters"));
        }
        let separators = ['/', '\\'];
        let name = sent.trim_end_matches(separators).rsplit(separators).next().unwrap_or_default();
        if name.len() > NAME_BYTES {
            return Err(Error::invalid_field("filename", format!("must be at most {NAME_BYTES} bytes")));
        }
        Ok(Filename(if matches!(name, "." | "..") { String::new() } else { name.to_owned() }))
    }

    /// The name. Empty where the uploader gave none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A media type as the uploader declared it: at most 255 bytes of visible ASCII and spaces, with a slash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaType(String);

impl MediaType {
    /// Takes a declared type; empty means [`DEFAULT_MEDIA_TYPE`].
    pub fn new(sent: &str) -> Result<MediaType> {
        let sent = sent.trim_matches([' ', '\t']);
        if sent.is_empty() {
            return Ok(MediaType(DEFAULT_MEDIA_TYPE.to_owned()));
        }
        if sent.len() > NAME_BYTES {
            return Err(Error::invalid_field("content_type", format!("must be at most {NAME_BYTES} bytes")));
        }
        let visible = sent.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t');
        if !visible || !sent.contains('/') {
            return Err(Error::invalid_field("content_type", "must be a media type such as text/plain"));
        }
        Ok(MediaType(sent.to_owned()))
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The version of the record's format that this build writes, and the only one that it reads.
pub const RECORD_FORMAT: u32 = 1;

/// What is known of an attachment: the one small object that makes content visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`RECORD_FORMAT`].
    pub format: u32,
    /// The client that the attachment belongs to.
    pub client_id: Id,
    /// The attachment's id, unique within the client.
    pub attachment_id: Id,
    /// The project that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_id: Option<Id>,
    /// The portfolio that it belongs to, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub portfolio_id: Option<Id>,
    /// When it became known.
    #[serde(with = "time::serde::rfc3339")]
    pub registered_at: OffsetDateTime,
    /// The subject of the token that made it known.
    pub registered_by: String,
    /// Whether it has content, and which.
    #[serde(flatten)]
    pub state: State,
}

impl Record {
    /// A record without content for an attachment that becomes known now.
    pub fn registered(target: Target, by: &str) -> Record {
        Record {
            format: RECORD_FORMAT,
            client_id: target.key.client,
            attachment_id: target.key.attachment,
            project_id: target.project,
            portfolio_id: target.portfolio,
            registered_at: OffsetDateTime::now_utc(),
            registered_by: by.to_owned(),
            state: State::Registered,
        }
    }

    /// The content, where there is any.
    pub fn content(&self) -> Option<&Content> {
        match &self.state {
            State::Stored(content) => Some(content),
            State::Registered => None,
        }
    }
}

/// Whether an attachment has content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// Known, without content.
    Registered,
    /// Known, with content.
    Stored(Content),
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
    /// The size in bytes: the sum of the segments.
    pub size: u64,
    /// The digest of the bytes.
    pub sha256: Digest,
    /// The objects that hold the bytes, in order.
    pub segments: Vec<Segment>,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The subject of the token that stored it.
    pub uploaded_by: String,
}

/// One object that holds bytes of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Its name below the attachment's `content/`.
    pub id: UploadId,
    /// Its size in bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_ascii_digits_from_one_to_the_largest_int64() {
        assert_eq!(Id::parse("x", "1").unwrap().get(), 1);
        assert_eq!(Id::parse("x", "0007").unwrap().get(), 7);
        assert_eq!(Id::parse("x", "9223372036854775807").unwrap().get(), i64::MAX);
        let long = "9".repeat(400);
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "1.0", "0x1", "1e3", "٣", "9223372036854775808", &long, ".."] {
            assert!(Id::parse("x", bad).is_err(), "{bad:?}");
        }
        assert!(Id::new("x", 0).is_err());
        assert!(Id::new("x", i64::MIN).is_err());
    }

    #[test]
    fn an_upload_id_has_one_spelling() {
        let id = UploadId::fresh();
        let text = id.to_string();
        assert_eq!(UploadId::parse(&text), Some(id));
        let four = "3b241101-e2bb-4255-8caf-4136c566a962";
        for other in
            [&text.to_uppercase(), &text.replace('-', ""), &format!("{{{text}}}"), &format!("{text} "), four, ""]
        {
            assert_eq!(UploadId::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn an_upload_id_tells_its_age_to_the_millisecond() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        let age = Duration::from_millis(86_400_001);
        assert_eq!(UploadId::aged(now, age).age(now), age);
        assert_eq!(
            UploadId::aged(now + age, Duration::ZERO).age(now),
            Duration::ZERO,
            "an id from the future is young"
        );
    }

    #[test]
    fn a_file_name_is_never_a_path() {
        for (sent, kept) in [
            ("a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            (r"C:\dir\x.doc", "x.doc"),
            ("..", ""),
            ("a/", "a"),
            (r"trailing\", "trailing"),
            (r"C:\dir\", "dir"),
            (r"a\/\", "a"),
            ("../", ""),
            ("/", ""),
            ("", ""),
            ("résumé 📎.pdf", "résumé 📎.pdf"),
            ("a\u{202e}fdp.exe", "a\u{202e}fdp.exe"),
        ] {
            assert_eq!(Filename::new(sent).unwrap().as_str(), kept, "{sent:?}");
        }
        assert!(Filename::new("a\0b").is_err());
        assert!(Filename::new("a\r\nb").is_err());
        assert!(Filename::new(&"a".repeat(NAME_BYTES - 1)).is_ok());
        assert!(Filename::new(&"a".repeat(NAME_BYTES)).is_ok());
        assert!(Filename::new(&"a".repeat(NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn a_media_type_is_visible_ascii_with_a_slash_and_has_a_default() {
        assert_eq!(MediaType::new("").unwrap().as_str(), DEFAULT_MEDIA_TYPE);
        assert_eq!(MediaType::new("text/plain; charset=utf-8").unwrap().as_str(), "text/plain; charset=utf-8");
        for bad in ["text", "text/plain\r\nx: y", "text/plaïn"] {
            assert!(MediaType::new(bad).is_err(), "{bad:?}");
        }
        let long = |length: usize| format!("a/{}", "b".repeat(length - 2));
        assert!(MediaType::new(&long(NAME_BYTES - 1)).is_ok());
        assert!(MediaType::new(&long(NAME_BYTES)).is_ok());
        assert!(MediaType::new(&long(NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let id = |number| Id::new("x", number).unwrap();
        let target = Target { key: Key { client: id(1), attachment: id(2) }, project: Some(id(3)), portfolio: None };
        let mut record = Record::registered(target, "someone");
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(r#""state":"registered""#), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);

        let upload = UploadId::fresh();
        record.state = State::Stored(Content {
            upload_id: upload,
            filename: Filename::new("a.txt").unwrap(),
            content_type: MediaType::new("").unwrap(),
            size: 5,
            sha256: Digest::of([0xab; 32]),
            segments: vec![Segment { id: upload, size: 5 }],
            created_at: OffsetDateTime::now_utc(),
            uploaded_by: "someone".to_owned(),
        });
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.contains(&format!(r#""sha256":"{}""#, "ab".repeat(32))), "{text}");
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
