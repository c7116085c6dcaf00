//! Targets that try how a request over REST becomes a message.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, ReflectMessage};
use serde_json::Value;

use super::binding::{Binding, Field};
use super::json::{self, Json, MAX_DEPTH};
use super::rule::{BodyRule, Rule};

/// The annotated methods of a service.
pub struct Service(Vec<(Rule, Binding, MessageDescriptor)>);

impl Service {
    /// The service of this name among the descriptors.
    pub fn new(descriptors: &[u8], name: &str) -> Service {
        let pool = DescriptorPool::decode(descriptors).unwrap();
        let rules = super::rules(&pool, name).unwrap().into_iter();
        Service(
            rules
                .map(|(method, rule)| {
                    let binding = Binding::new(method.input(), &rule).unwrap();
                    (rule, binding, method.input())
                })
                .collect(),
        )
    }

    /// attachd's own.
    pub fn own() -> Service {
        Service::new(crate::pb::DESCRIPTORS, crate::pb::attachment_service_server::SERVICE_NAME)
    }
}

/// A request that binds becomes a message that can be written, as JSON, on the wire and as a request, and read again. `request`
/// is a line with the method and the target, lines with headers, a blank line, and the body, with line feeds.
pub fn bind(service: &Service, request: &[u8]) {
    let blank = request.windows(2).position(|two| two == b"\n\n");
    let (head, body) = blank.map_or((request, &[][..]), |at| (&request[..at], &request[at + 2..]));
    let Ok(head) = std::str::from_utf8(head) else { return };
    let mut lines = head.split('\n');
    let Some((verb, target)) = lines.next().and_then(|line| line.split_once(' ')) else { return };
    let Ok(uri) = target.parse::<Uri>() else { return };
    let mut sent = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::try_from(value)) {
            sent.append(name, value);
        }
    }
    let parts: Vec<&str> = uri.path().strip_prefix('/').unwrap_or(uri.path()).split('/').collect();
    for (rule, binding, _) in &service.0 {
        if rule.verb != verb || !rule.template.fits(&parts) {
            continue;
        }
        let (captures, mut headers) = (rule.template.captures(&parts), sent.clone());
        let Ok(message) = binding.head(&captures, uri.query().unwrap_or_default(), &headers) else { continue };
        let object = written(&message);
        let query = binding.query.iter().flat_map(|field| pairs(&object, field)).collect::<Vec<_>>().join("&");
        // A precondition can be in the query instead, unless the body has it.
        for (_, name) in
            binding.headers.iter().filter(|(field, _)| binding.query.iter().any(|other| other.name == field.name))
        {
            headers.remove(*name);
        }
        let again = binding.head(&captures, &query, &headers);
        assert_eq!(written(&again.unwrap_or_else(|error| panic!("{query}: {error:?}"))), object, "{query}");
        if rule.body != BodyRule::None
            && let Ok(whole) = binding.with_body(message, body)
        {
            let all = written(&whole);
            // What the path says is not changed by the body.
            for field in &binding.path {
                let text = value(&object, field).cloned();
                assert!(text.is_none() || value(&all, field).cloned() == text, "{}", field.name);
            }
        }
    }
}

/// A message as JSON, from which the same message is read, and which is the same after the wire.
fn written(message: &DynamicMessage) -> Value {
    let object = serde_json::to_value(Json(message)).unwrap();
    let read = json::message(&message.descriptor(), &object);
    let read = read.unwrap_or_else(|error| panic!("{object}: {error:?}"));
    assert_eq!(serde_json::to_value(Json(&read)).unwrap(), object);
    let decoded = DynamicMessage::decode(message.descriptor(), &message.encode_to_vec()[..]).unwrap();
    assert_eq!(serde_json::to_value(Json(&decoded)).unwrap(), object);
    object
}

/// The value of a field in the JSON of a message.
fn value<'a>(object: &'a Value, field: &Field) -> Option<&'a Value> {
    field.path.iter().try_fold(object, |value, step| value.get(step.name()))
}

/// The pairs of a query that set a field to what it is.
fn pairs(object: &Value, field: &Field) -> Vec<String> {
    let pair = |text: &str| format!("{}={}", field.name, utf8_percent_encode(text, NON_ALPHANUMERIC));
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match value(object, field) {
        Some(Value::Array(items)) => items.iter().map(|item| pair(&text(item))).collect(),
        Some(value) => vec![pair(&text(value))],
        // A message that is there without any of its fields: one of them has its default.
        None => {
            let (last, before) = field.path.split_last().unwrap();
            let parent = before.iter().try_fold(object, |value, step| value.get(step.name()));
            let is_left_out = !before.is_empty() && parent.is_some() && !last.supports_presence() && !last.is_list();
            is_left_out.then(|| pair(default(&last.kind()))).into_iter().collect()
        }
    }
}

fn default(kind: &Kind) -> &'static str {
    match kind {
        Kind::String | Kind::Bytes => "",
        Kind::Bool => "false",
        _ => "0",
    }
}

/// JSON is read as a library reads it, or refused because of a key that is given twice or of its depth.
pub fn json(text: &[u8]) {
    let (ours, theirs) = (json::parse(text), serde_json::from_slice::<Value>(text));
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs),
        (Ok(ours), Err(error)) => panic!("{ours} is taken: {error}"),
        // Without a key that is given twice it is taken.
        (Err(_), Ok(theirs)) if depth(&theirs) <= MAX_DEPTH => {
            assert_eq!(json::parse(theirs.to_string().as_bytes()).unwrap(), theirs);
        }
        (Err(_), _) => {}
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or_default(),
        _ => 0,
    }
}

/// A message of any type from any JSON can be written and read again.
pub fn message(service: &Service, text: &[u8]) {
    let Ok(value) = json::parse(text) else { return };
    let mut seen = Vec::<MessageDescriptor>::new();
    for (.., descriptor) in &service.0 {
        if !seen.contains(descriptor) {
            seen.push(descriptor.clone());
            if let Ok(message) = json::message(descriptor, &value) {
                written(&message);
            }
        }
    }
}
