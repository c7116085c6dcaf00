//! The way to the end: who is served still, who is told to go elsewhere, and what is cut off.

use std::net::TcpStream;

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{
    Ask, Connection, Form, GrpcRefusal, Server, Setup, authorised, chunk, eventually, finish, header, honest, noise,
    token,
};

/// A server that serves for a while after it is told to end: longer than what a test does meanwhile.
fn slow_to_leave() -> Server {
    Setup { variables: [("ATTACHD_SHUTDOWN__DELAY", "8s".to_owned())].into(), ..Setup::default() }.start()
}

fn refuses_connections(address: std::net::SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

async fn upload(client: &mut AttachmentServiceClient<Channel>, attachment: i64) -> Result<(), GrpcRefusal> {
    let messages = [Message::Header(header(1, attachment)), chunk("some"), finish()];
    let messages = stream::iter(messages).map(|message| UploadAttachmentRequest { message: Some(message) });
    client.upload_attachment(authorised(Request::new(messages), &token(&[1]))).await?;
    Ok(())
}

async fn health(server: &Server) -> Vec<ServingStatus> {
    let mut all = Vec::new();
    for address in [server.grpc, server.admin] {
        let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let asked = HealthCheckRequest { service: String::new() };
        all.push(HealthClient::new(channel).check(asked).await.unwrap().into_inner().status());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn for_the_delay_the_process_says_that_it_is_not_ready_and_serves_all_the_same() {
    let mut server = slow_to_leave();
    let mut kept = server.connect();
    kept.assert_serves();
    let mut channel = server.channel().await;
    upload(&mut channel, 2).await.expect("it is stored");
    server.signal("TERM");
    eventually("it is not ready", || server.readiness()["ready"] == false);
    assert_eq!(health(&server).await, [ServingStatus::NotServing; 2]);
    // The connection that is open, a new one, and both over gRPC.
    for connection in [&mut kept, &mut server.connect()] {
        let reply = connection.ask(&honest());
        assert_eq!((reply.status, reply.header("connection")), (201, "close"), "{reply:?}");
        assert!(connection.closed());
    }
    let refused = server.connect().ask(&honest().by("a.b.c"));
    assert_eq!((refused.status, refused.header("connection")), (401, "close"));
    upload(&mut channel, 3).await.expect("it is stored");
    upload(&mut server.channel().await, 4).await.expect("it is stored");
    eventually("the ports close", || refuses_connections(server.rest) && refuses_connections(server.grpc));
    assert_eq!(server.wait(), Some(0));
    assert!((2..=4).all(|attachment| server.stored(1, attachment).is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_when_the_ports_close_is_served_though_nobody_had_the_time_to_look() {
    // The one connection that may be open is taken, so the next waits in the hands of the system.
    let limits = format!("max_upload_size = {}\nmax_connections = 1\n", 8 << 20);
    let mut server = Setup { limits, ..Setup::default() }.start();
    let mut first = server.connect();
    let form = Form::file(&noise(3 << 20, 1));
    let rest = first.begin(&token(&[1]), 1, 2, &form, 1 << 20);
    eventually("the upload is in flight", || server.readiness()["uploads_in_flight"] == 1);
    let mut second = server.connect();
    second.send(&Ask::upload(1, 3, &Form::file(b"in time")).bytes()).unwrap();
    server.signal("TERM");
    let reply = second.reply().expect("it is served");
    assert_eq!(reply.status, 201);
    assert!(second.closed());
    first.send(&rest).unwrap();
    assert_eq!(first.reply().expect("a reply").status, 201);
    assert_eq!(server.wait(), Some(0));
    assert_eq!(server.stored(1, 3).unwrap(), b"in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http2_is_sent_away_and_finishes_what_it_has_begun() {
    let mut server = Server::start();
    let channel = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
    let mut client = AttachmentServiceClient::new(channel);
    let (send, messages) = mpsc::channel(8);
    let messages = ReceiverStream::new(messages).map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut other = client.clone();
    let begun = tokio::spawn(async move {
        other.upload_attachment(authorised(Request::new(messages), &token(&[1]))).await.map(|_| ())
    });
    send.send(Message::Header(header(1, 2))).await.unwrap();
    eventually("the upload is in flight", || server.readiness()["uploads_in_flight"] == 1);
    server.signal("TERM");
    eventually("the port closes", || refuses_connections(server.grpc));
    // The client has been told, so it tries a new connection, which there is none of.
    let sent_away = async { while upload(&mut client, 3).await.is_ok() {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), sent_away).await.expect("it is told to go");
    send.send(chunk("the rest")).await.unwrap();
    send.send(finish()).await.unwrap();
    drop(send);
    begun.await.unwrap().expect("it is stored");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(server.stored(1, 2).unwrap(), b"the rest");
}

#[test]
fn a_second_signal_ends_the_delay_as_well() {
    let mut server = slow_to_leave();
    server.signal("TERM");
    eventually("it is not ready", || server.readiness()["ready"] == false);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(1));
    drop(Connection::try_open(server.rest).map(|_| ()).unwrap_err());
}
