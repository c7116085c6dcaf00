//! Room that uploads leave free: who is refused, at which byte and at which inode, what is served all the same, and what the log,
//! the metrics and readiness say. It mounts a small tmpfs, which takes root.

use std::fs;
use std::path::PathBuf;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{DeleteAttachmentRequest, UploadHeader};
use tonic::Code;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::disk::{Disk, end};
use crate::harness::{
    Ask, Connection, Form, GrpcRefusal, Reply, Server, Setup, chunk, deleter, eventually, finish, header, noise, token,
};

/// What uploads leave free, in bytes.
const MIN_FREE: u64 = 8 << 20;

/// How many inodes they leave free.
const FEWEST_INODES: u64 = 16;

const REFUSED: &str = "attachd_limited_total{limit=\"storage.min_free\"}";

fn start(options: &str) -> (Server, Disk) {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder, options);
    let (limits, storage) = ("max_upload_size = \"64MiB\"\n".to_owned(), format!("min_free = {MIN_FREE}\n"));
    (Setup { limits, storage, ..Setup::default() }.start_in(folder), disk)
}

/// Fills the disk until so many bytes are free beyond what uploads leave, or are lacking.
fn fill(disk: &Disk, beyond: i64) {
    let left = MIN_FREE.strict_add_signed(beyond);
    fs::write(filler(disk), noise(usize::try_from(disk.free().0 - left).unwrap(), 9)).unwrap();
    assert_eq!(disk.free().0, left);
}

fn filler(disk: &Disk) -> PathBuf {
    disk.root().join("filler")
}

/// How many bytes uploads may use, as the server knows it now.
fn room(server: &Server, disk: &Disk) -> u64 {
    assert_eq!(server.readiness()["ready"], true);
    disk.free().0 - MIN_FREE
}

/// An upload whose body has so many bytes.
fn of_length(attachment: i64, length: u64) -> Ask {
    of_client(1, attachment, length)
}

fn of_client(client: i64, attachment: i64, length: u64) -> Ask {
    let around = Form::file(b"").bytes().len();
    Ask::upload(client, attachment, &Form::file(&noise(usize::try_from(length).unwrap() - around, 1)))
}

async fn over_grpc(server: &Server, attachment: i64, size: u64, declares: bool) -> Result<(), GrpcRefusal> {
    let size = usize::try_from(size).unwrap();
    let declared = declares.then(|| i64::try_from(size).unwrap());
    let mut messages = vec![Message::Header(UploadHeader { size: declared, ..header(1, attachment) })];
    messages.extend(noise(size, 1).chunks(64 << 10).map(|bytes| chunk(bytes.to_vec())));
    messages.push(finish());
    server.grpc_upload(&token(&[1]), messages).await.map(drop)
}

async fn delete(server: &Server, attachment: i64) {
    let request =
        DeleteAttachmentRequest { client_id: 1, attachment_id: attachment, ..DeleteAttachmentRequest::default() };
    server.grpc_delete(&deleter(), request).await.expect("deletions are served");
    eventually("the content is gone", || server.contents(attachment) == 0);
}

fn assert_refused(reply: &Reply) {
    reply.assert_refusal(503, "The storage is not available, try again later");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((30..=60).contains(&seconds), "{reply:?}");
}

fn assert_refused_over_grpc(ended: Result<(), GrpcRefusal>) {
    let refusal = ended.expect_err("there is too little room");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "STORAGE_UNAVAILABLE"), "{refusal:?}");
    assert!((30..=60).contains(&refusal.retry_after.unwrap().as_secs()), "{refusal:?}");
}

/// Sends the head of an upload that waits to be asked for its body, and returns the reply.
fn before_the_body(server: &Server, ask: &Ask) -> Reply {
    let mut connection = server.connect();
    connection.send(&ask.clone().with("Expect", "100-continue").head()).unwrap();
    connection.reply().expect("a reply")
}

