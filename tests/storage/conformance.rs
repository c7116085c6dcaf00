//! What every storage must pass.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadFinish};
use tonic::Code;

use crate::crash::collect_garbage;
use crate::engines::Engine;
use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, hex, noise, sha256, token};

/// The size of a part: what attachd sends where nothing asks for more.
pub const PART: usize = 5 << 20;

/// The largest content that is put with its record, in bytes.
const INLINE: usize = 16 << 10;

/// The same as [`PART`] for Google's storage.
const GCS_PART: usize = 4 << 20;

/// How long a reply is waited for: a storage server that tidies up may stand still for longer than attachd would.
const SLOWEST: Duration = Duration::from_secs(180);

/// What an upload through either door came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Rest,
    Grpc,
}

pub const DOORS: [Door; 2] = [Door::Rest, Door::Grpc];

pub fn digest(bytes: &[u8]) -> String {
    hex(&sha256(bytes))
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Uploads, and returns the status as REST says it.
pub fn upload(server: &Server, door: Door, attachment: i64, bytes: &[u8], if_absent: bool) -> u16 {
    match door {
        Door::Rest => {
            let more: &[(&str, &str)] = if if_absent { &[("If-None-Match", "*")] } else { &[] };
            let path = format!("/api/v2/clients/1/attachments/{attachment}");
            let mut connection = server.connect();
            connection.writer().set_read_timeout(Some(SLOWEST)).unwrap();
            connection.upload_with(&token(&[1]), &path, more, &Form::file(bytes)).status
        }
        Door::Grpc => {
            let mut header = header(1, attachment);
            header.if_absent = if_absent;
            let mut messages = vec![Message::Header(header)];
            messages.extend(bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())));
            messages.push(finish());
            match runtime().block_on(server.grpc_upload(&token(&[1]), messages)) {
                Ok(stored) => {
                    assert_eq!(stored.sha256.as_deref(), Some(&sha256(bytes)[..]));
                    201
                }
                Err(refusal) => match refusal.code {
                    Code::AlreadyExists => 412,
                    Code::InvalidArgument => 400,
                    Code::NotFound => 404,
                    Code::Unavailable => 503,
                    Code::Internal => 500,
                    _ => panic!("{refusal:?}"),
                },
            }
        }
    }
}

fn round_trips(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    let mut attachment: i64 = 0;
    for door in DOORS {
        let part = if engine == Engine::FakeGcs { GCS_PART } else { PART };
        for size in [
            0,
            1,
            INLINE - 1,
            INLINE,
            INLINE + 1,
            100_000,
            part - 1,
            part,
            part + 1,
            2 * part,
            2 * part + 1,
            4 * part,
            5 * part + 1,
        ] {
            attachment += 1;
            let bytes = noise(size, attachment.unsigned_abs());
            assert_eq!(upload(&server, door, attachment, &bytes, false), 201, "{size} bytes over {door:?}");
            assert_eq!(place.stored(&server, attachment), Some(digest(&bytes)), "{size} bytes over {door:?}");
        }
    }
    place.assert_nothing_left(&[&server]);
}

fn replaces_and_creates_only_where_nothing_is(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    for (door, attachment) in DOORS.into_iter().zip([1, 2]) {
        for (turn, size) in [3000, PART + 5, 0, 70_000, 9, 20_000, 3000].into_iter().enumerate() {
            let bytes = noise(size, turn as u64 + 1);
            assert_eq!(upload(&server, door, attachment, &bytes, turn == 0), 201);
            assert_eq!(place.stored(&server, attachment), Some(digest(&bytes)));
            assert_eq!(upload(&server, door, attachment, &noise(10, 9), true), 412);
            assert_eq!(place.stored(&server, attachment), Some(digest(&bytes)));
        }
    }
    place.assert_nothing_left(&[&server]);
}

/// Ends a connection after so many bytes of a form.
fn cut(server: &Server, attachment: i64, form: &Form, sent: usize) {
    let mut connection = server.connect();
    let _ = connection.begin(&token(&[1]), 1, attachment, form, sent);
    eventually("the upload has begun", || server.readiness()["uploads_in_flight"] != 0 || sent < 1000);
    drop(connection);
}

