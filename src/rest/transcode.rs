//! REST for every unary method of a gRPC service that is annotated with `google.api.http`, by the descriptors alone: path, query
//! and JSON body are bound to the request message, the method is called in this process, and its reply becomes the envelope. A
//! new method needs no line here. This module knows no method and no message; it finds out who is calling, and asks what the
//! token permits, before a byte of the body is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::header::{ACCEPT, ALLOW, AUTHORIZATION};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method};
use prost_reflect::{DescriptorPool, MethodDescriptor};

use crate::envelope;
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::request::{self, RequestContext};
use crate::rpc::Attachments;

mod binding;
mod body;
mod call;
mod field;
mod json;
mod reply;
mod rule;
mod template;

#[cfg(feature = "fuzzing")]
#[path = "../../fuzz/inside/transcode.rs"]
pub mod fuzzing;

pub use call::Server;

pub use binding::{Binding, Field};
pub use reply::{Details, Shape};
pub use rule::{BodyRule, Rule};
pub use template::{Capture, Template};

use rule::Annotation;

/// What a transcoded body may be.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Serves the requests of a route in a way of its own. It is given what the path captured.
pub type Adapter = Box<dyn Fn(&[Capture<'_>], Request) -> BoxFuture<'static, Response> + Send + Sync>;

/// What adapters serve.
#[derive(Default)]
pub struct Adapters {
    /// The methods with a stream, by their paths over gRPC.
    pub streams: Vec<(&'static str, Adapter)>,
    /// What is beside the service, by method and path.
    pub beside: Vec<(Method, Template, Adapter)>,
}

/// A method that is called over REST.
#[derive(Debug)]
struct Operation {
    /// Its entry in the table of operations, by which it is logged, counted, audited and permitted.
    rpc: Option<Rpc>,
    method: MethodDescriptor,
    /// Its path over gRPC.
    path: PathAndQuery,
    binding: Binding,
    reply: Shape,
}

/// A route of the port.
struct Route {
    verb: Method,
    template: Template,
    served: Served,
}

/// What a route serves.
enum Served {
    Operation(Box<Operation>),
    Adapter(Adapter),
}

/// The routes of a service, and of what stands beside it.
pub struct Transcoder {
    routes: Vec<Route>,
    server: Server,
    attachments: Attachments,
}

impl Transcoder {
    /// The annotated methods of the service of this name, which `server` serves. Those with a stream are served by `adapters`.
    ///
    /// # Errors
    /// What of the descriptors is not supported.
    pub fn new(
        pool: &DescriptorPool,
        service: &str,
        server: Server,
        attachments: Attachments,
        adapters: Adapters,
    ) -> Result<Transcoder, String> {
        let Adapters { mut streams, beside } = adapters;
        let mut routes = Vec::new();
        for (verb, template, adapter) in beside {
            routes.push(Route { verb, template, served: Served::Adapter(adapter) });
        }
        for (method, rule) in rules(pool, service)? {
            let route = Route::new(&method, rule, &mut streams);
            routes.push(route.map_err(|why| format!("{}: {why}", method.full_name()))?);
        }
        routes.sort_by_key(|route| route.template.rank());
        for (at, route) in routes.iter().enumerate() {
            let same = |other: &Route| other.verb == route.verb && other.template.is_same(&route.template);
            if routes[at + 1..].iter().any(same) {
                return Err(format!(
                    "two methods are called by {} of the same paths: {:?}",
                    route.verb, route.template
                ));
            }
        }
        Ok(Transcoder { routes, server, attachments })
    }

    /// All of it as a router.
    pub fn into_router(self) -> Router {
        Router::new().fallback(dispatch).with_state(Arc::new(self))
    }

    async fn serve(
        &self,
        operation: &Operation,
        captures: &[Capture<'_>],
        context: RequestContext,
        request: Request,
    ) -> Result<Response> {
        let (parts, body) = request.into_parts();
        // Read before the token is looked at, so that the audit trail says what a stranger was after; told after.
        let head = operation.binding.head(captures, parts.uri.query().unwrap_or_default(), &parts.headers);
        let asked = head.as_ref().ok().and_then(|head| operation.binding.asked(head));
        if let Some(asked) = asked {
            context.audit.asked(asked);
        }
        let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
        let call = self.attachments.authenticate(authorization, context).await?;
        let head = head?;
        if let Some(rpc) = operation.rpc {
            self.attachments.permit(&call, rpc, asked)?;
        }
        let message = if operation.binding.body == BodyRule::None {
            body::none(&self.attachments, body).await?;
            head
        } else {
            let body = body::json(&self.attachments, &parts.headers, body).await?;
            operation.binding.with_body(head, &body)?
        };
        let (server, path) = (self.server.clone(), operation.path.clone());
        let replied = call::unary(server, path, call, message, operation.method.output()).await?;
        operation.reply.reply(replied, &parts.uri)
    }
}

/// The annotated methods of the service of this name, each with each of its rules.
///
/// # Errors
/// What of the descriptors is not supported.
pub fn rules(pool: &DescriptorPool, service: &str) -> Result<Vec<(MethodDescriptor, Rule)>, String> {
    let found = pool.get_service_by_name(service);
    let service = found.ok_or_else(|| format!("the service {service} is not among the descriptors"))?;
    let annotation = Annotation::of(pool)?;
    let mut rules = Vec::new();
    for method in service.methods() {
        rules.extend(annotation.rules(&method)?.into_iter().map(|rule| (method.clone(), rule)));
    }
    Ok(rules)
}

impl Route {
    fn new(method: &MethodDescriptor, rule: Rule, streams: &mut Vec<(&'static str, Adapter)>) -> Result<Route, String> {
        let served = if method.is_client_streaming() || method.is_server_streaming() {
            let path = path(method);
            let at = streams.iter().position(|(of, _)| *of == path);
            Served::Adapter(streams.swap_remove(at.ok_or("a stream needs an adapter, and one route")?).1)
        } else {
            Served::Operation(Box::new(Operation::new(method, &rule)?))
        };
        Ok(Route { verb: rule.verb, template: rule.template, served })
    }

    fn takes(&self, verb: &Method) -> bool {
        self.verb == *verb || (self.verb == Method::GET && *verb == Method::HEAD)
    }
}

impl Operation {
    fn new(method: &MethodDescriptor, rule: &Rule) -> Result<Operation, String> {
        let path = path(method);
        Ok(Operation {
            rpc: Rpc::ALL.into_iter().find(|rpc| rpc.row().path == path),
            method: method.clone(),
            path: path.parse().map_err(|_| format!("{path} is no path"))?,
            binding: Binding::new(method.input(), rule)?,
            reply: Shape::of(&method.output())?,
        })
    }
}

/// The path of a method over gRPC.
fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

async fn dispatch(State(transcoder): State<Arc<Transcoder>>, mut request: Request) -> Response {
    // Shares its bytes with the request, which is moved.
    let uri = request.uri().clone();
    let path = uri.path();
    let parts: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let all_fitting = || transcoder.routes.iter().filter(|route| route.template.fits(&parts));
    // A path with a verb that there is belongs to that verb, whatever the method. Such routes come first.
    let has_verb = path.contains(':') && all_fitting().next().is_some_and(|route| route.template.has_verb());
    let fitting = || all_fitting().filter(|route| route.template.has_verb() || !has_verb);
    let Some(route) = fitting().find(|route| route.takes(request.method())) else {
        let methods = fitting().map(|route| route.verb.clone()).collect::<Vec<_>>();
        return refusal(
            &if methods.is_empty() { Error::new(Kind::NotFound) } else { Error::new(Kind::MethodNotAllowed) },
            &methods,
        );
    };
    let captures = route.template.captures(&parts);
    let operation = match &route.served {
        Served::Operation(operation) => operation,
        Served::Adapter(adapter) => return adapter(&captures, request).await,
    };
    let context: RequestContext = match request::take(request.extensions_mut()) {
        Ok(context) => context,
        Err(error) => return envelope::refusal(&error),
    };
    if let Some(rpc) = operation.rpc {
        context.asks_for(rpc);
    }
    let audit = context.audit.clone();
    // In a box, since every request of an adapter would have room for it, too.
    match Box::pin(transcoder.serve(operation, &captures, context, request)).await {
        Ok(response) => response,
        Err(error) => {
            audit.refused(&error);
            refusal(&error, &[])
        }
    }
}

/// The reply of a refusal, with what would be taken: the methods of the path, the format of the body.
fn refusal(error: &Error, methods: &[Method]) -> Response {
    let mut response = envelope::refusal(error);
    let names: BTreeSet<&str> = methods.iter().map(Method::as_str).collect();
    let names = names.into_iter().flat_map(|name| std::iter::once(name).chain((name == "GET").then_some("HEAD")));
    let names = names.collect::<Vec<_>>().join(", ");
    if error.kind() == Kind::MethodNotAllowed
        && let Ok(names) = HeaderValue::try_from(names)
    {
        response.headers_mut().insert(ALLOW, names);
    }
    if error.kind() == Kind::UnsupportedMediaType {
        response.headers_mut().insert(ACCEPT, JSON);
    }
    response
}

#[cfg(test)]
mod tests;