#[tokio::test]
async fn a_declared_size_is_accepted_up_to_the_free_space_and_refused_one_byte_past_it() {
    let (server, disk) = start("size=16m");
    fill(&disk, 128 << 10);
    for (more, status) in [(1, 503), (0, 201), (-1, 201), (1, 503)] {
        let ask = of_length(1, room(&server, &disk).strict_add_signed(more));
        if status == 503 {
            assert_refused(&before_the_body(&server, &ask));
            assert_refused(&server.connect().ask(&ask));
            continue;
        }
        let reply = server.connect().ask(&ask);
        assert_eq!(reply.status, status, "{more}: {reply:?}");
        delete(&server, 1).await;
    }
    for (more, good) in [(1, false), (0, true), (-1, true), (1, false)] {
        let size = room(&server, &disk).strict_add_signed(more);
        let ended = over_grpc(&server, 2, size, true).await;
        if good {
            ended.unwrap_or_else(|refusal| panic!("{more}: {refusal:?}"));
            delete(&server, 2).await;
        } else {
            assert_refused_over_grpc(ended);
        }
    }
    assert_eq!(server.numbers()[REFUSED], 6.0);
    server.assert_tidy();
    end(server, disk);
}

#[tokio::test]
async fn content_of_unknown_size_is_refused_where_it_would_pass_the_free_space() {
    let (server, disk) = start("size=24m");
    fill(&disk, 4 << 20);
    let before = disk.free().0;
    let (good, large) = (noise(1 << 20, 2), noise(7 << 20, 3));
    let chunked = |bytes: &[u8]| Ask::upload(1, 1, &Form::file(bytes)).chunked(64 << 10);
    assert_refused(&server.connect().ask(&chunked(&large)));
    assert_refused_over_grpc(over_grpc(&server, 1, 7 << 20, false).await);
    eventually("the space returns", || disk.free().0 == before);
    assert_eq!(server.record(1, 1), None);
    assert_eq!(room(&server, &disk), 4 << 20);
    assert_eq!(server.connect().ask(&chunked(&good)).status, 201);
    assert_eq!(server.stored(1, 1).unwrap(), good);
    over_grpc(&server, 2, 1 << 20, false).await.unwrap();

    fs::remove_file(filler(&disk)).unwrap();
    fill(&disk, -4096);
    assert_eq!(server.readiness()["uploads"], "refused");
    assert_refused(&before_the_body(&server, &chunked(b"")));
    assert_refused_over_grpc(over_grpc(&server, 1, 1, false).await);
    assert_eq!(server.stored(1, 1).unwrap(), good);
    server.assert_tidy();
    end(server, disk);
}

#[test]
fn a_client_that_declares_much_and_sends_nothing_leaves_space_to_others() {
    let (server, disk) = start("size=32m");
    fill(&disk, 16 << 20);
    let declared = |client: i64, attachment: i64| {
        let ask = Ask::upload(client, attachment, &Form::file(&noise(1 << 20, 4)));
        let mut connection = server.connect();
        connection.send(&ask.with("Expect", "100-continue").head()).unwrap();
        let reply = connection.reply().expect("a reply");
        (reply, connection)
    };
    let mut open = Vec::new();
    let refused = loop {
        let (reply, connection) = declared(1, open.len() as i64 + 1);
        if reply.status != 100 {
            break reply;
        }
        open.push(connection);
        assert!(open.len() < 16, "the client has all of the space");
    };
    assert!(open.len() > 8, "{} uploads of 1 MiB", open.len());
    assert_refused(&refused);
    assert_eq!(server.readiness()["uploads"], "accepted");
    assert_eq!(declared(2, 1).0.status, 100);
    let content = noise(1 << 20, 5);
    let stored = server.connect().upload(&token(&[2]), 2, 2, &Form::file(&content));
    assert_eq!((stored.status, server.stored(2, 2)), (201, Some(content)), "{stored:?}");
    // What they do not use returns with them.
    drop(open);
    eventually("the client may declare again", || declared(1, 1).0.status == 100);
    end(server, disk);
}

