//! The description of the REST door for programs, in OpenAPI 3.1. Route, statuses and texts come from the code that serves
//! them, so that the description cannot say anything else.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::Kind;
use crate::pb::UPLOAD_ROUTE;

/// The kinds that the REST door can answer with, in the order in which they are checked.
const KINDS: [Kind; 16] = [
    Kind::TokenMissing,
    Kind::TokenInvalid,
    Kind::TokenExpired,
    Kind::Invalid,
    Kind::Forbidden,
    Kind::NotFound,
    Kind::AlreadyExists,
    Kind::TooLarge,
    Kind::Incomplete,
    Kind::DigestMismatch,
    Kind::ClientTooSlow,
    Kind::Overloaded,
    Kind::Draining,
    Kind::KeysUnavailable,
    Kind::StorageUnavailable,
    Kind::Internal,
];

/// The document.
pub fn document() -> Value {
    let id = json!({ "type": "integer", "format": "int64", "minimum": 1, "maximum": i64::MAX });
    let parameter = |name: &str, place: &str, description: &str| json!({ "name": name, "in": place, "required": place == "path", "description": description, "schema": id });
    let header = |name: &str, description: &str, schema: Value| json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "attachd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Takes file attachments. 201 means stored: complete, verified, durable. Anything else means that nothing changed.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "servers": [{ "url": "/" }],
        "security": [{ "bearer": [] }],
        "paths": { UPLOAD_ROUTE: { "post": {
            "operationId": "uploadAttachment",
            "summary": "Upload attachment",
            "description": "Uploads a binary attachment file. The same id again replaces the content in one step.",
            "parameters": [
                parameter("client_id", "path", "Client ID"),
                parameter("attachment_id", "path", "Attachment ID"),
                parameter("project_id", "query", "Project ID"),
                parameter("portfolio_id", "query", "Portfolio ID"),
                header("If-None-Match", "Store only where the attachment has no content yet, else 412.", json!({ "const": "*" })),
                header("Repr-Digest", "The digest that the file must have (RFC 9530).",
                    json!({ "type": "string", "examples": ["sha-256=:WJG1tSLV3whtD/CxEPvZ0hu0/HFjrzTQgoakYgZ3vG0=:"] })),
                header("X-Request-Id", "Returned, and written to the log.",
                    json!({ "type": "string", "pattern": "^[A-Za-z0-9_.:/+=@-]{1,128}$" })),
            ],
            "requestBody": { "required": true, "content": { "multipart/form-data": { "schema": {
                "type": "object",
                "required": ["file"],
                "properties": { "file": { "type": "string", "contentMediaType": "application/octet-stream",
                    "description": "The content. Exactly one part of this name." } }
            } } } },
            "responses": responses()
        } } },
        "components": {
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "schemas": {
                "SuccessResponse": envelope("success", json!({ "type": "array", "maxItems": 0 })),
                "ErrorResponse": envelope("error", json!({ "type": "string" }))
            }
        }
    })
}

fn envelope(status: &str, details: Value) -> Value {
    json!({
        "type": "object",
        "required": ["status", "code", "message", "details"],
        "properties": {
            "status": { "const": status },
            "code": { "type": "integer", "description": "The HTTP status." },
            "message": { "type": "string" },
            "details": details
        }
    })
}

fn responses() -> Map<String, Value> {
    let text = |description: &str| json!({ "description": description, "schema": { "type": "string" } });
    let mut responses = Map::new();
    responses.insert(
        "201".to_owned(),
        json!({
            "description": "Successful operation",
            "headers": {
                "Location": text("The attachment's path."),
                "ETag": text("The content's digest in hex, quoted."),
                "Repr-Digest": text("The content's SHA-256 digest (RFC 9530)."),
                "X-Request-Id": text("The request's id.")
            },
            "content": { "application/json": {
                "schema": { "$ref": "#/components/schemas/SuccessResponse" },
                "example": {
                    "status": "success", "code": 201, "message": "Operation completed successfully", "details": []
                }
            } }
        }),
    );
    let mut kinds: BTreeMap<u16, Vec<Kind>> = BTreeMap::new();
    for kind in KINDS {
        kinds.entry(kind.row().status.as_u16()).or_default().push(kind);
    }
    for (status, kinds) in kinds {
        let row = kinds[0].row();
        let mut headers = json!({ "X-Request-Id": text("The request's id.") });
        match status {
            401 => headers["WWW-Authenticate"] = text("What is needed (RFC 6750)."),
            503 => headers["Retry-After"] = text("In how many seconds to try again."),
            _ => {}
        }
        let mut details: Vec<_> = kinds.iter().map(|kind| kind.row().details).collect();
        details.dedup();
        let examples: Map<String, Value> = kinds
            .iter()
            .map(|kind| {
                let body = json!({
                    "status": "error", "code": status, "message": row.message, "details": kind.row().details
                });
                (kind.row().reason.to_owned(), json!({ "value": body }))
            })
            .collect();
        responses.insert(
            status.to_string(),
            json!({
                "description": details.join(". "),
                "headers": headers,
                "content": { "application/json": {
                    "schema": { "$ref": "#/components/schemas/ErrorResponse" },
                    "examples": examples
                } }
            }),
        );
    }
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_status_is_described_with_its_envelope() {
        let document = document();
        let responses = &document["paths"][UPLOAD_ROUTE]["post"]["responses"];
        for status in ["201", "400", "401", "403", "404", "408", "412", "413", "500", "503"] {
            assert!(responses[status]["content"]["application/json"]["schema"].is_object(), "{status}");
        }
        let example = &responses["401"]["content"]["application/json"]["examples"]["TOKEN_MISSING"]["value"];
        assert_eq!(example["details"], "JWT token not found");
        assert_eq!(example["message"], "Authentication failed");
    }

    #[test]
    fn only_kinds_that_no_route_of_ours_raises_are_left_out() {
        let left_out: Vec<_> = Kind::ALL.into_iter().filter(|kind| !KINDS.contains(kind)).collect();
        // The size of a form's file is never declared apart from its bytes; other methods have no operation to describe.
        assert_eq!(left_out, [Kind::SizeMismatch, Kind::MethodNotAllowed, Kind::RateLimited]);
    }
}
