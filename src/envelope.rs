//! The documented reply bodies, and the headers that belong to a refusal. Every reply of the REST port, whatever raised it,
//! is made here. This module does not know why a request was refused.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::auth;
use crate::error::{Error, Kind, Version};

/// RFC 9530.
const REPR_DIGEST: HeaderName = HeaderName::from_static("repr-digest");

/// What `message` says on success.
const SUCCEEDED: &str = "Operation completed successfully";

/// The documented body. `details` is a list on success and a text on a refusal.
#[derive(Serialize)]
struct Envelope<D: Serialize> {
    status: &'static str,
    code: u16,
    message: &'static str,
    details: D,
    /// What stands beside `details`.
    #[serde(flatten)]
    beside: Map<String, Value>,
}

/// The names of its members, which nothing beside `details` may have.
pub const MEMBERS: [&str; 4] = ["status", "code", "message", "details"];

/// What a reply was refused for, beside the reply, for the log.
#[derive(Clone, Debug)]
pub struct ReplyError {
    /// The kind of failure.
    pub kind: Kind,
    /// The failure with its cause.
    pub error: String,
    /// Whether a resource is used up.
    pub at_limit: bool,
}

impl ReplyError {
    /// What the log is to say of an error.
    pub fn of(error: &Error) -> ReplyError {
        ReplyError { kind: error.kind(), error: error.to_string(), at_limit: error.is_at_limit() }
    }
}

/// Stands among the extensions of a reply whose body is a stream: the request ends when the body does.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// How many bytes the body has, 1 or more.
    pub length: u64,
}

/// The reply of a stored upload.
pub fn created() -> Response {
    let status = StatusCode::CREATED;
    success(status, [(); 0], Map::new())
}

/// The reply of an operation, with what stands in `details` and beside it.
pub fn success(status: StatusCode, details: impl Serialize, beside: Map<String, Value>) -> Response {
    reply(status, &Envelope { status: "success", code: status.as_u16(), message: SUCCEEDED, details, beside })
}

/// The reply of a refusal or failure. What else the path would take, in `Allow` and `Accept`, is added by the router.
pub fn refusal(error: &Error) -> Response {
    let row = error.kind().row();
    let details = error.public_details();
    let mut response = reply(
        row.status,
        &Envelope { status: "error", code: row.status.as_u16(), message: row.message, details, beside: Map::new() },
    );
    let headers = response.headers_mut();
    if let Some(challenge) = auth::www_authenticate(error).and_then(|challenge| challenge.parse().ok()) {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    if let Some(delay) = error.retry_after() {
        headers.insert(RETRY_AFTER, delay.as_secs().max(1).into());
    }
    if let Some(version) = error.version() {
        name_version(headers, version);
    }
    if let Some(size) = error.size() {
        headers.insert(CONTENT_RANGE, unsatisfied(size));
    }
    response.extensions_mut().insert(ReplyError::of(error));
    response
}

/// What a range outside of content of so many bytes is answered with (RFC 9110 s14.4).
fn unsatisfied(size: u64) -> HeaderValue {
    // Digits are fit for a header; if they were not, the header would say less.
    HeaderValue::try_from(format!("bytes */{size}")).unwrap_or(HeaderValue::from_static("bytes */*"))
}

/// Names the version of the stored content in the headers of a reply.
pub fn name_version(headers: &mut HeaderMap, version: &Version) {
    for (name, value) in [(ETAG, &version.etag), (REPR_DIGEST, &version.repr_digest)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

fn reply<D: Serialize>(status: StatusCode, envelope: &Envelope<D>) -> Response {
    // Serialising strings and numbers cannot fail; if it did, an empty body with the right status is what is left.
    let mut response = Response::new(Body::from(serde_json::to_vec(envelope).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use serde_json::json;

    async fn body(response: Response) -> Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn every_documented_example_is_what_is_sent() {
        let documented = json!({
            "status": "success", "code": 201, "message": "Operation completed successfully", "details": []
        });
        assert_eq!(body(created()).await, documented);
        for (kind, code, message, details) in [
            (Kind::Invalid, 400, "Invalid request", "Validation error"),
            (Kind::TokenMissing, 401, "Authentication failed", "JWT token not found"),
            (Kind::Forbidden, 403, "Access denied", "Insufficient permissions"),
            (Kind::NotFound, 404, "Not found", "The requested resource was not found"),
            (Kind::Internal, 500, "Internal server error", "An internal server error occurred"),
        ] {
            let response = refusal(&Error::new(kind));
            assert_eq!(response.status(), code);
            let documented = json!({ "status": "error", "code": code, "message": message, "details": details });
            assert_eq!(body(response).await, documented);
        }
    }

    #[tokio::test]
    async fn every_kind_is_an_envelope_whose_code_is_the_status() {
        for kind in Kind::ALL {
            let response = refusal(&Error::new(kind).because("a secret"));
            let (status, headers) = (response.status(), response.headers().clone());
            let body = body(response).await;
            assert_eq!(body["code"], status.as_u16(), "{kind:?}");
            assert_eq!(body["status"], "error");
            assert!(body["details"].as_str().unwrap().starts_with(kind.row().details));
            assert!(!body.to_string().contains("secret"));
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401, "{kind:?}");
            assert_eq!(headers.contains_key(RETRY_AFTER), matches!(status.as_u16(), 429 | 503), "{kind:?}");
        }
    }
}
