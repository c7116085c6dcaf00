//! Traces, as a collector sees them: a server that speaks OTLP takes what the program sends.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, ServerTlsConfig};
use tonic::{Request, Response, Status};

use crate::harness::{
    Authority, Form, Server, Setup, authorised, chunk, eventually, finish, header, noise, record_path, token,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one, and says where.
    async fn start() -> (Collector, SocketAddr) {
        Collector::start_as(tonic::transport::Server::builder()).await
    }

    /// Starts one that speaks TLS with a certificate and its key.
    async fn start_with((certificate, key): (PathBuf, PathBuf)) -> (Collector, SocketAddr) {
        let identity = Identity::from_pem(fs::read(certificate).unwrap(), fs::read(key).unwrap());
        let tls = ServerTlsConfig::new().identity(identity);
        Collector::start_as(tonic::transport::Server::builder().tls_config(tls).unwrap()).await
    }

    async fn start_as(mut server: tonic::transport::Server) -> (Collector, SocketAddr) {
        let collector = Collector::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = server.add_service(TraceServiceServer::new(collector.clone()));
        tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
        (collector, address)
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes = requests.iter().flat_map(|request| &request.resource_spans).flat_map(|spans| &spans.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The spans of one request, which are waited for.
    fn request(&self, id: &str) -> Vec<Span> {
        let root = || self.spans().into_iter().find(|span| attribute(span, "request_id").as_deref() == Some(id));
        eventually("the request's span has arrived", || root().is_some());
        let trace = root().unwrap().trace_id;
        self.spans().into_iter().filter(|span| span.trace_id == trace).collect()
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?.value.as_ref()?;
    Some(match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => panic!("{other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    crate::harness::hex(bytes)
}

fn traced(collector: SocketAddr) -> Server {
    let variables = [
        ("ATTACHD_TRACES__ENDPOINT", format!("http://{collector}")),
        ("ATTACHD_TRACES__SERVICE_NAME", "uploads".to_owned()),
        ("ATTACHD_TRACES__INTERVAL", "100ms".to_owned()),
    ];
    Setup { variables: variables.into(), ..Setup::default() }.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_one_trace_that_goes_on_from_the_callers_through_both_doors() {
    let (collector, address) = Collector::start().await;
    let server = traced(address);
    let good = token(&[1]);
    let bytes = noise(3 << 20, 1);
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let headers = [("X-Request-Id", "over-rest"), ("traceparent", parent.as_str()), ("tracestate", "a=b")];
    let path = "/api/v2/clients/1/attachments/1";
    let reply = server.connect().upload_with(&good, path, &headers, &Form::file(&bytes));
    assert_eq!(reply.status, 201);
    let rest = collector.request("over-rest");

    let grpc_trace = "aaf92f3577b34da6a3ce929d0e0e4736";
    let messages = [Message::Header(header(1, 2)), chunk(bytes.clone()), finish()];
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut request = authorised(Request::new(futures_util::stream::iter(messages)), &good);
    request.metadata_mut().insert("x-request-id", "over-grpc".parse().unwrap());
    request.metadata_mut().insert("traceparent", format!("00-{grpc_trace}-{PARENT}-01").parse().unwrap());
    server.channel().await.upload_attachment(request).await.unwrap();
    let grpc = collector.request("over-grpc");

    for (spans, trace, attachment, door) in [(rest, TRACE, "1", "rest"), (grpc, grpc_trace, "2", "grpc")] {
        let root = spans.iter().find(|span| attribute(span, "request_id").is_some()).unwrap();
        assert_eq!((hex(&root.trace_id), hex(&root.parent_span_id)), (trace.to_owned(), PARENT.to_owned()), "{door}");
        for (name, value) in [
            ("door", door),
            ("client_id", "1"),
            ("attachment_id", attachment),
            ("size_bytes", "3145728"),
            ("outcome", "OK"),
        ] {
            assert_eq!(attribute(root, name).as_deref(), Some(value), "{door} {name}: {root:#?}");
        }
        assert!(attribute(root, "upload_id").is_some());
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        for name in ["authenticate", "admit", "receive", "commit", "storage.commit"] {
            assert_eq!(names.iter().filter(|known| **known == name).count(), 1, "{door} {name}: {names:?}");
        }
        for span in &spans {
            let above = spans.iter().any(|above| above.span_id == span.parent_span_id);
            assert!(above || span.span_id == root.span_id, "{door}: {} hangs from nothing of ours", span.name);
        }
        let line = format!("\"trace_id\":\"{trace}\"");
        eventually("the line of the request has the id of the trace", || {
            server.log().iter().any(|said| said.contains(&line) && said.contains("\"outcome\":\"OK\""))
        });
    }
    let resource = collector.0.lock().unwrap()[0].resource_spans[0].resource.clone().unwrap();
    assert!(format!("{resource:?}").contains("uploads"), "{resource:?}");
    // Nothing of the token is in a span.
    let all = format!("{:?}", collector.spans());
    for part in good.split('.').skip(1) {
        assert!(!all.contains(part), "a token is in a span");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_ours_is_an_error_in_its_trace_and_a_refusal_is_not() {
    let (collector, address) = Collector::start().await;
    let server = traced(address);
    std::fs::create_dir_all(record_path(server.root(), 1, 3)).unwrap();
    for (token, attachment, id, code) in [(token(&[1]), 3, "fails", 2), ("wrong".to_owned(), 4, "refused", 0)] {
        let path = format!("/api/v2/clients/1/attachments/{attachment}");
        server.connect().upload_with(&token, &path, &[("X-Request-Id", id)], &Form::file(b"x"));
        let spans = collector.request(id);
        let root = spans.iter().find(|span| attribute(span, "request_id").is_some()).unwrap();
        assert_eq!(root.status.as_ref().map_or(0, |status| status.code), code, "{root:#?}");
        assert!(root.parent_span_id.is_empty());
    }
    std::fs::remove_dir(record_path(server.root(), 1, 3)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_is_sent_spans_over_tls_if_an_authority_that_is_trusted_vouches_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let (collector, address) = Collector::start_with(trusted.server().write(folder.path(), "collector")).await;
    let upload = |authority: &Authority, id: &str| {
        let file = folder.path().join(format!("{id}.pem"));
        fs::write(&file, authority.pem()).unwrap();
        let variables = [
            ("ATTACHD_TRACES__ENDPOINT", format!("https://localhost:{}", address.port())),
            ("ATTACHD_TRACES__CA_FILE", file.display().to_string()),
            ("ATTACHD_TRACES__INTERVAL", "100ms".to_owned()),
        ];
        let server = Setup { variables: variables.into(), ..Setup::default() }.start();
        let path = "/api/v2/clients/1/attachments/1";
        let reply = server.connect().upload_with(&token(&[1]), path, &[("X-Request-Id", id)], &Form::file(b"x"));
        assert_eq!(reply.status, 201);
        server
    };
    let distrusts = upload(&other, "distrusted");
    eventually("it is said that spans are dropped", || {
        distrusts.log().iter().any(|line| line.contains("spans cannot be sent"))
    });
    assert!(collector.spans().is_empty());
    let _trusts = upload(&trusted, "trusted");
    assert!(!collector.request("trusted").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_traced_last_is_sent_before_the_process_ends() {
    let (collector, address) = Collector::start().await;
    let variables = [
        ("ATTACHD_TRACES__ENDPOINT", format!("http://{address}")),
        ("ATTACHD_SHUTDOWN__DELAY", "0s".to_owned()),
        // Longer than the test: only the end can send it.
        ("ATTACHD_TRACES__INTERVAL", "60s".to_owned()),
    ];
    let mut server = Setup { variables: variables.into(), ..Setup::default() }.start();
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(b"x")).status, 201);
    assert!(collector.spans().is_empty());
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    assert!(collector.spans().iter().any(|span| span.name == "commit"), "{:#?}", collector.spans());
}

#[test]
fn a_collector_that_is_gone_or_never_answers_hurts_no_upload_and_no_end() {
    // One port that refuses, and one that takes connections and says nothing.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [gone, mute.local_addr().unwrap()] {
        let server = traced(address);
        for attachment in 1..=20 {
            let reply = server.connect().upload(&token(&[1]), 1, attachment, &Form::file(&noise(1 << 16, 1)));
            assert_eq!(reply.status, 201, "{reply:?}");
        }
        // The harness looks that it is tidy, and that it ends well.
    }
}

#[test]
fn a_part_of_the_traces_may_be_left_out_and_a_caller_who_decided_is_followed() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (collector, address) = runtime.block_on(Collector::start());
    let variables = [
        ("ATTACHD_TRACES__ENDPOINT", format!("http://{address}")),
        ("ATTACHD_TRACES__SAMPLE_RATIO", "0.0".to_owned()),
        ("ATTACHD_TRACES__INTERVAL", "100ms".to_owned()),
    ];
    let server = Setup { variables: variables.into(), ..Setup::default() }.start();
    let path = "/api/v2/clients/1/attachments/1";
    let upload = |id: &str, traceparent: Option<&str>| {
        let mut headers = vec![("X-Request-Id", id)];
        headers.extend(traceparent.map(|parent| ("traceparent", parent)));
        assert_eq!(server.connect().upload_with(&token(&[1]), path, &headers, &Form::file(b"x")).status, 201);
    };
    upload("of-its-own", None);
    upload("not-sampled", Some(&format!("00-{TRACE}-{PARENT}-00")));
    upload("sampled", Some(&format!("00-{TRACE}-{PARENT}-01")));
    collector.request("sampled");
    let ids: Vec<_> = collector.spans().iter().filter_map(|span| attribute(span, "request_id")).collect();
    assert_eq!(ids, ["sampled"]);
}
