//! The edge of the gRPC port: everything that every request passes through, in one function, in order. It gives a request its
//! id and its line in the log, refuses what is no gRPC, checks the token before a message is read, and writes every refusal,
//! those of tonic included. It knows which methods there are, and not what they do.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use futures_util::FutureExt;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method as HttpMethod};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tonic::{Code, Status};
use tracing::Instrument;

use super::drains::{Drains, Rest};
use super::refusals::Refusals;
use super::{Routes, panicked};
use crate::auth::www_authenticate;
use crate::envelope::{self, ReplyError};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::request::{self, RequestContext};
use crate::rpc::{self, Attachments, Encoding, Failure, Passed, TIMEOUT, Takes, Unread};
use crate::telemetry::{self, Exit, Method, Metrics, Protocol, REQUEST_ID, RequestId, TraceHeaders};

/// The metadata key of what a refused caller would have to bring (RFC 9110 §11.6.1, as HTTP has it).
const CHALLENGE: &str = "www-authenticate";
/// The header in which a call names its compression.
const ENCODING: &str = "grpc-encoding";
/// The metadata key of the compressions that are supported.
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
/// Its value.
const ENCODINGS: HeaderValue = HeaderValue::from_static("identity");
/// The media type of gRPC.
const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// What the requests of the port need.
#[derive(Clone)]
struct Edge {
    attachments: Attachments,
    drains: Drains,
    refusals: Refusals,
    metrics: Metrics,
}

/// Wraps the routes in one layer. A request passes
///
/// 1. the log line and the count, outermost, so that they see every reply, and the request id, so that every reply carries it;
/// 2. the wait of a refusal that is one of many;
/// 3. the check that it is gRPC at all: what is not is refused in words of HTTP;
/// 4. the catching of panics, around all that follows;
/// 5. its deadline;
/// 6. the check of the token, before a message is read. Health and reflection are open to all;
/// 7. the check that there is such a method;
/// 8. the check of the framing of its messages, before tonic decodes them. Uploads have a reader of their own.
pub fn around(
    routes: Router,
    attachments: Attachments,
    drains: Drains,
    refusals: Refusals,
    metrics: Metrics,
) -> Routes {
    Routes(routes.layer(middleware::from_fn_with_state(Edge { attachments, drains, refusals, metrics }, pass)))
}

async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let called = Called::by(request.uri().path());
    let exit = begin(&edge.metrics, called, &request);
    if let Err(error) = is_grpc(&request) {
        let mut response = envelope::refusal(&error);
        response.headers_mut().insert(ACCEPT, GRPC);
        if error.kind() == Kind::MethodNotAllowed {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if request.method() == HttpMethod::HEAD {
            *response.body_mut() = Body::empty();
        }
        let (rest, version) = (Rest::default(), request.version());
        drop(rest.watch(request));
        rest.settle(&edge.drains, version, false).await;
        return end(exit, response);
    }
    let context = match request::take(request.extensions_mut()) {
        Ok(arrival) => RequestContext::new(arrival, exit.trail()),
        Err(error) => return end(exit, refusal(&error)),
    };
    if let Called::Rpc(rpc) = called {
        context.asks_for(rpc);
    }
    let failure = Failure::default();
    let timeout = request.headers().get(TIMEOUT).cloned();
    let routed = route(&edge, called, request, next, &context, &failure);
    let routed = rpc::before_deadline(timeout.as_ref().map(HeaderValue::as_bytes), exit.trail(), routed);
    let routed = AssertUnwindSafe(routed).catch_unwind().instrument(exit.span().clone()).await;
    match routed.unwrap_or_else(|panic| Err(panicked(&*panic))) {
        Ok(response) if called.streams() => end_later(exit, failure, called, response),
        Ok(response) => end(exit, response),
        Err(error) => {
            if error.is_at_limit() {
                edge.refusals.pace().await;
            }
            context.audit.refused(&error);
            end(exit, refusal(&error))
        }
    }
}

/// What a request calls, by its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Called {
    Rpc(Rpc),
    Check,
    Watch,
    Reflection,
    /// What there is not.
    Unknown,
}

impl Called {
    fn by(path: &str) -> Called {
        match path {
            "/grpc.health.v1.Health/Check" => Called::Check,
            "/grpc.health.v1.Health/Watch" => Called::Watch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Called::Reflection,
            _ => Rpc::ALL.into_iter().find(|rpc| rpc.row().path == path).map_or(Called::Unknown, Called::Rpc),
        }
    }

