//! Messages as JSON schemas, in the form that ProtoJSON gives them. Requests and replies differ: a 64-bit integer may be a number
//! in a request, and is a text in a reply.

use std::collections::BTreeMap;

use prost_reflect::{FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

/// Which way a message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client.
    Request,
    /// To the client.
    Reply,
}

/// The schemas of the messages that were referred to.
#[derive(Debug, Default)]
pub struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// The schemas by their names.
    pub fn into_map(self) -> Map<String, Value> {
        self.0.into_iter().collect()
    }

    /// Adds a schema.
    pub fn add(&mut self, name: String, schema: Value) {
        self.0.insert(name, schema);
    }

    /// A reference to the schema of a message, which is made if it is not there yet.
    pub fn message(&mut self, message: &MessageDescriptor, way: Way, without: &[&str]) -> Value {
        let suffix = if way == Way::Request && !message.name().ends_with("Request") { "Input" } else { "" };
        let name = format!("{}{suffix}", message.name());
        let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
        if self.0.contains_key(&name) {
            return reference;
        }
        // A message may be within itself.
        self.0.insert(name.clone(), Value::Null);
        let fields = message.fields().filter(|field| !without.contains(&field.name()));
        let properties: Map<String, Value> =
            fields.map(|field| (field.name().to_owned(), self.field(&field, way))).collect();
        let mut schema = json!({ "type": "object", "properties": properties });
        if let Some(comment) = comment(message.parent_file(), message.path()) {
            schema["description"] = comment.into();
        }
        if way == Way::Request {
            schema["additionalProperties"] = false.into();
        }
        self.0.insert(name, schema);
        reference
    }

    /// The schema of a field, with its comment.
    pub fn field(&mut self, field: &FieldDescriptor, way: Way) -> Value {
        let mut schema = self.field_without_comment(field, way);
        if let Some(comment) = comment(field.parent_file(), field.path()) {
            schema["description"] = comment.into();
        }
        schema
    }

    /// The schema of a field.
    pub fn field_without_comment(&mut self, field: &FieldDescriptor, way: Way) -> Value {
        let kind = field.kind();
        if field.is_map()
            && let Kind::Message(entry) = &kind
        {
            let values = self.kind(&entry.map_entry_value_field().kind(), way, false);
            return json!({ "type": "object", "additionalProperties": values });
        }
        let is_id = field.name() == "id" || field.name().ends_with("_id");
        let one = self.kind(&kind, way, is_id);
        if field.is_list() { json!({ "type": "array", "items": one }) } else { one }
    }

    fn kind(&mut self, kind: &Kind, way: Way, is_id: bool) -> Value {
        let integer = |format: &str, least: Value, most: Value| match (way, format) {
            (Way::Reply, "int64" | "uint64") => json!({ "type": "string", "format": format, "pattern": "^-?[0-9]+$" }),
            _ => json!({ "type": "integer", "format": format, "minimum": least, "maximum": most }),
        };
        match kind {
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer("int32", i32::MIN.into(), i32::MAX.into()),
            Kind::Uint32 | Kind::Fixed32 => integer("uint32", 0.into(), u32::MAX.into()),
            // An id is from 1 on, wherever it stands.
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 if is_id => integer("int64", 1.into(), i64::MAX.into()),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer("int64", i64::MIN.into(), i64::MAX.into()),
            Kind::Uint64 | Kind::Fixed64 => integer("uint64", 0.into(), u64::MAX.into()),
            Kind::Double => json!({ "type": "number", "format": "double" }),
            Kind::Float => json!({ "type": "number", "format": "float" }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::String => json!({ "type": "string" }),
            Kind::Bytes => json!({ "type": "string", "format": "byte" }),
            Kind::Enum(values) => {
                let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
                json!({ "type": "string", "enum": names })
            }
            Kind::Message(message) => self.well_known(message, way).unwrap_or_else(|| self.message(message, way, &[])),
        }
    }

    /// The schema of a message that ProtoJSON has a form of its own for.
    fn well_known(&mut self, message: &MessageDescriptor, way: Way) -> Option<Value> {
        if message.package_name() != "google.protobuf" {
            return None;
        }
        Some(match message.name() {
            "Timestamp" => json!({ "type": "string", "format": "date-time" }),
            "Duration" => json!({ "type": "string", "pattern": "^-?[0-9]+(\\.[0-9]{1,9})?s$" }),
            "FieldMask" => json!({ "type": "string" }),
            "Struct" | "Any" | "Empty" => json!({ "type": "object" }),
            "ListValue" => json!({ "type": "array", "items": {} }),
            "Value" => json!({}),
            // A wrapper.
            _ => self.kind(&message.get_field_by_name("value")?.kind(), way, false),
        })
    }
}

/// The comment in front of a definition.
pub fn comment(file: FileDescriptor, path: &[i32]) -> Option<String> {
    let locations = &file.file_descriptor_proto().source_code_info.as_ref()?.location;
    let comment = locations.iter().find(|location| location.path == path)?.leading_comments.as_ref()?;
    let lines: Vec<&str> = comment.lines().map(|line| line.strip_prefix(' ').unwrap_or(line).trim_end()).collect();
    let text = lines.join("\n").trim().to_owned();
    (!text.is_empty()).then_some(text)
}
