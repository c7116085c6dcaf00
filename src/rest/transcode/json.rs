//! JSON ↔ messages, by the rules of ProtoJSON. prost-reflect converts; before it does, the JSON is judged here, so that nothing
//! in it is ignored or guessed: keys that are given twice, fields that do not exist, numbers that lose digits. This module must
//! not know where in a request the JSON was.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, SerializeOptions};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::{Map, Value};
use serde_path_to_error::{Path, Segment, Track};

use super::field::{self, WRAPPERS};
use crate::error::{Error, Result};
use crate::rest::query::quoted;

/// How many objects and lists may stand within each other.
pub const MAX_DEPTH: usize = 32;

/// How many fields an error text names.
const NAMED: usize = 16;

/// From 2^53 on not every integer is a double, so a number that is written with a point or an exponent is taken up to here.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Reads JSON.
///
/// # Errors
/// [`crate::error::Kind::Invalid`], which says where it is wrong.
pub fn parse(text: &[u8]) -> Result<Value> {
    let problem = RefCell::new(None);
    let mut reader = serde_json::Deserializer::from_slice(text);
    let read = Strict { depth: 0, problem: &problem }.deserialize(&mut reader);
    read.and_then(|value| reader.end().map(|()| value)).map_err(|error| {
        let what = problem.take().unwrap_or_else(|| "the body is not valid JSON".to_owned());
        Error::invalid(format!("{what} (line {}, column {})", error.line(), error.column())).because(error)
    })
}

/// Reads a value whose objects have each key once, and that is not too deep.
#[derive(Clone, Copy)]
struct Strict<'a> {
    /// How many objects and lists are around it.
    depth: usize,
    /// What was found that is valid JSON, and not taken.
    problem: &'a RefCell<Option<String>>,
}

impl Strict<'_> {
    fn within<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(self.refused(format!("the body has more than {MAX_DEPTH} objects and lists within each other")));
        }
        Ok(Strict { depth: self.depth + 1, ..self })
    }

    fn refused<E: serde::de::Error>(self, what: String) -> E {
        *self.problem.borrow_mut() = Some(what);
        E::custom("it is not taken")
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

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let (within, mut values) = (self.within()?, Vec::new());
        while let Some(value) = list.next_element_seed(within)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Value, A::Error> {
        let (within, mut members) = (self.within()?, Map::new());
        while let Some(key) = object.next_key::<String>()? {
            if members.contains_key(&key) {
                return Err(self.refused(format!("the key {} is given twice", quoted(&key))));
            }
            members.insert(key, object.next_value_seed(within)?);
        }
        Ok(Value::Object(members))
    }
}

/// Reads the message that an object is.
///
/// # Errors
/// [`crate::error::Kind::Invalid`], which names the field by its path.
pub fn message(descriptor: &MessageDescriptor, value: &Value) -> Result<DynamicMessage> {
    judge_message("", descriptor, value)?;
    let mut track = Track::new();
    let reader = serde_path_to_error::Deserializer::new(value, &mut track);
    let read = DynamicMessage::deserialize_with_options(descriptor.clone(), reader, &DeserializeOptions::new());
    read.map_err(|error| {
        let (name, expected) = expected(descriptor, &track.path());
        Error::invalid_field(name, format!("must be {expected}")).because(error)
    })
}

