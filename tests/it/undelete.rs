//! A deletion that is undone: what comes back, until when, for whom, and what a sweep leaves of it.

use std::fs;

use attachd::pb::{DeleteAttachmentRequest, RegisterAttachmentRequest, UndeleteAttachmentRequest};
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::storage::{Ended, HOUR, Storage, record_path, upload_id};
use crate::harness::{Ask, Form, Server, Setup, deleter, download, eventually, noise, run, token_with};

/// The largest content that is put with its record, in bytes.
const INLINE: usize = 16 << 10;

fn undelete(attachment: i64) -> UndeleteAttachmentRequest {
    UndeleteAttachmentRequest { client_id: 1, attachment_id: attachment, ..UndeleteAttachmentRequest::default() }
}

fn at(attachment: i64) -> String {
    format!("/api/v2/clients/1/attachments/{attachment}")
}

/// A server on which a deletion can be undone for an hour.
fn server(service: &'static str) -> Server {
    Setup { service, attachments: "read_grace = \"0s\"\nundelete_window = \"1h\"", ..Setup::default() }.start()
}

fn upload(server: &Server, attachment: i64, bytes: &[u8]) {
    assert_eq!(server.connect().ask(&Ask::upload(1, attachment, &Form::file(bytes))).status, 201);
}

async fn delete(server: &Server, attachment: i64) {
    let request = DeleteAttachmentRequest { client_id: 1, attachment_id: attachment, ..Default::default() };
    server.grpc_delete(&deleter(), request).await.expect("it is deleted");
}

