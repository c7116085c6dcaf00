//! Values of fields as text: what stands in a path, a query, a header or a JSON string becomes JSON that prost-reflect reads.
//! Integers are ASCII digits with an optional minus sign, and nothing else. This module knows single values, and no message.

use std::ops::RangeInclusive;

use prost_reflect::{EnumDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::error::{Error, Result};

/// How many names of an enumeration an error text lists.
const NAMED: usize = 16;

/// The messages that are written as their one value.
pub const WRAPPERS: [(&str, Kind); 9] = [
    ("google.protobuf.BoolValue", Kind::Bool),
    ("google.protobuf.BytesValue", Kind::Bytes),
    ("google.protobuf.DoubleValue", Kind::Double),
    ("google.protobuf.FloatValue", Kind::Float),
    ("google.protobuf.Int32Value", Kind::Int32),
    ("google.protobuf.Int64Value", Kind::Int64),
    ("google.protobuf.StringValue", Kind::String),
    ("google.protobuf.UInt32Value", Kind::Uint32),
    ("google.protobuf.UInt64Value", Kind::Uint64),
];

/// The messages that are written as a text.
const TEXTS: [(&str, &str); 3] = [
    ("google.protobuf.Timestamp", "a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
    ("google.protobuf.Duration", "a duration in seconds such as 1.5s"),
    ("google.protobuf.FieldMask", "names of fields, separated by commas"),
];

/// Whether ProtoJSON has a form of its own for a message.
pub fn is_well_known(message: &MessageDescriptor) -> bool {
    message.package_name() == "google.protobuf"
}

/// Whether a value of this kind can be written as text.
pub fn is_text(kind: &Kind) -> bool {
    let Kind::Message(message) = kind else {
        return true;
    };
    wrapped(message).is_some() || TEXTS.iter().any(|(name, _)| *name == message.full_name())
}

/// What a wrapper wraps.
fn wrapped(message: &MessageDescriptor) -> Option<&'static Kind> {
    WRAPPERS.iter().find(|(name, _)| *name == message.full_name()).map(|(_, kind)| kind)
}

/// The integers that a kind holds. None if it is not one of integers.
pub fn range(kind: &Kind) -> Option<RangeInclusive<i128>> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Some(i32::MIN.into()..=i32::MAX.into()),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Some(i64::MIN.into()..=i64::MAX.into()),
        Kind::Uint32 | Kind::Fixed32 => Some(0..=u32::MAX.into()),
        Kind::Uint64 | Kind::Fixed64 => Some(0..=u64::MAX.into()),
        _ => None,
    }
}

/// A text as the JSON of a kind. What the text says beyond its form is judged when the JSON is read. `path` names the field.
///
/// # Errors
/// [`crate::error::Kind::Invalid`].
pub fn json(path: &str, kind: &Kind, text: &str) -> Result<Value> {
    let wrong = |what: String| Error::invalid_field(path.to_owned(), what);
    if let Some(range) = range(kind) {
        let digits = text.strip_prefix('-').unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong("must be a decimal integer".to_owned()));
        }
        // All digits, so what does not fit is out of range.
        if !text.parse().is_ok_and(|number: i128| range.contains(&number)) {
            return Err(wrong(format!("must be from {} to {}", range.start(), range.end())));
        }
        return Ok(text.into());
    }
    match kind {
        Kind::Bool => match text {
            "true" => Ok(true.into()),
            "false" => Ok(false.into()),
            _ => Err(wrong(format!("must be {}", expected(kind)))),
        },
        Kind::Double | Kind::Float => {
            let number = text.strip_prefix('-').unwrap_or(text);
            let is_named = ["Infinity", "NaN"].contains(&number) && text != "-NaN";
            // As JSON writes numbers: `+1`, `.5` and `inf`, which Rust reads too, are none.
            let is_number = number.starts_with(|first: char| first.is_ascii_digit())
                && text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
            if is_named || is_number { Ok(text.into()) } else { Err(wrong(format!("must be {}", expected(kind)))) }
        }
        Kind::Enum(values) => Ok(text.parse::<i32>().map_or_else(|_| whole_name(values, text).into(), Value::from)),
        Kind::Message(message) => match wrapped(message) {
            Some(inner) => json(path, inner, text),
            None => Ok(text.into()),
        },
        _ => Ok(text.into()),
    }
}

/// The name of a value of an enumeration, which may be written without what all its names begin with: `FULL` for
/// `ATTACHMENT_VIEW_FULL`. What all begin with is known by the value 0, whose name ends with `UNSPECIFIED`.
fn whole_name(values: &EnumDescriptor, text: &str) -> String {
    let zero = values.get_value(0).and_then(|zero| zero.name().strip_suffix("UNSPECIFIED").map(str::to_owned));
    let whole = zero.map(|beginning| beginning + text);
    whole.filter(|whole| values.get_value_by_name(whole).is_some()).unwrap_or_else(|| text.to_owned())
}

/// What a value of a kind must be, in words for the caller.
pub fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".to_owned(),
        Kind::Double | Kind::Float => "a number".to_owned(),
        Kind::String => "a text".to_owned(),
        Kind::Bytes => "bytes in base64".to_owned(),
        Kind::Enum(values) => {
            let names: Vec<_> = values.values().map(|value| value.name().to_owned()).take(NAMED).collect();
            format!("one of {}", names.join(", "))
        }
        Kind::Message(message) => match (wrapped(message), TEXTS.iter().find(|(name, _)| *name == message.full_name()))
        {
            (Some(inner), _) => expected(inner),
            (None, Some((_, text))) => (*text).to_owned(),
            (None, None) => "a JSON object".to_owned(),
        },
        _ => "an integer".to_owned(),
    }
}
