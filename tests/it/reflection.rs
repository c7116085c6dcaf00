//! What a client learns of the gRPC port by asking it: its services, and every message that they send or that a refusal carries.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::stream;
use prost::Message;
use prost_types::FileDescriptorProto;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{GrpcRefusal, Server, Setup};

/// What refusals carry, and what these are made of.
const DETAILS: [&str; 5] = [
    "google.rpc.ErrorInfo",
    "google.rpc.BadRequest",
    "google.rpc.BadRequest.FieldViolation",
    "google.rpc.RetryInfo",
    "google.rpc.Status",
];

/// What is asked for.
enum Ask {
    Services,
    Symbol(String),
    File(String),
}

/// What was answered: names of services, or a file.
type Answer = Result<(Vec<String>, Vec<Vec<u8>>), GrpcRefusal>;

/// A server that answers questions about itself.
fn server() -> Server {
    let variables = BTreeMap::from([("ATTACHD_GRPC__REFLECTION", "true".to_owned())]);
    Setup { variables, ..Setup::default() }.start()
}

async fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.expect("the port is open")
}

/// Both versions of the protocol have the same messages under other names.
macro_rules! ask {
    ($name:ident, $version:ident) => {
        async fn $name(channel: &Channel, ask: Ask) -> Answer {
            use tonic_reflection::pb::$version::ServerReflectionRequest;
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            let message_request = Some(match ask {
                Ask::Services => MessageRequest::ListServices(String::new()),
                Ask::Symbol(name) => MessageRequest::FileContainingSymbol(name),
                Ask::File(name) => MessageRequest::FileByFilename(name),
            });
            let request = ServerReflectionRequest { host: String::new(), message_request };
            let mut client = ServerReflectionClient::new(channel.clone());
            let mut replies = client.server_reflection_info(stream::iter([request])).await.unwrap().into_inner();
            match replies.message().await?.expect("a reply").message_response {
                Some(MessageResponse::ListServicesResponse(listed)) => {
                    Ok((listed.service.into_iter().map(|service| service.name).collect(), Vec::new()))
                }
                Some(MessageResponse::FileDescriptorResponse(files)) => Ok((Vec::new(), files.file_descriptor_proto)),
                other => panic!("{other:?}"),
            }
        }
    };
}

ask!(v1, v1);
ask!(v1alpha, v1alpha);

/// The file, and all that it is made of, by name.
async fn with_imports(channel: &Channel, is_v1: bool, symbol: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut asks = vec![Ask::Symbol(symbol.to_owned())];
    while let Some(ask) = asks.pop() {
        let answer = if is_v1 { v1(channel, ask).await } else { v1alpha(channel, ask).await };
        for file in answer.unwrap_or_else(|refusal| panic!("{symbol}: {refusal:?}")).1 {
            let file = FileDescriptorProto::decode(&file[..]).expect("a descriptor");
            if names.insert(file.name().to_owned()) {
                asks.extend(file.dependency.into_iter().map(Ask::File));
            }
        }
    }
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn the_services_can_be_discovered_with_all_that_they_and_their_refusals_send() {
    let server = server();
    let channel = channel(&server).await;
    let services = ["attachments.v2.AttachmentService", "grpc.health.v1.Health"];
    for (is_v1, listed) in [(true, v1(&channel, Ask::Services).await), (false, v1alpha(&channel, Ask::Services).await)]
    {
        let listed = listed.expect("they are listed").0;
        let version = if is_v1 { "v1" } else { "v1alpha" };
        let reflection = format!("grpc.reflection.{version}.ServerReflection");
        let expected: BTreeSet<_> = services.into_iter().chain([reflection.as_str()]).map(str::to_owned).collect();
        assert_eq!(listed.into_iter().collect::<BTreeSet<_>>(), expected);
        let methods = ["UploadAttachment", "RegisterAttachment"].map(|name| format!("{}.{name}", services[0]));
        for symbol in services.into_iter().chain(DETAILS).chain(methods.iter().map(String::as_str)) {
            let files = with_imports(&channel, is_v1, symbol).await;
            assert!(!files.is_empty(), "{symbol}");
        }
        let files = with_imports(&channel, is_v1, "google.rpc.RetryInfo").await;
        assert!(files.contains("google/rpc/error_details.proto"), "{files:?}");
        assert!(files.contains("google/protobuf/duration.proto"), "{files:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbol_or_file_that_is_not_known_is_refused_with_a_reason_and_an_id() {
    let server = server();
    let channel = channel(&server).await;
    for name in ["attachments.v1.AttachmentService", "google.rpc.Nothing", ""] {
        for refusal in [
            v1(&channel, Ask::Symbol(name.to_owned())).await.unwrap_err(),
            v1alpha(&channel, Ask::Symbol(name.to_owned())).await.unwrap_err(),
            v1(&channel, Ask::File(name.to_owned())).await.unwrap_err(),
        ] {
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "NOT_FOUND"), "{refusal:?}");
            assert_eq!(refusal.domain, "attachd", "{refusal:?}");
            assert_eq!(server.outcome(&refusal.request_id.expect("an id")), "NOT_FOUND");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_told_of_the_proto_unless_the_operator_wants_it() {
    let server = Server::start();
    let mut client =
        tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    let refusal = client.server_reflection_info(stream::empty()).await.expect_err("it is off");
    let refusal = GrpcRefusal::from(refusal);
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unimplemented, "METHOD_NOT_ALLOWED"));
}
