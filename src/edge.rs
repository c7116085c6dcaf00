//! The edge of the REST port: everything that every request passes through, in one function, in order. It gives a request
//! its id and its line in the log, turns panics into the envelope, and lets a client that is still sending read a reply
//! that came early. It knows no route.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use http::header::CONNECTION;
use http::{HeaderValue, Version};
use tower::ServiceExt;
use tracing::Instrument;

use crate::envelope::{self, ReplyError, Streamed};
use crate::error::{Error, Kind};
use crate::request::{self, Arrival, RequestContext, Unreadable};
use crate::telemetry::{self, Exit, Metrics, Protocol, REQUEST_ID, RequestId, TraceHeaders};
use drains::{Drains, Rest};
use refusals::Refusals;
use told::Told;

pub mod cors;
pub mod drains;
pub mod grpc;
mod host;
pub mod refusals;
mod told;

/// Stands among the extensions of a reply that says `Connection: close` because more of its request is to come than is read
/// quickly.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

/// What a port serves. Nothing gets in but by [`Routes::serve`], so every request has its [`Arrival`].
#[derive(Clone, Debug)]
pub struct Routes(Router);

impl Routes {
    /// Routes with no edge around them.
    pub fn bare(routes: Router) -> Routes {
        Routes(routes)
    }

    /// Answers a request that arrived so.
    pub fn serve(&self, arrival: Arrival, mut request: Request) -> impl Future<Output = Response> + use<> {
        request.extensions_mut().insert(arrival);
        self.0.clone().oneshot(request).map(|served| match served {
            Ok(response) => response,
            Err(never) => match never {},
        })
    }
}

/// Wraps the routes in one layer, since each has boxes of its own for every request. A request passes
///
/// 1. the log line, outermost, so that it sees every reply and how long it took, and the request id and the
///    permission for pages of other origins to read the reply, so that every reply carries them;
/// 2. the wait of a refusal that is one of many;
/// 3. the draining of bodies, outside of what may panic, so that a client can read that reply as well;
/// 4. the catching of panics, around the routes alone.
pub fn around(routes: Router, drains: Drains, refusals: Refusals, cors: Arc<cors::Config>, metrics: Metrics) -> Routes {
    Routes(routes.layer(middleware::from_fn_with_state((drains, refusals, cors, metrics), pass)))
}

/// What the layer is given.
type Given = (Drains, Refusals, Arc<cors::Config>, Metrics);

async fn pass(State((drains, refusals, cors, metrics)): State<Given>, mut request: Request, next: Next) -> Response {
    let id = RequestId::accept_or_make(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
    let exit = {
        let headers = request.headers();
        let caller = TraceHeaders(&|name| headers.get(name).and_then(|value| value.to_str().ok()));
        Exit::new(
            Protocol::Rest,
            id,
            telemetry::method(request.method().as_str()),
            request.uri().path(),
            &metrics,
            &caller,
        )
    };
    let version = request.version();
    let origin = cors.allowed(request.headers());
    let rest = Rest::default();
    let early = match request::take(request.extensions_mut()).and_then(|arrival| readable(arrival, &request)) {
        Ok(arrival) => {
            request.extensions_mut().insert(RequestContext::new(arrival, exit.trail()));
            cors.preflight(&request)
        }
        Err(error) => Some(envelope::refusal(&error)),
    };
    let request = rest.watch(request);
    let mut response = match early {
        Some(response) => {
            drop(request);
            response
        }
        None => {
            let routed = AssertUnwindSafe(next.run(request)).catch_unwind();
            let routed = routed.instrument(exit.span().clone()).await;
            routed.unwrap_or_else(|panic| envelope::refusal(&panicked(&*panic)))
        }
    };
    cors.open(origin, response.headers_mut());
    if let Ok(id) = HeaderValue::try_from(exit.request_id().to_ascii()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let refused = response.extensions().get::<ReplyError>();
    // The next request of the client of an overloaded server is better made to another replica.
    let leaves = refused.is_some_and(|refused| refused.kind == Kind::Overloaded) && version < Version::HTTP_2;
    if refused.is_some_and(|refused| refused.at_limit) {
        refusals.pace().await;
    }
    let streamed = response.extensions_mut().remove::<Streamed>();
    match response.extensions_mut().remove::<ReplyError>() {
        Some(ReplyError { kind, error, at_limit }) => exit.failed_with(kind, error, at_limit),
        None if let Some(Streamed { length }) = streamed => {
            response = response.map(|body| Body::new(Told::new(body, length, exit)));
        }
        None => exit.succeeded(),
    }
    let cut = rest.settle(&drains, version, leaves).await;
    if cut {
        response.extensions_mut().insert(Cut);
    }
    if cut || leaves {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Whether the head of a request can be understood, and in one way only.
fn readable(arrival: Arrival, request: &Request) -> Result<Arrival, Error> {
    match arrival.unreadable {
        Some(Unreadable { kind, why }) => Err(Error::new(kind).detail(why)),
        None => host::named(request).map(|()| arrival),
    }
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("a panic: {}", text.unwrap_or("of unknown content")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::auth::Peer;
    use crate::origin::Origin;
    use axum::routing::post;
    use http::header::HOST;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};

    pub(super) fn arrival() -> Arrival {
        let origin = Origin::of(([127, 0, 0, 1], 4711).into(), std::iter::empty(), &[]);
        Arrival { origin, peer: Peer::default(), unreadable: None }
    }

    #[tokio::test]
    async fn a_panic_in_one_request_is_an_envelope_with_an_id_and_the_next_request_is_served() {
        let routes = Router::new()
            .route("/panic", post(|| async { if true { panic!("secret") } else { "" } }))
            .route("/fine", post(|| async { "fine" }));
        let config = drains::Config { bytes: 1024, time: Duration::from_secs(1), at_once: 1, bytes_per_second: 0 };
        let port = around(
            routes,
            Drains::new(config, &Metrics::default()),
            Refusals::new(0, &Metrics::default()),
            Arc::default(),
            Metrics::default(),
        );
        let ask = |path: &str| {
            let request =
                Request::post(path).header(HOST, "attachd").header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
            port.serve(arrival(), request)
        };
        let response = ask("/panic").await;
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[REQUEST_ID], "mine");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let documented = json!({
            "status": "error", "code": 500, "message": "Internal server error",
            "details": "An internal server error occurred"
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), documented);
        assert_eq!(ask("/fine").await.status(), 200);
    }
}
