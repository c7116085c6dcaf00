//! The OpenAPI 3.1 description of the REST port. The route, the statuses and the texts of errors come from the code that
//! serves them. The vocabulary is chosen for code generators that understand OpenAPI 3.0 only: a file is `format: binary`,
//! a fixed text is a `type` with a one-valued `enum`, an array has `items`.

use http::StatusCode;
use prost_reflect::DescriptorPool;
use serde_json::{Map, Value, json};

use crate::error::Kind;
use crate::operation::{DOWNLOAD_ATTACHMENT, UPLOAD_ATTACHMENT};
use crate::pb::{self, attachment_service_server::SERVICE_NAME};
use parts::{TAG, digest, envelope, etag, header, refusals, request_id, tags};

mod download;
mod operations;
mod parts;
mod schemas;

/// The kinds of error that an upload over REST can end with, in the order of the checks.
const KINDS: [Kind; 20] = [
    Kind::MethodNotAllowed,
    Kind::TokenMissing,
    Kind::TokenInvalid,
    Kind::TokenExpired,
    Kind::Invalid,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::PreconditionFailed,
    Kind::TooLarge,
    Kind::HeadTooLarge,
    Kind::Incomplete,
    Kind::DigestMismatch,
    Kind::ClientTooSlow,
    Kind::RateLimited,
    Kind::Overloaded,
    Kind::Draining,
    Kind::KeysUnavailable,
    Kind::StorageUnavailable,
    Kind::Internal,
];

const INTRODUCTION: &str = "Takes file attachments, and returns them.\n\n\
    A 201 response means that the file is stored: complete, verified and durable. After any other response to an upload \
    nothing has changed, except after a 503 for a storage that did not answer: then either the old or the new file is stored, whole.\n\n\
    Over HTTP/2, a 431 for headers over 32 KiB has no body.\n\n\
    Every request needs a bearer token, a JWT with the scope of the operation that names the client. Where the operator \
    has configured it, a TLS client certificate can take the place of the token.";

const UPLOAD: &str = "Uploads a binary attachment file. Needs the scope `attachments:write`.\n\n\
    An upload to an attachment that has content replaces the content atomically.\n\n\
    The checks have a fixed order: token (401), path and query (400), rights (403), attachment (404, 412), body (400, 413). \
    A request that fails a check before the body is answered before its body is read. Clients should read the response \
    even if they are still sending.";

/// The document.
///
/// # Errors
/// What of the proto cannot be served over REST.
pub fn document() -> Result<Value, String> {
    let descriptors = DescriptorPool::decode(pb::DESCRIPTORS).map_err(|error| error.to_string())?;
    let (mut paths, mut schemas) = operations::described(&descriptors, SERVICE_NAME)?;
    let upload = paths.entry(UPLOAD_ATTACHMENT.template).or_insert_with(|| json!({}));
    upload[UPLOAD_ATTACHMENT.method.to_lowercase()] = upload_operation();
    let download = paths.entry(DOWNLOAD_ATTACHMENT.template).or_insert_with(|| json!({}));
    download[DOWNLOAD_ATTACHMENT.method.to_lowercase()] = download::operation();
    schemas.insert(
        "SuccessResponse".to_owned(),
        envelope(
            "success",
            "The request was carried out.",
            json!({
                "type": "array", "items": {}, "description": "Results. An upload has none: the array is empty."
            }),
        ),
    );
    schemas.insert(
        "ErrorResponse".to_owned(),
        envelope("error", "The request was refused or failed.", json!({
            "type": "string",
            "description": "Starts with a text that is fixed for the reason. What exactly was wrong may follow after a colon."
        })),
    );
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "attachd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "contact": { "name": "The operator of this service" },
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": "/", "description": "The REST port" }],
        "security": [{ "bearer": [] }],
        "tags": [{ "name": TAG, "description": "Files, each under the id of a client and an id of its own" }],
        "paths": paths,
        "components": {
            "securitySchemes": { "bearer": {
                "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
                "description": "A JWT of a configured issuer, in the header `Authorization`."
            } },
            "schemas": schemas
        }
    }))
}

fn upload_operation() -> Value {
    json!({
        "operationId": "uploadAttachment",
        "tags": [TAG],
        "summary": "Upload attachment",
        "description": UPLOAD,
        "parameters": parameters(),
        "requestBody": { "required": true, "description": "A form with the file.", "content": {
            "multipart/form-data": { "schema": form() }
        } },
        "responses": responses()
    })
}

