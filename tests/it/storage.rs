//! What lies in the storage, whatever happens to the process or to the storage: the old content or the new, whole.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use attachd::pb::upload_attachment_request::Message;

use crate::harness::storage::{content_folder, read_whole, record_path};
use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, hex, noise, sha256, token};

/// The names in a folder; none where there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The temporary directories of processes.
fn temporary(root: &Path) -> Vec<PathBuf> {
    let shared = root.join(".attachd-tmp");
    names(&shared).into_iter().map(|name| shared.join(name)).filter(|path| path.is_dir()).collect()
}

/// The temporary files in them.
fn halves(root: &Path) -> Vec<PathBuf> {
    let files = temporary(root).into_iter().flat_map(|folder| {
        let names = names(&folder);
        names.into_iter().filter(|name| name != "lock").map(move |name| folder.join(name)).collect::<Vec<_>>()
    });
    files.collect()
}

/// An upload of which so much has been sent that some of it lies in the storage's temporary files.
fn begun(server: &Server, attachment: i64, form: &Form) -> (Connection, Vec<u8>) {
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[1]), 1, attachment, form, form.bytes().len() - 1);
    eventually("some of it is written", || {
        halves(&server.root()).iter().any(|half| fs::metadata(half).is_ok_and(|half| half.len() > 0))
    });
    (connection, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_backend_takes_uploads_through_both_doors_and_forgets_them_at_the_end() {
    let memory = || Setup { service: "memory", ..Setup::default() };
    let server = memory().start();
    let bytes = noise(3 << 20, 1);
    let absent = [("If-None-Match", "*")];
    let path = "/api/v2/clients/1/attachments/2";
    let mut connection = server.connect();
    let reply = connection.upload_with(&token(&[1]), path, &absent, &Form::file(&bytes));
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.headers["etag"], format!("\"{}\"", hex(&sha256(&bytes))));
    assert_eq!(connection.upload_with(&token(&[1]), path, &absent, &Form::file(b"x")).status, 412);
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"")).status, 201);
    let messages = vec![Message::Header(header(1, 3)), chunk(bytes.clone()), finish()];
    let stored = server.grpc_upload(&token(&[1]), messages).await.unwrap();
    assert_eq!(stored.sha256.as_deref(), Some(&sha256(&bytes)[..]));
    assert!(!server.root().exists(), "memory needs no folder");
    drop(connection);
    drop(server);
    let server = memory().start();
    assert_eq!(server.connect().upload_with(&token(&[1]), path, &absent, &Form::file(b"x")).status, 201);
}

/// What a client of the kill test knows of one attachment.
#[derive(Clone, Default)]
struct Known {
    acknowledged: Option<String>,
    in_flight: Option<String>,
}

/// Uploads to three attachments of a client in turn until the server is gone. Counts the bytes that were sent.
fn upload_until_the_end(
    mut connection: Connection,
    client: i64,
    seed: u64,
    sent: &AtomicUsize,
) -> BTreeMap<i64, Known> {
    let mut known: BTreeMap<i64, Known> = BTreeMap::new();
    for turn in 0_i64.. {
        let attachment = turn % 3 + 1;
        let seed = seed * 1000 + turn.unsigned_abs();
        let size = usize::try_from(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44).unwrap();
        let bytes = noise(size, seed);
        let known = known.entry(attachment).or_default();
        known.in_flight = Some(hex(&sha256(&bytes)));
        let form = Form::file(&bytes);
        let Ok(rest) = connection.try_begin(&token(&[client]), client, attachment, &form, 0) else { break };
        let all = rest.chunks(32 << 10).all(|piece| {
            sent.fetch_add(piece.len(), Ordering::Relaxed);
            connection.send(piece).is_ok()
        });
        match connection.reply() {
            Some(reply) if all => {
                assert_eq!(reply.status, 201, "{reply:?}");
                known.acknowledged = known.in_flight.take();
            }
            _ => break,
        }
    }
    known
}

