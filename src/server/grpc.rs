//! The routes of the gRPC port: the operations, with reflection and health beside them, and what every call passes through.
//! It knows no operation.

use std::any::Any;
use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use tonic::body::Body;
use tonic::service::Routes;

use super::health::Serving;
use crate::error::Error;
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::pb::{self};
use crate::rpc::{Attachments, MAX_WHOLE_MESSAGE, UPLOAD, Unread};

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

/// Answers for a call that panics.
async fn pass(request: Request, next: Next) -> Response {
    AssertUnwindSafe(next.run(unread(request))).catch_unwind().await.unwrap_or_else(panicked)
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
