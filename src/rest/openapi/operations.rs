//! The routes that are transcoded, described by the descriptors that serve them and by the comments of the proto.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use prost_reflect::{DescriptorPool, MethodDescriptor};
use serde_json::{Map, Value, json};

use super::parts::{TAG, envelope, header, refusals, request_id};
use super::schemas::{Schemas, Way, comment};
use crate::error::Kind;
use crate::rest::transcode::{Binding, BodyRule, Details, Field, Rule, Shape, rules};

/// The members of a JSON object.
type Members = Map<String, Value>;

/// The kinds of error that every route may end with, in the order of the checks.
const KINDS: [Kind; 14] = [
    Kind::MethodNotAllowed,
    Kind::TokenMissing,
    Kind::TokenInvalid,
    Kind::TokenExpired,
    Kind::Invalid,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::HeadTooLarge,
    Kind::RateLimited,
    Kind::Overloaded,
    Kind::Draining,
    Kind::KeysUnavailable,
    Kind::StorageUnavailable,
    Kind::Internal,
];

/// Those of a route that changes something.
pub const OF_CHANGES: [Kind; 2] = [Kind::Conflict, Kind::PreconditionFailed];

/// Those of a route that reads a body.
pub const OF_BODIES: [Kind; 4] = [Kind::UnsupportedMediaType, Kind::TooLarge, Kind::Incomplete, Kind::ClientTooSlow];

/// The operations of each path, and the schemas that they refer to.
///
/// # Errors
/// What of the descriptors is not supported.
pub fn described(pool: &DescriptorPool, service: &str) -> Result<(Members, Members), String> {
    let (mut paths, mut schemas) = (Map::new(), Schemas::default());
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    for (method, rule) in rules(pool, service)? {
        if method.is_client_streaming() || method.is_server_streaming() {
            continue;
        }
        let binding = Binding::new(method.input(), &rule)?;
        let number = count.entry(method.name().to_owned()).or_default();
        *number += 1;
        let operation = operation(&method, &rule, &binding, *number, &mut schemas)?;
        let path = paths.entry(path(&rule.text)).or_insert_with(|| json!({}));
        path[rule.verb.as_str().to_lowercase()] = operation;
    }
    Ok((paths, schemas.into_map()))
}

fn operation(
    method: &MethodDescriptor,
    rule: &Rule,
    binding: &Binding,
    number: usize,
    schemas: &mut Schemas,
) -> Result<Value, String> {
    let words = words(method.name());
    let mut id = method.name()[..1].to_lowercase() + &method.name()[1..];
    if number > 1 {
        id += &number.to_string();
    }
    let changes = rule.verb != Method::GET;
    let mut kinds = KINDS.to_vec();
    kinds.extend(if changes { OF_CHANGES.as_slice() } else { &[] });
    kinds.extend(if rule.body == BodyRule::None { &[] } else { OF_BODIES.as_slice() });
    let shape = Shape::of(&method.output())?;
    let ok = (StatusCode::OK.as_str().to_owned(), success(method, &shape, schemas));
    let responses: Map<String, Value> = std::iter::once(ok).chain(refusals(&kinds)).collect();
    let mut operation = json!({
        "operationId": id,
        "tags": [TAG],
        "summary": words[..1].to_uppercase() + &words[1..],
        "parameters": parameters(binding, schemas),
        "responses": responses
    });
    if let Some(comment) = comment(method.parent_file(), method.path()) {
        operation["description"] = comment.into();
    }
    if let Some(schema) = body(method, binding, schemas) {
        operation["requestBody"] =
            json!({ "required": false, "content": { "application/json": { "schema": schema } } });
    }
    Ok(operation)
}

