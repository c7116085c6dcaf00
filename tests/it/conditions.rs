//! Preconditions: which content an upload may replace, by either protocol, and what a refusal says of the stored content.

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadAttachmentRequest, UploadHeader};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{Barrier, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request};

use crate::harness::{
    Ask, Form, GrpcRefusal, Reply, Server, Setup, authorised, chunk, claims, eventually, finish, header, hex, mint,
    noise, sha256, token,
};

const FAILED: &str = "A precondition of the request is not met";

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&sha256(bytes)))
}

fn upload(content: &[u8]) -> Ask {
    Ask::upload(1, 2, &Form::file(content))
}

async fn call(server: &Server, content: &[u8], header: UploadHeader) -> Result<(), GrpcRefusal> {
    let messages = vec![Message::Header(header), chunk(content.to_vec()), finish()];
    server.grpc_upload(&token(&[1]), messages).await.map(|_| ())
}

/// Looks that a 412 over REST names what is stored.
fn assert_names(reply: &Reply, stored: Option<&[u8]>) {
    let digest = |bytes: &[u8]| format!("sha-256=:{}:", STANDARD.encode(sha256(bytes)));
    assert_eq!(reply.headers.get("etag"), stored.map(etag).as_ref(), "{reply:?}");
    assert_eq!(reply.headers.get("repr-digest"), stored.map(digest).as_ref(), "{reply:?}");
}

/// Looks that a refusal over gRPC names what is stored.
fn assert_tells(refusal: &GrpcRefusal, stored: Option<&[u8]>) {
    let told = |name: &str| refusal.metadata.get(name).cloned();
    assert_eq!(told("etag"), stored.map(etag), "{refusal:?}");
    assert_eq!(told("sha256"), stored.map(|bytes| hex(&sha256(bytes))), "{refusal:?}");
}

