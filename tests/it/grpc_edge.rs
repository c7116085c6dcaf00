//! What every request on the gRPC port gets, whatever it calls: an id, one line in the log, one count, and a refusal in the
//! words of gRPC with a reason, also if it is the framework that refuses.

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use http::Request;
use prost::Message as _;
use serde_json::Value;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;

use crate::harness::{
    RawConnection, RawReply, Server, chunk, eventually, finish, framed, header, message_frame, token,
};

const SERVICE: &str = "/attachments.v2.AttachmentService";
const INVALID: (Code, &str) = (Code::InvalidArgument, "INVALID_REQUEST");
const UNKNOWN: (Code, &str) = (Code::Unimplemented, "METHOD_NOT_ALLOWED");

/// A call with headers beside those that every call has. An empty token sends none.
fn call(path: &str, token: &str, id: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Request<Vec<u8>> {
    let mut request = Request::post(format!("http://attachd{path}")).header("x-request-id", id);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        request = request.header("content-type", "application/grpc");
    }
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(body).expect("a request")
}

fn registration(attachment: i64) -> Vec<u8> {
    RegisterAttachmentRequest { client_id: 1, attachment_id: attachment, ..Default::default() }.encode_to_vec()
}

/// The upload of a few bytes to attachment 1 of client 1.
fn upload() -> Vec<u8> {
    [Message::Header(header(1, 1)), chunk("content"), finish()].map(framed).concat()
}

/// How often each outcome was counted on the gRPC port.
fn counts(server: &Server) -> Vec<(String, f64)> {
    let counted = |series: &String| series.starts_with("attachd_requests_total{door=\"grpc\"");
    server.numbers().into_iter().filter(|(series, _)| counted(series)).collect()
}

/// Sends a request, and looks that it got its id, one line and one count, all with the same outcome.
async fn told(server: &Server, request: Request<Vec<u8>>) -> (RawReply, String) {
    let id = request.headers()["x-request-id"].to_str().expect("an id is ASCII").to_owned();
    let before = counts(server);
    let mut connection = RawConnection::open(server.grpc).await;
    let reply = connection.ask(request).await;
    assert_eq!(reply.headers["x-request-id"], id.as_str(), "{reply:?}");
    let outcome = server.outcome(&id);
    let changed = || {
        let after = counts(server);
        let rose = after.into_iter().zip(&before).filter(|((_, after), (_, before))| after > before);
        rose.map(|((series, after), (_, before))| (series, after - before)).collect::<Vec<_>>()
    };
    eventually(&format!("{id} is counted"), || !changed().is_empty());
    let changed = changed();
    assert_eq!(changed.len(), 1, "{id}: {changed:?}");
    assert!(changed[0].1 == 1.0 && changed[0].0.contains(&format!("outcome=\"{outcome}\"")), "{id}: {changed:?}");
    let lines = server.log();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lines: Vec<_> = lines
        .filter(|line| line["fields"]["message"] == "request" && line["fields"]["request_id"] == id.as_str())
        .collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    // The next call on the connection is served.
    connection.delivered().await;
    let next = connection.ask(call(&format!("{SERVICE}/UploadAttachment"), &token(&[9]), "", &[], honest())).await;
    assert_eq!(next.grpc().code, Code::Ok, "{next:?}");
    (reply, outcome)
}

fn honest() -> Vec<u8> {
    [Message::Header(header(9, 9)), chunk("honest"), finish()].map(framed).concat()
}

