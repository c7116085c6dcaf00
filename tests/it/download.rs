//! Downloads: what was uploaded comes back, whole or in ranges, by both protocols, and nothing that is damaged comes back whole.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{DeleteAttachmentRequest, DownloadAttachmentRequest, RegisterAttachmentRequest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tonic::{Code, Request};

use crate::harness::{
    Ask, Form, MAX_UPLOAD, Reply, Server, Setup, authorised, chunk, claims, content_folder, download, eventually,
    finish, header, hex, mint, noise, record_path, sha256, token,
};

/// What a default configuration puts with the record, in bytes.
const INLINE: usize = 16 << 10;

fn upload(server: &Server, attachment: i64, bytes: &[u8]) {
    let reply = server.connect().ask(&Ask::upload(1, attachment, &Form::file(bytes)));
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn get(server: &Server, ask: &Ask) -> Reply {
    server.connect().ask(ask)
}

fn etag(bytes: &[u8]) -> String {
    format!("\"{}\"", hex(&sha256(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_uploaded_comes_back_byte_for_byte_over_both_protocols() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        let sizes = [
            0,
            1,
            INLINE - 1,
            INLINE,
            INLINE + 1,
            (128 << 10) - 1,
            128 << 10,
            (128 << 10) + 1,
            (1 << 20) + 3,
            MAX_UPLOAD,
        ];
        for (attachment, size) in (1_i64..).zip(sizes) {
            let bytes = noise(size, attachment.unsigned_abs());
            upload(&server, attachment, &bytes);
            let reply = get(&server, &Ask::download(1, attachment));
            assert_eq!((reply.status, reply.bytes.len()), (200, size), "{service}");
            assert!(reply.bytes == bytes, "{size} bytes over REST, {service}");
            assert_eq!(reply.header("content-length"), size.to_string());
            assert_eq!(reply.header("etag"), etag(&bytes));
            let (header, read) =
                server.grpc_download(&token(&[1]), download(1, attachment)).await.expect("it is there");
            assert!(read == bytes, "{size} bytes over gRPC, {service}");
            let attachment = header.attachment.expect("the header names it");
            assert_eq!((header.offset, header.length), (0, i64::try_from(size).unwrap()));
            assert_eq!(attachment.size, i64::try_from(size).ok());
            assert_eq!(attachment.sha256.as_deref(), Some(&sha256(&bytes)[..]));
        }
        let held = |server: &Server| server.numbers()["attachd_download_budget_used_bytes"];
        eventually("no memory is held", || held(&server) == 0.0);
    }
}

#[test]
fn a_download_says_what_it_is_and_that_no_browser_may_run_it() {
    let server = Server::start();
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"€ 1.html\"\r\nContent-Type: text/html";
    let form = Form::default().part(head, b"<script>alert(1)</script>");
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &form)).status, 201);
    let digest = format!("sha-256=:{}:", STANDARD.encode(sha256(b"<script>alert(1)</script>")));
    for method in ["GET", "HEAD"] {
        let mut connection = server.connect();
        connection.send(&Ask::download(1, 2).method(method).with("Want-Content-Digest", "sha-256=1").bytes()).unwrap();
        let reply = if method == "GET" { connection.reply() } else { connection.reply_without_body() };
        let reply = reply.expect("a reply");
        assert_eq!(reply.status, 200);
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-length", "25"),
            ("content-disposition", "attachment; filename=\"_ 1.html\"; filename*=UTF-8''%E2%82%AC%201.html"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("cross-origin-resource-policy", "same-site"),
            ("cache-control", "private, no-cache"),
            ("accept-ranges", "bytes"),
            ("repr-digest", &digest),
            ("content-digest", &digest),
        ] {
            assert_eq!(reply.header(name), value, "{method} {name}");
        }
        assert!(!reply.header("last-modified").is_empty() && !reply.header("x-request-id").is_empty());
        // The connection goes on.
        assert_eq!(connection.ask(&Ask::download(1, 2)).bytes, b"<script>alert(1)</script>");
    }
    for unwanted in ["sha-256=0", "sha-512=10", "nonsense;"] {
        let reply = get(&server, &Ask::download(1, 2).with("Want-Content-Digest", unwanted));
        assert_eq!(reply.header("content-digest"), "", "{unwanted}");
    }
}