    /// What it is counted as.
    fn method(self) -> Method {
        match self {
            Called::Rpc(rpc) => Method::Rpc(rpc),
            Called::Check | Called::Watch => Method::Health,
            Called::Reflection => Method::Reflection,
            Called::Unknown => Method::Other,
        }
    }

    /// Whether no token is asked for.
    fn is_open(self) -> bool {
        matches!(self, Called::Check | Called::Watch | Called::Reflection)
    }

    /// Whether the reply is a stream. Its end is that of the request.
    fn streams(self) -> bool {
        matches!(self, Called::Watch | Called::Reflection) || self.method().gives_content()
    }

    /// How many messages the call takes, where tonic reads them.
    fn takes(self) -> Takes {
        if self == Called::Reflection { Takes::Any } else { Takes::One }
    }
}

fn begin(metrics: &Metrics, called: Called, request: &Request) -> Exit {
    let (headers, path) = (request.headers(), request.uri().path());
    let id = RequestId::accept_or_make(headers.get(REQUEST_ID).map(HeaderValue::as_bytes));
    let caller = TraceHeaders(&|name| headers.get(name).and_then(|value| value.to_str().ok()));
    let method = match called {
        Called::Unknown => telemetry::method(request.method().as_str()),
        _ => path.rsplit('/').next().unwrap_or_default().to_owned(),
    };
    let exit = Exit::new(Protocol::Grpc, id, method, path, metrics, &caller);
    exit.trail().asks_for(called.method());
    exit
}

/// Whether a request is one of gRPC over HTTP/2, by its content type and method. `te: trailers` is not asked for, since proxies
/// take it away.
fn is_grpc(request: &Request) -> Result<()> {
    let mut types = request.headers().get_all(CONTENT_TYPE).iter();
    let is_grpc = |value: &HeaderValue| {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        ["application/grpc", "application/grpc+proto"].iter().any(|grpc| essence.eq_ignore_ascii_case(grpc))
    };
    if !types.next().is_some_and(is_grpc) || types.next().is_some() {
        return Err(Error::new(Kind::UnsupportedMediaType).detail(
            "this port takes gRPC calls, with the content-type application/grpc; send HTTP requests to the REST port",
        ));
    }
    if request.method() != HttpMethod::POST {
        return Err(Error::new(Kind::MethodNotAllowed).detail("a gRPC call is a POST"));
    }
    Ok(())
}

/// Hands a call to the routes if its token is valid.
async fn route(
    edge: &Edge,
    called: Called,
    mut request: Request,
    next: Next,
    context: &RequestContext,
    failure: &Failure,
) -> Result<Response> {
    let mut passed = Passed::new(failure.clone());
    if !called.is_open() {
        let authorization = request.headers().get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        passed.call = Some(edge.attachments.authenticate(authorization, context.clone()).await?);
        if called == Called::Unknown {
            return Err(no_such_method());
        }
    }
    // The messages that tonic reads are never compressed.
    let encoding = request.headers_mut().remove(ENCODING);
    let encoding = Encoding::named(encoding.as_ref().map(HeaderValue::as_bytes));
    let body = tonic::body::Body::new(std::mem::take(request.body_mut()));
    if called.method().takes_content() {
        passed.body = Some(Unread::new(body, encoding));
    } else {
        *request.body_mut() = Body::new(rpc::checked(
            body,
            encoding,
            called.takes(),
            failure.clone(),
            Arc::clone(edge.attachments.uploads()),
        ));
    }
    request.extensions_mut().insert(passed);
    let mut response = next.run(request).await;
    match (failure.take(), response.extensions_mut().remove::<Status>()) {
        (Some(error), _) => Err(error),
        (None, Some(status)) => Err(error_of(status)),
        (None, None) => Ok(response),
    }
}

fn no_such_method() -> Error {
    Error::new(Kind::MethodNotAllowed)
        .detail("there is no such gRPC method; the service is attachments.v2.AttachmentService")
}

/// What tonic, or a service that comes with it, has refused, as an error of this service.
fn error_of(status: Status) -> Error {
    match status.code() {
        Code::Unimplemented => no_such_method(),
        Code::NotFound => Error::new(Kind::NotFound).detail(status.message().to_owned()),
        // tonic says the same of whatever is wrong with a message.
        Code::Internal | Code::InvalidArgument => Error::invalid("a message could not be decoded").because(status),
        _ => Error::internal(status),
    }
}

