//! What `/metrics` says is what has happened, and nothing that a caller sends makes it say more.

use std::io::Write;
use std::net::TcpStream;
use std::time::{SystemTime, UNIX_EPOCH};

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use tonic::Code;

use crate::harness::{
    Form, MAX_UPLOAD, Server, Setup, chunk, claims, eventually, finish, header, mint, noise, numbers, run, token,
};

fn requests(door: &str, method: &str, outcome: &str) -> String {
    format!("attachd_requests_total{{door=\"{door}\",method=\"{method}\",outcome=\"{outcome}\"}}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_happened_is_counted_in_the_same_way_through_both_doors() {
    let server = Server::start();
    let good = token(&[1]);
    let bytes = noise(3 << 20, 1);
    let upload = |attachment| vec![Message::Header(header(1, attachment)), chunk(bytes.clone()), finish()];
    for door in ["rest", "grpc"] {
        let before = server.numbers();
        if door == "rest" {
            let mut connection = server.connect();
            assert_eq!(connection.upload(&good, 1, 1, &Form::file(&bytes)).status, 201);
            assert_eq!(connection.upload("wrong", 1, 1, &Form::file(b"x")).status, 401);
            assert_eq!(server.connect().upload(&good, 2, 1, &Form::file(b"x")).status, 403);
        } else {
            server.grpc_upload(&good, upload(2)).await.unwrap();
            assert_eq!(server.grpc_upload("wrong", upload(2)).await.unwrap_err().code, Code::Unauthenticated);
            let mut other = upload(2);
            other[0] = Message::Header(header(2, 1));
            assert_eq!(server.grpc_upload(&good, other).await.unwrap_err().code, Code::PermissionDenied);
        }
        let after = server.numbers();
        let rose = |series: &str| after.get(series).unwrap_or(&0.0) - before.get(series).unwrap_or(&0.0);
        for outcome in ["OK", "TOKEN_INVALID", "FORBIDDEN"] {
            assert_eq!(rose(&requests(door, "UploadAttachment", outcome)), 1.0, "{door} {outcome}");
        }
        for (series, by) in [
            (format!("attachd_upload_received_bytes_total{{door=\"{door}\"}}"), bytes.len() as f64),
            (format!("attachd_upload_size_bytes_sum{{door=\"{door}\"}}"), bytes.len() as f64),
            (format!("attachd_upload_size_bytes_count{{door=\"{door}\"}}"), 1.0),
            (duration_count(door, "ok"), 1.0),
            (duration_count(door, "refused"), 2.0),
            ("attachd_authentications_total{outcome=\"OK\"}".to_owned(), 2.0),
            ("attachd_authentications_total{outcome=\"TOKEN_INVALID\"}".to_owned(), 1.0),
            ("attachd_commit_duration_seconds_count{result=\"ok\"}".to_owned(), 1.0),
            ("attachd_storage_operations_total{operation=\"commit\",outcome=\"ok\"}".to_owned(), 1.0),
            ("attachd_storage_operation_duration_seconds_count{operation=\"commit\"}".to_owned(), 1.0),
            ("attachd_storage_operations_total{operation=\"write\",outcome=\"failed\"}".to_owned(), 0.0),
        ] {
            assert_eq!(rose(&series), by, "{door}: {series}");
        }
        assert!(rose("attachd_storage_operations_total{operation=\"write\",outcome=\"ok\"}") >= 1.0);
    }
    let manager = mint(&{
        let mut manager = claims(&[1]);
        manager["scope"] = "attachments:manage".into();
        manager
    });
    let register = RegisterAttachmentRequest { client_id: 1, attachment_id: 9, ..Default::default() };
    server.grpc_register(&manager, register).await.unwrap();
    server.connect().request("GET", "/nowhere", &[], b"");
    let after = server.numbers();
    assert_eq!(after[&requests("grpc", "RegisterAttachment", "OK")], 1.0);
    assert_eq!(after[&requests("rest", "other", "NOT_FOUND")], 1.0);
    assert_eq!(after["attachd_draining"], 0.0);
}

fn duration_count(door: &str, result: &str) -> String {
    format!("attachd_request_duration_seconds_count{{door=\"{door}\",method=\"UploadAttachment\",result=\"{result}\"}}")
}

#[test]
fn what_is_going_on_is_seen_while_it_goes_on() {
    let server = Server::start();
    let form = Form::file(&noise(3 << 20, 1));
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[1]), 1, 2, &form, form.bytes().len() / 2);
    eventually("half of it has arrived", || {
        let now = server.numbers();
        now["attachd_uploads_in_flight"] == 1.0
            && now["attachd_requests_in_flight{door=\"rest\"}"] == 1.0
            && now["attachd_upload_received_bytes_total{door=\"rest\"}"] >= 1e6
    });
    connection.send(&rest).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    eventually("nothing is going on", || {
        let now = server.numbers();
        now["attachd_uploads_in_flight"] == 0.0
            && now["attachd_requests_in_flight{door=\"rest\"}"] == 0.0
            && now["attachd_memory_budget_used_bytes"] == 0.0
    });
    let (gone, _rest) = (server.connect(), ());
    let mut gone = gone;
    gone.begin(&token(&[1]), 1, 2, &form, form.bytes().len() / 2);
    eventually("the upload has begun", || server.numbers()["attachd_uploads_in_flight"] == 1.0);
    drop(gone);
    eventually("the client is gone, or was cut short", || {
        let now = server.numbers();
        let outcomes = ["CLIENT_GONE", "INCOMPLETE_UPLOAD"];
        outcomes.iter().map(|outcome| now[&requests("rest", "UploadAttachment", outcome)]).sum::<f64>() == 1.0
            && now["attachd_requests_in_flight{door=\"rest\"}"] == 0.0
    });
}