/// Sends `content` by both protocols with the conditions, and looks that both end alike: stored, or refused with this reason.
async fn both(server: &Server, stored: Option<&[u8]>, conditions: [Option<&str>; 2], expected: &str) {
    let [if_match, if_none_match] = conditions;
    let mut ask = upload(b"new");
    for (name, value) in [("If-Match", if_match), ("If-None-Match", if_none_match)] {
        ask = value.into_iter().fold(ask, |ask, value| ask.with(name, value));
    }
    let owned = |value: Option<&str>| value.map(str::to_owned);
    let header = UploadHeader { if_match: owned(if_match), if_none_match: owned(if_none_match), ..header(1, 2) };
    for over_grpc in [false, true] {
        let _ = std::fs::remove_dir_all(server.root().join("clients/1"));
        if let Some(bytes) = stored {
            assert_eq!(server.connect().ask(&upload(bytes)).status, 201);
        }
        let case = format!("{conditions:?} over {stored:?}");
        let status = match expected {
            "OK" => 201,
            "INVALID_REQUEST" => 400,
            _ => 412,
        };
        if over_grpc {
            match call(server, b"new", header.clone()).await {
                Ok(()) => assert_eq!(expected, "OK", "{case}"),
                Err(refusal) => {
                    assert_eq!(refusal.reason, expected, "{case}: {refusal:?}");
                    let code = match expected {
                        "PRECONDITION_FAILED" => Code::FailedPrecondition,
                        "ALREADY_EXISTS" => Code::AlreadyExists,
                        _ => Code::InvalidArgument,
                    };
                    assert_eq!(refusal.code, code, "{case}");
                    assert_tells(&refusal, stored.filter(|_| status == 412));
                }
            }
        } else {
            let reply = server.connect().ask(&ask);
            assert_eq!(reply.status, status, "{case}: {reply:?}");
            if status == 412 {
                reply.assert_refusal(412, FAILED);
                assert_names(&reply, stored);
            }
        }
        let left = if expected == "OK" { Some(&b"new"[..]) } else { stored };
        assert_eq!(server.stored(1, 2).as_deref(), left, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_match_replaces_only_content_that_has_one_of_the_tags() {
    let server = Server::start();
    let (right, wrong) = (etag(b"old"), etag(b"other"));
    let stored = Some(&b"old"[..]);
    for value in [
        right.clone(),
        format!(" {right}\t"),
        format!("{wrong}, {right}"),
        format!("{right},{wrong}"),
        format!(",, {right} ,"),
        format!("\"a,b\", W/\"c\", {right}"),
        format!("\"\",{right}"),
        "*".to_owned(),
        " * ".to_owned(),
    ] {
        both(&server, stored, [Some(&value), None], "OK").await;
        both(&server, None, [Some(&value), None], "PRECONDITION_FAILED").await;
    }
    for value in [
        wrong.clone(),
        "\"\"".to_owned(),
        "\"*\"".to_owned(),
        format!("W/{right}"),
        format!("W/{right}, {wrong}"),
        right.to_uppercase(),
        format!("\" {}\"", right.trim_matches('"')).replace(' ', "x"),
        format!("{}\"", &right[..right.len() - 2]),
    ] {
        both(&server, stored, [Some(&value), None], "PRECONDITION_FAILED").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn if_none_match_refuses_content_that_has_one_of_the_tags() {
    let server = Server::start();
    let (right, wrong) = (etag(b"old"), etag(b"other"));
    let stored = Some(&b"old"[..]);
    for value in [right.clone(), format!("W/{right}"), format!("{wrong}, {right}"), format!("\"x\" ,W/{right}")] {
        both(&server, stored, [None, Some(&value)], "PRECONDITION_FAILED").await;
        both(&server, None, [None, Some(&value)], "OK").await;
    }
    for value in [wrong.clone(), "\"\"".to_owned(), format!("W/{wrong}"), right.to_uppercase()] {
        both(&server, stored, [None, Some(&value)], "OK").await;
    }
    both(&server, stored, [None, Some("*")], "ALREADY_EXISTS").await;
    both(&server, None, [None, Some("*")], "OK").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_preconditions_if_match_is_judged_first_and_both_count() {
    let server = Server::start();
    let (right, wrong) = (etag(b"old"), etag(b"other"));
    let stored = Some(&b"old"[..]);
    for (if_match, if_none_match, expected) in [
        (&right, &wrong, "OK"),
        (&right, &right, "PRECONDITION_FAILED"),
        (&wrong, &wrong, "PRECONDITION_FAILED"),
        (&right, &"*".to_owned(), "ALREADY_EXISTS"),
        (&wrong, &"*".to_owned(), "PRECONDITION_FAILED"),
    ] {
        both(&server, stored, [Some(if_match), Some(if_none_match)], expected).await;
    }
    both(&server, None, [Some("*"), Some("*")], "PRECONDITION_FAILED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_that_is_malformed_is_refused_and_named() {
    let server = Server::start();
    let right = etag(b"old");
    for value in [
        String::new(),
        " ".to_owned(),
        ",".to_owned(),
        "abc".to_owned(),
        right.trim_matches('"').to_owned(),
        right.trim_end_matches('"').to_owned(),
        right.trim_start_matches('"').to_owned(),
        format!("{right} {right}"),
        format!("{right}{right}"),
        format!("w/{right}"),
        format!("W/ {right}"),
        "W/".to_owned(),
        "W/*".to_owned(),
        format!("*, {right}"),
        format!("{right}, *"),
        "**".to_owned(),
        "\"a b\"".to_owned(),
        "'abc'".to_owned(),
    ] {
        for conditions in [[Some(value.as_str()), None], [None, Some(value.as_str())]] {
            both(&server, Some(b"old"), conditions, "INVALID_REQUEST").await;
        }
        server.assert_refused(&upload(b"x").with("If-Match", &value), 400, "Validation error: If-Match");
        server.assert_refused(&upload(b"x").with("If-None-Match", &value), 400, "Validation error: If-None-Match");
        let header = UploadHeader { if_match: Some(value), ..header(1, 2) };
        assert_eq!(call(&server, b"x", header).await.unwrap_err().fields, ["if_match"]);
    }
}

#[test]
fn a_list_of_tags_may_come_in_several_headers() {
    let server = Server::start();
    let ask = |content: &[u8], tags: [&str; 2]| upload(content).and("If-Match", tags[0]).and("if-match", tags[1]);
    assert_eq!(server.connect().ask(&upload(b"one")).status, 201);
    assert_eq!(server.connect().ask(&ask(b"two", ["\"x\"", &etag(b"one")])).status, 201);
    let reply = server.connect().ask(&ask(b"three", ["\"x\"", &etag(b"one")]));
    reply.assert_refusal(412, FAILED);
    assert_names(&reply, Some(b"two"));
    for tags in [["*", "*"], ["*", "\"x\""]] {
        server.assert_refused(&ask(b"four", tags), 400, "Validation error: If-Match");
    }
    let twice = upload(b"five").and("If-None-Match", "*").and("If-None-Match", "*");
    server.assert_refused(&twice, 400, "Validation error: If-None-Match");
}

#[test]
fn a_tag_outside_ascii_is_a_tag_that_matches_nothing() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload(b"old")).status, 201);
    for tag in ["\"é\"", "\"日本\""] {
        server.assert_refused(&upload(b"new").with("If-Match", tag), 412, FAILED);
        assert_eq!(server.connect().ask(&upload(b"old").with("If-None-Match", tag)).status, 201);
    }
}

#[test]
fn a_time_or_a_range_on_an_upload_is_refused_and_if_match_outranks_the_time() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload(b"old")).status, 201);
    let dates = ["Sat, 29 Oct 1994 19:43:31 GMT", "Sat, 01 Jan 2095 00:00:00 GMT", "yesterday", ""];
    for date in dates {
        let ask = upload(b"new").with("If-Unmodified-Since", date);
        server.assert_refused(&ask, 400, "Validation error: If-Unmodified-Since");
        server.assert_refused(&ask.with("If-None-Match", "\"x\""), 400, "Validation error: If-Unmodified-Since");
    }
    for (name, value) in
        [("Range", "bytes=0-2"), ("range", "bytes=4-"), ("If-Range", "\"x\""), ("If-Range", dates[0]), ("Range", "")]
    {
        let names = if name == "If-Range" { "Validation error: If-Range" } else { "Validation error: Range" };
        server.assert_refused(&upload(b"new").with(name, value), 400, names);
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"old");
    for (number, date) in dates.into_iter().enumerate() {
        let (before, after) = (format!("{}", number.max(1) - 1), number.to_string());
        let before = if number == 0 { b"old".to_vec() } else { before.into_bytes() };
        let ask = upload(after.as_bytes()).with("If-Unmodified-Since", date).with("If-Match", &etag(&before));
        let reply = server.connect().ask(&ask);
        assert_eq!(reply.status, 201, "{date}: {reply:?}");
        server.assert_refused(&ask, 412, FAILED);
    }
    // It has no meaning for a method that stores (RFC 9110 §13.1.3).
    for date in dates {
        assert_eq!(server.connect().ask(&upload(b"new").with("If-Modified-Since", date)).status, 201, "{date}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_on_content_fails_where_there_is_none_and_an_unknown_attachment_is_not_found() {
    let strict = Server::strict();
    for value in ["*", "\"x\""] {
        let header = || UploadHeader { if_match: Some(value.to_owned()), ..header(1, 2) };
        let reply = strict.connect().ask(&upload(b"x").with("If-Match", value));
        reply.assert_refusal(404, "The requested resource was not found");
        assert_eq!(call(&strict, b"x", header()).await.unwrap_err().code, Code::NotFound);
    }
    let request = RegisterAttachmentRequest { client_id: 1, attachment_id: 2, ..Default::default() };
    strict.grpc_register(&token(&[1]), request).await.unwrap();
    for value in ["*", "\"x\""] {
        let header = || UploadHeader { if_match: Some(value.to_owned()), ..header(1, 2) };
        let reply = strict.connect().ask(&upload(b"x").with("If-Match", value));
        assert_eq!((reply.status, reply.details()), (412, &*format!("{FAILED}: the attachment has no content")));
        assert_names(&reply, None);
        assert_tells(&call(&strict, b"x", header()).await.unwrap_err(), None);
    }
    assert_eq!(strict.record(1, 2).unwrap()["state"], "registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_the_right_learns_nothing_of_what_is_stored() {
    let server = Server::start();
    let request =
        RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: Some(5), ..Default::default() };
    server.grpc_register(&token(&[1]), request).await.unwrap();
    assert_eq!(server.connect().ask(&upload(b"old")).status, 201);
    let limited = |name: &str, value| {
        let mut claims = claims(&[1]);
        claims[name] = value;
        mint(&claims)
    };
    for (by, status) in [
        (token(&[7]), 403),
        (limited("scope", json!("attachments:read")), 403),
        (limited("project_ids", json!([6])), 404),
        ("a.b.c".to_owned(), 401),
    ] {
        for (name, value) in [("If-Match", "\"x\""), ("If-None-Match", "*")] {
            let reply = server.connect().ask(&upload(b"x").by(&by).with(name, value));
            assert_eq!(reply.status, status, "{reply:?}");
            assert_names(&reply, None);
        }
        let header = UploadHeader { if_match: Some("\"x\"".to_owned()), ..header(1, 2) };
        let refusal = server.grpc_upload(&by, vec![Message::Header(header), finish()]).await.unwrap_err();
        assert!(refusal.metadata.is_empty(), "{refusal:?}");
    }
    // No other refusal tells it either.
    let reply = server.connect().ask(&upload(b"x").body(b"nonsense"));
    assert_eq!(reply.status, 400);
    assert_names(&reply, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lost_its_reply_sees_that_its_own_upload_is_stored() {
    let server = Server::start();
    let bytes = noise(100_000, 7);
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(&bytes)));
    let ask = upload(&bytes).with("If-None-Match", "*").with("Repr-Digest", &digest);
    let mut connection = server.connect();
    connection.send(&ask.bytes()).unwrap();
    connection.shut();
    eventually("it is stored", || server.stored(1, 2).is_some());
    drop(connection);
    let reply = server.connect().ask(&ask);
    assert_eq!((reply.status, reply.header("repr-digest")), (412, digest.as_str()));
    let header = UploadHeader { if_absent: true, ..header(1, 2) };
    let refusal = call(&server, &bytes, header).await.unwrap_err();
    assert_eq!(
        (refusal.code, refusal.metadata["sha256"].as_str()),
        (Code::AlreadyExists, hex(&sha256(&bytes)).as_str())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_is_judged_before_the_body_is_asked_for() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload(b"old")).status, 201);
    let ask = upload(&noise(1 << 20, 3)).with("If-Match", "\"x\"").with("Expect", "100-continue");
    let mut connection = server.connect();
    connection.send(&ask.head()).unwrap();
    let reply = connection.reply().expect("a reply without a body");
    reply.assert_refusal(412, FAILED);
    assert_names(&reply, Some(b"old"));

    let (messages, arriving) = mpsc::channel(1);
    let header = UploadHeader { if_match: Some("\"x\"".to_owned()), ..header(1, 2) };
    messages.send(Message::Header(header)).await.unwrap();
    let refusal = server.grpc_upload_stream(&token(&[1]), ReceiverStream::new(arriving)).await.unwrap_err();
    assert_eq!(refusal.code, Code::FailedPrecondition);
    assert_tells(&refusal, Some(b"old"));
    drop(messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_precondition_is_judged_again_at_the_commit() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        let old = server.connect().ask(&upload(b"old"));
        assert_eq!(old.status, 201);

        // Both are admitted while the old content is current.
        let ask = upload(&noise(3 << 20, 3)).with("If-Match", old.header("etag"));
        let request = ask.bytes();
        let mut connection = server.connect();
        connection.send(&request[..request.len() - 1]).unwrap();
        let (messages, arriving) = mpsc::channel(1);
        let header = UploadHeader { if_match: Some(old.header("etag").to_owned()), ..header(1, 2) };
        messages.send(Message::Header(header)).await.unwrap();
        let by = token(&[1]);
        let called = async { server.grpc_upload_stream(&by, ReceiverStream::new(arriving)).await };
        let replaced = async {
            messages.send(chunk(b"more".to_vec())).await.unwrap();
            eventually("both are under way", || server.readiness()["uploads_in_flight"] == 2);
            assert_eq!(server.connect().ask(&upload(b"between")).status, 201);
            messages.send(finish()).await.unwrap();
            drop(messages);
        };
        let (called, ()) = tokio::join!(called, replaced);
        let refusal = called.unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "PRECONDITION_FAILED"));
        assert_tells(&refusal, Some(b"between"));

        connection.send(&request[request.len() - 1..]).unwrap();
        let reply = connection.reply().expect("a reply");
        reply.assert_refusal(412, FAILED);
        assert_names(&reply, Some(b"between"));
        if service == "fs" {
            assert_eq!(server.stored(1, 2).unwrap(), b"between");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_two_writers_who_replace_one_version_exactly_one_wins() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        let mut current = etag(b"first");
        assert_eq!(server.connect().ask(&upload(b"first")).status, 201);
        for number in 0..40 {
            let contents = [noise(30_000, 2 * number + 1), noise(31_000, 2 * number + 2)];
            let start = Arc::new(Barrier::new(2));
            let mut connection = server.connect();
            let (ask, ready) = (upload(&contents[0]).with("If-Match", &current), Arc::clone(&start));
            let rest = tokio::spawn(async move {
                ready.wait().await;
                tokio::task::block_in_place(|| connection.ask(&ask))
            });
            let mut client = server.channel().await;
            let header = UploadHeader { if_match: Some(current.clone()), ..header(1, 2) };
            let messages = [Message::Header(header), chunk(contents[1].clone()), finish()];
            let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
            let request = authorised(Request::new(stream::iter(messages)), &token(&[1]));
            start.wait().await;
            let grpc = client.upload_attachment(request).await;
            let rest = rest.await.expect("a request ends");
            let winner = match (rest.status, &grpc) {
                (201, Err(status)) if status.code() == Code::FailedPrecondition => 0,
                (412, Ok(_)) => 1,
                other => panic!("{service}, round {number}: {other:?}"),
            };
            // The loser is told of the winner.
            if winner == 1 {
                assert_names(&rest, Some(&contents[1]));
            } else {
                assert_tells(&grpc.unwrap_err().into(), Some(&contents[0]));
            }
            current = etag(&contents[winner]);
            if service == "fs" {
                assert_eq!(server.stored(1, 2).as_ref(), Some(&contents[winner]), "round {number}");
            }
        }
    }
}
