//! The transcoder over a service of a proto of its own, of which attachd knows nothing: through the edge, with real tokens.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http_body_util::BodyExt;
use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, Value as Field};
use serde_json::{Value, json};
use tonic::Status;
use tower::service_fn;

use super::call::Dynamic;
use super::*;
use crate::auth::{Claims, Ids, Minter, Peer};
use crate::edge::drains::Drains;
use crate::edge::refusals::Refusals;
use crate::edge::{self, Routes};
use crate::origin::Origin;
use crate::request::Arrival;
use crate::rpc::{self, Failure};
use crate::telemetry::Metrics;

mod body;
mod query;
mod routes;

const SERVICE: &str = "library.v1.LibraryService";

/// The descriptors of the proto.
static POOL: LazyLock<DescriptorPool> =
    LazyLock::new(|| compiled(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcode"), "library.proto"));

/// The descriptors of a file in a folder, with the options that are extensions.
fn compiled(folder: &Path, file: &str) -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([folder, &root.join("proto")]).unwrap();
    compiler.include_imports(true).open_file(file).unwrap();
    compiler.descriptor_pool()
}

/// A port in front of the service, and a token for it.
struct Port {
    routes: Routes,
    token: String,
}

/// A reply.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: http::HeaderMap,
    body: Value,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// What the service was asked, which it says in its reply.
    fn asked(&self) -> &Value {
        assert_eq!(self.status, 200, "{self:?}");
        &self.body["details"][0]
    }

    fn assert_refused(&self, details: &str) {
        assert_eq!(
            (self.status, &self.body["details"]),
            (400, &json!(format!("Validation error: {details}"))),
            "{self:?}"
        );
    }
}

impl Port {
    fn open() -> Port {
        Port::of(&POOL, SERVICE).unwrap()
    }

    fn of(pool: &DescriptorPool, service: &str) -> Result<Port, String> {
        let (attachments, config, _folder) = rpc::tests::service();
        let claims = Claims {
            subject: "tester".to_owned(),
            scopes: Vec::new(),
            clients: Ids::Only(Vec::new()),
            projects: Ids::Only(Vec::new()),
            portfolios: Ids::Only(Vec::new()),
            ttl: Duration::from_secs(600),
            now: SystemTime::now(),
        };
        let token = Minter::from_issuer(&config.auth.issuers[0], None).unwrap().mint(&claims).unwrap();
        let adapter = || -> Adapter {
            Box::new(|captures, request| {
                let captured: Vec<_> = captures.iter().map(|capture| (capture.field, capture.decoded())).collect();
                let text = format!("adapter of {} with {captured:?}", request.uri());
                Box::pin(async move { text.into_response() })
            })
        };
        let streams = vec![("/library.v1.LibraryService/WatchBooks", adapter())];
        let adapters = Adapters { streams, beside: vec![(Method::GET, Template::parse("/openapi.json")?, adapter())] };
        let server = Server::new(service_fn(answer));
        let transcoder = Transcoder::new(pool, service, server, attachments, adapters)?;
        let routes = edge::around(
            transcoder.into_router(),
            Drains::new(config.drains(), &Metrics::default()),
            Refusals::new(0, &Metrics::default()),
            Arc::default(),
            Metrics::default(),
        );
        Ok(Port { routes, token })
    }

    async fn send(&self, request: http::request::Builder, body: &str) -> Reply {
        let origin = Origin::of(([127, 0, 0, 1], 4711).into(), std::iter::empty(), &[]);
        let arrival = Arrival { origin, peer: Peer::default(), unreadable: None };
        let request = request.header(HOST, "library").body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.routes.serve(arrival, request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(body.to_vec()).unwrap();
        let body =
            serde_json::from_str(&text).unwrap_or_else(|_| if text.is_empty() { Value::Null } else { text.into() });
        Reply { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    async fn ask(&self, verb: &str, path: &str, body: &str) -> Reply {
        self.ask_with(verb, path, &[], body).await
    }

    async fn ask_with(&self, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Reply {
        let mut request =
            Request::builder().method(verb).uri(path).header(AUTHORIZATION, format!("Bearer {}", self.token));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        self.send(request, body).await
    }

    async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }
}

/// The service: it replies with what it was asked.
async fn answer(
    request: http::Request<tonic::body::Body>,
) -> Result<http::Response<tonic::body::Body>, std::convert::Infallible> {
    let name = request.uri().path().strip_prefix(&format!("/{SERVICE}/")).unwrap().to_owned();
    let service = POOL.get_service_by_name(SERVICE).unwrap();
    let method = service.methods().find(|method| method.name() == name).unwrap();
    let answering = service_fn(move |request: tonic::Request<DynamicMessage>| {
        let method = method.clone();
        async move { replied(&method, request).map(tonic::Response::new) }
    });
    let codec = Dynamic(service.methods().find(|method| method.name() == name).unwrap().input());
    Ok(tonic::server::Grpc::new(codec).unary(answering, request).await)
}

fn replied(method: &MethodDescriptor, request: tonic::Request<DynamicMessage>) -> Result<DynamicMessage, Status> {
    let failure = Failure::of(request.extensions());
    let request = request.into_inner();
    let text = |name: &str| {
        request.get_field_by_name(name).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let mut reply = DynamicMessage::new(method.output());
    let mut book = DynamicMessage::new(POOL.get_message_by_name("library.v1.Book").unwrap());
    match method.name() {
        "GetBook" if text("name").ends_with("missing") => return Err(failure.leave(Error::new(Kind::NotFound))),
        "GetBook" if text("name").ends_with("broken") => return Err(Status::data_loss("a secret")),
        "GetBook" if text("name").ends_with("nothing") => {}
        "GetBook" => {
            book.set_field_by_name("name", Field::String(text("name")));
            book.set_field_by_name("sold_count", Field::I64(i64::MAX));
            reply.set_field_by_name("book", Field::Message(book));
        }
        "ListBooks" | "SearchBooks" => {
            book.set_field_by_name("name", Field::String(format!("{}/books/1", text("parent"))));
            let books = vec![Field::Message(book.clone()), Field::Message(book)];
            reply.set_field_by_name("books", Field::List(books));
            if text("page_token").is_empty() {
                reply.set_field_by_name("next_page_token", Field::String("a b&c/é".to_owned()));
                reply.set_field_by_name("total_count", Field::I64(7));
            }
        }
        "CreateBook" | "UpdateBook" => {
            let asked = request.get_field_by_name("book").unwrap().into_owned();
            reply.set_field_by_name("book", asked);
            if method.name() == "CreateBook" {
                reply.set_field_by_name("created", Field::Bool(text("book_id") == "new"));
            }
        }
        "PublishBook" | "LockBook" => {
            reply.set_field_by_name("name", Field::String(text("name")));
            reply.set_field_by_name("copies", Field::I64(3));
        }
        "DeleteBook" if text("if_match") == "\"other\"" => {
            return Err(failure.leave(Error::new(Kind::PreconditionFailed)));
        }
        "DeleteBook" => {}
        _ => {
            assert_eq!(request.descriptor().name(), "Everything");
            reply.set_field_by_name("everything", Field::Message(request));
        }
    }
    Ok(reply)
}
