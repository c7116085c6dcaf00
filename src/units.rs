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
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    /// Reads a time.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| de::Error::custom(format!("`{text}` is not a time such as `30s`: {error}")))
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
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    /// Reads a size.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        ByteSize::deserialize(deserializer)
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
