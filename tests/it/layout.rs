//! Where things lie in the storage: what a record's object holds, what has objects of its own, and what marks a storage.

use std::fs;

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::storage::{Ended, HOUR, MARKER, Storage, record, segments, upload_id};
use crate::harness::{
    Form, Server, Setup, chunk, content_folder, eventually, finish, header, noise, read_record, record_path, run, token,
};

/// Uploads through the one door or the other, and returns the status as REST says it.
async fn upload(server: &Server, grpc: bool, attachment: i64, bytes: &[u8]) -> u16 {
    if !grpc {
        return server.connect().upload(&token(&[1]), 1, attachment, &Form::file(bytes)).status;
    }
    let messages = vec![Message::Header(header(1, attachment)), chunk(bytes.to_vec()), finish()];
    match server.grpc_upload(&token(&[1]), messages).await {
        Ok(_) => 201,
        Err(refusal) => match refusal.code {
            Code::NotFound => 404,
            Code::Internal => 500,
            _ => panic!("{refusal:?}"),
        },
    }
}

/// How many bytes lie behind the record of an attachment, and how many objects its content has.
fn lies(server: &Server, attachment: i64) -> (usize, usize) {
    let (record, inline) = read_record(&record_path(server.root(), 1, attachment)).expect("there is a record");
    assert_eq!(segments(&record).len(), server.contents(attachment));
    (inline.len(), server.contents(attachment))
}