/// The schema of the body, if there is one.
fn body(method: &MethodDescriptor, binding: &Binding, schemas: &mut Schemas) -> Option<Value> {
    match &binding.body {
        BodyRule::None => None,
        BodyRule::Whole => {
            let in_path: Vec<&str> = binding.path.iter().map(|field| field.name.as_str()).collect();
            Some(schemas.message(&method.input(), Way::Request, &in_path))
        }
        BodyRule::Field(name) => {
            let field = method.input().get_field_by_name(name)?;
            Some(schemas.field_without_comment(&field, Way::Request))
        }
    }
}

fn parameters(binding: &Binding, schemas: &mut Schemas) -> Vec<Value> {
    let in_header = |field: &&Field| binding.headers.iter().any(|(known, _)| known.name == field.name);
    let mut parameters = Vec::new();
    for (place, field) in binding
        .path
        .iter()
        .map(|field| ("path", field))
        .chain(binding.query.iter().filter(|field| !in_header(field)).map(|field| ("query", field)))
    {
        parameters.extend(parameter(place, &field.name, field, schemas));
    }
    for (field, name) in &binding.headers {
        parameters.extend(parameter("header", name, field, schemas));
    }
    parameters.push(json!({
        "name": "X-Request-Id", "in": "header", "required": false, "schema": { "type": "string" },
        "description": "An id of the request for logs, returned in the response: up to 128 letters, digits and `-_.:/+=@`. If it \
            is missing or has another form, the server makes one."
    }));
    parameters
}

fn parameter(place: &str, name: &str, field: &Field, schemas: &mut Schemas) -> Option<Value> {
    let last = field.path.last()?;
    let schema = schemas.field_without_comment(last, Way::Request);
    let mut parameter = json!({ "name": name, "in": place, "required": place == "path", "schema": schema });
    if let Some(comment) = comment(last.parent_file(), last.path()) {
        parameter["description"] = comment.into();
    }
    Some(parameter)
}

/// The response of a success.
fn success(method: &MethodDescriptor, shape: &Shape, schemas: &mut Schemas) -> Value {
    let reply = method.output();
    let (details, field) = match &shape.details {
        Details::Empty => (json!({ "type": "array", "items": {}, "maxItems": 0 }), None),
        Details::One(field) => {
            let one = schemas.field_without_comment(field, Way::Reply);
            (json!({ "type": "array", "items": one, "maxItems": 1 }), Some(field))
        }
        Details::Page(field) => (schemas.field_without_comment(field, Way::Reply), Some(field)),
        Details::Whole => {
            let one = schemas.message(&reply, Way::Reply, &[]);
            (json!({ "type": "array", "items": one, "minItems": 1, "maxItems": 1 }), None)
        }
    };
    let description =
        comment(reply.parent_file(), reply.path()).unwrap_or_else(|| "The operation succeeded.".to_owned());
    let mut schema = envelope("success", &description, details);
    if let Some(field) = field {
        for beside in reply.fields().filter(|beside| beside != field) {
            schema["properties"][beside.name()] = schemas.field(&beside, Way::Reply);
        }
    }
    let name = format!("{}Success", method.name());
    let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
    schemas.add(name, schema);
    let mut headers = json!({ "X-Request-Id": request_id() });
    if matches!(shape.details, Details::Page(_)) && reply.get_field_by_name("next_page_token").is_some() {
        let mut link = header("The address of the next page, if there is one (RFC 8288).", json!({ "type": "string" }));
        link["required"] = false.into();
        headers["Link"] = link;
    }
    json!({
        "description": "Successful operation",
        "headers": headers,
        "content": { "application/json": { "schema": reference } }
    })
}

/// The path of a template: each variable by its name alone.
fn path(template: &str) -> String {
    let mut path = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (variable, after) = after.split_once('}').unwrap_or((after, ""));
        let name = variable.split('=').next().unwrap_or_default();
        path += &format!("{before}{{{name}}}");
        rest = after;
    }
    path + rest
}

/// `RegisterAttachment` as words, in lower case.
fn words(name: &str) -> String {
    let mut words = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

#[cfg(test)]
mod tests;
