//! The life of the process: health, the log, and how it ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::harness::{
    Connection, Form, GrpcRefusal, Server, Setup, chunk, eventually, finish, header, noise, record_path, token,
};

/// A server whose grace passes soon.
fn impatient() -> Server {
    Setup { variables: [("ATTACHD_SHUTDOWN__GRACE", "300ms".to_owned())].into(), ..Setup::default() }.start()
}

/// Starts what was in a folder again, as it is left after a process that was not given the time to end well.
fn again(server: Server) -> Server {
    Setup { garbage: true, ..Setup::default() }.start_in(server.kill())
}

/// The log's events of this message.
fn events(server: &Server, message: &str) -> Vec<Value> {
    let events = server.log().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("a line is JSON"));
    events.filter(|event| event["fields"]["message"] == message).collect()
}

fn refuses_connections(address: SocketAddr) -> bool {
    TcpStream::connect(address).is_err()
}

/// An upload over REST of which half has been sent, which the server has begun to receive.
fn half_sent(server: &Server, form: &Form) -> (Connection, Vec<u8>) {
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[1]), 1, 2, form, form.bytes().len() / 2);
    eventually("the upload is in flight", || server.readiness()["uploads_in_flight"] == 1);
    (connection, rest)
}

/// How an upload over gRPC will end.
type Ending = JoinHandle<Result<(), GrpcRefusal>>;

/// An upload over gRPC that has sent its first chunk, which the server has begun to receive; and how it will end.
async fn begun_over_grpc(server: &Server, first: &[u8]) -> (mpsc::Sender<Message>, Ending) {
    let (send, messages) = mpsc::channel(8);
    let messages = ReceiverStream::new(messages).map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut request = Request::new(messages);
    request.metadata_mut().insert("authorization", format!("Bearer {}", token(&[1])).parse().unwrap());
    let mut client = server.channel().await;
    let upload =
        tokio::spawn(async move { client.upload_attachment(request).await.map(|_| ()).map_err(GrpcRefusal::from) });
    send.send(Message::Header(header(1, 2))).await.unwrap();
    send.send(chunk(first.to_vec())).await.unwrap();
    eventually("the upload is in flight", || server.readiness()["uploads_in_flight"] == 1);
    (send, upload)
}

#[test]
fn a_server_with_nothing_to_do_drains_and_ends() {
    let mut server = Server::start();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    eventually("it says so", || events(&server, "drained").len() == 1);
}

#[test]
fn an_interrupt_ends_it_as_well() {
    let mut server = Server::start();
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    eventually("it says so", || events(&server, "drained").len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_wait_for_nothing_do_not_hold_up_the_end() {
    let mut server = Server::start();
    let mut served = server.connect();
    assert_eq!(served.upload(&token(&[1]), 1, 2, &Form::file(b"x")).status, 201);
    let mut silent = server.connect();
    let mut probe = Connection::open(server.admin);
    let _channel = server.channel().await;
    // A connection that is open on this side may still wait to be accepted; one that came after it was answered.
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(b"x")).status, 201);
    assert_eq!(server.readiness()["ready"], true);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    eventually("it drained within the grace", || events(&server, "drained").len() == 1);
    assert!(served.closed() && silent.closed() && probe.closed());
}

