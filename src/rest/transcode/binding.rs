//! Which part of a request becomes which field of the request message: the path first, then the query, then the preconditions in
//! the headers, then the body (`google/api/http.proto`). It must not know what an operation does with them.

use http::{HeaderMap, HeaderValue, Method};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use super::field;
use super::json;
use super::rule::{BodyRule, Rule};
use super::template::Capture;
use crate::audit::Asked;
use crate::error::{Error, Result};
use crate::rest::near_miss::Names;
use crate::rest::query::{quoted, separated};

/// The fields that a header of HTTP stands for, if neither the path nor the query has them.
const HEADERS: [(&str, &str); 2] = [("if_match", "If-Match"), ("if_none_match", "If-None-Match")];

/// How deep in the request message a key of the query may reach.
const MAX_KEY: usize = 4;

/// A field of the request message, or of a message within it.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its path, with dots.
    pub name: String,
    /// The fields on the way to it, itself last.
    pub path: Vec<FieldDescriptor>,
}

/// How a request becomes the request message of a method.
#[derive(Debug)]
pub struct Binding {
    message: MessageDescriptor,
    /// What the path binds, in the order of the template.
    pub path: Vec<Field>,
    /// What the query may have.
    pub query: Vec<Field>,
    /// Their names, or those of the fields that are in the body.
    names: Names,
    /// What headers may have.
    pub headers: Vec<(Field, &'static str)>,
    /// What the body is.
    pub body: BodyRule,
    /// Whether a precondition that cannot be judged is refused: the method changes something.
    changes: bool,
}

impl Binding {
    /// The binding of a rule.
    ///
    /// # Errors
    /// What of the rule is not supported.
    pub fn new(message: MessageDescriptor, rule: &Rule) -> Result<Binding, String> {
        let path: Vec<Field> =
            rule.template.fields().map(|name| bound(&message, name)).collect::<Result<_, String>>()?;
        if let BodyRule::Field(name) = &rule.body
            && message.get_field_by_name(name).is_none()
        {
            return Err(format!("{} has no field {name} for the body", message.full_name()));
        }
        let mut keys = Vec::new();
        leaves(&message, &[], &mut keys);
        keys.retain(|field| !path.iter().any(|bound| bound.name == field.name));
        let in_body = |field: &Field| match &rule.body {
            BodyRule::None => false,
            BodyRule::Whole => true,
            BodyRule::Field(name) => field.path[0].name() == name,
        };
        let names = Names::new(keys.iter().map(|field| field.name.clone()), &["request", message.name()]);
        let query = keys.into_iter().filter(|field| !in_body(field)).collect();
        let headers = HEADERS.into_iter().filter_map(|(name, header)| {
            let field =
                message.get_field_by_name(name).filter(|field| field.kind() == Kind::String && !field.is_list())?;
            let field = Field { name: name.to_owned(), path: vec![field] };
            (!path.iter().any(|bound| bound.name == name)).then_some((field, header))
        });
        let (headers, changes) = (headers.collect(), rule.verb != Method::GET);
        Ok(Binding { message, path, query, names, headers, body: rule.body.clone(), changes })
    }

