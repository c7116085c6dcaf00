//! The root of a local storage: it is never made silently, an empty one is told of, and one that is replaced under a running
//! server is noticed and served again.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use attachd::pb::upload_attachment_request::Message;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::storage::{Ended, HOUR, Storage};
use crate::harness::{Form, Server, Setup, chunk, eventually, finish, header, noise, run, token};

/// Runs a command over the configuration in a folder.
fn over(folder: &TempDir, words: &[&str]) -> Ended {
    let config = folder.path().join("attachd.toml");
    Ended::from(run(&[words, &["--config", config.to_str().unwrap()]].concat()))
}

/// A folder with a configuration whose root is what `root` says.
fn configured(root: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let config = Setup::default().write(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    let ours = format!("root = {:?}", folder.path().join("root"));
    assert!(text.contains(&ours));
    fs::write(&config, text.replace(&ours, &format!("root = {root:?}"))).unwrap();
    folder
}

#[test]
fn a_root_that_does_not_exist_is_refused_by_every_command_and_made_by_none() {
    let elsewhere = tempfile::tempdir().unwrap();
    let absolute = elsewhere.path().join("mistyped").display().to_string();
    for root in [absolute.as_str(), "mistyped", "root/below", "dangling"] {
        let folder = configured(root);
        symlink(folder.path().join("nowhere"), folder.path().join("dangling")).unwrap();
        for words in
            [&["serve"][..], &["check"], &["verify"], &["verify", "--allow-empty"], &["gc"], &["gc", "--delete"]]
        {
            let ended = over(&folder, words);
            assert_eq!(ended.code, Some(2), "{root}: {words:?}: {ended:?}");
            let path = folder.path().join(root);
            let named = path.display().to_string();
            let said = ended.err.contains("storage.options.root: ") && ended.err.contains(named.trim_end_matches('/'));
            assert!(said && ended.err.contains("does not exist; mount the volume"), "{root}: {words:?}: {ended:?}");
            assert!(!path.exists() && !folder.path().join("nowhere").exists(), "{root}: {words:?}");
        }
    }
}

#[test]
fn a_file_or_a_folder_of_other_things_is_no_root() {
    let folder = configured("root");
    fs::write(folder.path().join("root/thesis.txt"), "").unwrap();
    for words in [["serve"], ["check"]] {
        let ended = over(&folder, &words);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("holds no attachd.json, but \"thesis.txt\""), "{ended:?}");
    }
    assert_eq!(fs::read_dir(folder.path().join("root")).unwrap().count(), 1);
    let folder = configured("secret");
    for words in [["serve"], ["check"], ["verify"], ["gc"]] {
        let ended = over(&folder, &words);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.err.contains("secret is not a folder"), "{ended:?}");
    }
}

