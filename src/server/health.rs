//! Whether requests are to be sent here, in the words of the gRPC health protocol (grpc.health.v1): for the process as a
//! whole, under the empty name, and for each service. It knows neither why nor what the services do.

use axum::Router;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};

use super::limits::{FIRST_LOOK, HEALTH_PAUSE};
use crate::admin::Health;
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::rpc::Attachments;

/// The names that are asked for.
const NAMES: [&str; 2] = ["", <AttachmentServiceServer<Attachments> as NamedService>::NAME];

/// The health that one port tells of.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving(HealthReporter);

impl Serving {
    /// The service that tells of it.
    pub(super) fn service(&self) -> HealthServer<HealthService> {
        HealthServer::new(HealthService::from_health_reporter(self.0.clone()))
    }

    /// The service alone, for a port that has routes of its own.
    pub(super) fn routes(&self) -> Router {
        Routes::new(self.service()).into_axum_router().reset_fallback()
    }

    /// Tells whether requests are served from now on. Watchers are told of changes.
    pub(super) async fn set(&self, serves: bool) {
        let status = if serves { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in NAMES {
            self.0.set_service_status(name, status).await;
        }
    }

    /// Ends the calls of those who watch, which would go on for ever.
    pub(super) async fn end(&self) {
        let mut reporter = self.0.clone();
        for name in NAMES {
            reporter.clear_service_status(name).await;
        }
    }
}

/// Looks at the storage for the first time, not for long, and tells what it saw.
pub(super) async fn tell(ports: &[Serving; 2], health: &Health) -> bool {
    let serves = timeout(FIRST_LOOK, health.serves()).await.unwrap_or(false);
    set(ports, serves).await;
    serves
}

/// Looks again and again, and tells of what is not as it was `told`.
pub(super) async fn watch(ports: [Serving; 2], health: Health, mut told: bool) {
    loop {
        tokio::time::sleep(HEALTH_PAUSE).await;
        let serves = health.serves().await;
        if told != serves {
            set(&ports, serves).await;
            told = serves;
        }
    }
}

async fn set(ports: &[Serving; 2], serves: bool) {
    for port in ports {
        port.set(serves).await;
    }
}