#[test]
fn an_upload_over_rest_that_is_in_flight_at_the_end_is_finished_and_stored() {
    let mut server = Server::start();
    let bytes = noise(3 << 20, 1);
    let (mut connection, rest) = half_sent(&server, &Form::file(&bytes));
    server.signal("TERM");
    eventually("new connections are refused", || refuses_connections(server.rest) && refuses_connections(server.grpc));
    // Whoever watches the process does so to its end.
    assert_eq!(server.readiness()["reasons"], serde_json::json!(["the process is about to end"]));
    connection.send(&rest).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    assert!(connection.closed());
    assert_eq!(server.wait(), Some(0));
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_grpc_that_is_in_flight_at_the_end_is_finished_and_stored() {
    let mut server = Server::start();
    let bytes = noise(3 << 20, 1);
    let (send, upload) = begun_over_grpc(&server, &bytes[..1 << 20]).await;
    server.signal("TERM");
    eventually("new connections are refused", || refuses_connections(server.grpc));
    send.send(chunk(bytes[1 << 20..].to_vec())).await.unwrap();
    send.send(finish()).await.unwrap();
    drop(send);
    upload.await.unwrap().expect("it is stored");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
}

#[test]
fn an_upload_over_rest_that_outlives_the_grace_is_cut_off_and_nothing_of_it_is_stored() {
    let mut server = impatient();
    let (mut connection, _rest) = half_sent(&server, &Form::file(&noise(3 << 20, 1)));
    server.signal("TERM");
    let reply = connection.reply().expect("it is told so");
    reply.assert_refusal(503, "The service is shutting down, try again");
    assert_eq!((reply.header("retry-after"), reply.header("connection")), ("1", "close"));
    drop(connection);
    assert_eq!(server.wait(), Some(0));
    let server = again(server);
    assert!(server.record(1, 2).is_none());
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(b"x")).status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_grpc_that_outlives_the_grace_is_cut_off_and_nothing_of_it_is_stored() {
    let mut server = impatient();
    let (send, upload) = begun_over_grpc(&server, &noise(1 << 20, 1)).await;
    server.signal("TERM");
    let refusal = upload.await.unwrap().expect_err("it is told so");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "DRAINING"));
    assert!(refusal.retry_after.is_some(), "{refusal:?}");
    drop(send);
    assert_eq!(server.wait(), Some(0));
    assert!(again(server).record(1, 2).is_none());
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    let mut server = Server::start();
    let (mut connection, _rest) = half_sent(&server, &Form::file(&noise(3 << 20, 1)));
    server.signal("TERM");
    eventually("it drains", || events(&server, "draining").len() == 1);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(1), "it does not wait for the upload");
    assert!(connection.reply().is_none());
    assert!(again(server).record(1, 2).is_none());
}

#[test]
fn the_admin_port_says_that_the_process_lives() {
    let server = Server::start();
    let mut stream = TcpStream::connect(server.admin).unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: attachd\r\nConnection: close\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 ") && reply.ends_with("\r\n\r\nok"), "{reply}");
}

#[test]
fn the_admin_port_says_whether_the_process_is_ready_and_what_it_is_at() {
    let server = Server::start();
    let ready = || Connection::open(server.admin).request("GET", "/readyz", &[], b"");
    let reply = ready();
    assert_eq!(reply.status, 200);
    let idle = serde_json::json!({
        "ready": true, "reasons": [], "storage": "available", "draining": false,
        "uploads_in_flight": 0, "budget_used_bytes": 0
    });
    let is_idle = |body: &serde_json::Value| idle.as_object().unwrap().iter().all(|(name, value)| body[name] == *value);
    assert!(is_idle(&reply.body), "{}", reply.body);
    let keys = &reply.body["keys"][0];
    assert_eq!((&keys["state"], &keys["keys"]), (&"fresh".into(), &1.into()), "{keys}");
    let (mut connection, rest) = half_sent(&server, &Form::file(&noise(3 << 20, 1)));
    assert_eq!(ready().status, 200);
    connection.send(&rest).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    eventually("it is idle again", || is_idle(&ready().body));
}