fn takes_back_what_was_cut_off_at_any_stage(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    let old = noise(20_000, 1);
    assert_eq!(upload(&server, Door::Rest, 1, &old, false), 201);
    let form = Form::file(&noise(5 * PART, 2));
    let all = form.bytes().len();
    for attachment in [1, 2] {
        for sent in [10, 2000, PART / 2, PART + PART / 2, 2 * PART + PART / 2, 3 * PART + PART / 2, all - 1] {
            cut(&server, attachment, &form, sent);
        }
    }
    let idle = || server.readiness()["uploads_in_flight"] == 0 && server.readiness()["budget_used_bytes"] == 0;
    eventually("all is taken back", idle);
    assert_eq!(place.stored(&server, 1), Some(digest(&old)));
    assert_eq!(place.stored(&server, 2), None);
    place.assert_nothing_left(&[&server]);
    assert_eq!(upload(&server, Door::Rest, 2, &old, false), 201);
}

fn refuses_what_is_not_what_was_declared(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    let old = noise(20_000, 1);
    assert_eq!(upload(&server, Door::Rest, 1, &old, false), 201);
    for (turn, size) in [(1, 6000), (2, PART + 1), (3, 2 * PART + 7)] {
        let bytes = noise(size, turn);
        let wrong = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:";
        for attachment in [1, 2] {
            let path = format!("/api/v2/clients/1/attachments/{attachment}");
            let more = [("Repr-Digest", wrong)];
            let reply = server.connect().upload_with(&token(&[1]), &path, &more, &Form::file(&bytes));
            reply.assert_refusal(400, "Validation error");
            let end = Message::Finish(UploadFinish { size: Some(7), sha256: None });
            let messages = [vec![Message::Header(header(1, attachment))], pieces(&bytes), vec![end]].concat();
            let refusal = runtime().block_on(server.grpc_upload(&token(&[1]), messages)).unwrap_err();
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "SIZE_MISMATCH"));
        }
    }
    assert_eq!(place.stored(&server, 1), Some(digest(&old)));
    assert_eq!(place.stored(&server, 2), None);
    place.assert_nothing_left(&[&server]);
}

fn pieces(bytes: &[u8]) -> Vec<Message> {
    bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())).collect()
}

fn shows_a_reader_whole_files_only_while_they_are_replaced(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    let of = |turn: usize| noise(20_000 + turn * 997, turn as u64 + 1);
    assert_eq!(upload(&server, Door::Rest, 1, &of(0), false), 201);
    let may_be: BTreeSet<String> = (0..30).map(|turn| digest(&of(turn))).collect();
    let stop = AtomicBool::new(false);
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let stored = place.stored(&server, 1).expect("something is always stored");
                assert!(may_be.contains(&stored), "a reader saw what nobody sent");
                seen.insert(stored);
            }
            seen
        });
        let written = (1..30).map(|turn| upload(&server, DOORS[turn % 2], 1, &of(turn), false)).collect::<Vec<_>>();
        stop.store(true, Ordering::Relaxed);
        assert_eq!(written, [201; 29]);
        reader.join().expect("the reader saw nothing wrong")
    });
    assert!(seen.len() > 1, "the reader saw replacements");
    assert_eq!(place.stored(&server, 1), Some(digest(&of(29))));
    place.assert_nothing_left(&[&server]);
}

/// Two uploads to one attachment at once, through two servers where there are two.
pub fn race(servers: [&Server; 2], attachment: i64, contents: &[Vec<u8>; 2], if_absent: bool) -> [u16; 2] {
    let together = Barrier::new(2);
    std::thread::scope(|scope| {
        let uploads = [0, 1].map(|index| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                upload(servers[index], DOORS[index], attachment, &contents[index], if_absent)
            })
        });
        uploads.map(|upload| upload.join().unwrap())
    })
}

/// How many rounds of a race one storage server sees.
const RACES: i64 = 200;

fn lets_one_of_two_racing_writers_win_whole(engine: Engine, rounds: i64) {
    let (mut unanswered, mut first) = (0, 0);
    while first < rounds {
        let last = rounds.min(first + RACES);
        unanswered += race_on_a_fresh_server(engine, first..last);
        first = last;
    }
    // A server that stands still now and then, of a hundred rounds once: azurite does for a minute at a time.
    assert!(unanswered * 100 <= rounds, "{unanswered} of {rounds} rounds had no answer");
    println!("{engine:?}: {rounds} rounds, in {unanswered} of them an upload that the storage did not answer");
}

