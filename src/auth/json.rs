//! The JSON of a token. An object that has the same member twice is an error, at whatever depth: two readers of one token
//! must not be able to read it differently. That is stricter than RFC 7515 §4 and RFC 7519 §4 demand. What is wrong with a
//! text is said in fixed words, so that no part of it reaches the log. This file must not know what a member means.

use std::cell::Cell;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep objects and lists may be nested, the outermost included.
const MAX_DEPTH: usize = 64;

/// What is wrong with a part of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is base64url with padding.
    Padded,
    /// It is not base64url.
    NotBase64url,
    /// Its bytes are not UTF-8.
    NotUtf8,
    /// An object has the same member twice.
    Duplicate,
    /// It is nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A string has one half of a surrogate pair.
    LoneSurrogate,
    /// A number is NaN or Infinity.
    NotANumber,
    /// It is not JSON in some other way.
    NotJson,
    /// It is JSON, but not an object.
    NotAnObject,
}

impl Fault {
    /// The fault as the end of a sentence about the part.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Fault::Padded => "is base64url with padding (`=`), and RFC 7515 wants it without",
            Fault::NotBase64url => "is not base64url",
            Fault::NotUtf8 => "is not UTF-8",
            Fault::Duplicate => "has a duplicate member: one name comes twice in an object",
            Fault::TooDeep => "is nested more than 64 levels deep",
            Fault::LoneSurrogate => "has a lone surrogate in a string: `\\ud800` to `\\udfff` come in pairs",
            Fault::NotANumber => "has NaN or Infinity, which are not JSON numbers",
            Fault::NotJson => "is not valid JSON",
            Fault::NotAnObject => "is not a JSON object",
        }
    }
}

/// The bytes of a part of a token: base64url without padding (RFC 7515 §2).
pub(super) fn decode(part: &str) -> Result<Vec<u8>, Fault> {
    let fault = if part.contains('=') { Fault::Padded } else { Fault::NotBase64url };
    URL_SAFE_NO_PAD.decode(part).map_err(|_| fault)
}

/// The members of a JSON object.
pub(super) fn object(json: &[u8]) -> Result<Map<String, Value>, Fault> {
    let text = std::str::from_utf8(json).map_err(|_| Fault::NotUtf8)?;
    let fault = Cell::new(None);
    let mut reader = serde_json::Deserializer::from_str(text);
    let read = Strict { depth: 0, fault: &fault }.deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Fault::NotAnObject),
        // The library's words may quote the text, and change.
        Err(_) => Err(fault.get().unwrap_or_else(|| diagnose(text.as_bytes()))),
    }
}

/// What is wrong with a text that is known not to be JSON, as far as there are words for it.
fn diagnose(text: &[u8]) -> Fault {
    let begins = |at: usize, word: &[u8]| text.get(at..).is_some_and(|rest| rest.starts_with(word));
    let (mut at, mut in_string) = (0, false);
    while let Some(byte) = text.get(at) {
        match (in_string, byte) {
            (_, b'"') => in_string = !in_string,
            (true, b'\\') => match (unit(text, at), unit(text, at + 6)) {
                (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => at += 11,
                (Some(0xd800..=0xdfff), _) => return Fault::LoneSurrogate,
                _ => at += 1,
            },
            (false, _) if begins(at, b"NaN") || begins(at, b"Infinity") => return Fault::NotANumber,
            _ => {}
        }
        at += 1;
    }
    Fault::NotJson
}

/// The UTF-16 code unit of an escape such as `\u00e9` that begins at `at`, if one does.
fn unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads a value within `depth` others, and remembers why it could not.
struct Strict<'a> {
    depth: usize,
    fault: &'a Cell<Option<Fault>>,
}

impl Strict<'_> {
    fn fails<E: Error>(&self, fault: Fault) -> E {
        self.fault.set(Some(fault));
        E::custom(fault.as_str())
    }

    /// The reader of what is within an object or a list.
    fn within<E: Error>(&self) -> Result<Self, E> {
        match self.depth {
            MAX_DEPTH => Err(self.fails(Fault::TooDeep)),
            depth => Ok(Strict { depth: depth + 1, fault: self.fault }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self.within()?)? {
            array.push(item);
        }
        Ok(array.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value_seed(self.within()?)?;
            if members.insert(name, value).is_some() {
                return Err(self.fails(Fault::Duplicate));
            }
        }
        Ok(members.into())
    }
}
