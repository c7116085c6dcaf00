//! The routes of the gRPC port: the operations, with reflection and health beside them. It knows no operation.

use axum::Router;
use tonic::service::Routes;

use super::health::Serving;
use crate::pb;
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::rpc::{Attachments, MAX_WHOLE_MESSAGE};

/// The routes of the gRPC port, with reflection if `reflects`.
pub(super) fn routes(attachments: Attachments, serving: &Serving, reflects: bool) -> Router {
    let service = AttachmentServiceServer::new(attachments).max_decoding_message_size(MAX_WHOLE_MESSAGE);
    let reflection = |version: &str| tracing::error!(version, "the descriptors cannot be reflected");
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(service).add_service(serving.service());
    if !reflects {
        return routes.prepare().into_axum_router();
    }
    match described().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1"),
    }
    match described().build_v1alpha() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1alpha"),
    }
    routes.prepare().into_axum_router()
}