    /// Binds all but the body.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`], which names the field.
    pub fn head(&self, captures: &[Capture<'_>], query: &str, headers: &HeaderMap) -> Result<DynamicMessage> {
        let mut bound = Map::new();
        for (field, capture) in self.path.iter().zip(captures) {
            let text = capture.decoded().ok_or_else(|| Error::invalid("the path is not UTF-8"))?;
            insert(&mut bound, field, &text)?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            self.pair(&mut bound, pair)?;
        }
        self.conditions(&mut bound, headers)?;
        json::message(&self.message, &Value::Object(bound))
    }

    fn pair(&self, bound: &mut Map<String, Value>, pair: &str) -> Result<()> {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = form_decoded(key).ok_or_else(|| Error::invalid("the query has a key that is not UTF-8"))?;
        separated(&self.names, value)?;
        if let Some(field) = self.query.iter().find(|field| field.name == key) {
            let not_utf8 = || Error::invalid_field(field.name.clone(), "is not UTF-8");
            return insert(bound, field, &form_decoded(value).ok_or_else(not_utf8)?);
        }
        // What the path has is not known here: API gateways use such names for ids of their own.
        if self.path.iter().any(|field| field.name == key) {
            return Ok(());
        }
        let Some(name) = self.names.near_miss(&key).map(str::to_owned) else {
            return self.beyond(&key);
        };
        let mend = if self.query.iter().any(|field| field.name == name) {
            format!("write the query key {} as {name}", quoted(&key))
        } else {
            format!("the query key {} is not read, this field is in the JSON body", quoted(&key))
        };
        Err(Error::invalid_field(name, mend))
    }

    /// Refuses a key that is the name of a field, and of none that a query can have.
    fn beyond(&self, key: &str) -> Result<()> {
        let first = key.split('.').next().unwrap_or_default();
        let known =
            self.message.get_field_by_name(first).filter(|field| field.is_map() || !field::is_text(&field.kind()));
        match known {
            Some(_) => {
                Err(Error::invalid_field(key.chars().take(64).collect::<String>(), "cannot be given in the query"))
            }
            None => Ok(()),
        }
    }

    /// Takes the preconditions out of the headers. One that the method cannot judge is refused where it changes something: to
    /// ignore it would do what the client asked not to do.
    fn conditions(&self, bound: &mut Map<String, Value>, headers: &HeaderMap) -> Result<()> {
        for (field, header) in &self.headers {
            let lines: Vec<_> =
                headers.get_all(*header).iter().map(HeaderValue::as_bytes).map(String::from_utf8_lossy).collect();
            if lines.is_empty() {
                continue;
            }
            if bound.contains_key(&field.name) {
                return Err(Error::invalid_field(
                    field.name.clone(),
                    format!("must be given once, and the header {header} has it too"),
                ));
            }
            insert(bound, field, &lines.join(", "))?;
        }
        if !self.changes {
            return Ok(());
        }
        for (name, header) in HEADERS {
            if headers.contains_key(header) && !self.headers.iter().any(|(field, _)| field.name == name) {
                return Err(Error::invalid_field(header, "cannot be evaluated for this request, send it without"));
            }
        }
        if headers.contains_key(http::header::IF_UNMODIFIED_SINCE) && !bound.contains_key("if_match") {
            return Err(Error::invalid_field(
                "If-Unmodified-Since",
                "cannot be evaluated, send the entity tag of the expected content in If-Match",
            ));
        }
        Ok(())
    }

    /// Adds the body to what [`Binding::head`] has bound.
    ///
    /// # Errors
    /// [`crate::error::Kind::Invalid`], which names the field.
    pub fn with_body(&self, head: DynamicMessage, body: &[u8]) -> Result<DynamicMessage> {
        if body.is_empty() {
            return Ok(head);
        }
        let value = json::parse(body)?;
        let value = match &self.body {
            BodyRule::None => return Ok(head),
            BodyRule::Whole => value,
            BodyRule::Field(name) => Value::Object(Map::from_iter([(name.clone(), value)])),
        };
        let mut message = json::message(&self.message, &value)?;
        let others = self.query.iter().chain(self.headers.iter().map(|(field, _)| field));
        for field in self.path.iter().chain(others) {
            if let Some(value) = value_at(&head, &field.path) {
                let equal = put(&mut message, &field.path, value);
                if !equal {
                    let what = "the body has another value than the path, the query or the headers of the request";
                    return Err(Error::invalid_field(field.name.clone(), what));
                }
            }
        }
        Ok(message)
    }

    /// The ids that the head of a request names. None if it names no client.
    pub fn asked(&self, head: &DynamicMessage) -> Option<Asked> {
        let id = |name: &str| {
            let field = self.message.get_field_by_name(name)?;
            let is_bound = head.has_field(&field) || self.path.iter().any(|bound| bound.name == name);
            head.get_field(&field).as_i64().filter(|_| is_bound)
        };
        Some(Asked {
            client: id("client_id")?,
            attachment: id("attachment_id"),
            project: id("project_id"),
            portfolio: id("portfolio_id"),
        })
    }
}

/// The field that a template binds.
fn bound(message: &MessageDescriptor, name: &str) -> Result<Field, String> {
    let (mut path, mut within) = (Vec::<FieldDescriptor>::new(), Some(message.clone()));
    for part in name.split('.') {
        let field = within.and_then(|message| message.get_field_by_name(part));
        let field =
            field.ok_or_else(|| format!("{} has no field {name}, which the path binds", message.full_name()))?;
        if field.is_list() || field.is_map() {
            return Err(format!("{name} of {} is repeated, and the path has it once", message.full_name()));
        }
        within = field.kind().as_message().cloned();
        path.push(field);
    }
    match path.last() {
        Some(last) if field::is_text(&last.kind()) => Ok(Field { name: name.to_owned(), path }),
        _ => Err(format!("{name} of {} is a message, which no path can hold", message.full_name())),
    }
}

/// The fields that a query can have: those that are written as text, in messages that are not repeated. A message is not looked
/// for within itself.
fn leaves(message: &MessageDescriptor, before: &[FieldDescriptor], found: &mut Vec<Field>) {
    for field in message.fields() {
        let path: Vec<_> = before.iter().cloned().chain([field.clone()]).collect();
        if field.is_map() {
            continue;
        }
        if field::is_text(&field.kind()) {
            let names: Vec<_> = path.iter().map(FieldDescriptor::name).collect();
            found.push(Field { name: names.join("."), path });
        } else if let Kind::Message(within) = field.kind()
            && !field.is_list()
            && path.len() < MAX_KEY
            && !field::is_well_known(&within)
            && !path.iter().any(|field| *field.parent_message() == within)
        {
            leaves(&within, &path, found);
        }
    }
}

/// Sets a field to a text.
fn insert(bound: &mut Map<String, Value>, field: &Field, text: &str) -> Result<()> {
    let twice = || Error::invalid_field(field.name.clone(), "must be given once");
    let Some((last, before)) = field.path.split_last() else {
        return Ok(());
    };
    let mut at = bound;
    for step in before {
        let within = at.entry(step.name()).or_insert_with(|| Value::Object(Map::new()));
        at = within.as_object_mut().ok_or_else(twice)?;
    }
    let value = field::json(&field.name, &last.kind(), text)?;
    if last.is_list() {
        let list = at.entry(last.name()).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().ok_or_else(twice)?.push(value);
    } else if at.insert(last.name().to_owned(), value).is_some() {
        return Err(twice());
    }
    Ok(())
}

/// The value of a field, if it is set.
fn value_at(message: &DynamicMessage, path: &[FieldDescriptor]) -> Option<prost_reflect::Value> {
    let (first, rest) = path.split_first()?;
    let value = message.has_field(first).then(|| message.get_field(first))?;
    if rest.is_empty() { Some(value.into_owned()) } else { value_at(value.as_message()?, rest) }
}

/// Sets a field that is not set. False if it, or another of the same choice, is set to something else.
fn put(message: &mut DynamicMessage, path: &[FieldDescriptor], value: prost_reflect::Value) -> bool {
    let Some((first, rest)) = path.split_first() else {
        return true;
    };
    let chosen = first.containing_oneof().into_iter().flat_map(|choice| choice.fields().collect::<Vec<_>>());
    if chosen.into_iter().any(|other| other != *first && message.has_field(&other)) {
        return false;
    }
    if !rest.is_empty() {
        return message.get_field_mut(first).as_message_mut().is_none_or(|within| put(within, rest, value));
    }
    if message.has_field(first) {
        return *message.get_field(first) == value;
    }
    message.set_field(first, value);
    true
}

/// A text of a query, as forms write it. None if it is not UTF-8.
fn form_decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced).decode_utf8().ok().map(Into::into)
}
