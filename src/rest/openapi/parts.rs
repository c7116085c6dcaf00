//! What the descriptions of all routes have in common: the envelope, headers, and the statuses of refusals.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::error::Kind;

/// The name under which the operations are listed.
pub const TAG: &str = "attachments";

/// The responses of the statuses of these kinds of error.
pub fn refusals(kinds: &[Kind]) -> Vec<(String, Value)> {
    let mut statuses: BTreeMap<StatusCode, Vec<Kind>> = BTreeMap::new();
    for kind in kinds {
        statuses.entry(kind.row().status).or_default().push(*kind);
    }
    statuses.iter().map(|(status, kinds)| (status.as_str().to_owned(), refusal(*status, kinds))).collect()
}

/// `*`, or a list of entity tags.
pub fn tags() -> Value {
    json!({ "type": "string", "pattern": "^(\\*|(W/)?\"[!#-~]*\"(, (W/)?\"[!#-~]*\")*)$" })
}

/// The entity tag of content.
pub fn etag() -> Value {
    json!({ "type": "string", "pattern": "^\"[0-9a-f]{64}\"$" })
}

/// The digest of content.
pub fn digest() -> Value {
    json!({ "type": "string", "pattern": "^sha-256=:[A-Za-z0-9+/]{43}=:$" })
}

/// The envelope, with what `details` is.
pub fn envelope(status: &str, description: &str, details: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["status", "code", "message", "details"],
        "properties": {
            "status": { "type": "string", "enum": [status], "description": "The outcome. It is the same for every such response." },
            "code": { "type": "integer", "format": "int32", "description": "The HTTP status." },
            "message": { "type": "string", "description": "A text that is fixed for the HTTP status." },
            "details": details
        }
    })
}

/// A status that the server refuses with, and the kinds of error that have it.
fn refusal(status: StatusCode, kinds: &[Kind]) -> Value {
    let mut headers = json!({ "X-Request-Id": request_id() });
    let own = match status {
        StatusCode::UNAUTHORIZED => {
            Some(("WWW-Authenticate", header("The challenge (RFC 6750).", json!({ "type": "string" }))))
        }
        StatusCode::METHOD_NOT_ALLOWED => {
            Some(("Allow", header("The methods of the path.", json!({ "type": "string" }))))
        }
        StatusCode::RANGE_NOT_SATISFIABLE => {
            Some(("Content-Range", header("The size of the content.", json!({ "type": "string" }))))
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            Some(("Accept", header("The format that is supported.", json!({ "type": "string" }))))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => Some((
            "Retry-After",
            header("Seconds to wait before the request is repeated.", json!({ "type": "integer", "minimum": 1 })),
        )),
        _ => None,
    };
    if let Some((name, header)) = own {
        headers[name] = header;
    }
    if status == StatusCode::PRECONDITION_FAILED {
        let stored = |name: &str, schema: Value| {
            let description = format!("{name} of the stored content, if the attachment has any.");
            json!({ "required": false, "description": description, "schema": schema })
        };
        headers["ETag"] = stored("ETag", etag());
        headers["Repr-Digest"] = stored("Repr-Digest", digest());
    }
    let examples: Map<String, Value> = kinds
        .iter()
        .map(|kind| {
            let row = kind.row();
            let body =
                json!({ "status": "error", "code": status.as_u16(), "message": row.message, "details": row.details });
            (row.reason.to_owned(), json!({ "summary": row.reason, "value": body }))
        })
        .collect();
    json!({
        "description": description(status, kinds),
        "headers": headers,
        "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/ErrorResponse" },
            "examples": examples
        } }
    })
}

/// The documented words, where a status has them; else the fixed texts of its errors.
fn description(status: StatusCode, kinds: &[Kind]) -> String {
    match status {
        StatusCode::BAD_REQUEST => "Invalid request or missing required parameters".to_owned(),
        StatusCode::UNAUTHORIZED => "Authentication error (JWT token missing/invalid)".to_owned(),
        StatusCode::FORBIDDEN => "Access denied (insufficient permissions)".to_owned(),
        StatusCode::NOT_FOUND => "Resource not found".to_owned(),
        StatusCode::INTERNAL_SERVER_ERROR => "Internal server error".to_owned(),
        _ => {
            let mut texts: Vec<_> = kinds.iter().map(|kind| kind.row().details).collect();
            texts.dedup();
            texts.join(". ")
        }
    }
}

/// A header that every response of a status has.
pub fn header(description: &str, schema: Value) -> Value {
    json!({ "required": true, "description": description, "schema": schema })
}

/// The header of the id of the request.
pub fn request_id() -> Value {
    header("The id of the request.", json!({ "type": "string" }))
}
