//! HTTP/2 on the REST port, and what becomes of a client that knocks at the wrong door.

use std::convert::Infallible;
use std::fs;
use std::process::Command;
use std::time::Duration;

use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadAttachmentRequest};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;

use crate::harness::{
    Connection, Form, MAX_UPLOAD, Server, chunk, eventually, finish, header, noise, record_path, token,
};

type Client = SendRequest<BoxBody<Bytes, Infallible>>;

/// Opens a connection to a REST port with prior knowledge of HTTP/2.
async fn connect(server: &Server) -> Client {
    let stream = TcpStream::connect(server.rest).await.unwrap();
    let (client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    client
}

fn upload(token: &str, attachment: i64, body: BoxBody<Bytes, Infallible>) -> Request<BoxBody<Bytes, Infallible>> {
    Request::post(format!("http://attachd/api/v2/clients/1/attachments/{attachment}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", Form::default().content_type())
        .body(body)
        .unwrap()
}

/// A body that says how long it is.
fn whole(bytes: Vec<u8>) -> BoxBody<Bytes, Infallible> {
    Full::from(bytes).boxed()
}

/// A body that comes piece by piece, each of which is taken when there is room for it.
fn piecemeal() -> (mpsc::Sender<Bytes>, BoxBody<Bytes, Infallible>) {
    let (pieces, arriving) = mpsc::channel(1);
    (pieces, BoxBody::new(StreamBody::new(ReceiverStream::new(arriving).map(|piece| Ok(Frame::data(piece))))))
}

/// Sends a request and reads the reply; nothing waits longer than 30 s.
async fn ask(client: &mut Client, request: Request<BoxBody<Bytes, Infallible>>) -> (StatusCode, Value) {
    let reply = timeout(Duration::from_secs(30), client.send_request(request)).await.expect("a reply in time").unwrap();
    let status = reply.status();
    let body = timeout(Duration::from_secs(30), reply.into_body().collect()).await.expect("a body in time").unwrap();
    (status, serde_json::from_slice(&body.to_bytes()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_over_http2_is_stored_as_it_was_sent() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let bytes = noise(5 << 20, 40);
    let documented = json!({
        "status": "success", "code": 201, "message": "Operation completed successfully", "details": []
    });
    let form = Form::file(&bytes).bytes();
    assert_eq!(ask(&mut client, upload(&token(&[1]), 2, whole(form.clone()))).await, (StatusCode::CREATED, documented));
    assert!(server.stored(1, 2).unwrap() == bytes);
    // Without a length, in pieces that do not fit the frames.
    let (pieces, body) = piecemeal();
    let sender = tokio::spawn(async move {
        for piece in form.chunks(33_333) {
            pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    assert_eq!(ask(&mut client, upload(&token(&[1]), 3, body)).await.0, StatusCode::CREATED);
    sender.await.unwrap();
    assert!(server.stored(1, 3).unwrap() == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_over_http2_are_read_while_the_client_still_sends_and_the_connection_goes_on() {
    let server = Server::start();
    let mut client = connect(&server).await;
    for (by, size, expected) in
        [("a.b.c".to_owned(), 20 << 20, 401), (token(&[7]), 20 << 20, 403), (token(&[1]), MAX_UPLOAD + 1, 413)]
    {
        // The client goes on until nobody takes what it sends.
        let (pieces, body) = piecemeal();
        let form = Form::file(&noise(size, 41)).bytes();
        tokio::spawn(async move {
            for piece in form.chunks(100_000) {
                if pieces.send(Bytes::copy_from_slice(piece)).await.is_err() {
                    break;
                }
            }
        });
        let (status, body) = ask(&mut client, upload(&by, 2, body)).await;
        assert_eq!((status.as_u16(), &body["code"]), (expected, &json!(expected)));
        assert!(server.objects().is_empty());
        let honest = upload(&token(&[1]), 3, whole(Form::file(b"content").bytes()));
        assert_eq!(ask(&mut client, honest).await.0, StatusCode::CREATED);
        fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_reset_or_ends_early_stores_nothing_and_the_connection_goes_on() {
    let server = Server::start();
    let mut client = connect(&server).await;
    let form = Form::file(&noise(3 << 20, 42)).bytes();
    let (status, body) = ask(&mut client, upload(&token(&[1]), 2, whole(form[..form.len() - 6].to_vec()))).await;
    assert_eq!((status, &body["message"]), (StatusCode::BAD_REQUEST, &json!("Invalid request")));
    let (pieces, body) = piecemeal();
    let request = client.send_request(upload(&token(&[1]), 2, body));
    let waiting = tokio::spawn(request);
    pieces.send(Bytes::copy_from_slice(&form[..2 << 20])).await.unwrap();
    eventually("the upload has begun", || server.readiness()["uploads_in_flight"] == 1);
    // Nobody waits for the reply any more, so the stream is reset.
    waiting.abort();
    drop(pieces);
    eventually("the upload is taken back", || server.readiness()["uploads_in_flight"] == 0);
    assert!(server.objects().is_empty());
    let honest = upload(&token(&[1]), 3, whole(Form::file(b"content").bytes()));
    assert_eq!(ask(&mut client, honest).await.0, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_nobody_reads_does_not_hold_up_another_on_its_connection() {
    let server = Server::start();
    let mut client = connect(&server).await;
    assert_eq!(
        ask(&mut client, upload(&token(&[1]), 2, whole(Form::file(b"old").bytes()))).await.0,
        StatusCode::CREATED
    );
    // The record is a pipe that nobody writes to, so the check that reads it does not come to an end, and until it does
    // nobody reads the body: what the client may send of it stays in the server.
    let path = record_path(server.root(), 1, 2);
    let record = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    let form = Form::file(&noise(6 << 20, 43)).bytes();
    let (pieces, body) = piecemeal();
    let mut other = client.clone();
    let stalled = tokio::spawn(async move { ask(&mut other, upload(&token(&[1]), 2, body)).await });
    let mut rest = form.chunks(64 << 10).map(Bytes::copy_from_slice).peekable();
    while let Some(piece) = rest.next_if(|_| true) {
        // A piece that is not taken for so long finds the window closed.
        if let Err(mpsc::error::SendTimeoutError::Timeout(_)) =
            pieces.send_timeout(piece, Duration::from_millis(500)).await
        {
            break;
        }
    }
    assert!(rest.peek().is_some(), "all of the stalled upload was taken");
    let bytes = noise(5 << 20, 44);
    let fast = upload(&token(&[1]), 3, whole(Form::file(&bytes).bytes()));
    assert_eq!(ask(&mut client, fast).await.0, StatusCode::CREATED);
    assert!(server.stored(1, 3).unwrap() == bytes);
    // Let the check go on. It has not read a record, so the stalled upload cannot end well, whatever it is told.
    drop(fs::File::options().write(true).open(&path).unwrap());
    fs::remove_file(&path).unwrap();
    fs::write(&path, &record).unwrap();
    drop(pieces);
    assert!(!stalled.await.unwrap().0.is_success());
    assert_eq!(server.stored(1, 2).unwrap(), b"old");
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_spoken_to_the_rest_port_is_refused_with_or_without_a_token() {
    let server = Server::start();
    for bearer in [String::new(), token(&[1])] {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.rest)).unwrap();
        let mut client = AttachmentServiceClient::new(endpoint.connect().await.unwrap());
        let authorised = |metadata: &mut tonic::metadata::MetadataMap| {
            if !bearer.is_empty() {
                metadata.insert("authorization", MetadataValue::try_from(format!("Bearer {bearer}")).unwrap());
            }
        };
        let messages = [Message::Header(header(1, 2)), chunk(noise(1000, 45)), finish()];
        let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
        let mut request = tonic::Request::new(futures_util::stream::iter(messages));
        authorised(request.metadata_mut());
        client.upload_attachment(request).await.unwrap_err();
        let register = RegisterAttachmentRequest { client_id: 1, attachment_id: 2, ..Default::default() };
        let mut request = tonic::Request::new(register);
        authorised(request.metadata_mut());
        client.register_attachment(request).await.unwrap_err();
    }
    // What a gRPC client makes of it is its own affair; this is what is said.
    let mut client = connect(&server).await;
    let request = Request::post("http://attachd/attachments.v2.AttachmentService/UploadAttachment")
        .header("authorization", format!("Bearer {}", token(&[1])))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(whole(vec![0; 5]))
        .unwrap();
    let (status, body) = ask(&mut client, request).await;
    assert_eq!((status, &body["message"]), (StatusCode::NOT_FOUND, &json!("Not found")));
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn http1_spoken_to_the_grpc_port_is_refused_and_the_port_serves_on() {
    let server = Server::start();
    let form = Form::file(b"content");
    for path in ["/api/v2/clients/1/attachments/2", "/attachments.v2.AttachmentService/UploadAttachment"] {
        let mut connection = Connection::open(server.grpc);
        let ask = crate::harness::Ask::upload(1, 2, &form).at(path);
        let _ = connection.send(&ask.bytes());
        // What is said, if anything, is HTTP/2, and then the connection is closed.
        let mut said = Vec::new();
        let _ = std::io::Read::read_to_end(&mut connection.writer(), &mut said);
        assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1 2"), "{said:?}");
        assert!(connection.closed());
        assert!(server.objects().is_empty());
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let messages = vec![Message::Header(header(1, 2)), chunk(&b"content"[..]), finish()];
    runtime.block_on(server.grpc_upload(&token(&[1]), messages)).unwrap();
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_route_on_the_grpc_port_is_no_door() {
    let server = Server::start();
    let stream = TcpStream::connect(server.grpc).await.unwrap();
    let (mut client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = upload(&token(&[1]), 2, whole(Form::file(b"content").bytes()));
    let reply = timeout(Duration::from_secs(30), client.send_request(request)).await.expect("a reply in time").unwrap();
    assert_eq!(reply.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{reply:?}");
    assert_eq!(reply.headers()["accept"], "application/grpc", "{reply:?}");
    assert!(server.objects().is_empty());
}