fn race_on_a_fresh_server(engine: Engine, rounds: Range<i64>) -> i64 {
    let place = engine.secluded();
    // A server that stands still for a while is not what this looks at.
    let start = || Setup { storage: "timeout = \"5m\"\n".to_owned(), ..place.setup() }.start();
    let server = start();
    // What is in the memory of one is not in that of another.
    let replica = (engine != Engine::Memory).then(start);
    let servers = [&server, replica.as_ref().unwrap_or(&server)];
    let mut unanswered = 0;
    for round in rounds {
        let attachment = round + 1;
        let seed = round.unsigned_abs() * 2;
        // With their records, in objects of their own, and one of each.
        let [one, other] = match round % 3 {
            0 => [3000, 4000],
            1 => [30_000, 40_000],
            _ => [3000, 40_000],
        };
        let contents = [noise(one, seed + 1), noise(other, seed + 2)];
        let digests = contents.each_ref().map(|bytes| digest(bytes));
        // They create, and exactly one is told that it did. The other is told that it did not, or, where the storage left it
        // without an answer, that it cannot be known.
        let winner = match race(servers, attachment, &contents, true) {
            [201, other @ (412 | 503)] => {
                unanswered += i64::from(other == 503);
                0
            }
            [other @ (412 | 503), 201] => {
                unanswered += i64::from(other == 503);
                1
            }
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(place.stored(&server, attachment).as_ref(), Some(&digests[winner]), "round {round}");
        // They replace, and both are told so, with the same exception.
        let replies = race(servers, attachment, &contents, false);
        assert!(matches!(replies, [201, 201 | 503] | [503, 201]), "round {round}: {replies:?}");
        unanswered += i64::from(replies.contains(&503));
        let stored = place.stored(&server, attachment).expect("one of them stands");
        assert!(digests.contains(&stored), "round {round}: a mix stands");
    }
    if unanswered > 0 {
        collect_garbage(&place);
    }
    place.assert_nothing_left(&servers);
    unanswered
}

/// Content of which some is put with its record, and some has an object of its own.
fn swept(attachment: i64) -> Vec<u8> {
    noise(if attachment % 2 == 0 { 1000 } else { 30_000 }, attachment.unsigned_abs())
}

fn is_swept_and_verified(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    for attachment in 1..=5 {
        assert_eq!(upload(&server, Door::Rest, attachment, &swept(attachment), false), 201);
    }
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(arguments).arg("--config").arg(server.config()).env_clear().envs(place.variables());
        let ended = command.output().unwrap();
        (ended.status.code(), String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap())
    };
    let (code, said, err) = run(&["verify"]);
    assert_eq!(code, Some(0), "{said}{err}");
    // An orphan of two days ago, and one of now.
    let [old, young] = [48 * 3600, 0].map(|seconds| {
        let id = crate::harness::storage::upload_id(std::time::Duration::from_secs(seconds));
        let key = format!("{}clients/1/content/0000000000000000003/{id}.0", place.root);
        place.look().put(&key, "nobody names this");
        key
    });
    assert_eq!(run(&["verify"]).0, Some(1), "an orphan is reported");
    let (code, said, err) = run(&["gc"]);
    assert_eq!(code, Some(0), "{said}{err}");
    assert!(said.contains("would delete 1 objects"), "{said}");
    assert!(place.look().digest(&old).is_some());
    let (code, said, err) = run(&["gc", "--delete"]);
    assert_eq!(code, Some(0), "{said}{err}");
    assert!(said.contains("deleted 1 objects"), "{said}");
    assert_eq!(place.look().digest(&old), None);
    assert!(place.look().digest(&young).is_some());
    assert_eq!(run(&["verify"]).0, Some(0));
    for attachment in 1..=5 {
        assert_eq!(place.stored(&server, attachment), Some(digest(&swept(attachment))));
    }
}

fn takes_a_gibibyte(engine: Engine) {
    let place = engine.place();
    // fake-gcs-server hashes all that it has with each part that comes.
    let server = Setup { storage: "timeout = \"10m\"\n".to_owned(), ..place.setup() }.start();
    let block = noise(1 << 20, 7);
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    (0..1024).for_each(|_| hash.update(&block));
    let expected = hex(hash.finish().as_ref());
    let mut connection = Connection::open(server.rest);
    connection.writer().set_read_timeout(Some(SLOWEST)).unwrap();
    connection.writer().set_write_timeout(Some(SLOWEST)).unwrap();
    let (head, tail) = {
        let mut head = Form::file(b"").bytes();
        let at = head.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        let tail = head.split_off(at);
        (head, tail)
    };
    let length = head.len() + tail.len() + (1 << 30);
    let (authorization, content_type) = (format!("Bearer {}", token(&[1])), Form::file(b"").content_type());
    let length = length.to_string();
    let headers = [("Authorization", &*authorization), ("Content-Type", &*content_type), ("Content-Length", &*length)];
    connection.head("POST", "/api/v2/clients/1/attachments/1", &headers);
    connection.send(&head).unwrap();
    (0..1024).for_each(|_| connection.send(&block).unwrap());
    connection.send(&tail).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    assert_eq!(place.stored(&server, 1), Some(expected));
    println!("{engine:?}: 1 GiB, peak RSS {} MiB", server.peak_rss() >> 20);
    place.assert_nothing_left(&[&server]);
}