#[test]
fn a_server_whose_storage_is_gone_is_not_ready_until_it_is_back() {
    let server = Server::start();
    let ready = || Connection::open(server.admin).request("GET", "/readyz", &[], b"");
    let away = server.root().with_extension("away");
    std::fs::rename(server.root(), &away).unwrap();
    let reply = ready();
    assert_eq!(reply.status, 503);
    assert_eq!((&reply.body["ready"], &reply.body["storage"]), (&false.into(), &"unavailable".into()));
    assert_eq!(reply.body["reasons"], serde_json::json!(["the storage folder is gone"]));
    assert!(!reply.body.to_string().contains("root"), "{reply:?}");
    std::fs::rename(&away, server.root()).unwrap();
    assert_eq!(ready().status, 200);
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(b"x")).status, 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_one_line_of_the_log_with_the_same_fields_through_both_doors() {
    let server = Server::start();
    let good = token(&[1]);
    // A record that cannot be read: the failure of ours that is easiest to have.
    std::fs::create_dir_all(record_path(server.root(), 1, 3)).unwrap();
    let mut connection = server.connect();
    for (token, attachment, id) in [(good.as_str(), 2, "r-ok"), ("wrong", 2, "r-401"), (good.as_str(), 3, "r-500")] {
        let path = format!("/api/v2/clients/1/attachments/{attachment}");
        connection.upload_with(token, &path, &[("X-Request-Id", id)], &Form::file(b"x"));
    }
    for (token, attachment, id) in [(good.as_str(), 4, "g-ok"), ("wrong", 4, "g-401"), (good.as_str(), 3, "g-500")] {
        let messages = [Message::Header(header(1, attachment)), chunk(b"x".to_vec()), finish()];
        let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
        let mut request = Request::new(futures_util::stream::iter(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.metadata_mut().insert("x-request-id", id.parse().unwrap());
        let code =
            server.channel().await.upload_attachment(request).await.map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code == Code::Ok, id == "g-ok");
    }
    eventually("each is in the log", || events(&server, "request").len() >= 6);
    let lines = events(&server, "request");
    for (id, level, outcome, status, door) in [
        ("r-ok", "INFO", "OK", None, "rest"),
        ("r-401", "INFO", "TOKEN_INVALID", Some(401), "rest"),
        ("r-500", "ERROR", "INTERNAL", Some(500), "rest"),
        ("g-ok", "INFO", "OK", None, "grpc"),
        ("g-401", "INFO", "TOKEN_INVALID", Some(401), "grpc"),
        ("g-500", "ERROR", "INTERNAL", Some(500), "grpc"),
    ] {
        let mine: Vec<_> = lines.iter().filter(|line| line["fields"]["request_id"] == id).collect();
        assert_eq!(mine.len(), 1, "{id}: {lines:#?}");
        let (line, fields) = (mine[0], &mine[0]["fields"]);
        assert_eq!((&line["level"], &fields["outcome"]), (&level.into(), &outcome.into()), "{line}");
        assert_eq!((fields["status"].as_u64(), &fields["door"]), (status, &door.into()), "{line}");
        assert!(fields["elapsed_ms"].is_u64() && fields["method"].is_string() && fields["path"].is_string(), "{line}");
        let error = fields["error"].as_str().unwrap_or_default();
        assert_eq!(error.is_empty(), outcome == "OK", "{line}");
        // Whose attachment it was is known to whoever may know it, and under which id it was stored.
        let named = (outcome != "TOKEN_INVALID").then_some(1);
        assert_eq!(
            (fields["client_id"].as_u64(), fields["attachment_id"].is_u64()),
            (named, named.is_some()),
            "{line}"
        );
        assert_eq!(fields["upload_id"].is_string(), outcome == "OK", "{line}");
        assert_eq!(fields["size_bytes"].as_u64(), Some(u64::from(outcome == "OK")), "{line}");
        // The one place that has the cause.
        assert_eq!(error.contains("clients/1/records/0000000000000000003"), outcome == "INTERNAL", "{line}");
    }
    std::fs::remove_dir(record_path(server.root(), 1, 3)).unwrap();
}

#[test]
fn a_client_that_goes_away_is_one_line_of_the_log_and_no_failure_of_ours() {
    let server = Server::start();
    let (connection, _rest) = half_sent(&server, &Form::file(&noise(3 << 20, 1)));
    drop(connection);
    eventually("it is in the log", || events(&server, "request").len() == 1);
    server.assert_tidy();
    let lines = events(&server, "request");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_ne!(lines[0]["level"], "ERROR", "{lines:#?}");
    assert!(server.record(1, 2).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_never_in_the_log_whatever_becomes_of_its_request() {
    let server = Server::start();
    let good = token(&[1]);
    let forged = format!("{}x", &good[..good.len() - 4]);
    let mut expired = crate::harness::claims(&[1]);
    expired["exp"] = 1000.into();
    let expired = crate::harness::mint(&expired);
    for token in [&good, &forged, &expired] {
        let path = format!("/api/v2/clients/1/attachments/2?access_token={token}");
        server.connect().upload_with(token, &path, &[], &Form::file(b"x"));
        // Where it does not belong, and where no route is.
        server.connect().request("POST", "/api/v2/clients/1/attachments/2", &[("Authorization", token)], b"");
        server.connect().request("GET", "/nowhere", &[("X-Api-Key", token)], b"");
        let messages = vec![Message::Header(header(1, 2)), chunk(b"x".to_vec()), finish()];
        let _ = server.grpc_upload(token, messages).await;
    }
    eventually("all is in the log", || events(&server, "request").len() == 12);
    let log = server.log().join("\n");
    for token in [&good, &forged, &expired] {
        // Neither the whole nor one of its parts. The first part, the algorithm, is the same for everybody.
        for part in token.split('.').skip(1).filter(|part| part.len() > 8) {
            assert!(!log.contains(part), "a token is in the log");
        }
    }
}
