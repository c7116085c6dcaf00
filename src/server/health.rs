//! Whether requests are to be sent here, in the words of the gRPC health protocol (grpc.health.v1): for the process as a
//! whole, under the empty name, and for each service. It knows neither why nor what the services do.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health as HealthProtocol, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::limits::{FIRST_LOOK, HEALTH_PAUSE, WATCHES_OF_CONNECTION, WATCHES_OF_PORT};
use super::watches::{Watch, Watches};
use crate::admin::{Health, Serves};
use crate::error::{Error, Kind};
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::rpc::{Attachments, Failure};

/// The names of all that is served: the process, and its service.
const NAMES: [&str; 2] = ["", <AttachmentServiceServer<Attachments> as NamedService>::NAME];

/// The name of uploads alone, which may be refused while all else is served.
const UPLOADS: &str = "attachments.v2.AttachmentService/UploadAttachment";

fn is_known(name: &str) -> bool {
    NAMES.contains(&name) || name == UPLOADS
}

/// The health that one port tells of, the same for all [`NAMES`].
#[derive(Clone, Debug)]
pub(super) struct Serving {
    current: Arc<watch::Sender<Current>>,
    watches: Watches,
}

#[derive(Clone, Copy, Debug)]
struct Current {
    serves: Serves,
    /// Whether watchers are to go, once they were told of the status.
    ended: bool,
}

impl Default for Serving {
    fn default() -> Serving {
        let current = Current { serves: Serves::default(), ended: false };
        Serving { current: Arc::new(watch::Sender::new(current)), watches: Watches::default() }
    }
}

impl Serving {
    /// The service that tells of it.
    pub(super) fn service(&self) -> HealthServer<Serving> {
        HealthServer::new(self.clone())
    }

    /// The service alone, for a port that has routes of its own.
    pub(super) fn routes(&self) -> Router {
        Routes::new(self.service()).into_axum_router().reset_fallback()
    }

    /// Sets the health from now on. Watchers receive changes.
    pub(super) fn set(&self, serves: Serves) {
        self.current.send_modify(|current| current.serves = serves);
    }

    /// A call begins to watch. It counts among those of its connection and of the port.
    fn begin(&self, request: &Request<HealthCheckRequest>) -> Result<[Option<Watch>; 2], Status> {
        let refused = |most: usize, of: &str| {
            let why = format!("at most {most} calls on {of} may watch the health; use Check, or end another call");
            Failure::of(request.extensions()).leave(Error::new(Kind::RateLimited).detail(why))
        };
        let of_connection = match request.extensions().get::<Watches>().map(|of| of.begin(WATCHES_OF_CONNECTION)) {
            Some(None) => return Err(refused(WATCHES_OF_CONNECTION, "a connection")),
            of_connection => of_connection.flatten(),
        };
        let of_port = self.watches.begin(WATCHES_OF_PORT);
        if of_port.is_none() {
            return Err(refused(WATCHES_OF_PORT, "a port"));
        }
        Ok([of_connection, of_port])
    }

    /// Ends the calls of those who watch, which would go on for ever.
    pub(super) fn end(&self) {
        self.current.send_modify(|current| current.ended = true);
    }
}

impl Current {
    fn status(self, name: &str) -> ServingStatus {
        let serves = if name == UPLOADS { self.serves.uploads } else { self.serves.requests };
        if serves { ServingStatus::Serving } else { ServingStatus::NotServing }
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl HealthProtocol for Serving {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let name = &request.get_ref().service;
        if !is_known(name) {
            let error = Error::new(Kind::NotFound).detail("there is no service of this name");
            let failure = Failure::of(request.extensions());
            return Err(failure.leave(error));
        }
        let status = self.current.borrow().status(name);
        Ok(Response::new(response(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// A name that is not known is SERVICE_UNKNOWN for as long as it is watched, since it may become known (health.proto).
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watch = self.begin(&request)?;
        let begun = (self.current.subscribe(), None, request.into_inner().service, watch);
        let told = stream::unfold(begun, |(mut statuses, last, name, watch)| async move {
            loop {
                let current = *statuses.borrow_and_update();
                let status = if is_known(&name) { current.status(&name) } else { ServingStatus::ServiceUnknown };
                if last != Some(status) {
                    return Some((Ok(response(status)), (statuses, Some(status), name, watch)));
                }
                if current.ended {
                    return None;
                }
                statuses.changed().await.ok()?;
            }
        });
        Ok(Response::new(Box::pin(told)))
    }
}

/// Looks at the storage for the first time, not for long, and tells what it saw.
pub(super) async fn tell(ports: &[Serving; 2], health: &Health) -> Serves {
    let serves = timeout(FIRST_LOOK, health.serves()).await.unwrap_or_default();
    set(ports, serves);
    serves
}

/// Looks again and again, and tells of what is not as it was `told`.
pub(super) async fn watch(ports: [Serving; 2], health: Health, mut told: Serves) {
    loop {
        tokio::time::sleep(HEALTH_PAUSE).await;
        let serves = health.serves().await;
        if told != serves {
            set(&ports, serves);
            told = serves;
        }
    }
}

fn set(ports: &[Serving; 2], serves: Serves) {
    for port in ports {
        port.set(serves);
    }
}
