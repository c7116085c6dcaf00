//! The gRPC port: the operations with reflection and health beside them, under the limits of the doors. It knows no
//! operation.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tower_http::catch_panic::CatchPanicLayer;

use super::limits::{CONNECTION_WINDOW, MAX_FRAME, MAX_PENDING_RESETS, MAX_STREAMS, STREAM_WINDOW};
use crate::error::Error;
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::pb::{self};
use crate::rpc::{Attachments, MAX_MESSAGE};

/// Serves the operations, their descriptors and the standard health service over HTTP/2 without TLS.
pub(super) async fn serve(
    listener: TcpListener,
    attachments: Attachments,
    keep_alive: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    let service = AttachmentServiceServer::new(attachments).max_decoding_message_size(MAX_MESSAGE);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AttachmentServiceServer<Attachments>>().await;
    let reflection = |version: &str| tracing::error!(version, "the descriptors cannot be reflected");
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(service).add_service(health);
    match described().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1"),
    }
    match described().build_v1alpha() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1alpha"),
    }
    let mut server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(keep_alive))
        .layer(CatchPanicLayer::custom(panicked));
    let stop = async move {
        // An error means that the server itself is gone, which is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let served = server.add_routes(routes).serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC port ended");
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> http::Response<tonic::body::Body> {
    let error = Error::internal("a panic");
    tracing::error!(%error, "a panic in a gRPC request");
    error.to_status().into_http()
}
