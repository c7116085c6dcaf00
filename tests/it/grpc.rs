//! What the messages of an upload may say and in which order, and what the replies say.

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{UploadAttachmentRequest, UploadFinish, UploadHeader};
use futures_util::stream;
use tonic::{Code, Request};

use crate::harness::{
    GrpcRefusal, MAX_UPLOAD, Server, authorised, chunk, finish, header, noise, request_id, sha256, token,
};

/// A server whose attachment 1 of client 1 has content, which no refusal may change.
async fn filled() -> (Server, Vec<u8>) {
    let server = Server::start();
    let old = noise(5000, 1);
    let messages = vec![Message::Header(header(1, 1)), chunk(old.clone()), finish()];
    server.grpc_upload(&token(&[1]), messages).await.expect("an upload is stored");
    (server, old)
}

/// Sends messages, some of which may be empty, to an attachment with content and to one without, and expects the same
/// refusal of both.
async fn refused(server: &Server, old: &[u8], name: &str, messages: &[Option<Message>]) -> GrpcRefusal {
    let mut refusals = Vec::new();
    let mut client = server.channel().await;
    for attachment in [1, 2] {
        let aim = |message: &Option<Message>| match message {
            Some(Message::Header(header)) => {
                Some(Message::Header(UploadHeader { attachment_id: attachment, ..header.clone() }))
            }
            other => other.clone(),
        };
        let messages: Vec<_> =
            messages.iter().map(|message| UploadAttachmentRequest { message: aim(message) }).collect();
        let request = authorised(Request::new(stream::iter(messages)), &token(&[1]));
        let refusal = GrpcRefusal::from(client.upload_attachment(request).await.expect_err(name));
        assert_eq!(refusal.domain, "attachd", "{name}: {refusal:?}");
        refusals.push(refusal);
    }
    assert!(server.stored(1, 1).expect("it is still there") == old, "{name}: the content changed");
    assert_eq!(server.record(1, 2), None, "{name}: something was stored");
    let next = [Message::Header(header(1, 3)), chunk("next"), finish()];
    let next = next.map(|message| UploadAttachmentRequest { message: Some(message) });
    let next = authorised(Request::new(stream::iter(next)), &token(&[1]));
    client.upload_attachment(next).await.expect("the next call on the connection is served");
    let [first, second] = <[GrpcRefusal; 2]>::try_from(refusals).expect("there are two");
    assert_eq!((first.code, &first.reason, &first.fields), (second.code, &second.reason, &second.fields), "{name}");
    first
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_out_of_order_are_refused() {
    let (server, old) = filled().await;
    let header = || Some(Message::Header(header(1, 1)));
    let chunk = || Some(chunk("content"));
    let finish = || Some(finish());
    for (name, messages) in [
        ("a chunk first", vec![chunk(), header(), finish()]),
        ("a finish first", vec![finish(), header(), chunk()]),
        ("the header twice", vec![header(), header(), chunk(), finish()]),
        ("the header between chunks", vec![header(), chunk(), header(), chunk(), finish()]),
        ("the finish twice", vec![header(), chunk(), finish(), finish()]),
        ("a chunk after the finish", vec![header(), chunk(), finish(), chunk()]),
        (
            "an empty chunk after the finish",
            vec![header(), chunk(), finish(), Some(Message::Chunk(Default::default()))],
        ),
        ("the header after the finish", vec![header(), chunk(), finish(), header()]),
        ("an empty message first", vec![None, header(), chunk(), finish()]),
        ("an empty message between", vec![header(), None, chunk(), finish()]),
        ("an empty message after the finish", vec![header(), chunk(), finish(), None]),
    ] {
        let refusal = refused(&server, &old, name, &messages).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_without_a_finish_is_aborted() {
    let (server, old) = filled().await;
    let header = || Some(Message::Header(header(1, 1)));
    let chunk = || Some(chunk("content"));
    for (name, messages) in
        [("nothing", vec![]), ("the header alone", vec![header()]), ("no finish", vec![header(), chunk(), chunk()])]
    {
        let refusal = refused(&server, &old, name, &messages).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Aborted, "INCOMPLETE_UPLOAD"), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_declared_must_hold_wherever_it_was_declared() {
    let (server, old) = filled().await;
    let bytes = noise(3000, 4);
    let right = sha256(&bytes).to_vec();
    let wrong = sha256(b"other").to_vec();
    let size = |size: i64| (Some(size), None::<Vec<u8>>);
    let digest = |digest: &[u8]| (None, Some(digest.to_vec()));
    let nothing = (None, None);
    let too_large = i64::try_from(MAX_UPLOAD).expect("it is small") + 1;
    for (name, first, last, code, reason, field) in [
        ("a size too small, first", size(2999), nothing.clone(), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size too large, first", size(3001), nothing.clone(), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size of nothing, first", size(0), nothing.clone(), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size too small, last", nothing.clone(), size(2999), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size too large, last", nothing.clone(), size(3001), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size over any limit, last", nothing.clone(), size(i64::MAX), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("sizes that disagree", size(3000), size(2999), Code::InvalidArgument, "SIZE_MISMATCH", None),
        ("a size over the limit", size(too_large), nothing.clone(), Code::ResourceExhausted, "TOO_LARGE", None),
        ("a negative size, first", size(-1), nothing.clone(), Code::InvalidArgument, "INVALID_REQUEST", Some("size")),
        ("a negative size, last", nothing.clone(), size(-1), Code::InvalidArgument, "INVALID_REQUEST", Some("size")),
        ("a digest, first", digest(&wrong), nothing.clone(), Code::InvalidArgument, "DIGEST_MISMATCH", None),
        ("a digest, last", nothing.clone(), digest(&wrong), Code::InvalidArgument, "DIGEST_MISMATCH", None),
        ("the right digest, then not", digest(&right), digest(&wrong), Code::InvalidArgument, "DIGEST_MISMATCH", None),
        ("not the digest, then right", digest(&wrong), digest(&right), Code::InvalidArgument, "DIGEST_MISMATCH", None),
        (
            "a digest of 31 bytes, last",
            nothing.clone(),
            digest(&right[1..]),
            Code::InvalidArgument,
            "INVALID_REQUEST",
            Some("sha256"),
        ),
    ] {
        let first = UploadHeader { size: first.0, sha256: first.1.map(Into::into), ..header(1, 1) };
        let last = UploadFinish { size: last.0, sha256: last.1.map(Into::into) };
        let messages = [Message::Header(first), chunk(bytes.clone()), Message::Finish(last)].map(Some);
        let refusal = refused(&server, &old, name, &messages).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{name}");
        assert_eq!(refusal.fields.first().map(String::as_str), field, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_declared_and_holds_is_stored() {
    let server = Server::start();
    let bytes = noise(3000, 4);
    let (size, digest) = (Some(3000), Some(sha256(&bytes).to_vec()));
    let first = UploadHeader { size, sha256: digest.clone().map(Into::into), ..header(1, 1) };
    let last = UploadFinish { size, sha256: digest.clone().map(Into::into) };
    let messages = vec![Message::Header(first), chunk(bytes.clone()), Message::Finish(last)];
    let stored = server.grpc_upload(&token(&[1]), messages).await.expect("it is stored");
    assert_eq!((stored.size, stored.sha256.map(|digest| digest.to_vec())), (size, digest));
    assert_eq!((stored.client_id, stored.attachment_id), (1, 1));
    assert_eq!((stored.filename.as_str(), stored.uploaded_by.as_str()), ("a.bin", "tester"));
    assert_eq!(server.stored(1, 1).expect("it is stored"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_field_is_named() {
    let (server, old) = filled().await;
    for (field, header) in [
        ("client_id", UploadHeader { client_id: 0, ..header(1, 1) }),
        ("project_id", UploadHeader { project_id: Some(0), ..header(1, 1) }),
        ("portfolio_id", UploadHeader { portfolio_id: Some(-1), ..header(1, 1) }),
        ("filename", UploadHeader { filename: "a\nb".to_owned(), ..header(1, 1) }),
        ("content_type", UploadHeader { content_type: "text".to_owned(), ..header(1, 1) }),
        ("sha256", UploadHeader { sha256: Some("short".into()), ..header(1, 1) }),
    ] {
        let refusal = refused(&server, &old, field, &[Message::Header(header), finish()].map(Some)).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(refusal.fields, [field]);
        assert!(refusal.message.starts_with(&format!("Validation error: {field}: ")), "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tokens_are_refused_even_where_both_are_good() {
    let server = Server::start();
    let messages = [Message::Header(header(1, 1)), finish()];
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut request = authorised(Request::new(stream::iter(messages)), &token(&[1]));
    let value = format!("Bearer {}", token(&[1])).parse().expect("a token is ASCII");
    request.metadata_mut().append("authorization", value);
    let refusal = GrpcRefusal::from(server.channel().await.upload_attachment(request).await.expect_err("two tokens"));
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, "TOKEN_INVALID"));
    assert_eq!(server.record(1, 1), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_comes_back_and_one_that_could_harm_a_log_is_replaced() {
    let server = Server::start();
    let mut client = server.channel().await;
    let long = "a".repeat(129);
    for (sent, kept) in [("mine-1", true), ("not good", false), ("\"}", false), (long.as_str(), false)] {
        for (token, outcome) in [(token(&[1]), "OK"), (String::new(), "TOKEN_MISSING")] {
            let messages = [Message::Header(header(1, 1)), finish()];
            let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
            let mut request = authorised(Request::new(stream::iter(messages)), &token);
            let sent_id = format!("{sent}{}", if kept { outcome } else { "" });
            request.metadata_mut().insert("x-request-id", sent_id.parse().expect("an id is ASCII"));
            let echoed = match client.upload_attachment(request).await {
                Ok(reply) => request_id(reply.metadata()),
                Err(status) => request_id(status.metadata()),
            };
            let echoed = echoed.expect("every reply has an id");
            assert_eq!(echoed == sent_id, kept, "{echoed}");
            assert_eq!(server.outcome(&echoed), outcome);
        }
    }
}