/// Undoes a deletion over REST, and returns the status with the body.
fn undelete_over_rest(server: &Server, attachment: i64, body: &str) -> (u16, Value) {
    let path = format!("{}:undelete", at(attachment));
    let reply = server.connect().ask(&Ask::json("POST", 1, &path, body).by(&deleter()));
    (reply.status, reply.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_undeleted_stands_as_before_and_can_be_read_replaced_and_deleted() {
    for service in ["fs", "memory"] {
        let server = server(service);
        for (attachment, size) in (2..).zip([0, 1, INLINE, INLINE + 1, 1 << 20]) {
            let bytes = noise(size, 1);
            upload(&server, attachment, &bytes);
            let before = server.connect().ask(&Ask::json("GET", 1, &at(attachment), ""));
            delete(&server, attachment).await;
            assert_eq!(server.connect().ask(&Ask::download(1, attachment)).status, 404);
            let reply = if attachment % 2 == 0 {
                undelete_over_rest(&server, attachment, "").1
            } else {
                server.grpc_undelete(&deleter(), undelete(attachment)).await.expect("it is undone");
                server.connect().ask(&Ask::json("GET", 1, &at(attachment), "")).body
            };
            assert_eq!(reply["details"], before.body["details"], "{service} {size}");
            assert!(server.connect().ask(&Ask::download(1, attachment)).bytes == bytes, "{service} {size}");
            let again = server.grpc_undelete(&deleter(), undelete(attachment)).await.expect_err("it stands");
            assert_eq!((again.code, again.reason.as_str()), (Code::AlreadyExists, "CONFLICT"));
            upload(&server, attachment, b"newer");
            delete(&server, attachment).await;
            server.grpc_undelete(&deleter(), undelete(attachment)).await.expect("it is undone");
            assert_eq!(server.connect().ask(&Ask::download(1, attachment)).bytes, b"newer");
        }
        let done = |event: &Value| event["action"] == "undelete" && event["outcome"] == "done";
        eventually("the audit trail has them", || {
            server.events("audit").iter().filter(|event| done(event)).count() == 10
        });
        server.assert_tidy();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_only_registered_is_registered_again_once_it_is_undeleted() {
    let setup = Setup { on_unknown: "reject", attachments: "undelete_window = \"1h\"", ..Setup::default() };
    let server = setup.start();
    let register =
        RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: Some(7), portfolio_id: None };
    server.grpc_register(&deleter(), register).await.expect("it is registered");
    delete(&server, 2).await;
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(b"x"))).status, 404);
    let other = UndeleteAttachmentRequest { project_id: Some(8), ..undelete(2) };
    assert_eq!(server.grpc_undelete(&deleter(), other).await.expect_err("of another project").code, Code::NotFound);
    let hidden = server.grpc_undelete(&token_with("project_ids", json!([8])), undelete(2)).await;
    assert_eq!(hidden.expect_err("it is hidden").code, Code::NotFound);
    let less = token_with("scope", json!("attachments:write attachments:read attachments:manage"));
    let refusal = server.grpc_undelete(&less, undelete(2)).await.expect_err("it needs the scope");
    assert_eq!(refusal.code, Code::PermissionDenied);
    let (status, body) = undelete_over_rest(&server, 2, r#"{"project_id": 7}"#);
    assert_eq!((status, &body["details"][0]["project_id"]), (200, &json!("7")), "{body}");
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(b"x"))).status, 201);
    let (status, body) = undelete_over_rest(&server, 3, "");
    assert_eq!(status, 404, "{body}");
    let (status, body) = undelete_over_rest(&server, 2, r#"{"project": 7}"#);
    assert_eq!(status, 400, "{body}");
    for method in ["GET", "PUT", "DELETE", "PATCH"] {
        let reply = server.connect().ask(&Ask::json(method, 1, "/api/v2/clients/1/attachments/2:undelete", ""));
        assert_eq!((reply.status, reply.header("allow")), (405, "POST"), "{method}: {reply:?}");
    }
    // Another verb is part of the id.
    let reply = server.connect().ask(&Ask::json("GET", 1, "/api/v2/clients/1/attachments/2:delete", ""));
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_is_final_without_a_window_after_it_and_once_the_id_is_used_again() {
    let server = Server::start();
    upload(&server, 2, b"final");
    delete(&server, 2).await;
    let refusal = server.grpc_undelete(&deleter(), undelete(2)).await.expect_err("there is no window");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    let server = self::server("fs");
    for attachment in [2, 3] {
        upload(&server, attachment, &noise(INLINE + 1, 1));
        delete(&server, attachment).await;
        assert_eq!(server.contents(attachment), 1, "the content stays");
    }
    let path = record_path(server.root(), 1, 2);
    let line = fs::read_to_string(&path).unwrap();
    let mut record: Value = serde_json::from_str(&line).unwrap();
    record["deletion"]["undeletable_until"] = json!("2026-01-31T12:00:00Z");
    fs::write(&path, format!("{record}\n")).unwrap();
    let (status, body) = undelete_over_rest(&server, 2, "");
    assert_eq!(status, 404, "{body}");
    assert!(body["details"].as_str().is_some_and(|said| said.contains("can no longer be undone")), "{body}");
    for attachment in [2, 3] {
        upload(&server, attachment, b"other");
        eventually("the content that could have come back is gone", || server.contents(attachment) == 0);
        let refusal = server.grpc_undelete(&deleter(), undelete(attachment)).await.expect_err("the id is used");
        assert_eq!(refusal.code, Code::AlreadyExists);
        assert_eq!(server.grpc_download(&deleter(), download(1, attachment)).await.expect("it stands").1, b"other");
    }
    server.assert_tidy();
}

/// A record of an attachment that was deleted so many hours ago, and can be undeleted for so many hours more.
fn deleted(attachment: i64, upload: &str, bytes: &[u8], hours: i64, window: i64) -> Value {
    let mut record = crate::harness::storage::record(1, attachment, upload, bytes);
    let at = |hours: i64| {
        let time = time::OffsetDateTime::now_utc() + time::Duration::hours(hours);
        time.format(&time::format_description::well_known::Rfc3339).unwrap()
    };
    record["state"] = json!("deleted");
    record["deletion"] = json!({"deleted_at": at(-hours), "deleted_by": "x", "undeletable_until": at(window - hours)});
    record
}

#[test]
fn a_sweep_removes_what_is_left_of_a_deletion_after_the_grace_and_after_its_window() {
    let storage = Storage::new();
    let mut stays = Vec::new();
    let mut goes = Vec::new();
    for (attachment, hours, window, is_over) in
        [(1, 23, 0, false), (2, 25, 1, true), (3, 25, 26, false), (4, 1000, 999, true), (5, 30, 29, true)]
    {
        let id = upload_id(2000 * HOUR);
        let bytes = b"was here";
        let content = crate::harness::storage::plant(storage.root(), 1, attachment, &id, bytes);
        let record = storage.put_record(1, attachment, &deleted(attachment, &id, bytes, hours, window));
        (if is_over { &mut goes } else { &mut stays }).extend([content, record]);
    }
    let mut inline = deleted(6, &upload_id(2000 * HOUR), b"behind it", 25, 1);
    inline["content"]["segments"] = json!([]);
    goes.push(storage.put_inline(1, 6, &inline, b"behind it"));
    let mut without = deleted(7, &upload_id(HOUR), b"", 25, 1);
    without.as_object_mut().unwrap().remove("content");
    without["deletion"].as_object_mut().unwrap().remove("undeletable_until");
    goes.push(storage.put_record(1, 7, &without));
    let live = [storage.stored(1, 8, b"live", 2000 * HOUR), record_path(storage.root(), 1, 8)];
    let before = storage.files();
    assert_eq!(storage.run(&["verify"]).code, Some(0), "what can come back is as it should be");

    let dry = storage.run(&["gc", "--verbose"]);
    assert_eq!((dry.code, dry.count("deleted")), (Some(0), 0), "{dry:?}");
    assert!(dry.out.contains("5 deleted attachments past it"), "{dry:?}");
    assert!(dry.out.contains("--delete does it"), "{dry:?}");
    assert_eq!(storage.files(), before, "a dry run changes nothing");

    let wet: Ended = storage.run(&["gc", "--verbose", "--delete"]);
    assert_eq!(wet.code, Some(0), "{wet:?}");
    assert!(goes.iter().all(|path| wet.out.contains(path.strip_prefix(storage.root()).unwrap().to_str().unwrap())));
    let mut expected = before;
    expected.retain(|path, _| !goes.contains(path));
    assert_eq!(storage.files(), expected, "{wet:?}");
    assert!(stays.iter().chain(&live).all(|path| path.exists()));
    let again = storage.run(&["gc", "--delete"]);
    assert!(again.out.contains("0 deleted attachments past it"), "{again:?}");
    assert_eq!(storage.run(&["verify"]).code, Some(0));
}

#[test]
fn content_that_could_come_back_is_verified_and_a_record_that_keeps_it_for_ever_is_none() {
    let storage = Storage::new();
    let id = upload_id(HOUR);
    let content = crate::harness::storage::plant(storage.root(), 1, 1, &id, b"was here");
    storage.put_record(1, 1, &deleted(1, &id, b"was here", 1, 48));
    assert_eq!(storage.run(&["verify"]).code, Some(0));
    fs::write(content, b"was hers").unwrap();
    let said = storage.run(&["verify"]);
    assert!(said.code == Some(1) && said.out.contains("damaged: "), "{said:?}");
    let mut for_ever = deleted(1, &id, b"was here", 1, 48);
    for_ever["deletion"].as_object_mut().unwrap().remove("undeletable_until");
    storage.put_record(1, 1, &for_ever);
    let said = storage.run(&["verify"]);
    assert!(said.code == Some(1) && said.out.contains("state does not go with its content"), "{said:?}");
}

#[test]
fn the_window_and_the_grace_for_readers_have_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    for (key, least, most, past) in
        [("undelete_window", "0s", "365d", "31536001s"), ("read_grace", "0s", "1h", "3600001ms")]
    {
        for (value, fits) in [(least, true), (most, true), (past, false)] {
            let line: &'static str = Box::leak(format!("{key} = \"{value}\"").into_boxed_str());
            let config = Setup { attachments: line, ..Setup::default() }.write(folder.path());
            let ended = run(&["check", "--config", config.to_str().unwrap()]);
            let said = String::from_utf8(ended.stderr).unwrap();
            assert_eq!(ended.status.code(), Some(if fits { 0 } else { 2 }), "{line}: {said}");
            assert!(fits || said.contains(&format!("attachments.{key}: must be at most")), "{said}");
        }
    }
}