/// Judges the fields of an object whose path is `at`.
fn judge_message(at: &str, descriptor: &MessageDescriptor, value: &Value) -> Result<()> {
    if let Some((_, inner)) = WRAPPERS.iter().find(|(name, _)| *name == descriptor.full_name()) {
        return judge(at, inner, value);
    }
    if field::is_well_known(descriptor) {
        return Ok(());
    }
    let Value::Object(members) = value else {
        return Err(about(at, "must be a JSON object"));
    };
    let mut unknown = Vec::new();
    let (mut seen, mut chosen) = (HashSet::new(), HashSet::new());
    for (key, value) in members {
        let known = descriptor.get_field_by_json_name(key).or_else(|| descriptor.get_field_by_name(key));
        let Some(known) = known else {
            unknown.push(quoted(&below(at, key)));
            continue;
        };
        let path = below(at, known.name());
        if !seen.insert(known.number()) {
            return Err(Error::invalid_field(path, "must be given once"));
        }
        if value.is_null() {
            continue;
        }
        if let Some(choice) = known.containing_oneof()
            && !chosen.insert(choice.name().to_owned())
        {
            let names: Vec<_> = choice.fields().map(|field| field.name().to_owned()).collect();
            let names = names.join(", ");
            return Err(match at {
                "" => Error::invalid(format!("only one of {names} may be given")),
                _ => about(at, format!("may have only one of {names}")),
            });
        }
        judge_field(&path, &known, value)?;
    }
    if unknown.is_empty() {
        return Ok(());
    }
    unknown.truncate(NAMED);
    let there: Vec<_> = descriptor.fields().map(|field| field.name().to_owned()).take(NAMED).collect();
    let there = if there.is_empty() { "there are none".to_owned() } else { format!("there are {}", there.join(", ")) };
    Err(Error::invalid(format!("the body has fields that do not exist: {}; {there}", unknown.join(", "))))
}

fn judge_field(path: &str, field: &FieldDescriptor, value: &Value) -> Result<()> {
    let kind = field.kind();
    if field.is_map() {
        let Value::Object(entries) = value else {
            return Err(about(path, "must be a JSON object"));
        };
        let Some(entry) = kind.as_message() else {
            return Ok(());
        };
        let (keys, values) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        return entries.iter().try_for_each(|(key, value)| {
            let path = below(path, key);
            field::json(&path, &keys, key)?;
            judge(&path, &values, value)
        });
    }
    if field.is_list() {
        let Value::Array(items) = value else {
            return Err(about(path, "must be a list"));
        };
        return items.iter().enumerate().try_for_each(|(at, value)| judge(&format!("{path}[{at}]"), &kind, value));
    }
    judge(path, &kind, value)
}

/// Judges one value that is not a list.
fn judge(path: &str, kind: &Kind, value: &Value) -> Result<()> {
    if let Kind::Message(message) = kind {
        return judge_message(path, message, value);
    }
    if field::range(kind).is_none() {
        return Ok(());
    }
    match value {
        Value::String(text) => field::json(path, kind, text).map(|_| ()),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(double) if double.fract() != 0.0 || double.abs() > EXACT => Err(about(path, "must be an integer")),
            Some(double) => field::json(path, kind, &format!("{double:.0}")).map(|_| ()),
            None => field::json(path, kind, &number.to_string()).map(|_| ()),
        },
        _ => Err(about(path, "must be an integer")),
    }
}

/// The path of a member of what is at `at`.
fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

/// A broken rule of the value at `at`.
fn about(at: &str, what: impl Into<String>) -> Error {
    if at.is_empty() {
        Error::invalid(format!("the body {}", what.into()))
    } else {
        Error::invalid_field(at.to_owned(), what.into())
    }
}

/// The name of the field at a path of JSON, and what its value must be.
fn expected(descriptor: &MessageDescriptor, path: &Path) -> (String, String) {
    let (mut name, mut kind) = (String::new(), Kind::Message(descriptor.clone()));
    for segment in path.iter() {
        match (segment, &kind) {
            (Segment::Seq { index }, _) => name.push_str(&format!("[{index}]")),
            (Segment::Map { key }, Kind::Message(message)) if message.is_map_entry() => {
                name = below(&name, key);
                kind = message.map_entry_value_field().kind();
            }
            (Segment::Map { key }, Kind::Message(message)) if !field::is_well_known(message) => {
                let known = message.get_field_by_json_name(key).or_else(|| message.get_field_by_name(key));
                let Some(known) = known else { break };
                name = below(&name, known.name());
                kind = known.kind();
            }
            _ => break,
        }
    }
    (name, field::expected(&kind))
}

/// A message as ProtoJSON with the names of the proto.
pub struct Json<'a>(pub &'a DynamicMessage);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const OPTIONS: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);
        self.0.serialize_with_options(serializer, &OPTIONS)
    }
}