#[test]
fn a_relative_root_is_seen_from_the_configuration() {
    let folder = configured("root");
    let elsewhere = tempfile::tempdir().unwrap();
    let config = folder.path().join("attachd.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    let checked = command.args(["check", "--config"]).arg(config).env_clear().current_dir(elsewhere.path()).output();
    let checked = Ended::from(checked.unwrap());
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(folder.path().join("root/.attachd-locks").is_dir());
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
}

#[test]
fn an_empty_root_is_told_of_and_does_not_pass_verification_unasked() {
    let folder = configured("root");
    let checked = over(&folder, &["check"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    assert!(checked.err.contains("root holds no attachments: the storage is new, or the volume"), "{checked:?}");
    let storage = format!("storage: fs, root {}", folder.path().join("root").display());
    for (words, code) in [(&["verify"][..], Some(1)), (&["verify", "--allow-empty"], Some(0)), (&["gc"], Some(0))] {
        let ended = over(&folder, words);
        assert_eq!(ended.code, code, "{words:?}: {ended:?}");
        if words[0] == "verify" {
            assert!(ended.out.starts_with(&storage), "{ended:?}");
            assert!(ended.out.contains("read 0 attachments (0 B); 0 objects of content: "), "{ended:?}");
            assert_eq!(ended.err.contains("--allow-empty"), code == Some(1), "{ended:?}");
        }
    }
    let server = Setup::default().start_in(folder);
    let told = server.events("storage");
    assert!(told.iter().any(|event| event["key"] == "storage.options.root"), "{told:?}");
}

#[test]
fn verification_says_what_it_read() {
    let storage = Storage::new();
    storage.stored(1, 1, b"one", HOUR);
    storage.stored(2, 1, b"two", HOUR);
    storage.garbage(2, 1, HOUR);
    let ended = storage.run(&["verify"]);
    let expected =
        format!("storage: fs, root {}\nread 2 attachments (6 B); 3 objects of content: ", storage.root().display());
    assert!(ended.code == Some(0) && ended.out.starts_with(&expected), "{ended:?}");
    // A walk that goes on after the last client has seen nothing of a storage that is not empty.
    assert_eq!(storage.run(&["verify", "--from", "3"]).code, Some(0));
}

#[test]
fn a_configuration_without_a_storage_is_refused_with_the_lines_to_write() {
    let folder = configured("root");
    let config = folder.path().join("attachd.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (before, after) = (text.find("[storage]").unwrap(), text.find("[attachments]").unwrap());
    let without = [&text[..before], &text[after..]].concat();
    fs::write(&config, &without).unwrap();
    for words in [["serve"], ["check"], ["verify"], ["gc"]] {
        let ended = over(&folder, &words);
        let said =
            ended.err.contains("storage: is missing, and has no default") && !ended.err.contains("missing field");
        assert!(ended.code == Some(2) && said, "{ended:?}");
    }
    let lines = "service = \"fs\"\noptions.root = \"root\"";
    assert!(over(&folder, &["check"]).err.contains("service = \"fs\" and options.root = "));
    fs::write(&config, format!("{without}[storage]\n{lines}\n")).unwrap();
    assert_eq!(over(&folder, &["check"]).code, Some(0));
}

fn reasons(server: &Server) -> Vec<String> {
    let readiness = server.readiness();
    let reasons = readiness["reasons"].as_array().unwrap().iter();
    reasons.map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

/// Uploads the same through both doors, to two attachments.
async fn upload(server: &Server, bytes: &[u8]) {
    assert_eq!(server.connect().upload(&token(&[1]), 1, 1, &Form::file(bytes)).status, 201);
    let messages = vec![Message::Header(header(1, 2)), chunk(bytes.to_vec()), finish()];
    server.grpc_upload(&token(&[1]), messages).await.unwrap();
    for attachment in [1, 2] {
        assert_eq!(server.stored(1, attachment).unwrap(), bytes);
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_a_root_and_its_return_are_told_once_each() {
    let server = Server::start();
    upload(&server, b"old").await;
    let (root, away) = (server.root(), server.root().with_extension("away"));
    for _ in 0..3 {
        assert_eq!(reasons(&server), [""; 0]);
    }
    fs::rename(&root, &away).unwrap();
    for _ in 0..3 {
        assert_eq!(reasons(&server), ["the storage folder is gone"]);
    }
    fs::rename(&away, &root).unwrap();
    for _ in 0..3 {
        assert_eq!(reasons(&server), [""; 0]);
    }
    let count = |message: &str| server.events(message).len();
    eventually("both are in the log", || count("the storage is available again") == 1);
    assert_eq!(count("the storage is not available"), 1);
    assert_eq!(count("the storage root was replaced; what is there now is served"), 0);
    upload(&server, b"new").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_replaced_is_served_without_a_restart() {
    let server = Server::start();
    upload(&server, b"old").await;
    let (root, kept) = (server.root(), server.root().with_extension("kept"));
    copy(&root, &kept);
    let replaced = || -> Vec<Value> { server.events("the storage root was replaced; what is there now is served") };

    // Made anew: what was there is gone, and it takes uploads.
    fs::remove_dir_all(&root).unwrap();
    assert_eq!(server.connect().upload(&token(&[1]), 1, 1, &Form::file(b"x")).status, 503);
    fs::create_dir(&root).unwrap();
    eventually("it is ready", || reasons(&server).is_empty());
    assert!(server.record(1, 1).is_none());
    upload(&server, b"in the new root").await;
    eventually("it is in the log", || replaced().len() == 1 && replaced()[0]["empty"] == true);

    // A copy in its place, at once: the first request finds what is in it.
    fs::rename(&root, root.with_extension("second")).unwrap();
    fs::rename(&kept, &root).unwrap();
    let absent = [("If-None-Match", "*")];
    let path = "/api/v2/clients/1/attachments/1";
    assert_eq!(server.connect().upload_with(&token(&[1]), path, &absent, &Form::file(b"x")).status, 412);
    assert_eq!(server.stored(1, 1).unwrap(), b"old");
    upload(&server, b"in the copy").await;
    eventually("it is in the log", || replaced().len() == 2 && replaced()[1]["empty"] == false);
    assert_eq!(reasons(&server), [""; 0]);
    // Another server agrees with it about locks and temporary files.
    let shared = [("ATTACHD_STORAGE__OPTIONS__ROOT", root.display().to_string())];
    drop(Setup { variables: shared.into(), ..Setup::default() }.start());
    upload(&server, b"still").await;
}

#[test]
fn an_upload_that_is_under_way_while_its_root_is_replaced_is_not_stored() {
    let server = Server::start();
    let form = Form::file(&noise(3 << 20, 1));
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[1]), 1, 1, &form, form.bytes().len() - 1);
    eventually("some of it is written", || {
        server.temporary().iter().any(|half| fs::metadata(half).is_ok_and(|half| half.len() > 0))
    });
    fs::remove_dir_all(server.root()).unwrap();
    fs::create_dir(server.root()).unwrap();
    connection.send(&rest).unwrap();
    let reply = connection.reply().expect("a reply");
    assert_eq!((reply.status, reply.details()), (503, "The storage is not available, try again later"));
    assert!(server.record(1, 1).is_none());
    assert_eq!(server.connect().upload(&token(&[1]), 1, 1, &form).status, 201);
}