#[test]
fn content_of_a_permitted_type_may_be_shown_and_keeps_all_other_safety() {
    let more = "[download]\ninline_types = [\"image/png\", \"Text/Plain\"]\n".to_owned();
    let server = Setup { more, ..Setup::default() }.start();
    let mut connection = server.connect();
    for (attachment, (declared, disposition)) in (1_i64..).zip([
        ("image/png", "inline"),
        ("IMAGE/PNG", "inline"),
        ("image/png; x=y", "inline"),
        ("text/plain;charset=utf-8", "inline"),
        ("image/png2", "attachment"),
        ("image/p", "attachment"),
        ("image/x-image/png", "attachment"),
        ("image/png;x=y,text/html", "attachment"),
        ("text/html", "attachment"),
        ("application/octet-stream", "attachment"),
    ]) {
        let head =
            format!("Content-Disposition: form-data; name=\"file\"; filename=\"€.png\"\r\nContent-Type: {declared}");
        let form = Form::default().part(&head, b"<script>alert(1)</script>");
        assert_eq!(connection.ask(&Ask::upload(1, attachment, &form)).status, 201, "{declared}");
        let reply = connection.ask(&Ask::download(1, attachment));
        let named = format!("{disposition}; filename=\"_.png\"; filename*=UTF-8''%E2%82%AC.png");
        for (name, value) in [
            ("content-type", declared),
            ("content-disposition", &named),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "sandbox; default-src 'none'"),
            ("cross-origin-resource-policy", "same-site"),
            ("cache-control", "private, no-cache"),
        ] {
            assert_eq!(reply.header(name), value, "{declared}: {name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_the_bytes_it_names_inline_and_in_an_object() {
    let server = Server::start();
    for (attachment, size) in [(1, 10_usize), (2, (1 << 20) + 7)] {
        let bytes = noise(size, 5);
        upload(&server, attachment, &bytes);
        let last = size - 1;
        for (range, from, to) in [
            ("bytes=0-0".to_owned(), 0, 1),
            ("bytes=1-3".to_owned(), 1, 4),
            (format!("bytes={last}-"), last, size),
            (format!("bytes=0-{last}"), 0, size),
            (format!("bytes=3-{size}"), 3, size),
            ("bytes=-1".to_owned(), last, size),
            (format!("bytes=-{}", size + 1), 0, size),
        ] {
            let reply = get(&server, &Ask::download(1, attachment).with("Range", &range));
            assert_eq!(reply.status, 206, "{range}: {:?}", reply.headers);
            assert_eq!(reply.header("content-range"), format!("bytes {from}-{}/{size}", to - 1));
            assert!(reply.bytes == bytes[from..to], "{range}");
            let (offset, length) = (i64::try_from(from).unwrap(), i64::try_from(to - from).unwrap());
            let request = DownloadAttachmentRequest { offset, length: Some(length), ..download(1, attachment) };
            let (header, read) = server.grpc_download(&token(&[1]), request).await.expect("it is there");
            assert_eq!((header.offset, header.length), (offset, length));
            assert!(read == bytes[from..to], "{range}");
        }
        for range in [format!("bytes={size}-"), format!("bytes={size}-{}", size + 5), "bytes=-0".to_owned()] {
            let reply = get(&server, &Ask::download(1, attachment).with("Range", &range));
            reply.assert_refusal(416, "The range is not within the content");
            assert_eq!(reply.header("content-range"), format!("bytes */{size}"), "{range}");
        }
        for range in ["bytes=0-0,2-2", "bytes=2-1", "items=0-1", "bytes=x"] {
            let reply = get(&server, &Ask::download(1, attachment).with("Range", range));
            assert_eq!((reply.status, reply.bytes.len()), (200, size), "{range}");
        }
        let size = i64::try_from(size).unwrap();
        for (offset, length, reason, code) in [
            (size, None, "RANGE_NOT_SATISFIABLE", Code::OutOfRange),
            (size + 1, Some(1), "RANGE_NOT_SATISFIABLE", Code::OutOfRange),
            (-1, None, "INVALID_REQUEST", Code::InvalidArgument),
            (0, Some(0), "INVALID_REQUEST", Code::InvalidArgument),
            (0, Some(-1), "INVALID_REQUEST", Code::InvalidArgument),
        ] {
            let request = DownloadAttachmentRequest { offset, length, ..download(1, attachment) };
            let refusal = server.grpc_download(&token(&[1]), request).await.expect_err("it is no range");
            assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{offset} {length:?}");
            if reason == "RANGE_NOT_SATISFIABLE" {
                assert_eq!(refusal.metadata["size"], size.to_string());
            }
        }
        let rest = DownloadAttachmentRequest { offset: 4, length: Some(i64::MAX), ..download(1, attachment) };
        let (_, read) = server.grpc_download(&token(&[1]), rest).await.expect("it is cut to the content");
        assert!(read == bytes[4..]);
    }
}

#[test]
fn empty_content_has_no_range_and_is_served_whole() {
    let server = Server::start();
    upload(&server, 2, b"");
    let reply = get(&server, &Ask::download(1, 2).with("Range", "bytes=0-"));
    reply.assert_refusal(416, "The range is not within the content");
    assert_eq!(reply.header("content-range"), "bytes */0");
    let mut connection = server.connect();
    let reply = connection.ask(&Ask::download(1, 2));
    assert_eq!((reply.status, reply.header("content-length")), (200, "0"));
    assert_eq!(server.outcome(reply.header("x-request-id")), "OK");
    assert_eq!(connection.ask(&Ask::download(1, 2)).status, 200);
}

#[test]
fn preconditions_decide_in_the_order_of_the_rfc() {
    let server = Server::start();
    upload(&server, 2, b"stored");
    let (tag, other) = (etag(b"stored"), etag(b"other"));
    let weak = format!("W/{tag}");
    let modified = get(&server, &Ask::download(1, 2)).header("last-modified").to_owned();
    let (before, after) = ("Mon, 01 Jan 2001 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT");
    for (headers, status) in [
        (vec![("If-None-Match", tag.as_str())], 304),
        (vec![("If-None-Match", &weak)], 304),
        (vec![("If-None-Match", "*")], 304),
        (vec![("If-None-Match", &other)], 200),
        (vec![("If-Match", &tag)], 200),
        (vec![("If-Match", "*")], 200),
        (vec![("If-Match", &weak)], 412),
        (vec![("If-Match", &other)], 412),
        (vec![("If-Match", &other), ("If-None-Match", &tag)], 412),
        (vec![("If-Match", &tag), ("If-None-Match", &tag)], 304),
        (vec![("If-Modified-Since", &modified)], 304),
        (vec![("If-Modified-Since", after)], 304),
        (vec![("If-Modified-Since", before)], 200),
        (vec![("If-Modified-Since", "nonsense")], 200),
        (vec![("If-Modified-Since", after), ("If-None-Match", &other)], 200),
        (vec![("If-Unmodified-Since", &modified)], 200),
        (vec![("If-Unmodified-Since", before)], 412),
        (vec![("If-Unmodified-Since", before), ("If-Match", &tag)], 200),
        (vec![("Range", "bytes=0-1"), ("If-Range", &tag)], 206),
        (vec![("Range", "bytes=0-1"), ("If-Range", &modified)], 206),
        (vec![("Range", "bytes=0-1"), ("If-Range", &other)], 200),
        (vec![("Range", "bytes=0-1"), ("If-Range", &weak)], 200),
        (vec![("Range", "bytes=0-1"), ("If-Range", before)], 200),
        (vec![("Range", "bytes=0-1"), ("If-None-Match", &tag)], 304),
        (vec![("Range", "bytes=9-"), ("If-Match", &other)], 412),
        (vec![("Range", "bytes=9-"), ("If-Range", &other)], 200),
        (vec![("If-Match", "unquoted")], 400),
    ] {
        let ask = headers.iter().fold(Ask::download(1, 2), |ask, (name, value)| ask.with(name, value));
        let mut connection = server.connect();
        let reply = connection.ask(&ask);
        assert_eq!(reply.status, status, "{headers:?}");
        match status {
            200 => assert_eq!(reply.bytes, b"stored"),
            206 => assert_eq!(reply.bytes, b"st"),
            304 => assert!(reply.bytes.is_empty() && !reply.headers.contains_key("content-length")),
            412 => reply.assert_refusal(412, "A precondition of the request is not met"),
            _ => reply.assert_refusal(400, "Validation error"),
        }
        if [200, 206, 304, 412].contains(&status) {
            assert_eq!(reply.header("etag"), tag, "{headers:?}");
        }
        connection.ask(&Ask::download(1, 2));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_read_is_decided_before_anything_is_said_of_the_attachment() {
    let server = Server::start();
    let registered =
        RegisterAttachmentRequest { client_id: 1, attachment_id: 3, project_id: Some(7), portfolio_id: None };
    server.grpc_register(&token(&[1]), registered).await.expect("it is registered");
    server
        .grpc_upload(&token(&[1]), vec![Message::Header(header(1, 3)), chunk(b"of a project".to_vec()), finish()])
        .await
        .expect("it is stored");
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims(&[1]);
        claims[name] = value;
        mint(&claims)
    };
    let (writes, elsewhere) = (with("scope", json!("attachments:write")), with("project_ids", json!([8])));
    for (name, token, attachment, query, status, reason) in [
        ("no token", String::new(), 3, "", 401, "TOKEN_MISSING"),
        ("an expired token", with("exp", json!(1_000_000_000)), 3, "", 401, "TOKEN_EXPIRED"),
        ("no scope to read, and no such attachment", writes, 99, "", 403, "FORBIDDEN"),
        ("another client", token(&[2]), 99, "", 403, "FORBIDDEN"),
        ("another project", elsewhere.clone(), 3, "", 404, "NOT_FOUND"),
        ("another project that is named", elsewhere, 3, "?project_id=7", 403, "FORBIDDEN"),
        ("a project that it does not belong to", token(&[1]), 3, "?project_id=8", 404, "NOT_FOUND"),
        ("no such attachment", token(&[1]), 99, "", 404, "NOT_FOUND"),
        ("its project", token(&[1]), 3, "?project_id=7", 200, "OK"),
        ("a near miss of the project", token(&[1]), 3, "?projectId=7", 400, "INVALID_REQUEST"),
    ] {
        let ask = Ask::download(1, attachment).path(query);
        let ask = if token.is_empty() { ask.without("Authorization") } else { ask.by(&token) };
        let reply = get(&server, &ask);
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        assert_eq!(server.outcome(reply.header("x-request-id")), reason, "{name}");
        if query.starts_with("?projectId") {
            continue;
        }
        let project_id = query.rsplit_once('=').map(|(_, id)| id.parse().unwrap());
        let request = DownloadAttachmentRequest { project_id, ..download(1, attachment) };
        match server.grpc_download(&token, request).await {
            Ok((_, bytes)) => assert_eq!((bytes.as_slice(), reason), (&b"of a project"[..], "OK"), "{name}"),
            Err(refusal) => assert_eq!(refusal.reason, reason, "{name}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registered_attachment_without_content_has_nothing_to_download() {
    let server = Server::strict();
    let request = RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: None, portfolio_id: None };
    server.grpc_register(&token(&[1]), request).await.expect("it is registered");
    let reply = get(&server, &Ask::download(1, 2));
    reply.assert_refusal(404, "The requested resource was not found");
    assert!(reply.details().ends_with("the attachment has no content"), "{reply:?}");
    let refusal = server.grpc_download(&token(&[1]), download(1, 2)).await.expect_err("it has no content");
    assert_eq!(refusal.code, Code::NotFound);
}

/// The one object of an attachment's content.
fn object(server: &Server, attachment: i64) -> PathBuf {
    let mut objects = fs::read_dir(content_folder(server.root(), 1, attachment)).expect("it has a folder");
    objects.next().expect("it has an object").expect("it can be listed").path()
}

/// Turns one bit of a file over.
fn flip(path: &PathBuf, at: u64) {
    let mut bytes = fs::read(path).expect("it can be read");
    let at = usize::try_from(at).unwrap();
    bytes[at] ^= 1;
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("it can be opened");
    file.seek(SeekFrom::Start(0)).expect("it has a start");
    file.write_all(&bytes).expect("it can be written");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_content_never_comes_back_whole() {
    const SIZE: u64 = 1 << 20;
    type Harm = fn(&Server);
    let harms: [(&str, Harm); 6] = [
        ("the first bit", |server| flip(&object(server, 2), 0)),
        ("the last bit", |server| flip(&object(server, 2), SIZE - 1)),
        ("a byte less", |server| {
            fs::File::options().write(true).open(object(server, 2)).unwrap().set_len(SIZE - 1).unwrap();
        }),
        ("an empty object", |server| fs::write(object(server, 2), b"").unwrap()),
        ("no object", |server| fs::remove_file(object(server, 2)).unwrap()),
        ("a bit of small content", |server| {
            let path = record_path(server.root(), 1, 2);
            let last = fs::metadata(&path).unwrap().len() - 1;
            flip(&path, last);
        }),
    ];
    for (name, harm) in harms {
        let server = Server::start();
        let size = if name.contains("small") { 100 } else { usize::try_from(SIZE).unwrap() };
        upload(&server, 2, &noise(size, 3));
        upload(&server, 3, b"sound");
        harm(&server);
        let mut connection = server.connect();
        connection.send(&Ask::download(1, 2).bytes()).unwrap();
        let reply = connection.reply().unwrap_or_else(|| panic!("{name}: no head came"));
        match reply.status {
            200 => assert!(reply.bytes.len() < size, "{name}"),
            500 => reply.assert_refusal(500, "An internal server error occurred"),
            other => panic!("{name}: {other}"),
        }
        if reply.status == 200 {
            assert!(connection.closed(), "{name}");
        }
        assert_eq!(server.outcome(reply.header("x-request-id")), "INTERNAL", "{name}");
        let refusal = server.grpc_download(&token(&[1]), download(1, 2)).await.expect_err(name);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Internal, "INTERNAL"), "{name}");
        assert_eq!(refusal.message, "An internal server error occurred", "{name}");
        assert!(refusal.request_id.is_some(), "{name}");
        let damage = server.events("stored content is damaged");
        assert_eq!(damage.len(), 2, "{name}: {damage:?}");
        assert!(damage[0]["path"].as_str().unwrap().starts_with("clients/1/"), "{name}: {damage:?}");
        assert_eq!(server.numbers()["attachd_damaged_reads_total"], 2.0, "{name}");
        assert_eq!(get(&server, &Ask::download(1, 3)).bytes, b"sound", "{name}");
        // It would look that all which it stored is sound.
        server.kill();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_or_deleted_content_that_is_being_read_comes_back_whole() {
    let server = Setup { limits: "max_upload_size = \"64MiB\"\n".to_owned(), ..Setup::default() }.start();
    let mut claims = claims(&[1]);
    claims["scope"] = json!("attachments:delete");
    let deleter = mint(&claims);
    let old = noise(48 << 20, 1);
    for replace in [true, false] {
        upload(&server, 2, &old);
        let mut connection = server.connect();
        connection.send(&Ask::download(1, 2).bytes()).unwrap();
        let reply = connection.reply_without_body().expect("a head");
        assert_eq!(reply.status, 200);
        let first = connection.take(1 << 20);
        if replace {
            upload(&server, 2, b"new");
        } else {
            let request =
                DeleteAttachmentRequest { client_id: 1, attachment_id: 2, ..DeleteAttachmentRequest::default() };
            server.grpc_delete(&deleter, request).await.expect("it is deleted");
        }
        eventually("the old content is gone", || server.contents(2) == 0);
        let rest = connection.take(old.len() - first.len());
        assert!([first, rest].concat() == old, "replaced: {replace}");
        assert_eq!(server.outcome(reply.header("x-request-id")), "OK");
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut_off_and_holds_little_until_then() {
    let limits = "max_upload_size = \"64MiB\"\nidle_timeout = \"1s\"\ndownload_budget = \"1MiB\"\n".to_owned();
    let server = Setup { limits, ..Setup::default() }.start();
    upload(&server, 2, &noise(48 << 20, 1));
    let mut idle: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let mut ids = Vec::new();
    for connection in &mut idle {
        connection.send(&Ask::download(1, 2).bytes()).unwrap();
        ids.push(connection.reply_without_body().expect("a head").header("x-request-id").to_owned());
    }
    for id in ids {
        assert_eq!(server.outcome(&id), "CLIENT_TOO_SLOW");
    }
    let used = || server.numbers()["attachd_download_budget_used_bytes"];
    assert!(used() <= 1_048_576.0);
    for connection in &mut idle {
        assert!(connection.take(48 << 20).len() < 48 << 20);
    }
    drop(idle);
    eventually("all memory is given back", || used() == 0.0);
    assert_eq!(server.numbers()["attachd_downloads_in_flight"], 0.0);
}

#[test]
fn a_client_that_goes_away_is_told_of_with_the_bytes_that_it_was_sent() {
    let server = Setup { limits: "max_upload_size = \"64MiB\"\n".to_owned(), ..Setup::default() }.start();
    upload(&server, 2, &noise(48 << 20, 1));
    let mut connection = server.connect();
    connection.send(&Ask::download(1, 2).bytes()).unwrap();
    let reply = connection.reply_without_body().expect("a head");
    assert_eq!(connection.take(1 << 20).len(), 1 << 20);
    drop(connection);
    assert_eq!(server.outcome(reply.header("x-request-id")), "CLIENT_GONE");
    let line = server.events("request").into_iter().find(|event| event["outcome"] == "CLIENT_GONE").expect("a line");
    let sent = line["sent_bytes"].as_u64().expect("a number");
    assert!((1 << 20..48 << 20).contains(&sent), "{line}");
    let audit = server.events("audit");
    assert_eq!(audit.last().expect("an audit line")["outcome"], "abandoned");
}

#[test]
fn downloads_finish_within_the_grace_and_are_cut_off_after_it() {
    for finishes in [true, false] {
        let limits = "max_upload_size = \"64MiB\"\n".to_owned();
        let mut server = Setup { limits, ..Setup::default() }.start();
        let bytes = noise(48 << 20, 1);
        upload(&server, 2, &bytes);
        let mut connection = server.connect();
        connection.send(&Ask::download(1, 2).bytes()).unwrap();
        let reply = connection.reply_without_body().expect("a head");
        let first = connection.take(1 << 20);
        server.signal("TERM");
        eventually("it drains", || server.log().iter().any(|line| line.contains("\"draining\"")));
        if finishes {
            let rest = connection.take(bytes.len() - first.len());
            assert!([first, rest].concat() == bytes);
            assert_eq!(server.outcome(reply.header("x-request-id")), "OK");
        } else {
            let cut = |server: &Server| server.log().iter().any(|line| line.contains("the grace has passed"));
            eventually("the grace passes", || cut(&server));
            assert!(connection.take(bytes.len()).len() < bytes.len() - first.len());
            assert_eq!(server.outcome(reply.header("x-request-id")), "DRAINING");
        }
        assert_eq!(server.wait(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_cut_off_over_grpc_ends_with_a_reason() {
    let limits = "max_upload_size = \"64MiB\"\n".to_owned();
    let mut server = Setup { limits, ..Setup::default() }.start();
    upload(&server, 2, &noise(48 << 20, 1));
    let request = authorised(Request::new(download(1, 2)), &token(&[1]));
    let mut messages = server.channel().await.download_attachment(request).await.expect("it begins").into_inner();
    messages.message().await.expect("a header").expect("a header");
    server.signal("TERM");
    let cut = || server.log().iter().any(|line| line.contains("the grace has passed"));
    eventually("the grace passes", cut);
    let status = loop {
        match messages.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("a part was taken for the whole"),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(server.wait(), Some(0));
}

#[test]
fn a_finished_download_is_one_line_in_the_log_and_one_in_the_audit_trail() {
    let server = Server::start();
    for (attachment, size) in [(2, 100), (3, 1 << 20)] {
        upload(&server, attachment, &noise(size, 1));
        let reply = get(&server, &Ask::download(1, attachment));
        let id = reply.header("x-request-id");
        assert_eq!(server.outcome(id), "OK");
        let of = |message: &str| -> Vec<_> {
            server.events(message).into_iter().filter(|event| event["request_id"] == id).collect()
        };
        eventually("the audit trail has it", || of("audit").len() == 1);
        let (line, audit) = (of("request"), of("audit"));
        assert_eq!(line.len(), 1);
        assert_eq!((&line[0]["sent_bytes"], &line[0]["attachment_id"]), (&json!(size), &json!(attachment)));
        assert_eq!(line[0]["size_bytes"], json!(null));
        let expected = json!({"action": "download", "outcome": "done", "reason": "OK", "client_id": 1});
        for (name, value) in expected.as_object().unwrap() {
            assert_eq!(&audit[0][name], value, "{audit:?}");
        }
    }
    let sent = server.numbers()["attachd_download_sent_bytes_total{door=\"rest\"}"];
    assert_eq!(sent, f64::from((1 << 20) + 100));
}
