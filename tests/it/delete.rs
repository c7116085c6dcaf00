//! Deletion: who may delete, what is gone after it, and what the id is good for then.

use std::sync::Arc;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{DeleteAttachmentRequest, GetAttachmentRequest, ListAttachmentsRequest, RegisterAttachmentRequest};
use serde_json::json;
use tokio::sync::Barrier;
use tonic::Code;

use crate::harness::{
    Ask, Form, Server, Setup, chunk, deleter, download, eventually, finish, header, hex, noise, sha256, token,
    token_with,
};

fn delete(attachment: i64) -> DeleteAttachmentRequest {
    DeleteAttachmentRequest { client_id: 1, attachment_id: attachment, ..DeleteAttachmentRequest::default() }
}

fn upload(server: &Server, attachment: i64, bytes: &[u8]) -> u16 {
    server.connect().ask(&Ask::upload(1, attachment, &Form::file(bytes))).status
}

async fn assert_gone(server: &Server, attachment: i64) {
    let get = GetAttachmentRequest { client_id: 1, attachment_id: attachment, ..GetAttachmentRequest::default() };
    assert_eq!(server.grpc_get(&deleter(), get).await.expect_err("it is deleted").code, Code::NotFound);
    let read = server.grpc_download(&deleter(), download(1, attachment)).await;
    assert_eq!(read.expect_err("it is deleted").code, Code::NotFound);
    assert_eq!(server.connect().ask(&Ask::download(1, attachment)).status, 404);
    let list = ListAttachmentsRequest { client_id: 1, ..ListAttachmentsRequest::default() };
    let listed = server.grpc_list(&deleter(), list).await.expect("a page").attachments;
    assert!(listed.iter().all(|listed| listed.attachment_id != attachment), "{listed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_attachment_is_gone_with_its_content_and_its_id_is_free() {
    for size in [10, 1 << 20] {
        let server = Server::start();
        assert_eq!(upload(&server, 2, &noise(size, 1)), 201);
        server.grpc_delete(&deleter(), delete(2)).await.expect("it is deleted");
        assert_gone(&server, 2).await;
        eventually("the content is gone", || server.contents(2) == 0);
        let record = server.record(1, 2).expect("a record is left");
        assert_eq!((&record["state"], &record["deletion"]["deleted_by"]), (&json!("deleted"), &json!("deleter")));
        assert_eq!(record.get("content"), None);
        // Once more, as after a reply that was lost.
        server.grpc_delete(&deleter(), delete(2)).await.expect("it is deleted already");
        assert_eq!(server.record(1, 2).as_ref(), Some(&record));
        assert_eq!(upload(&server, 2, b"again"), 201);
        assert_eq!(server.connect().ask(&Ask::download(1, 2)).bytes, b"again");
        server.assert_tidy();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_attachment_may_be_registered_anew_with_another_project() {
    let server = Server::strict();
    let register =
        |project| RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: project, portfolio_id: None };
    server.grpc_register(&token(&[1]), register(Some(7))).await.expect("it is registered");
    server.grpc_delete(&deleter(), delete(2)).await.expect("a registered one is deleted");
    assert_gone(&server, 2).await;
    assert_eq!(upload(&server, 2, b"x"), 404);
    let again = server.grpc_register(&token(&[1]), register(Some(8))).await.expect("it is free");
    assert_eq!(again.project_id, Some(8));
    assert_eq!(upload(&server, 2, b"x"), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_delete_is_decided_and_nothing_is_changed_for_others() {
    let server = Server::start();
    let register =
        RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: Some(7), portfolio_id: None };
    server.grpc_register(&token(&[1]), register).await.expect("it is registered");
    assert_eq!(upload(&server, 2, b"stays"), 201);
    for (name, token, attachment, project, code, reason) in [
        ("no token", String::new(), 2, None, Code::Unauthenticated, "TOKEN_MISSING"),
        ("no scope to delete", token(&[1]), 99, None, Code::PermissionDenied, "FORBIDDEN"),
        ("another project", token_with("project_ids", json!([8])), 2, None, Code::NotFound, "NOT_FOUND"),
        (
            "another project that is named",
            token_with("project_ids", json!([8])),
            2,
            Some(7),
            Code::PermissionDenied,
            "FORBIDDEN",
        ),
        ("a project that it does not belong to", deleter(), 2, Some(8), Code::NotFound, "NOT_FOUND"),
        ("no such attachment", deleter(), 99, None, Code::NotFound, "NOT_FOUND"),
        ("an id that is none", deleter(), -1, None, Code::InvalidArgument, "INVALID_REQUEST"),
    ] {
        let request = DeleteAttachmentRequest { project_id: project, ..delete(attachment) };
        let refusal = server.grpc_delete(&token, request).await.expect_err(name);
        assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{name}");
    }
    assert_eq!(server.stored(1, 2).as_deref(), Some(&b"stays"[..]));
    let done = |event: &serde_json::Value| event["action"] == "delete" && event["outcome"] == "done";
    assert!(!server.events("audit").iter().any(done));
    server.grpc_delete(&deleter(), delete(2)).await.expect("it is deleted");
    eventually("the audit trail has it", || server.events("audit").iter().any(done));
    // A tombstone is as hidden as the attachment was.
    let refusal =
        server.grpc_delete(&token_with("project_ids", json!([8])), delete(2)).await.expect_err("it is not its own");
    assert_eq!(refusal.code, Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_names_a_version_deletes_that_version_alone() {
    let server = Server::start();
    let tag = |bytes: &[u8]| format!("\"{}\"", hex(&sha256(bytes)));
    let naming = |tag: &str| DeleteAttachmentRequest { if_match: Some(tag.to_owned()), ..delete(2) };
    assert_eq!(upload(&server, 2, b"newer"), 201);
    let refusal = server.grpc_delete(&deleter(), naming(&tag(b"older"))).await.expect_err("it is another");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::FailedPrecondition, "PRECONDITION_FAILED"));
    assert_eq!(refusal.metadata["etag"], tag(b"newer"));
    let refusal = server.grpc_delete(&deleter(), naming("newer")).await.expect_err("it is no tag");
    assert_eq!(refusal.fields, ["if_match"]);
    assert_eq!(server.stored(1, 2).as_deref(), Some(&b"newer"[..]));
    server.grpc_delete(&deleter(), naming(&tag(b"newer"))).await.expect("it is this one");
    assert_gone(&server, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_that_races_an_upload_leaves_the_one_or_the_other() {
    for service in ["fs", "memory"] {
        let server = Arc::new(Setup { service, ..Setup::default() }.start());
        let (mut deleted, mut stored) = (0, 0);
        for round in 1..=60 {
            let old = noise(if round % 2 == 0 { 100 } else { 40_000 }, 1);
            let new = noise(if round % 3 == 0 { 100 } else { 40_000 }, 2);
            assert_eq!(upload(&server, round, &old), 201);
            let start = Arc::new(Barrier::new(2));
            let (theirs, waits) = (Arc::clone(&server), Arc::clone(&start));
            let gone = tokio::spawn(async move {
                waits.wait().await;
                theirs.grpc_delete(&deleter(), delete(round)).await
            });
            let messages = vec![Message::Header(header(1, round)), chunk(new.clone()), finish()];
            start.wait().await;
            server.grpc_upload(&deleter(), messages).await.expect("an upload makes what is unknown");
            gone.await.unwrap().expect("there is something to delete");
            match server.grpc_download(&deleter(), download(1, round)).await {
                Ok((_, bytes)) => {
                    assert!(bytes == new, "the last upload stands");
                    stored += 1;
                }
                Err(refusal) => {
                    assert_eq!(refusal.code, Code::NotFound);
                    deleted += 1;
                }
            }
        }
        assert_eq!(deleted + stored, 60);
        server.assert_tidy();
    }
}
