//! `attachd verify`: what is stored is what the records say, or it is named.

use std::fs;

use serde_json::json;

use crate::harness::storage::{HOUR, Storage, plant, record, record_path, upload_id};
use crate::harness::{Form, Server, noise, run, token};

#[test]
fn a_good_storage_passes() {
    let storage = Storage::new();
    storage.stored(1, 1, b"", 1000 * HOUR);
    storage.stored(1, 2, b"x", HOUR);
    storage.stored(2, 1, &noise(5_000_000, 1), HOUR);
    storage.inline(2, 2, b"behind its record");
    let young = storage.garbage(1, 1, HOUR);
    let before = storage.files();
    let ended = storage.run(&["verify", "--verbose"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.says("young", &young), "{ended:?}");
    assert!(
        ended.out.contains(
            "read 4 attachments (4.8 MiB); 4 objects of content: 0 missing, 0 damaged, 0 unreadable, 0 orphaned, 0 failed, 0 links; \
             1 within the grace, 0 foreign"
        ),
        "{ended:?}"
    );
    assert_eq!(storage.files(), before);
}

#[test]
fn what_a_server_stored_passes() {
    let server = Server::start();
    for attachment in 1..=3 {
        for seed in 0..2 {
            let form = Form::file(&noise(100_000, seed));
            assert_eq!(server.connect().upload(&token(&[1]), 1, attachment, &form).status, 201);
        }
    }
    assert_eq!(server.connect().upload(&token(&[1]), 1, 4, &Form::file(b"small")).status, 201);
    server.assert_tidy();
    let ended = run(&["verify", "--config", server.config().to_str().unwrap()]);
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(
        String::from_utf8_lossy(&ended.stdout).contains("\nread 4 attachments (293.0 KiB); 3 objects of content:"),
        "{ended:?}"
    );
}

#[test]
fn each_kind_of_harm_is_found_and_named() {
    let bytes = noise(3_000_000, 7);
    type Harm = fn(&Storage) -> std::path::PathBuf;
    let harm: [(&str, &str, Harm); 14] = [
        ("a flipped bit", "damaged", |storage| {
            let path = storage.stored(1, 1, &noise(3_000_000, 7), HOUR);
            let mut bytes = fs::read(&path).unwrap();
            bytes[2_900_000] ^= 1;
            fs::write(&path, bytes).unwrap();
            path
        }),
        ("a byte too few", "damaged", |storage| {
            let path = storage.stored(1, 1, b"12345", HOUR);
            fs::write(&path, b"1234").unwrap();
            path
        }),
        ("a byte too many", "damaged", |storage| {
            let path = storage.stored(1, 1, b"12345", HOUR);
            fs::write(&path, b"123456").unwrap();
            path
        }),
        ("no content", "missing", |storage| {
            let path = storage.stored(1, 1, b"12345", HOUR);
            fs::remove_file(&path).unwrap();
            path
        }),
        ("a record whose sizes differ", "damaged", |storage| {
            let upload = upload_id(HOUR);
            let mut record = record(1, 1, &upload, b"12345");
            record["content"]["size"] = json!(4);
            storage.put_record(1, 1, &record)
        }),
        ("a record under the key of another", "unreadable", |storage| {
            storage.put_record(1, 1, &record(1, 2, &upload_id(HOUR), b"12345"))
        }),
        ("a record that is cut", "unreadable", |storage| {
            let path = storage.put_record(1, 1, &json!(null));
            fs::write(&path, b"{").unwrap();
            path
        }),
        ("a segment whose digest is another", "damaged", |storage| {
            let upload = upload_id(HOUR);
            let mut record = record(1, 1, &upload, b"12345");
            record["content"]["segments"][0]["sha256"] = json!("0".repeat(64));
            storage.put_record(1, 1, &record);
            plant(storage.root(), 1, 1, &upload, b"12345")
        }),
        ("a flipped bit behind a record", "damaged", |storage| {
            let path = storage.inline(1, 1, b"12345");
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&path, bytes).unwrap();
            path
        }),
        ("a byte too few behind a record", "damaged", |storage| {
            let path = storage.inline(1, 1, b"12345");
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
            path
        }),
        ("a byte too many behind a record", "damaged", |storage| {
            let path = storage.inline(1, 1, b"12345");
            fs::write(&path, [fs::read(&path).unwrap(), b"6".to_vec()].concat()).unwrap();
            path
        }),
        ("bytes behind a record whose content is elsewhere", "damaged", |storage| {
            let upload = upload_id(HOUR);
            plant(storage.root(), 1, 1, &upload, b"12345");
            storage.put_inline(1, 1, &record(1, 1, &upload, b"12345"), b"6")
        }),
        ("bytes behind a record without content", "damaged", |storage| {
            let mut record = record(1, 1, &upload_id(HOUR), b"");
            record["state"] = json!("registered");
            record.as_object_mut().unwrap().remove("content");
            storage.put_inline(1, 1, &record, b"6")
        }),
        ("no record", "garbage", |storage| {
            let path = storage.stored(1, 1, b"12345", 25 * HOUR);
            fs::remove_file(record_path(storage.root(), 1, 1)).unwrap();
            path
        }),
    ];
    for (what, word, harm) in harm {
        let storage = Storage::new();
        let path = harm(&storage);
        storage.stored(2, 1, &bytes, HOUR);
        let before = storage.files();
        let ended = storage.run(&["verify"]);
        assert_eq!(ended.code, Some(1), "{what}: {ended:?}");
        assert!(ended.says(word, &path), "{what}: {ended:?}");
        assert_eq!(ended.out.lines().count(), 3, "{what}: one finding, the storage and the totals: {ended:?}");
        assert!(ended.err.contains("1 things are not as they should be"), "{what}: {ended:?}");
        assert_eq!(storage.files(), before, "{what}");
    }
}

#[test]
fn a_folder_in_place_of_a_record_leaves_its_content_unread_and_is_a_failure() {
    let storage = Storage::new();
    storage.garbage(1, 1, HOUR);
    fs::create_dir_all(record_path(storage.root(), 1, 1)).unwrap();
    let ended = storage.run(&["verify"]);
    assert_eq!((ended.code, ended.count("foreign"), ended.count("unreadable")), (Some(1), 1, 1), "{ended:?}");
}