/// Expects the refusal of a call: its code, its reason, its domain and its id.
async fn refused(server: &Server, request: Request<Vec<u8>>, (code, reason): (Code, &str)) -> String {
    let id = request.headers()["x-request-id"].to_str().expect("an id is ASCII").to_owned();
    let (reply, outcome) = told(server, request).await;
    assert_eq!(reply.status, 200, "{id}: {reply:?}");
    assert_eq!(reply.headers["content-type"], "application/grpc", "{id}: {reply:?}");
    let refusal = reply.grpc();
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{id}: {refusal:?}");
    assert_eq!((refusal.domain.as_str(), outcome.as_str()), ("attachd", reason), "{id}: {refusal:?}");
    assert_eq!(refusal.request_id.as_deref(), Some(id.as_str()), "{refusal:?}");
    assert_eq!(refusal.challenge.is_some(), code == Code::Unauthenticated, "{id}");
    refusal.message
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_refused_with_a_reason_after_the_token() {
    let server = Server::start();
    let other = token(&[7]);
    for (number, path) in [
        "/attachments.v2.AttachmentService/Nothing",
        "/attachments.v2.AttachmentService/uploadattachment",
        "/attachments.v2.AttachmentService/",
        "/attachments.v2.AttachmentService",
        "/attachments.v2.AttachmentService/UploadAttachment/",
        "/attachments.v1.AttachmentService/UploadAttachment",
        "/nothing.Here/Nothing",
        "/grpc.health.v1.Health/Nothing",
        "/grpc.reflection.v1.ServerReflection/Nothing",
        "/",
        "//",
        "/api/v2/clients/1/attachments/1",
    ]
    .into_iter()
    .enumerate()
    {
        let ask = |token: &str, name: &str| call(path, token, &format!("{name}-{number}"), &[], upload());
        refused(&server, ask("", "none"), (Code::Unauthenticated, "TOKEN_MISSING")).await;
        refused(&server, ask("a.b.c", "bad"), (Code::Unauthenticated, "TOKEN_INVALID")).await;
        let text = refused(&server, ask(&other, "good"), UNKNOWN).await;
        assert!(text.contains("attachments.v2.AttachmentService"), "{text}");
    }
    assert_eq!(server.record(1, 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_that_is_no_message_is_refused_with_a_reason_after_the_token() {
    let server = Server::start();
    let path = format!("{SERVICE}/RegisterAttachment");
    let whole = message_frame(0, &registration(2));
    let cut = (Code::Aborted, "INCOMPLETE_UPLOAD");
    for (name, expected, body) in [
        ("no-message", INVALID, Vec::new()),
        ("empty-message", INVALID, message_frame(0, b"")),
        ("garbage", INVALID, message_frame(0, &[0xff; 40])),
        ("cut-field", INVALID, message_frame(0, &[0x08])),
        ("wrong-wire-type", INVALID, message_frame(0, &[0x0a, 0x01, 0x01])),
        ("flag-2", INVALID, message_frame(2, &registration(2))),
        ("flag-255", INVALID, message_frame(0xff, &registration(2))),
        ("compressed-without-encoding", INVALID, message_frame(1, &registration(2))),
        ("two-messages", INVALID, [whole.clone(), whole.clone()].concat()),
        ("a-message-and-more", cut, [&whole[..], &[0, 0]].concat()),
        ("huge", INVALID, [&[0][..], &u32::MAX.to_be_bytes(), b"some"].concat()),
        ("too-large", INVALID, [&[0][..], &65_537u32.to_be_bytes(), b"some"].concat()),
        ("cut-prefix", cut, whole[..3].to_vec()),
        ("cut-message", cut, whole[..7].to_vec()),
    ] {
        let ask = |token: &str, more: &str| call(&path, token, &format!("{name}{more}"), &[], body.clone());
        refused(&server, ask("", "-none"), (Code::Unauthenticated, "TOKEN_MISSING")).await;
        refused(&server, ask("a.b.c", "-bad"), (Code::Unauthenticated, "TOKEN_INVALID")).await;
        let text = refused(&server, ask(&token(&[1]), "-good"), expected).await;
        assert!(text.starts_with("Validation error: "), "{name}: {text}");
    }
    assert_eq!(server.record(1, 2), None);
    let (reply, outcome) = told(&server, call(&path, &token(&[1]), "whole", &[], whole)).await;
    assert_eq!((reply.grpc().code, outcome.as_str()), (Code::Ok, "OK"), "{reply:?}");
    assert_eq!(server.record(1, 2).expect("it is registered")["state"], "registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_of_64_kib_is_taken_and_a_larger_one_refused_before_it_has_come() {
    let server = Server::start();
    let mut connection = RawConnection::open(server.grpc).await;
    let padded = |attachment: i64, length: usize| {
        // A field that is not known.
        let mut bytes = [registration(attachment), vec![0xa2, 0x06]].concat();
        prost::encode_length_delimiter(length - bytes.len() - 3, &mut bytes).expect("there is room");
        bytes.resize(length, 0);
        message_frame(0, &bytes)
    };
    for (attachment, length) in [(1, 65_535), (2, 65_536)] {
        let mut stream = connection.call("RegisterAttachment", &token(&[1]), &[]).await;
        stream.send(padded(attachment, length));
        stream.end();
        assert_eq!(stream.reply().await.expect("it is small enough").attachment_id, attachment);
    }
    for (token, expected) in [(token(&[1]), INVALID), (String::new(), (Code::Unauthenticated, "TOKEN_MISSING"))] {
        let mut stream = connection.call("RegisterAttachment", &token, &[]).await;
        stream.send(padded(3, 65_537)[..100].to_vec());
        let reply = tokio::time::timeout(std::time::Duration::from_secs(20), stream.reply()).await;
        let refusal = reply.expect("no more of it is waited for").expect_err("it is too large");
        assert_eq!((refusal.code, refusal.reason.as_str()), expected);
    }
    assert_eq!(server.record(1, 3), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_grpc_is_refused_in_words_of_http_and_stores_nothing() {
    let server = Server::start();
    let types = [
        "application/json",
        "application/grpc-web",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/connect+proto",
        "application/proto",
        "application/x-protobuf",
        "application/grpc+json",
        "application/grpc+",
        "application/grpcx",
        "application/grp",
        "text/plain",
        "text/plain; application/grpc",
        "multipart/form-data; boundary=x",
        "",
    ];
    for (number, content_type) in types.into_iter().enumerate() {
        for (method, body) in
            [("UploadAttachment", upload()), ("RegisterAttachment", message_frame(0, &registration(1)))]
        {
            for token in [token(&[1]), String::new()] {
                let id = format!("type-{number}-{method}-{}", token.len());
                let path = format!("{SERVICE}/{method}");
                let request = call(&path, &token, &id, &[("content-type", content_type)], body.clone());
                not_grpc(&server, request, 415, "UNSUPPORTED_MEDIA_TYPE").await;
            }
        }
    }
    let mut none = call(&format!("{SERVICE}/UploadAttachment"), &token(&[1]), "no-type", &[], upload());
    none.headers_mut().remove("content-type");
    not_grpc(&server, none, 415, "UNSUPPORTED_MEDIA_TYPE").await;
    let mut twice = call(&format!("{SERVICE}/UploadAttachment"), &token(&[1]), "two-types", &[], upload());
    twice.headers_mut().append("content-type", "application/grpc".parse().unwrap());
    not_grpc(&server, twice, 415, "UNSUPPORTED_MEDIA_TYPE").await;
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let mut request = call(&format!("{SERVICE}/UploadAttachment"), &token(&[1]), method, &[], upload());
        *request.method_mut() = method.parse().unwrap();
        let reply = not_grpc(&server, request, 405, "METHOD_NOT_ALLOWED").await;
        assert_eq!(reply.headers["allow"], "POST");
    }
    let get = Request::get("http://attachd/").header("x-request-id", "browser").body(Vec::new()).unwrap();
    not_grpc(&server, get, 415, "UNSUPPORTED_MEDIA_TYPE").await;
    assert_eq!(server.record(1, 1), None);
}

async fn not_grpc(server: &Server, request: Request<Vec<u8>>, status: u16, reason: &str) -> RawReply {
    let is_head = request.method() == "HEAD";
    let (reply, outcome) = told(server, request).await;
    assert_eq!((reply.status.as_u16(), outcome.as_str()), (status, reason), "{reply:?}");
    assert!(!reply.headers.contains_key("grpc-status") && reply.trailers.is_empty(), "{reply:?}");
    if !is_head {
        let body: Value = serde_json::from_slice(&reply.body).expect("the body is JSON");
        assert_eq!((&body["status"], &body["code"]), (&"error".into(), &status.into()));
        assert!(body["details"].as_str().unwrap().contains("gRPC"), "{body}");
    }
    reply
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_write_the_content_type_of_grpc_is_taken() {
    let server = Server::start();
    for (number, content_type) in [
        "application/grpc",
        "application/grpc+proto",
        "Application/GRPC",
        "application/grpc;charset=utf-8",
        "application/grpc+proto ; x=y",
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("{SERVICE}/UploadAttachment");
        let request = call(&path, &token(&[1]), &format!("{number}"), &[("content-type", content_type)], upload());
        let (reply, outcome) = told(&server, request).await;
        assert_eq!((reply.grpc().code, outcome.as_str()), (Code::Ok, "OK"), "{content_type}");
        assert_eq!(reply.headers["content-type"], "application/grpc");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_are_refused_with_the_encodings_that_are_taken() {
    let server = Server::start();
    let expected = (Code::Unimplemented, "UNSUPPORTED_COMPRESSION");
    for encoding in ["gzip", "deflate", "zstd", "br", "snappy", "GZIP", ""] {
        for method in ["UploadAttachment", "RegisterAttachment"] {
            let messages = match method {
                "UploadAttachment" => [Message::Header(header(1, 1)), chunk("content"), finish()].map(framed).to_vec(),
                _ => vec![message_frame(0, &registration(1))],
            };
            let path = format!("{SERVICE}/{method}");
            // Each message in turn is the compressed one.
            for compressed in 0..messages.len() {
                let mut messages = messages.clone();
                messages[compressed][0] = 1;
                let id = format!("{method}-{encoding}-{compressed}");
                let ask = |token: &str| call(&path, token, &id, &[("grpc-encoding", encoding)], messages.concat());
                let mut connection = RawConnection::open(server.grpc).await;
                let reply = connection.ask(ask(&token(&[1]))).await;
                assert_eq!(reply.headers["grpc-accept-encoding"], "identity", "{reply:?}");
                let text = refused(&server, with_id(ask(&token(&[1])), &format!("{id}-again")), expected).await;
                assert!(text.ends_with("send messages without compression"), "{text}");
            }
        }
    }
    assert_eq!(server.record(1, 1), None);
}

fn with_id(mut request: Request<Vec<u8>>, id: &str) -> Request<Vec<u8>> {
    request.headers_mut().insert("x-request-id", id.parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_name_a_compression_that_none_of_its_messages_has() {
    let server = Server::start();
    for (number, encoding) in ["gzip", "identity", "zstd", ""].into_iter().enumerate() {
        let attachment = i64::try_from(number).unwrap() + 1;
        for (method, body) in
            [("RegisterAttachment", message_frame(0, &registration(attachment))), ("UploadAttachment", upload())]
        {
            let (path, id) = (format!("{SERVICE}/{method}"), format!("{method}-{number}"));
            let request = call(&path, &token(&[1]), &id, &[("grpc-encoding", encoding)], body);
            let (reply, outcome) = told(&server, request).await;
            assert_eq!((reply.grpc().code, outcome.as_str()), (Code::Ok, "OK"), "{id}: {reply:?}");
        }
    }
    assert_eq!(server.stored(1, 1).expect("it is stored"), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_for_no_token_and_refuses_in_the_same_words() {
    let server = Server::start();
    let path = "/grpc.health.v1.Health/Check";
    let name = |name: &str| HealthCheckRequest { service: name.to_owned() }.encode_to_vec();
    let (reply, outcome) = told(&server, call(path, "", "good", &[], message_frame(0, &name("")))).await;
    assert_eq!((reply.grpc().code, outcome.as_str()), (Code::Ok, "OK"), "{reply:?}");
    // A token is not looked at, whatever it is.
    let (reply, _) = told(&server, call(path, "a.b.c", "any", &[], message_frame(0, b""))).await;
    assert_eq!(reply.grpc().code, Code::Ok, "{reply:?}");
    for (id, expected, body) in [
        ("unknown", (Code::NotFound, "NOT_FOUND"), message_frame(0, &name("another"))),
        ("malformed", INVALID, message_frame(0, &[0x0a, 0x7f])),
        ("flag", INVALID, message_frame(7, b"")),
        ("none", INVALID, Vec::new()),
        ("too-large", INVALID, [&[0][..], &65_537u32.to_be_bytes()].concat()),
    ] {
        refused(&server, call(path, "", id, &[], body), expected).await;
    }
    let request = call(path, "", "compressed", &[("grpc-encoding", "gzip")], message_frame(1, b""));
    refused(&server, request, (Code::Unimplemented, "UNSUPPORTED_COMPRESSION")).await;
    let watch = "/grpc.health.v1.Health/Watch";
    refused(&server, call(watch, "", "watch", &[], message_frame(2, b"")), INVALID).await;
}