/// A server that puts content of so many bytes with its record.
fn with_limit(limit: &str) -> Server {
    Setup { storage: format!("inline_below = {limit}\n"), ..Setup::default() }.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn content_up_to_the_limit_is_put_with_its_record_and_larger_content_is_not() {
    for (server, limit) in [
        (Server::start(), 16 << 10),
        (with_limit("100"), 100),
        (with_limit("1"), 1),
        (with_limit("\"128KiB\""), 128 << 10),
    ] {
        let mut attachment: i64 = 0;
        for grpc in [false, true] {
            for (size, inline) in [(0, true), (limit - 1, true), (limit, true), (limit + 1, false)] {
                attachment += 1;
                let bytes = noise(size, attachment.unsigned_abs());
                assert_eq!(upload(&server, grpc, attachment, &bytes).await, 201);
                assert_eq!(server.stored(1, attachment), Some(bytes), "{size} of {limit}");
                assert_eq!(lies(&server, attachment), if inline { (size, 0) } else { (0, 1) }, "{size} of {limit}");
            }
        }
        assert_eq!(run(&["verify", "--config", server.config().to_str().unwrap()]).status.code(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_limit_of_zero_all_content_has_an_object_of_its_own() {
    let server = with_limit("0");
    for (attachment, size) in [(1_i64, 0), (2, 1), (3, 20_000)] {
        let bytes = noise(size, attachment.unsigned_abs());
        assert_eq!(upload(&server, attachment == 2, attachment, &bytes).await, 201);
        assert_eq!((server.stored(1, attachment), lies(&server, attachment)), (Some(bytes), (0, 1)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_moves_between_its_record_and_an_object_as_its_content_grows_and_shrinks() {
    let server = Server::start();
    for (attachment, grpc) in [(1, false), (2, true)] {
        for (turn, size) in [10, 20_000, 30_000, 5000, 0, 3_000_000, 1].into_iter().enumerate() {
            let bytes = noise(size, turn as u64 + 1);
            assert_eq!(upload(&server, grpc, attachment, &bytes).await, 201);
            assert_eq!(server.stored(1, attachment), Some(bytes), "{size}");
            let objects = usize::from(size > 16 << 10);
            eventually("what was replaced is deleted", || server.contents(attachment) == objects);
        }
    }
}

#[test]
fn the_limit_is_at_most_128_kib() {
    let folder = tempfile::tempdir().unwrap();
    for (limit, code) in [(131_071, 0), (131_072, 0), (131_073, 2)] {
        let config = Setup { storage: format!("inline_below = {limit}\n"), ..Setup::default() }.write(folder.path());
        let checked = Ended::from(run(&["check", "--config", config.to_str().unwrap()]));
        assert_eq!(checked.code, Some(code), "{checked:?}");
        assert_eq!(checked.err.contains("storage.inline_below: must be at most 128 KiB"), code == 2, "{checked:?}");
    }
}

/// A server on a storage that was laid out beforehand.
fn over(storage: &Storage, on_unknown: &'static str) -> Server {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup { on_unknown, ..Setup::default() };
    setup.write(folder.path());
    fs::remove_dir_all(folder.path().join("root")).unwrap();
    let copied =
        std::process::Command::new("cp").arg("-r").arg(storage.root()).arg(folder.path().join("root")).status();
    assert!(copied.unwrap().success());
    setup.start_in(folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_version_noted_of_a_record_survives_an_upload() {
    let storage = Storage::new();
    let mut noted = record(1, 1, &upload_id(HOUR), b"old");
    noted["hold"] = json!({"until": "2030-01-01", "by": ["legal"]});
    noted["content"]["verdict"] = json!("clean");
    noted["content"]["segments"] = json!([]);
    storage.put_inline(1, 1, &noted, b"old");
    let server = over(&storage, "reject");
    for (grpc, size) in [(false, 10), (true, 20_000)] {
        assert_eq!(upload(&server, grpc, 1, &noise(size, 1)).await, 201);
        let stands = server.record(1, 1).unwrap();
        assert_eq!(stands["hold"], noted["hold"], "{stands}");
        assert_eq!(stands["content"].get("verdict"), None, "what was noted of the old content goes with it: {stands}");
    }
}

/// The record of an attachment of client 1 that was deleted.
fn tombstone(attachment: i64) -> Value {
    json!({
        "format": 2, "client_id": 1, "attachment_id": attachment, "project_id": 9, "registered_at": "2026-01-31T12:00:00Z",
        "registered_by": "tester", "state": "deleted",
        "deletion": {"deleted_at": "2026-02-01T12:00:00Z", "deleted_by": "someone"},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_attachment_is_not_found_and_its_id_is_free_again() {
    let storage = Storage::new();
    (1..=4).for_each(|attachment| drop(storage.put_record(1, attachment, &tombstone(attachment))));
    assert_eq!(storage.run(&["verify"]).code, Some(0));
    for grpc in [false, true] {
        let server = over(&storage, "reject");
        assert_eq!(upload(&server, grpc, 1, b"new").await, 404);
        assert_eq!(server.record(1, 1), Some(tombstone(1)));
        // A registration makes it known anew, for a project of its own.
        let request =
            RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: Some(8), ..Default::default() };
        assert!(server.grpc_register(&token(&[1]), request).await.is_ok());
        let stands = server.record(1, 2).unwrap();
        assert_eq!((&stands["state"], &stands["project_id"]), (&json!("registered"), &json!(8)));
        assert_eq!(upload(&server, grpc, 2, b"new").await, 201);

        let server = over(&storage, "create");
        assert_eq!(upload(&server, grpc, 3, b"new").await, 201);
        let stands = server.record(1, 3).unwrap();
        assert_eq!((stands.get("project_id"), stands.get("deletion")), (None, None), "{stands}");
        assert_eq!(server.stored(1, 3).as_deref(), Some(&b"new"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_later_format_is_an_error_of_ours_and_is_kept() {
    let storage = Storage::new();
    let mut later = record(1, 1, &upload_id(HOUR), b"old");
    later["format"] = json!(3);
    let path = storage.put_record(1, 1, &later);
    let before = fs::read(&path).unwrap();
    let server = over(&storage, "create");
    for grpc in [false, true] {
        assert_eq!(upload(&server, grpc, 1, b"new").await, 500);
        assert_eq!(fs::read(record_path(server.root(), 1, 1)).unwrap(), before);
        assert!(!content_folder(server.root(), 1, 1).exists());
    }
    let said = server.log().join("\n");
    assert!(said.contains("the record has format 3, and this version of attachd reads format 2"), "{said}");
    fs::remove_file(record_path(server.root(), 1, 1)).unwrap();
}

#[test]
fn a_new_storage_is_marked_and_one_of_another_layout_is_refused_by_every_command() {
    let server = Server::start();
    assert_eq!(fs::read_to_string(server.root().join("attachd.json")).unwrap(), MARKER);
    let folder = tempfile::tempdir().unwrap();
    let config = Setup::default().write(folder.path());
    let root = folder.path().join("root");
    for (marker, clients, why) in [
        (
            Some("{\"layout\":1}"),
            false,
            "attachd.json says that the storage has layout 1, and this version of attachd uses",
        ),
        (Some("{\"layout\":3}"), true, "attachd.json says that the storage has layout 3"),
        (Some(""), false, "attachd.json is not one of attachd's"),
        (None, true, "holds clients/ but no attachd.json"),
    ] {
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir_all(if clients { root.join("clients/1") } else { root.clone() }).unwrap();
        if let Some(marker) = marker {
            fs::write(root.join("attachd.json"), marker).unwrap();
        }
        for command in ["serve", "check", "verify", "gc"] {
            let ended = Ended::from(run(&[command, "--config", config.to_str().unwrap()]));
            assert_eq!(ended.code, Some(2), "{command}: {ended:?}");
            assert!(ended.err.contains("storage.options.root") && ended.err.contains(why), "{command}: {ended:?}");
        }
        assert_eq!(fs::read_dir(&root).unwrap().count(), usize::from(marker.is_some()) + usize::from(clients));
    }
}
