//! The edge of the REST port: everything that every request passes through, in one function, in order. It gives a request
//! its id and its line in the log, turns panics into the envelope, and lets a client that is still sending read a reply
//! that came early. It knows no route.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use http::header::{EXPECT, HOST};
use http::{HeaderValue, Version};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use tracing::Instrument;

use crate::envelope::{self, Refusal};
use crate::error::{Error, Result};
use crate::telemetry::{Caller, Door, Exit, Metrics, REQUEST_ID, RequestId};

pub mod grpc;

/// What a client expects that waits before it sends its body (RFC 9110 §10.1.1).
const CONTINUE: &[u8] = b"100-continue";

/// How much of a refused request's body is read and thrown away.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes, at most. Past them the connection is closed.
    pub drain_bytes: u64,
    /// Time, at most. Past it the connection is closed.
    pub drain_time: Duration,
}

/// Wraps the routes in one layer, since each has boxes of its own for every request. A request passes
///
/// 1. the log line, outermost, so that it sees every reply and how long it took, and the request id, so that every reply
///    carries it;
/// 2. the draining of bodies, outside of what may panic, so that a client can read that reply as well;
/// 3. the catching of panics, around the routes alone.
pub fn around(routes: Router, config: Config, metrics: Metrics) -> Router {
    routes.layer(middleware::from_fn_with_state((config, metrics), pass))
}

async fn pass(State((config, metrics)): State<(Config, Metrics)>, mut request: Request, next: Next) -> Response {
    let id = RequestId::accept_or_make(request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes));
    let exit = {
        let headers = request.headers();
        let caller = Caller(&|name| headers.get(name).and_then(|value| value.to_str().ok()));
        Exit::new(Door::Rest, id, request.method().as_str(), request.uri().path(), &metrics, &caller)
    };
    request.extensions_mut().insert(exit.trail().clone());
    request.extensions_mut().insert(exit.request_id().clone());
    let mut response = match hosted(&request) {
        Ok(()) => {
            let routed = AssertUnwindSafe(next.run(drained(config, request))).catch_unwind();
            let routed = routed.instrument(exit.span().clone()).await;
            routed.unwrap_or_else(|panic| envelope::refusal(&panicked(&*panic)))
        }
        Err(error) => envelope::refusal(&error),
    };
    if let Ok(id) = HeaderValue::try_from(exit.request_id().to_ascii()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    match response.extensions_mut().remove::<Refusal>() {
        Some(Refusal { kind, error }) => exit.failed_with(kind, error),
        None => exit.succeeded(),
    }
    response
}

/// HTTP/1.1 asks for a Host (RFC 9112 §3.2): without one, a proxy before us may have seen another request than we do.
fn hosted(request: &Request) -> Result<()> {
    let hosts = request.headers().get_all(HOST).iter().count();
    if request.version() == Version::HTTP_11 && hosts != 1 {
        return Err(Error::invalid("the header Host must be given once"));
    }
    Ok(())
}

fn panicked(panic: &(dyn Any + Send)) -> Error {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    Error::internal(format!("a panic: {}", text.unwrap_or("of unknown content")))
}

fn drained(config: Config, request: Request) -> Request {
    // HTTP/2 has a way of its own, a reset of the stream without an error. curl before version 8 takes it for one.
    let waits = request.headers().get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(CONTINUE));
    request.map(|body| Body::new(Drained { body: Some(body), waits, config }))
}

/// A body that, when it is dropped before its end, is read on for a while. A server that stops reading and closes makes the
/// client's system discard the reply that has arrived already, and all that the client sees is a reset connection, or stream.
struct Drained {
    body: Option<Body>,
    /// The client waits for a `100 Continue`, which the first read sends. Until then it is not sending, and to drain would
    /// be to ask it to.
    waits: bool,
    config: Config,
}

impl HttpBody for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.waits = false;
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|body| !self.waits && !body.is_end_stream())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let Config { drain_bytes, drain_time } = self.config;
            runtime.spawn(tokio::time::timeout(drain_time, drain(body, drain_bytes)));
        }
    }
}

async fn drain(mut body: Body, most: u64) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, |data| data.len() as u64);
        if read > most {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::post;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_panic_in_one_request_is_an_envelope_with_an_id_and_the_next_request_is_served() {
        let routes = Router::new()
            .route("/panic", post(|| async { if true { panic!("secret") } else { "" } }))
            .route("/fine", post(|| async { "fine" }));
        let service =
            around(routes, Config { drain_bytes: 1024, drain_time: Duration::from_secs(1) }, Metrics::default());
        let ask = |path: &str| {
            let request =
                Request::post(path).header(HOST, "attachd").header(REQUEST_ID, "mine").body(Body::empty()).unwrap();
            service.clone().oneshot(request)
        };
        let response = ask("/panic").await.unwrap();
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[REQUEST_ID], "mine");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let documented = json!({
            "status": "error", "code": 500, "message": "Internal server error",
            "details": "An internal server error occurred"
        });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), documented);
        assert_eq!(ask("/fine").await.unwrap().status(), 200);
    }
}
