//! The edge of the REST port: everything that every request passes through, in one function, in order. It gives a request
//! its id and its line in the log, turns panics into the envelope, and lets a client that is still sending read a reply
//! that came early. It knows no route.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use http::header::{CONNECTION, EXPECT};
use http::{HeaderValue, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::ServiceExt;
use tracing::Instrument;

use crate::envelope::{self, ReplyError, Streamed};
use crate::error::Error;
use crate::request::{self, Arrival, RequestContext, Unreadable};
use crate::telemetry::{self, Exit, Metrics, Protocol, REQUEST_ID, RequestId, TraceHeaders};
use told::Told;

pub mod cors;
pub mod grpc;
mod host;
mod told;

/// What a client expects that waits before it sends its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"100-continue";

/// Up to how many bytes of a refused request's body are read so that the connection can serve the next request. If more are
/// to come, the reply asks the client to close the connection: many clients send a body to its end otherwise.
const QUICK: u64 = 8 << 20;

/// How long the reply waits for the end of a refused body whose length is not known, so that it can say whether the connection
/// goes on.
const QUICK_TIME: Duration = Duration::from_millis(200);

/// How much of a refused request's body is read and thrown away.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes, at most. Past them the connection is closed.
    pub drain_bytes: u64,
    /// Time, at most. Past it the connection is closed.
    pub drain_time: Duration,
}

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
/// 2. the draining of bodies, outside of what may panic, so that a client can read that reply as well;
/// 3. the catching of panics, around the routes alone.
pub fn around(routes: Router, config: Config, cors: Arc<cors::Config>, metrics: Metrics) -> Routes {
    Routes(routes.layer(middleware::from_fn_with_state((config, cors, metrics), pass)))
}

/// What the layer is given.
type Given = (Config, Arc<cors::Config>, Metrics);

async fn pass(State((config, cors, metrics)): State<Given>, mut request: Request, next: Next) -> Response {
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
    let streamed = response.extensions_mut().remove::<Streamed>();
    match response.extensions_mut().remove::<ReplyError>() {
        Some(ReplyError { kind, error, at_limit }) => exit.failed_with(kind, error, at_limit),
        None if let Some(Streamed { length }) = streamed => {
            response = response.map(|body| Body::new(Told::new(body, length, exit)));
        }
        None => exit.succeeded(),
    }
    if rest.settle(config, version).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response.extensions_mut().insert(Cut);
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

/// What of a request's body was left unread when its reply was ready.
#[derive(Clone, Default)]
struct Rest(Arc<Mutex<Option<Left>>>);

/// A body that was dropped before its end.
struct Left {
    body: Body,
    /// The client waits for a `100 Continue`, which the first read sends. Until then it is not sending, and to drain would
    /// be to ask it to.
    waits: bool,
}

impl Rest {
    /// The request with a body that comes here when it is dropped before its end.
    fn watch(&self, request: Request) -> Request {
        let waits = request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
        let rest = self.clone();
        request.map(|body| Body::new(Watched { left: Some(Left { body, waits }), rest }))
    }

    /// Sees to it that the client can read its reply while it is still sending, and returns whether the connection must end
    /// with that reply. A server that stops reading and closes makes the client's system discard the reply that has arrived
    /// already, and all that the client sees is a reset connection, or stream.
    async fn settle(self, config: Config, version: Version) -> bool {
        let Some(Left { mut body, waits }) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return false;
        };
        let Config { drain_bytes, drain_time } = config;
        let quick = QUICK.min(drain_bytes);
        match body.size_hint().exact() {
            // HTTP/2 has a way of its own, a reset of the stream without an error. curl before version 8 takes it for one.
            _ if version == Version::HTTP_2 => {
                if !waits {
                    tokio::spawn(tokio::time::timeout(drain_time, async move { drain(&mut body, drain_bytes).await }));
                }
                false
            }
            _ if waits => true,
            Some(left) if left <= quick => {
                tokio::spawn(tokio::time::timeout(drain_time, async move { drain(&mut body, drain_bytes).await }));
                false
            }
            Some(_) => true,
            None => {
                let drained = tokio::time::timeout(QUICK_TIME.min(drain_time), drain(&mut body, quick)).await;
                !drained.unwrap_or(false)
            }
        }
    }
}

/// A body that leaves what was not read of it.
struct Watched {
    left: Option<Left>,
    rest: Rest,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(left) = &mut self.left else {
            return Poll::Ready(None);
        };
        left.waits = false;
        let frame = Pin::new(&mut left.body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.left = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.left.as_ref().is_none_or(|left| left.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.left.as_ref().map(|left| left.body.size_hint()).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(left) = self.left.take().filter(|left| !left.body.is_end_stream()) {
            *self.rest.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(left);
        }
    }
}

/// Reads a body to its end, and returns whether that came within so many bytes.
async fn drain(body: &mut Body, most: u64) -> bool {
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return false;
        };
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > most {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Peer;
    use crate::origin::Origin;
    use axum::routing::post;
    use http::header::HOST;
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
        let config = Config { drain_bytes: 1024, drain_time: Duration::from_secs(1) };
        let port = around(routes, config, Arc::default(), Metrics::default());
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
