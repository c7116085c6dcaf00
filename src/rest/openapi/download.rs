//! The description of the download, whose reply is the content itself.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::parts::{TAG, digest, etag, header, refusals, request_id, tags};
use crate::error::Kind;

/// The kinds of error that a download over REST can end with, in the order of the checks.
pub const KINDS: [Kind; 16] = [
    Kind::MethodNotAllowed,
    Kind::TokenMissing,
    Kind::TokenInvalid,
    Kind::TokenExpired,
    Kind::Invalid,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::PreconditionFailed,
    Kind::RangeNotSatisfiable,
    Kind::HeadTooLarge,
    Kind::RateLimited,
    Kind::Overloaded,
    Kind::Draining,
    Kind::KeysUnavailable,
    Kind::StorageUnavailable,
    Kind::Internal,
];

const DESCRIPTION: &str = "Returns the content of an attachment, or a range of it. Needs the scope `attachments:read`.\n\n\
    The content is verified while it is sent. If it is damaged, the response ends before its last bytes, so that its length \
    differs from `Content-Length`.\n\n\
    A server that is configured so answers 307 with an address of its storage, which is valid for a short time. Follow it without \
    the token. The storage then sends the content unverified.\n\n\
    The media type is the one that the uploader declared.";

/// The operation.
pub fn operation() -> Value {
    let responses: Map<String, Value> = [
        (StatusCode::OK, content("The whole content", false)),
        (StatusCode::PARTIAL_CONTENT, content("A range of the content", true)),
        (
            StatusCode::NOT_MODIFIED,
            json!({ "description": "The client has this content already", "headers": version() }),
        ),
    ]
    .into_iter()
    .chain([(StatusCode::TEMPORARY_REDIRECT, elsewhere())])
    .map(|(status, response)| (status.as_str().to_owned(), response))
    .chain(refusals(&KINDS))
    .collect();
    json!({
        "operationId": "downloadAttachment",
        "tags": [TAG],
        "summary": "Download attachment",
        "description": DESCRIPTION,
        "parameters": parameters(),
        "responses": responses
    })
}

fn parameters() -> Value {
    let id = |name: &str, place: &str, description: &str| {
        json!({
            "name": name, "in": place, "required": place == "path", "description": description,
            "schema": { "type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX }, "example": 1
        })
    };
    let optional = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    let text = json!({ "type": "string" });
    json!([
        id("client_id", "path", "Client ID"),
        id("attachment_id", "path", "Attachment ID"),
        id("project_id", "query", "The project that the attachment must belong to"),
        id("portfolio_id", "query", "The portfolio that the attachment must belong to"),
        optional(
            "Range",
            "One range of bytes (RFC 9110 s14.2). Of several ranges, all of the content is returned.",
            text.clone()
        ),
        optional("If-Range", "The entity tag or the date of the content that the range belongs to.", text.clone()),
        optional(
            "If-Match",
            "Return only content that has one of these entity tags. Otherwise the response is 412.",
            tags()
        ),
        optional(
            "If-None-Match",
            "Return only content that has none of these entity tags. Otherwise the response is 304.",
            tags()
        ),
        optional("X-Request-Id", "An id of the request for logs, returned in the response.", text)
    ])
}

/// The headers that name the version of the content.
fn version() -> Value {
    json!({
        "X-Request-Id": request_id(),
        "ETag": header("The version of the content.", etag()),
        "Repr-Digest": header("The digest of all of the content (RFC 9530).", digest()),
        "Last-Modified": header("When the content was stored.", json!({ "type": "string" }))
    })
}

/// The redirect to the storage.
fn elsewhere() -> Value {
    let mut headers = version();
    headers["Location"] = header(
        "The address of the content at the storage. Anyone who has it can read the content.",
        json!({ "type": "string" }),
    );
    json!({ "description": "The storage sends the content", "headers": headers })
}

fn content(description: &str, is_part: bool) -> Value {
    let mut headers = version();
    headers["Accept-Ranges"] = header("The unit of ranges.", json!({ "type": "string", "enum": ["bytes"] }));
    headers["Content-Disposition"] =
        header("`attachment` or `inline`, with the name of the file.", json!({ "type": "string" }));
    if is_part {
        headers["Content-Range"] = header("Which bytes follow.", json!({ "type": "string" }));
    }
    json!({
        "description": description,
        "headers": headers,
        "content": { "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } }
    })
}