/// The reply of a refusal or failure.
fn refusal(error: &Error) -> Response {
    let mut status = error.to_status();
    // The same challenge as over REST: gRPC has no way of its own to say what would be accepted.
    if let Some(Ok(challenge)) = www_authenticate(error).map(|challenge| challenge.parse()) {
        status.metadata_mut().insert(CHALLENGE, challenge);
    }
    let mut response = status.into_http();
    if error.kind() == Kind::UnsupportedCompression {
        response.headers_mut().insert(ACCEPT_ENCODING, ENCODINGS);
    }
    response.extensions_mut().insert(ReplyError::of(error));
    response
}

/// Sends a reply, and tells how the request ended.
fn end(exit: Exit, mut response: Response) -> Response {
    if let Some(id) = header_of(&exit) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    match response.extensions_mut().remove::<ReplyError>() {
        Some(ReplyError { kind, error, at_limit }) => exit.failed_with(kind, error, at_limit),
        None => exit.succeeded(),
    }
    response
}

/// Sends a reply that is a stream, whose end is that of the request.
fn end_later(exit: Exit, failure: Failure, called: Called, mut response: Response) -> Response {
    if let Some(id) = header_of(&exit) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    let may_leave = !called.method().gives_content();
    response.map(|body| Body::new(Told { body, failure, may_leave, exit: Some(exit) }))
}

fn header_of(exit: &Exit) -> Option<HeaderValue> {
    HeaderValue::try_from(exit.request_id().to_ascii()).ok()
}

/// The body of a reply that is a stream.
struct Told {
    body: Body,
    failure: Failure,
    /// Whether a caller that goes away has heard enough. From a download, it is lost.
    may_leave: bool,
    exit: Option<Exit>,
}

impl Told {
    /// The trailers to send in place of those that came.
    fn ends(&mut self, trailers: HeaderMap) -> HeaderMap {
        let Some(exit) = self.exit.take() else { return trailers };
        let failed = || Status::from_header_map(&trailers).filter(|status| status.code() != Code::Ok).map(error_of);
        let Some(error) = self.failure.take().or_else(failed) else {
            exit.succeeded();
            return trailers;
        };
        let mut trailers = std::mem::take(refusal(&error).headers_mut());
        trailers.remove(CONTENT_TYPE);
        if let Some(id) = header_of(&exit) {
            trailers.insert(REQUEST_ID, id);
        }
        exit.failed(&error);
        trailers
    }
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            Ok(match frame?.into_trailers() {
                Ok(trailers) => Frame::trailers(self.ends(trailers)),
                Err(frame) => frame,
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(exit) = self.exit.take().filter(|_| self.may_leave) {
            exit.succeeded();
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use tonic_types::StatusExt;

    use super::super::tests::arrival;
    use super::*;
    use crate::rpc;

    /// The port in front of these routes.
    fn port(routes: Router) -> Routes {
        let (attachments, config, _folder) = rpc::tests::service();
        around(
            routes,
            attachments,
            Drains::new(config.drains(), &Metrics::default()),
            Refusals::new(0, &Metrics::default()),
            Metrics::default(),
        )
    }

    #[tokio::test]
    async fn a_panic_in_one_call_is_a_status_with_a_reason_and_an_id_and_the_next_call_is_served() {
        let check = "/grpc.health.v1.Health/Check";
        let fails =
            |headers: HeaderMap| async move { if headers.contains_key("panic") { panic!("secret") } else { "fine" } };
        let port = port(Router::new().route(check, post(fails)));
        let ask = |name: &'static str| {
            let request = Request::post(check).header(CONTENT_TYPE, GRPC).header(REQUEST_ID, "mine").header(name, "1");
            port.serve(arrival(), request.body(Body::empty()).unwrap())
        };
        let response = ask("panic").await;
        assert_eq!((response.status().as_u16(), &response.headers()[CONTENT_TYPE]), (200, &GRPC));
        assert_eq!(response.headers()[REQUEST_ID], "mine");
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!((status.code(), status.message()), (Code::Internal, "An internal server error occurred"));
        assert_eq!(status.get_details_error_info().unwrap().reason, "INTERNAL");
        assert_eq!(ask("fine").await.status(), 200);
    }
}
