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

/// How many calls on a connection, and on a port, may watch.
const WATCHES: (usize, usize) = (16, 1024);

/// So many calls that watch.
async fn watches(client: &HealthClient<Channel>, count: usize) -> Vec<Streaming<HealthCheckResponse>> {
    let mut watches = Vec::new();
    for _ in 0..count {
        watches.push(client.clone().watch(asked("")).await.expect("there is room").into_inner());
    }
    watches
}

async fn refused(client: &HealthClient<Channel>) -> (Code, String) {
    let refusal = client.clone().watch(asked("")).await.expect_err("there is no room");
    (refusal.code(), refusal.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_calls_on_a_connection_may_watch_and_one_more_may_not() {
    let server = Server::start();
    for address in [server.grpc, server.admin] {
        let client = client(address).await;
        let mut all = watches(&client, WATCHES.0 - 1).await;
        all.extend(watches(&client, 1).await);
        let (code, message) = refused(&client).await;
        assert_eq!(code, Code::ResourceExhausted);
        assert!(message.contains("at most 16 calls on a connection may watch"), "{message}");
        // Another connection, and another call, are nothing to that.
        watches(&self::client(address).await, 1).await;
        assert_eq!(status(&mut client.clone(), "").await, ServingStatus::Serving);
        all.pop();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while client.clone().watch(asked("")).await.is_err() {
            assert!(std::time::Instant::now() < deadline, "the place of a call that has ended is not free");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_calls_on_a_port_may_watch_and_one_more_may_not() {
    let server = Server::start();
    let mut all = Vec::new();
    for _ in 0..WATCHES.1 / WATCHES.0 {
        let client = client(server.grpc).await;
        all.push((watches(&client, WATCHES.0).await, client));
    }
    let (code, message) = refused(&client(server.grpc).await).await;
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.contains("at most 1024 calls on a port may watch"), "{message}");
    // The other port has room of its own.
    watches(&client(server.admin).await, 1).await;
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
