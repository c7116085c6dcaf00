//! Health in the words of gRPC, on both ports that speak it, and what it says on the way to the end.

use std::net::SocketAddr;

use futures_util::{FutureExt, StreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::harness::{Connection, GrpcRefusal, Server, Setup, eventually};

/// The process as a whole, and its service.
const NAMES: [&str; 2] = ["", "attachments.v2.AttachmentService"];

fn asked(name: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: name.to_owned() }
}

async fn client(address: SocketAddr) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    HealthClient::new(endpoint.connect().await.expect("the port is open"))
}

async fn status(client: &mut HealthClient<Channel>, name: &str) -> ServingStatus {
    client.check(asked(name)).await.expect("it is answered").into_inner().status()
}

/// The next status that a watcher is told, other than `last`; none where the watching is over.
async fn told(watch: &mut Streaming<HealthCheckResponse>, last: ServingStatus) -> Option<ServingStatus> {
    let next = async {
        while let Some(Ok(told)) = watch.next().await {
            if told.status() != last {
                return Some(told.status());
            }
        }
        None
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), next).await.expect("it is told in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_is_healthy_on_the_grpc_and_the_admin_port_and_no_other_is_known() {
    let server = Server::start();
    for address in [server.grpc, server.admin] {
        let mut client = client(address).await;
        for name in NAMES {
            assert_eq!(status(&mut client, name).await, ServingStatus::Serving, "{name}");
        }
        let refusal = GrpcRefusal::from(client.check(asked("another")).await.unwrap_err());
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "NOT_FOUND"), "{refusal:?}");
        assert_eq!(refusal.domain, "attachd");
    }
    // The routes of the admin port are what they were.
    assert_eq!(Connection::open(server.admin).request("GET", "/nowhere", &[], b"").status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_known_is_watched_as_unknown_until_the_process_ends() {
    let mut server = Server::start();
    let mut watches = Vec::new();
    for address in [server.grpc, server.admin] {
        for name in ["another", "attachments.v1.AttachmentService", "attachments.v2.attachmentservice", " "] {
            let mut watch = client(address).await.watch(asked(name)).await.unwrap().into_inner();
            assert_eq!(told(&mut watch, ServingStatus::Unknown).await, Some(ServingStatus::ServiceUnknown), "{name}");
            watches.push(watch);
        }
    }
    // The health of the services that are known is nothing to them.
    let mut known = client(server.grpc).await.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(told(&mut known, ServingStatus::Unknown).await, Some(ServingStatus::Serving));
    let away = server.root().with_extension("away");
    std::fs::rename(server.root(), &away).unwrap();
    assert_eq!(told(&mut known, ServingStatus::Serving).await, Some(ServingStatus::NotServing));
    std::fs::rename(&away, server.root()).unwrap();
    for watch in &mut watches {
        let next = watch.next().now_or_never();
        assert!(next.is_none(), "{next:?}");
    }
    server.signal("TERM");
    for watch in &mut watches {
        assert_eq!(told(watch, ServingStatus::ServiceUnknown).await, None);
    }
    assert_eq!(server.wait(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_when_the_storage_goes_and_when_it_is_back() {
    let server = Server::start();
    let mut watches = Vec::new();
    for address in [server.grpc, server.admin] {
        for name in NAMES {
            let mut watch = client(address).await.watch(asked(name)).await.unwrap().into_inner();
            assert_eq!(told(&mut watch, ServingStatus::Unknown).await, Some(ServingStatus::Serving));
            watches.push(watch);
        }
    }
    let away = server.root().with_extension("away");
    std::fs::rename(server.root(), &away).unwrap();
    for watch in &mut watches {
        assert_eq!(told(watch, ServingStatus::Serving).await, Some(ServingStatus::NotServing));
    }
    std::fs::rename(&away, server.root()).unwrap();
    for watch in &mut watches {
        assert_eq!(told(watch, ServingStatus::NotServing).await, Some(ServingStatus::Serving));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_told_that_the_process_ends_and_do_not_hold_it_up() {
    let mut server = Server::start();
    let mut watch = client(server.grpc).await.watch(asked("")).await.unwrap().into_inner();
    assert_eq!(told(&mut watch, ServingStatus::Unknown).await, Some(ServingStatus::Serving));
    server.signal("TERM");
    assert_eq!(told(&mut watch, ServingStatus::Serving).await, Some(ServingStatus::NotServing));
    assert_eq!(told(&mut watch, ServingStatus::NotServing).await, None);
    assert_eq!(server.wait(), Some(0));
    let drained = || server.log().iter().filter(|line| line.contains("\"drained\"")).count();
    eventually("it drained within the grace", || drained() == 1);
}

#[test]
fn the_process_has_started_once_it_could_serve_and_from_then_on() {
    let server = Server::start();
    let asked = |path: &str| Connection::open(server.admin).request("GET", path, &[], b"");
    assert_eq!(asked("/startupz").status, 200);
    let away = server.root().with_extension("away");
    std::fs::rename(server.root(), &away).unwrap();
    assert_eq!((asked("/readyz").status, asked("/startupz").status), (503, 200));
    assert_eq!(asked("/livez").status, 200);
    std::fs::rename(&away, server.root()).unwrap();

    // A provider that is not there: its keys are not known.
    let auth = "[auth.keys]\nrefresh = \"1s\"\n[[auth.issuers]]\nissuer = \"https://id.example\"\naudience = [\"attachd\"]\n\
                algorithms = [\"RS256\"]\njwks_url = \"http://127.0.0.1:9/keys\"\n";
    let server = Setup { auth: Some(auth.to_owned()), ..Setup::default() }.start();
    let asked = |path: &str| Connection::open(server.admin).request("GET", path, &[], b"");
    for path in ["/startupz", "/readyz"] {
        let reply = asked(path);
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.body["reasons"], serde_json::json!(["the keys of an issuer are not known"]), "{path}");
    }
    assert_eq!(asked("/livez").status, 200);
}