#[test]
fn a_process_that_is_killed_at_any_moment_leaves_all_that_it_acknowledged_and_nothing_torn() {
    let mut kept = tempfile::tempdir().unwrap();
    // What stood after the last kill.
    let mut stood: BTreeMap<(i64, i64), String> = BTreeMap::new();
    for round in 0..25 {
        let server = Setup { garbage: true, ..Setup::default() }.start_in(kept);
        assert_eq!(temporary(&server.root()).len(), 1, "the temporary files of the killed process are swept");
        assert!(halves(&server.root()).is_empty());

        // Killed in the middle of the bytes, which is a random moment to the commits.
        let sent = Arc::new(AtomicUsize::new(0));
        let uploads: Vec<_> = [1, 2, 3]
            .map(|client: i64| {
                let (connection, sent) = (server.connect(), Arc::clone(&sent));
                let seed = round * 10 + client.unsigned_abs();
                thread::spawn(move || (client, upload_until_the_end(connection, client, seed, &sent)))
            })
            .into();
        let enough = (1 + usize::from(noise(8, round)[0])) * 40_000;
        eventually("enough was sent", || sent.load(Ordering::Relaxed) >= enough);
        let root = server.root();
        kept = server.kill();

        for upload in uploads {
            let (client, known) = upload.join().expect("all replies are good");
            for (attachment, Known { acknowledged, in_flight }) in known {
                let stored = read_whole(&root, client, attachment);
                let old = acknowledged.or_else(|| stood.get(&(client, attachment)).cloned());
                assert!(
                    stored == old || (in_flight.is_some() && stored == in_flight),
                    "round {round}: client {client}, attachment {attachment}: {stored:?} stands, not {old:?}"
                );
                stood.extend(stored.map(|stored| ((client, attachment), stored)));
            }
        }
    }
    assert_eq!(stood.len(), 9, "the rounds were long enough to store something");
    let server = Setup { garbage: true, ..Setup::default() }.start_in(kept);
    for attachment in 1..=3 {
        assert_eq!(server.connect().upload(&token(&[1]), 1, attachment, &Form::file(b"x")).status, 201);
    }
}

#[test]
fn a_process_that_is_killed_in_the_middle_of_a_replacement_leaves_the_old_content() {
    let server = Server::start();
    let old = noise(100_000, 1);
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(&old)).status, 201);
    let (_connection, _rest) = begun(&server, 2, &Form::file(&noise(3 << 20, 2)));
    let kept = server.kill();
    assert!(!halves(&kept.path().join("root")).is_empty(), "there is something to sweep");
    let server = Setup::default().start_in(kept);
    assert_eq!(server.stored(1, 2).unwrap(), old);
    assert!(halves(&server.root()).is_empty());
    assert_eq!(temporary(&server.root()).len(), 1);
}

#[test]
fn a_reader_never_meets_a_record_whose_content_is_missing_or_damaged_while_it_is_replaced() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"first")).status, 201);
    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (root, over) = (server.root(), Arc::clone(&over));
        thread::spawn(move || {
            let mut seen = std::collections::BTreeSet::new();
            while !over.load(Ordering::Relaxed) {
                // What a record names goes only after another record stands in its place.
                seen.extend(read_whole(&root, 1, 2));
            }
            seen.len()
        })
    };
    // Small content lies behind its record, and each replacement changes where it lies.
    for turn in 0..200 {
        let size = if turn % 2 == 0 { 5_000 } else { 50_000 };
        let reply = connection.upload(&token(&[1]), 1, 2, &Form::file(&noise(size + turn, turn as u64)));
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    over.store(true, Ordering::Relaxed);
    let seen = reader.join().expect("the reader saw nothing wrong");
    assert!(seen > 1, "the reader saw replacements");
    eventually("what was replaced is deleted", || names(&content_folder(server.root(), 1, 2)).len() == 1);
    assert_eq!(server.stored(1, 2).unwrap(), noise(50_199, 199));
}

#[test]
fn two_servers_on_one_root_work_side_by_side_and_leave_each_others_temporary_files_alone() {
    let one = Server::start();
    let (first, second) = (noise(3 << 20, 1), noise(3 << 20, 2));
    let (mut to_one, rest_of_first) = begun(&one, 1, &Form::file(&first));
    let shared = [("ATTACHD_STORAGE__OPTIONS__ROOT", one.root().display().to_string())];
    let beside = || Setup { variables: shared.clone().into(), ..Setup::default() }.start();
    let two = beside();
    assert_eq!(temporary(&one.root()).len(), 2);
    assert!(!halves(&one.root()).is_empty(), "the start of the other swept nothing");

    let mut to_two = two.connect();
    let rest_of_second = to_two.begin(&token(&[1]), 1, 2, &Form::file(&second), 2 << 20);
    eventually("both are written", || halves(&one.root()).len() == 2);
    // A third comes and goes, and takes nothing with it.
    drop(beside());
    assert_eq!(halves(&one.root()).len(), 2);

    for (connection, rest) in [(&mut to_one, rest_of_first), (&mut to_two, rest_of_second)] {
        connection.send(&rest).unwrap();
        assert_eq!(connection.reply().expect("a reply").status, 201);
    }
    assert_eq!(one.stored(1, 1).unwrap(), first);
    assert_eq!(one.stored(1, 2).unwrap(), second);
    // Each sees what the other has stored.
    let absent = [("If-None-Match", "*")];
    let reply = to_two.upload_with(&token(&[1]), "/api/v2/clients/1/attachments/1", &absent, &Form::file(b"x"));
    assert_eq!(reply.status, 412);
    drop(two);
    assert_eq!(temporary(&one.root()).len(), 1, "a server that ends takes its temporary directory away");
}