#[tokio::test]
async fn what_is_promised_to_one_upload_is_not_given_to_another() {
    let (server, disk) = start("size=16m");
    fill(&disk, 1 << 20);
    let room = room(&server, &disk);
    let first = of_length(1, room - (64 << 10));
    let mut connection = server.connect();
    connection.send(&first.head()).unwrap();
    let body = first.framed_body();
    connection.send(&body[..1000]).unwrap();
    eventually("it is under way", || server.readiness()["uploads_in_flight"] == 1);
    assert_refused(&server.connect().ask(&of_client(2, 1, (64 << 10) + 1)));
    assert_eq!(before_the_body(&server, &of_client(2, 1, 32 << 10)).status, 100);
    // What is left is for others.
    assert_refused(&server.connect().ask(&of_length(2, 32 << 10)));
    connection.send(&body[1000..]).unwrap();
    assert_eq!(connection.reply().unwrap().status, 201);

    // One that goes away gives back what it did not use.
    delete(&server, 1).await;
    eventually("the space returns", || self::room(&server, &disk) > room - (16 << 10));
    let mut gone = server.connect();
    gone.send(&first.head()).unwrap();
    gone.send(&body[..1000]).unwrap();
    eventually("it is under way", || server.readiness()["uploads_in_flight"] == 1);
    assert_refused(&server.connect().ask(&of_length(2, 128 << 10)));
    drop(gone);
    eventually("it has ended", || server.readiness()["uploads_in_flight"] == 0);
    assert_eq!(server.connect().ask(&of_length(2, 128 << 10)).status, 201);
    server.assert_tidy();
    end(server, disk);
}

#[tokio::test]
async fn a_disk_without_inodes_refuses_uploads_and_says_so_until_there_are_some() {
    let (server, disk) = start("size=32m,nr_inodes=200");
    let old = noise(100_000, 1);
    assert_eq!(server.connect().ask(&Ask::upload(1, 1, &Form::file(&old))).status, 201);
    let folder = disk.root().join("fillers");
    fs::create_dir(&folder).unwrap();
    let mut made = 0;
    // The content that is replaced is deleted when the upload has been answered.
    let mut fill = |left: u64| {
        eventually("so many inodes are left", || {
            while disk.free().1 > left {
                fs::write(folder.join(made.to_string()), "").unwrap();
                made += 1;
            }
            disk.free().1 == left && server.readiness()["uploads_in_flight"] == 0
        });
    };
    let small = || Ask::upload(1, 1, &Form::file(b"x"));
    for left in [FEWEST_INODES + 1, FEWEST_INODES] {
        fill(left);
        assert_eq!(server.readiness()["uploads"], "accepted", "{left}");
        let reply = server.connect().ask(&Ask::upload(1, 1, &Form::file(&old)));
        assert_eq!(reply.status, 201, "{left}: {reply:?}");
        eventually("one content is left", || server.contents(1) == 1);
    }
    fill(FEWEST_INODES - 1);
    let readiness = server.readiness();
    assert_eq!(readiness["reasons"][0], "uploads are refused: no inodes are left in the storage folder");
    assert_refused(&server.connect().ask(&small()));
    assert_refused_over_grpc(over_grpc(&server, 1, 1, true).await);
    assert_eq!(server.numbers()["attachd_storage_free_inodes"], 15.0);
    assert_eq!(server.stored(1, 1).unwrap(), old);
    let told = server.events("uploads are refused for lack of room in the storage");
    assert_eq!((told.len(), told[0]["why"].as_str()), (1, Some("no inodes are left")), "{told:?}");

    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(server.readiness()["uploads"], "accepted");
    assert_eq!(server.connect().ask(&small()).status, 201);
    assert_eq!(server.events("the storage has room for uploads again").len(), 1);
    server.assert_tidy();
    end(server, disk);
}