fn parameters() -> Value {
    let id = |name: &str, place: &str, description: &str| {
        json!({
            "name": name, "in": place, "required": place == "path", "description": description,
            "schema": { "type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX }, "example": 1
        })
    };
    let header = |name: &str, description: &str, schema: Value, example: &str| {
        json!({
            "name": name, "in": "header", "required": false, "description": description, "schema": schema, "example": example
        })
    };
    json!([
        id("client_id", "path", "Client ID"),
        id("attachment_id", "path", "Attachment ID"),
        id("project_id", "query", "Project ID"),
        id("portfolio_id", "query", "Portfolio ID"),
        header(
            "If-None-Match",
            "`*`: store the file only if the attachment has no content yet. A list of entity tags: only if its content has none \
             of them. Otherwise the response is 412.",
            tags(),
            "*"
        ),
        header(
            "If-Match",
            "A list of entity tags: replace only content that has one of them. `*`: replace any content, but store nothing if \
             there is none. Otherwise the response is 412.",
            tags(),
            "\"5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03\""
        ),
        header(
            "Repr-Digest",
            "The SHA-256 digest of the file (RFC 9530). If the content has another digest, the response is 400.",
            digest(),
            "sha-256=:WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoakYgZ3vG0=:"
        ),
        header(
            "Content-Digest",
            "The SHA-256 digest of the body as it is sent (RFC 9530). If the body has another digest, the response is 400.",
            digest(),
            "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
        ),
        header(
            "X-Request-Id",
            "An id of the request for logs, returned in the response: up to 128 letters, digits and `-_.:/+=@`. If it is \
             missing or has another form, the server makes one.",
            json!({ "type": "string" }),
            "7f3c9f0e-upload-1"
        ),
    ])
}

fn form() -> Value {
    json!({
        "type": "object",
        "required": ["file"],
        "properties": { "file": {
            "type": "string",
            "format": "binary",
            "contentMediaType": "application/octet-stream",
            "description": "The content of the attachment. The form must have exactly one part of this name. The filename and \
                the content type of the part are stored with the content."
        } }
    })
}

fn responses() -> Map<String, Value> {
    let created = (StatusCode::CREATED.as_str().to_owned(), created());
    std::iter::once(created).chain(refusals(&KINDS)).collect()
}

fn created() -> Value {
    json!({
        "description": "Successful operation",
        "headers": {
            "Location": header("The path of the attachment.", json!({ "type": "string", "format": "uri-reference" })),
            "ETag": header("The SHA-256 digest of the content in hex, in quotes.", etag()),
            "Repr-Digest": header("The SHA-256 digest of the content (RFC 9530).", digest()),
            "X-Request-Id": request_id()
        },
        "content": { "application/json": {
            "schema": { "$ref": "#/components/schemas/SuccessResponse" },
            "example": {
                "status": "success", "code": 201, "message": "Operation completed successfully", "details": []
            }
        } }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value::{Array, Object};

    fn document() -> Value {
        super::document().unwrap()
    }

    fn responses() -> Value {
        document()["paths"][UPLOAD_ATTACHMENT.template]["post"]["responses"].clone()
    }

    #[test]
    fn every_status_is_described_with_its_envelope_and_its_headers() {
        let responses = responses();
        let statuses = ["201", "400", "401", "403", "404", "405", "408", "412", "413", "429", "431", "500", "503"];
        assert!(responses.as_object().unwrap().keys().eq(statuses), "{responses}");
        for status in statuses {
            let schema = if status == "201" { "SuccessResponse" } else { "ErrorResponse" };
            let content = &responses[status]["content"]["application/json"];
            assert_eq!(content["schema"]["$ref"], format!("#/components/schemas/{schema}"), "{status}");
            assert!(responses[status]["headers"]["X-Request-Id"].is_object(), "{status}");
        }
        for (status, header) in [
            ("401", "WWW-Authenticate"),
            ("405", "Allow"),
            ("412", "ETag"),
            ("412", "Repr-Digest"),
            ("429", "Retry-After"),
            ("503", "Retry-After"),
        ] {
            assert!(responses[status]["headers"][header].is_object(), "{status}");
        }
    }

    #[test]
    fn the_documented_examples_and_descriptions_are_word_for_word() {
        let responses = responses();
        for (status, reason, description, message, details) in [
            (
                400,
                "INVALID_REQUEST",
                "Invalid request or missing required parameters",
                "Invalid request",
                "Validation error",
            ),
            (
                401,
                "TOKEN_MISSING",
                "Authentication error (JWT token missing/invalid)",
                "Authentication failed",
                "JWT token not found",
            ),
            (403, "FORBIDDEN", "Access denied (insufficient permissions)", "Access denied", "Insufficient permissions"),
            (404, "NOT_FOUND", "Resource not found", "Not found", "The requested resource was not found"),
            (500, "INTERNAL", "Internal server error", "Internal server error", "An internal server error occurred"),
        ] {
            let response = &responses[status.to_string()];
            assert_eq!(response["description"], description);
            let documented = json!({ "status": "error", "code": status, "message": message, "details": details });
            assert_eq!(response["content"]["application/json"]["examples"][reason]["value"], documented);
        }
        assert_eq!(responses["201"]["description"], "Successful operation");
    }

    #[test]
    fn only_kinds_that_no_route_of_ours_raises_are_left_out() {
        let raised = [&KINDS[..], &operations::OF_BODIES, &operations::OF_CHANGES, &download::KINDS].concat();
        let is_raised = |kind: &Kind| raised.contains(kind);
        let left_out: Vec<_> = Kind::ALL.into_iter().filter(|kind| !is_raised(kind)).collect();
        // The size of a form's file is never declared apart from its bytes. Compressed messages are those of the gRPC port.
        let expected = [Kind::SizeMismatch, Kind::UnsupportedCompression];
        assert_eq!(left_out, expected);
    }

    /// Checks a schema and those within it, whose place is `at`.
    fn generates(at: &str, value: &Value) {
        match value {
            Object(object) => {
                assert!(!object.contains_key("const"), "{at} has `const`, which generators for 3.0 do not know");
                assert!(
                    object.get("type") != Some(&json!("array")) || object.contains_key("items"),
                    "{at} has no `items`"
                );
                assert!(!object.contains_key("enum") || object.contains_key("type"), "{at} has no `type`");
                assert!(
                    !object.contains_key("contentMediaType") || object.get("format") == Some(&json!("binary")),
                    "{at} is no file for generators"
                );
                object.iter().for_each(|(key, value)| generates(&format!("{at}/{key}"), value));
            }
            Array(values) => values.iter().for_each(|value| generates(at, value)),
            _ => {}
        }
    }

    #[test]
    fn every_schema_uses_words_that_code_generators_know() {
        generates("", &document());
    }
}
