//! The routes of the gRPC port: the operations, with reflection and health beside them, and what every call passes through.
//! It knows no operation.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use http::HeaderMap;
use tonic::body::Body;
use tonic::service::Routes;

use super::health::Serving;
use crate::error::{Error, Kind};
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::pb::{self};
use crate::rpc::{Attachments, MAX_WHOLE_MESSAGE, UPLOAD, Unread};

/// How long a client will wait for the end of its call.
const DEADLINE: &str = "grpc-timeout";

/// The routes of the gRPC port.
pub(super) fn routes(attachments: Attachments, serving: &Serving) -> Router {
    let service = AttachmentServiceServer::new(attachments).max_decoding_message_size(MAX_WHOLE_MESSAGE);
    let reflection = |version: &str| tracing::error!(version, "the descriptors cannot be reflected");
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(service).add_service(serving.service());
    match described().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1"),
    }
    match described().build_v1alpha() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1alpha"),
    }
    routes.prepare().into_axum_router().layer(middleware::from_fn(pass))
}

/// Ends a call whose client has stopped waiting for it, and answers for one that panics. A deadline that is none is passed over.
async fn pass(request: Request, next: Next) -> Response {
    let deadline = deadline(request.headers());
    let routed = AssertUnwindSafe(next.run(unread(request))).catch_unwind();
    let Some(deadline) = deadline else {
        return routed.await.unwrap_or_else(panicked);
    };
    match tokio::time::timeout(deadline, routed).await {
        Ok(reply) => reply.unwrap_or_else(panicked),
        Err(_) => {
            let error = Error::new(Kind::ClientTooSlow).detail("the deadline of the call has passed");
            error.to_status().into_http()
        }
    }
}

/// Keeps the body of an upload from tonic.
fn unread(mut request: Request) -> Request {
    if request.uri().path() == UPLOAD {
        let body = std::mem::take(request.body_mut());
        request.extensions_mut().insert(Unread::new(Body::new(body)));
    }
    request
}

fn panicked(_: Box<dyn Any + Send>) -> Response {
    let error = Error::internal("a panic");
    tracing::error!(%error, "a panic in a gRPC request");
    error.to_status().into_http()
}

/// The deadline of a call: up to eight digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(DEADLINE)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_deadline_is_up_to_eight_digits_and_a_unit() {
        let read = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(DEADLINE, HeaderValue::from_static(text));
            deadline(&headers)
        };
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("4m"), Some(Duration::from_millis(4)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "1", "H", "123456789S", "-1S", "+1S", "1s", "1 S", "1.5S"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(deadline(&HeaderMap::new()), None);
    }
}