#[tokio::test]
async fn a_full_disk_refuses_uploads_alone_and_the_log_has_one_line_of_it_and_one_of_its_end() {
    let (server, disk) = start("size=16m");
    let old = noise(100_000, 1);
    for attachment in [1, 2] {
        assert_eq!(server.connect().ask(&Ask::upload(1, attachment, &Form::file(&old))).status, 201);
    }
    assert_eq!(server.readiness()["uploads"], "accepted");
    fill(&disk, -4096);
    for _ in 0..20 {
        let readiness = server.readiness();
        assert_eq!((&readiness["ready"], &readiness["uploads"]), (&true.into(), &"refused".into()), "{readiness}");
        assert_eq!(
            readiness["reasons"],
            serde_json::json!(["uploads are refused: too little space is left in the storage folder"])
        );
        assert_refused(&server.connect().ask(&Ask::upload(1, 3, &Form::file(&old))));
    }
    // For load balancers that tell uploads from the rest.
    let endpoint = Endpoint::from_shared(format!("http://{}", server.admin)).unwrap();
    let mut health = HealthClient::new(endpoint.connect().await.unwrap());
    let mut status = async |service: &str| {
        let asked = HealthCheckRequest { service: service.to_owned() };
        health.check(asked).await.unwrap().into_inner().status()
    };
    let uploads = "attachments.v2.AttachmentService/UploadAttachment";
    while status(uploads).await != ServingStatus::NotServing {
        tokio::task::yield_now().await;
    }
    for service in ["", "attachments.v2.AttachmentService"] {
        assert_eq!(status(service).await, ServingStatus::Serving, "{service}");
    }
    assert_eq!(Connection::open(server.admin).request("GET", "/readyz", &[], b"").status, 200);
    assert_eq!(server.connect().ask(&Ask::download(1, 1)).bytes, old);
    let numbers = server.numbers();
    assert_eq!((numbers[REFUSED], numbers["attachd_storage_free_bytes"]), (20.0, (MIN_FREE - 4096) as f64));

    // What is deleted makes room.
    delete(&server, 2).await;
    eventually("there is room", || server.readiness()["uploads"] == "accepted");
    while status(uploads).await != ServingStatus::Serving {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.connect().ask(&Ask::upload(1, 3, &Form::file(b"x"))).status, 201);
    let told = server.events("uploads are refused for lack of room in the storage");
    assert_eq!((told.len(), told[0]["why"].as_str()), (1, Some("too little space is left")), "{told:?}");
    assert_eq!(server.events("the storage has room for uploads again").len(), 1);
    let errors: Vec<_> = server.log().into_iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    server.assert_tidy();
    end(server, disk);
}

#[tokio::test]
async fn where_nothing_is_to_be_left_free_the_file_system_refuses_and_the_log_has_the_right_word() {
    for (options, why) in [("size=4m", "too little space is left"), ("size=16m,nr_inodes=40", "no inodes are left")] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::mount(&folder, options);
        let server = Setup { storage: "min_free = 0\n".to_owned(), ..Setup::default() }.start_in(folder);
        assert_eq!(server.connect().ask(&Ask::upload(1, 1, &Form::file(b"old"))).status, 201);
        // These fail when no more is left, which is what they are for.
        let _ = fs::write(filler(&disk), noise(8 << 20, 9));
        for name in 0..40 {
            let _ = fs::write(disk.root().join(format!("filler{name}")), "");
        }
        for _ in 0..5 {
            assert_refused(&server.connect().ask(&Ask::upload(1, 1, &Form::file(&noise(100_000, 1)))));
        }
        let told = server.events("uploads are refused for lack of room in the storage");
        assert_eq!((told.len(), told[0]["why"].as_str()), (1, Some(why)), "{told:?}");
        assert_eq!(server.readiness()["uploads"], "refused");
        assert_eq!(server.stored(1, 1).unwrap(), b"old");
        end(server, disk);
    }
}

#[test]
fn a_reserve_that_is_larger_than_the_disk_is_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Disk::mount(&folder, "size=4m");
    let server = Setup { storage: format!("min_free = {MIN_FREE}\n"), ..Setup::default() }.start_in(folder);
    let told = server.events("storage");
    let why = told.iter().find(|event| event["key"] == "storage.min_free").expect("a warning");
    let why = why["why"].as_str().unwrap();
    assert!(why.contains(&MIN_FREE.to_string()) && why.contains(&(4 << 20).to_string()), "{why}");
    end(server, disk);
}