#[test]
fn the_memory_budget_is_seen_with_what_is_taken_of_it() {
    let server = Setup { limits: "memory_budget = \"9MiB\"\n".to_owned(), ..Setup::default() }.start();
    let idle = server.numbers();
    // The storage of a file system has no use for more.
    assert_eq!(idle["attachd_memory_budget_bytes"], f64::from(8 << 20));
    assert_eq!(idle["attachd_memory_budget_used_bytes"], 0.0);
    assert_eq!(idle["attachd_memory_budget_waiting_uploads"], 0.0);
    assert_eq!(idle["attachd_memory_budget_refused_total"], 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_caller_sends_becomes_a_label() {
    let server = Server::start();
    let good = token(&[1]);
    // Whatever can happen has happened once, so that every histogram is there.
    let ask = async |seed: i64| {
        let mut connection = server.connect();
        for path in [
            format!("/api/v2/clients/1/attachments/{seed}"),
            format!("/api/v2/clients/{seed}/attachments/{seed}?project_id={seed}&x{seed}=y"),
            format!("/{seed}/..%2f{seed}"),
            format!("/api/v2/clients/a{seed}/attachments/\u{fffd}{seed}"),
        ] {
            let id = format!("id-{seed}");
            for token in [good.as_str(), "wrong"] {
                connection = server.connect();
                connection.upload_with(token, &path, &[("X-Request-Id", &id), ("User-Agent", &id)], &Form::file(b"x"));
            }
            connection.request("DELETE", &path, &[("X-Request-Id", &id)], b"");
        }
        let messages = vec![Message::Header(header(1, seed)), chunk(b"x".to_vec()), finish()];
        server.grpc_upload(&good, messages.clone()).await.unwrap();
        server.grpc_upload("wrong", messages).await.unwrap_err();
        let path = format!("/attachments.v2.AttachmentService/Method{seed}");
        server.connect().request("POST", &path, &[], b"");
        TcpStream::connect(server.grpc).unwrap().write_all(format!("GET /{seed} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    };
    ask(1_000_000).await;
    let before = server.numbers();
    for seed in 1_000_001..1_000_020 {
        ask(seed).await;
    }
    let after = server.numbers();
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert!(!after.keys().any(|series| series.contains("10000")), "{after:#?}");
    assert!(after.len() < 1050, "{} series", after.len());
}

#[test]
fn the_process_says_how_it_is() {
    let server = Server::start();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    let said = server.numbers();
    assert!((now - 60.0..=now + 1.0).contains(&said["process_start_time_seconds"]), "{said:#?}");
    assert!(said["process_resident_memory_bytes"] > 1e6 && said["process_open_fds"] > 3.0, "{said:#?}");
    assert_eq!(said[&format!("attachd_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))], 1.0);
}

#[test]
fn each_scraper_gets_the_format_that_it_asks_for() {
    let server = Server::start();
    let open = server.exposed("application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3");
    assert!(open.contains("content-type: application/openmetrics-text; version=1.0.0"), "{open}");
    assert!(open.ends_with("# EOF\n"));
    for accept in ["*/*", "text/plain", "text/html"] {
        let plain = server.exposed(accept);
        assert!(plain.contains("content-type: text/plain; version=0.0.4"), "{plain}");
        assert!(!plain.contains("# EOF"), "{accept}");
    }
}

#[test]
fn a_command_that_ends_leaves_its_numbers_in_a_file() {
    let server = Server::start();
    assert_eq!(server.connect().upload(&token(&[1]), 1, 2, &Form::file(&vec![7; MAX_UPLOAD / 8])).status, 201);
    let (config, folder) = (server.config(), tempfile::tempdir().unwrap());
    let path = folder.path().join("attachd.prom");
    let report = |command: &str| {
        let outcome = run(&[command, "--config", config.to_str().unwrap(), "--metrics-file", path.to_str().unwrap()]);
        assert!(outcome.status.success(), "{outcome:?}");
        let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["attachd.prom"], "nothing else is left");
        numbers(&std::fs::read_to_string(&path).unwrap())
    };
    let swept = report("gc");
    assert_eq!(
        (swept["attachd_gc_attachments"], swept["attachd_gc_complete"], swept["attachd_gc_deletes"]),
        (1.0, 1.0, 0.0)
    );
    assert_eq!((swept["attachd_gc_garbage_objects"], swept["attachd_gc_errors"]), (0.0, 0.0));
    assert!(swept["attachd_gc_last_run_timestamp_seconds"] > 1.7e9);
    let verified = report("verify");
    assert_eq!(verified["attachd_verify_bytes"], (MAX_UPLOAD / 8) as f64);
    assert_eq!(verified["attachd_verify_findings{finding=\"damaged\"}"], 0.0);
    assert!(!verified.contains_key("attachd_gc_attachments"), "the file is replaced");
}
