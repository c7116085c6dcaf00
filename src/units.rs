//! How times and sizes are written: where they are configured, where they are shown, and what the reference calls them. It
//! knows no key.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A time in the schema of the configuration, for `#[schemars(with = "units::Time")]`.
#[derive(Debug)]
pub struct Time;

/// A size in the schema of the configuration, for `#[schemars(with = "units::Size")]`.
#[derive(Debug)]
pub struct Size;

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "time, such as `90s`" })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "bytes, such as `64MiB`" })
    }
}

/// A time such as `30s` or `1h 30m`, for `#[serde(with = "units::time")]`.
pub mod time {
    use std::fmt;
    use std::time::Duration;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(Written)
    }

    struct Written;

    impl Visitor<'_> for Written {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string such as \"30s\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text).map_err(|_| E::custom(refusal(text)))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Duration, E> {
            Err(E::custom(refusal(&number.to_string())))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<Duration, E> {
            Err(E::custom(refusal(&number.to_string())))
        }
    }

    /// What is wrong with a text that is no time, and what to write instead.
    fn refusal(text: &str) -> String {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return format!(
                "{text} has no unit; write \"{text}s\" if it is meant in seconds, or another unit: ms, m, h, d"
            );
        }
        format!("{text:?} is not a time; write a whole number with a unit, such as \"30s\" or \"1h 30m\"")
    }

    /// Writes a time, so that it reads back as the same.
    pub fn serialize<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*time))
    }
}

/// A time that may be left out, for `#[serde(with = "units::optional_time")]` beside `default`.
pub mod optional_time {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::time::deserialize(deserializer).map(Some)
    }

    /// Writes a time, so that it reads back as the same.
    pub fn serialize<S: Serializer>(time: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::time::serialize(time, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// A number of bytes, plain or such as `64MiB`, for `#[serde(with = "units::size")]`.
pub mod size {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// Reads a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(Written)
    }

    struct Written;

    impl Visitor<'_> for Written {
        type Value = ByteSize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of bytes, or a string such as \"64MiB\"")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
            text.parse().map_err(|_| E::custom(refusal(text)))
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<ByteSize, E> {
            Ok(ByteSize::b(bytes))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<ByteSize, E> {
            u64::try_from(bytes).map(ByteSize::b).map_err(|_| E::custom(refusal(&bytes.to_string())))
        }

        fn visit_f64<E: Error>(self, bytes: f64) -> Result<ByteSize, E> {
            Err(E::custom(refusal(&bytes.to_string())))
        }
    }

    /// What is wrong with a text that is no size, and what to write instead: its own number with the unit that it seems to
    /// mean, if it has both.
    fn refusal(text: &str) -> String {
        let text = text.trim();
        let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (number, unit) = text.split_at(digits);
        let unit = match unit.trim_start().chars().next().map(|first| first.to_ascii_lowercase()) {
            Some('b') => "B",
            Some('k') => "KiB",
            Some('m') => "MiB",
            Some('g') => "GiB",
            Some('t') => "TiB",
            _ => "",
        };
        let meant = format!("{number}{unit}");
        if !unit.is_empty() && meant.parse::<ByteSize>().is_ok() {
            return format!("{text:?} is not a size; write \"{meant}\"");
        }
        format!(
            "{text:?} is not a size; write a number of bytes, or a number with a unit, such as \"5GiB\" or \"64MiB\""
        )
    }

    /// Writes a size in the largest unit that leaves no remainder, so that it reads back as the same.
    pub fn serialize<S: Serializer>(size: &ByteSize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&exact(size.as_u64()))
    }

    /// A number of bytes as text, without rounding.
    pub fn exact(bytes: u64) -> String {
        let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let unit = units.iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
        unit.map_or_else(|| format!("{bytes}B"), |(unit, name)| format!("{}{name}", bytes / unit))
    }
}

/// A size that may be left out, for `#[serde(with = "units::optional_size")]` beside `default`.
pub mod optional_size {
    use bytesize::ByteSize;
    use serde::{Deserializer, Serializer};

    /// Reads a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ByteSize>, D::Error> {
        super::size::deserialize(deserializer).map(Some)
    }

    /// Writes a size, so that it reads back as the same.
    pub fn serialize<S: Serializer>(size: &Option<ByteSize>, serializer: S) -> Result<S::Ok, S::Error> {
        match size {
            Some(size) => super::size::serialize(size, serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytesize::ByteSize;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super::time")]
        time: Duration,
        #[serde(with = "super::size")]
        size: ByteSize,
    }

    #[test]
    fn a_time_or_size_that_is_none_is_answered_with_what_to_write() {
        let said = |time: &str, size: &str| {
            let read = toml::from_str::<Both>(&format!("time = {time}\nsize = {size}"));
            read.unwrap_err().message().to_owned()
        };
        for (time, mend) in [
            ("30", "30 has no unit; write \"30s\""),
            ("\"30\"", "30 has no unit; write \"30s\""),
            ("1.5", "\"1.5\" is not a time; write a whole number with a unit"),
            ("\"soon\"", "\"soon\" is not a time"),
            ("\"\"", "\"\" is not a time"),
            ("\"5 parsecs\"", "\"5 parsecs\" is not a time"),
        ] {
            assert!(said(time, "1").starts_with(mend), "{time}: {}", said(time, "1"));
        }
        for (size, mend) in [
            ("\"5 gigs\"", "\"5 gigs\" is not a size; write \"5GiB\""),
            ("\"64 megabytes\"", "\"64 megabytes\" is not a size; write \"64MiB\""),
            ("\"1.5 gigs\"", "\"1.5 gigs\" is not a size; write \"1.5GiB\""),
            ("\"7 bits\"", "\"7 bits\" is not a size; write \"7B\""),
            ("\"much\"", "\"much\" is not a size; write a number of bytes"),
            ("-1", "\"-1\" is not a size"),
            ("1.5", "\"1.5\" is not a size"),
            ("\"\"", "\"\" is not a size"),
        ] {
            assert!(said("\"1s\"", size).starts_with(mend), "{size}: {}", said("\"1s\"", size));
        }
    }

    #[test]
    fn what_is_written_reads_back_as_the_same() {
        for (seconds, bytes) in [(0, 0), (30, 1), (90, 1023), (3600, 1024), (21_600, 1025), (1, 5 << 30), (7, u64::MAX)]
        {
            let both = Both { time: Duration::from_secs(seconds), size: ByteSize::b(bytes) };
            let text = toml::to_string(&both).unwrap();
            assert_eq!(toml::from_str::<Both>(&text).unwrap(), both, "{text}");
        }
        assert_eq!(super::size::exact(5 << 30), "5GiB");
        assert_eq!(super::size::exact((5 << 30) + 1), "5368709121B");
    }
}