/// Breaks the storage: where the folder of all clients was, there is a file.
fn broken(server: &Server) -> PathBuf {
    let (clients, away) = (server.root().join("clients"), server.root().join("away"));
    fs::rename(&clients, &away).unwrap();
    fs::write(&clients, "").unwrap();
    away
}

fn mended(server: &Server, away: &Path) {
    fs::remove_file(server.root().join("clients")).unwrap();
    fs::rename(away, server.root().join("clients")).unwrap();
}

fn assert_says_nothing_of_the_storage(body: &str) {
    for secret in ["clients", "root", "attachd-tmp", "os error", "irectory", "fs"] {
        assert!(!body.contains(secret), "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_storage_is_a_failure_of_ours_that_names_no_path_and_passes_when_it_is_mended() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"old")).status, 201);
    let away = broken(&server);
    let reply = connection.upload(&token(&[1]), 1, 2, &Form::file(&noise(3 << 20, 1)));
    assert_eq!((reply.status, reply.details()), (500, "An internal server error occurred"));
    assert_says_nothing_of_the_storage(&reply.body.to_string());
    let messages = || vec![Message::Header(header(1, 2)), chunk(noise(3 << 20, 1)), finish()];
    let refused = server.grpc_upload(&token(&[1]), messages()).await.unwrap_err();
    assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Internal, "INTERNAL"));
    assert_says_nothing_of_the_storage(&refused.message);
    mended(&server, &away);
    assert_eq!(server.stored(1, 2).unwrap(), b"old");
    server.assert_tidy();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"new")).status, 201);
    server.grpc_upload(&token(&[1]), messages()).await.unwrap();
    assert_eq!(server.stored(1, 2).unwrap(), noise(3 << 20, 1));
}

#[test]
fn a_storage_that_breaks_in_the_middle_of_an_upload_keeps_nothing_of_it() {
    let server = Server::start();
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(b"old")).status, 201);
    let (mut connection, rest) = begun(&server, 2, &Form::file(&noise(3 << 20, 1)));
    let away = broken(&server);
    connection.send(&rest).unwrap();
    let reply = connection.reply().expect("a reply");
    assert_eq!((reply.status, reply.details()), (500, "An internal server error occurred"));
    assert_says_nothing_of_the_storage(&reply.body.to_string());
    mended(&server, &away);
    assert_eq!(server.stored(1, 2).unwrap(), b"old");
    server.assert_tidy();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"new")).status, 201);
    assert_eq!(server.stored(1, 2).unwrap(), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_is_gone_takes_nothing_and_nothing_is_made_in_its_place() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"old")).status, 201);
    let away = server.root().with_extension("away");
    fs::rename(server.root(), &away).unwrap();
    for attachment in [2, 3] {
        let reply = connection.upload(&token(&[1]), 1, attachment, &Form::file(b"x"));
        assert_eq!((reply.status, reply.details()), (503, "The storage is not available, try again later"));
        let messages = vec![Message::Header(header(1, attachment)), chunk(b"x".to_vec()), finish()];
        let refused = server.grpc_upload(&token(&[1]), messages).await.unwrap_err();
        assert_eq!((refused.code, refused.reason.as_str()), (tonic::Code::Unavailable, "STORAGE_UNAVAILABLE"));
    }
    assert!(!server.root().exists());
    fs::rename(&away, server.root()).unwrap();
    assert_eq!(server.stored(1, 2).unwrap(), b"old");
    assert!(server.record(1, 3).is_none());
    assert_eq!(connection.upload(&token(&[1]), 1, 3, &Form::file(b"new")).status, 201);
}

#[test]
fn a_commit_that_cannot_read_the_record_takes_its_content_back() {
    let server = Server::start();
    let (mut connection, rest) = begun(&server, 2, &Form::file(&noise(3 << 20, 1)));
    let record = record_path(server.root(), 1, 2);
    fs::create_dir_all(&record).unwrap();
    connection.send(&rest).unwrap();
    let reply = connection.reply().expect("a reply");
    assert_eq!(reply.status, 500);
    assert_says_nothing_of_the_storage(&reply.body.to_string());
    assert!(names(&content_folder(server.root(), 1, 2)).is_empty(), "the content is taken back before the reply");
    fs::remove_dir(&record).unwrap();
    server.assert_tidy();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"new")).status, 201);
    assert_eq!(server.stored(1, 2).unwrap(), b"new");
}
