//! The ids of attachments, of what they belong to, and of uploads.

use std::fmt;
use std::num::NonZeroU64;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use uuid::{Uuid, Variant};

use crate::error::{Error, Result};

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
}