fn knows_what_was_registered(engine: Engine) {
    let place = engine.place();
    let server = Setup { on_unknown: "reject", ..place.setup() }.start();
    assert_eq!(upload(&server, Door::Rest, 1, b"x", false), 404);
    let register = |project| {
        let request =
            RegisterAttachmentRequest { client_id: 1, attachment_id: 1, project_id: project, ..Default::default() };
        runtime().block_on(server.grpc_register(&token(&[1]), request)).map_err(|refusal| refusal.code)
    };
    assert!(register(None).is_ok());
    assert!(register(None).is_ok(), "again is the same");
    assert_eq!(register(Some(7)).unwrap_err(), Code::AlreadyExists);
    assert_eq!(upload(&server, Door::Grpc, 1, b"x", true), 201);
    assert_eq!(place.stored(&server, 1), Some(digest(b"x")));
}

/// What holds for every storage, a test for each thing.
macro_rules! conforms {
    ($name:ident, $engine:expr $(, gibibyte: $(#[$when:meta])?)?) => {
        mod $name {
            use super::*;

            #[test]
            fn content_of_every_size_comes_back() {
                round_trips($engine);
            }

            #[test]
            fn content_is_replaced_and_create_only_is_refused_where_there_is_some() {
                replaces_and_creates_only_where_nothing_is($engine);
            }

            #[test]
            fn an_upload_that_is_cut_off_at_any_stage_leaves_nothing() {
                takes_back_what_was_cut_off_at_any_stage($engine);
            }

            #[test]
            fn content_that_is_not_what_was_declared_leaves_nothing() {
                refuses_what_is_not_what_was_declared($engine);
            }

            #[test]
            fn a_reader_sees_whole_files_while_they_are_replaced() {
                shows_a_reader_whole_files_only_while_they_are_replaced($engine);
            }

            #[test]
            fn content_comes_back_is_listed_and_is_gone_once_it_is_deleted() {
                crate::reading::comes_back_is_listed_and_deleted($engine);
            }

            #[test]
            fn an_attachment_is_known_once_it_is_registered() {
                knows_what_was_registered($engine);
            }

            $(
                #[test]
                fn what_no_record_names_is_swept_and_the_rest_is_verified() {
                    is_swept_and_verified($engine);
                }

                #[test]
                $(#[$when])?
                fn a_gibibyte_comes_back() {
                    takes_a_gibibyte($engine);
                }
            )?
        }
    };
}

conforms!(fs, Engine::Fs, gibibyte:);
conforms!(s3_moto, Engine::Moto, gibibyte: #[ignore = "it takes moto long; the long form has it"]);
conforms!(s3_minio, Engine::Minio, gibibyte:);
conforms!(s3_versitygw, Engine::Versitygw, gibibyte: #[ignore = "MinIO stands for S3; the long form has it"]);
conforms!(azblob_azurite, Engine::Azurite, gibibyte: #[ignore = "it takes azurite long; the long form has it"]);
conforms!(gcs_fake, Engine::FakeGcs, gibibyte: #[ignore = "it takes a lot of memory; the long form has it"]);
// No other process can sweep or verify it, and it holds all that it is given.
conforms!(memory, Engine::Memory);

/// The races. moto lets two pass that come at once, and compares here only since it is made to: it has none of these.
macro_rules! races {
    ($name:ident, $engine:expr, rounds: $rounds:expr) => {
        #[test]
        fn $name() {
            lets_one_of_two_racing_writers_win_whole($engine, if crate::long() { 1000 } else { $rounds });
        }
    };
}

races!(of_two_racing_writers_through_two_processes_on_one_directory_one_wins_whole, Engine::Fs, rounds: 50);
races!(of_two_racing_writers_through_one_process_to_its_memory_one_wins_whole, Engine::Memory, rounds: 50);
races!(of_two_racing_writers_through_two_replicas_on_minio_one_wins_whole, Engine::Minio, rounds: 50);
races!(of_two_racing_writers_through_two_replicas_on_versitygw_one_wins_whole, Engine::Versitygw, rounds: 50);
races!(of_two_racing_writers_through_two_replicas_on_azurite_one_wins_whole, Engine::Azurite, rounds: 20);
races!(of_two_racing_writers_through_two_replicas_on_fake_gcs_one_wins_whole, Engine::FakeGcs, rounds: 20);
