//! What of a reply message stands where in the envelope. A message within it is the one element of `details`, a repeated message
//! is the page, and all other fields stand beside `details`. It must not know what the fields mean, but for `next_page_token`.

use axum::response::Response;
use http::header::LINK;
use http::{HeaderValue, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor};
use serde_json::{Map, Value};

use super::field;
use super::json::Json;
use crate::envelope::{self, MEMBERS};
use crate::error::{Error, Result};
use crate::rest::query::decoded;

/// The fields of pages (AIP-158).
const NEXT: &str = "next_page_token";
const TOKEN: &str = "page_token";

/// What a token has that a query cannot.
const IN_QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What a request has that a link cannot.
const IN_LINK: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'\\').add(b'^').add(b'`').add(b'{').add(b'|').add(b'}');

/// What `details` is.
#[derive(Clone, Debug)]
pub enum Details {
    /// Nothing.
    Empty,
    /// The message that this field is, if it is set.
    One(FieldDescriptor),
    /// The messages of this field.
    Page(FieldDescriptor),
    /// The reply itself.
    Whole,
}

/// How a reply message becomes the envelope.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What `details` is.
    pub details: Details,
    /// The field that leads to the next page.
    next: Option<FieldDescriptor>,
}

impl Shape {
    /// The shape of the replies that are such messages.
    ///
    /// # Errors
    /// If a field would stand in place of a member of the envelope.
    pub fn of(reply: &MessageDescriptor) -> Result<Shape, String> {
        let is_message = |field: &FieldDescriptor| {
            !field.is_map() && field.kind().as_message().is_some_and(|message| !field::is_well_known(message))
        };
        let mut messages = reply.fields().filter(is_message);
        let details = match (messages.next(), messages.next()) {
            _ if reply.fields().len() == 0 => Details::Empty,
            (Some(field), None) if field.is_list() => Details::Page(field),
            (Some(field), None) => Details::One(field),
            _ => Details::Whole,
        };
        let shadows = |field: &FieldDescriptor| MEMBERS.contains(&field.name()) && !is_message(field);
        if let (Details::One(_) | Details::Page(_), Some(field)) = (&details, reply.fields().find(shadows)) {
            return Err(format!("{} cannot stand beside the member of the envelope of its name", field.full_name()));
        }
        let next = reply.get_field_by_name(NEXT).filter(|_| matches!(details, Details::Page(_)));
        Ok(Shape { details, next })
    }

    /// The reply to a request for `uri`.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if a value has no JSON, such as a time after the year 9999.
    pub fn reply(&self, mut message: DynamicMessage, uri: &Uri) -> Result<Response> {
        let ok = StatusCode::OK;
        let next = self.next.as_ref().and_then(|field| message.get_field(field).as_str().map(str::to_owned));
        let mut response = match &self.details {
            Details::Empty => envelope::success(ok, [(); 0], Map::new()),
            Details::Whole => envelope::success(ok, [json(&message)?], Map::new()),
            Details::One(field) => {
                let found = message.has_field(field).then(|| message.get_field(field).into_owned());
                message.clear_field(field);
                let elements = found.iter().filter_map(prost_reflect::Value::as_message).map(json);
                envelope::success(ok, elements.collect::<Result<Vec<_>>>()?, beside(&message)?)
            }
            Details::Page(field) => {
                let found = message.get_field(field).into_owned();
                message.clear_field(field);
                let elements =
                    found.as_list().into_iter().flatten().filter_map(prost_reflect::Value::as_message).map(json);
                envelope::success(ok, elements.collect::<Result<Vec<_>>>()?, beside(&message)?)
            }
        };
        if let Some(link) = next.filter(|next| !next.is_empty()).and_then(|next| link(uri, &next)) {
            response.headers_mut().insert(LINK, link);
        }
        Ok(response)
    }
}

fn json(message: &DynamicMessage) -> Result<Value> {
    serde_json::to_value(Json(message)).map_err(Error::internal)
}

/// The fields that are set, by their names.
fn beside(message: &DynamicMessage) -> Result<Map<String, Value>> {
    match json(message)? {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

/// The link to the next page: the same request with another token.
fn link(uri: &Uri, next: &str) -> Option<HeaderValue> {
    let is_other = |pair: &&str| !pair.is_empty() && decoded(pair.split('=').next().unwrap_or_default()) != TOKEN;
    let others = uri.query().unwrap_or_default().split('&').filter(is_other);
    let token = format!("{TOKEN}={}", utf8_percent_encode(next, IN_QUERY));
    let query = others.chain([token.as_str()]).collect::<Vec<_>>().join("&");
    let target = format!("{}?{query}", uri.path());
    HeaderValue::try_from(format!("<{}>; rel=\"next\"", utf8_percent_encode(&target, IN_LINK))).ok()
}
