//! Heads of requests that cannot be read, or not in one way only: each gets its envelope, and is counted and logged by cause.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;

use crate::harness::{Ask, Connection, Form, MAX_UPLOAD, Server, Setup, eventually, honest, noise};

const PATH: &str = "/api/v2/clients/1/attachments/2";
const INVALID: &str = "Validation error";
const LARGE: &str = "The head of the request is larger than permitted";

/// A head with so many headers.
fn with_headers(count: usize) -> String {
    let more: String = (1..count).map(|number| format!("X-{number}: x\r\n")).collect();
    format!("POST {PATH} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

/// Heads that the HTTP library refuses, each with the cause that is counted, the status, and a word of what the client reads.
fn refused() -> Vec<(String, &'static str, u16, &'static str)> {
    let lines = |lines: &str| format!("POST {PATH} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n");
    vec![
        (lines("no colon"), "header", 400, "a colon right after it"),
        (lines("X : a"), "header", 400, "a colon right after it"),
        (lines(" X: a"), "header", 400, "a colon right after it"),
        (lines("X: a\r\n folded"), "header", 400, "on the same line"),
        (lines("X: a\0b"), "header", 400, "without control characters"),
        (lines("X: a\rb"), "header", 400, "without control characters"),
        (lines(": a"), "header", 400, "must be a name"),
        (lines("X\u{e9}: a"), "header", 400, "must be a name"),
        (lines("Content-Length: -1"), "length", 400, "Content-Length must be one decimal number"),
        (lines("Content-Length: 1, 2"), "length", 400, "Content-Length must be one decimal number"),
        (lines("Content-Length: 1\r\nContent-Length: 2"), "length", 400, "Content-Length must be one decimal number"),
        (lines("Transfer-Encoding: gzip"), "encoding", 400, "Transfer-Encoding must be chunked"),
        (format!("POST {PATH} HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), "encoding", 400, "over HTTP/1.1"),
        (format!("PO(ST {PATH} HTTP/1.1\r\nHost: a\r\n\r\n"), "method", 400, "the method must be a word"),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\r\n\r\n".to_owned(), "method", 400, "the method must be a word"),
        (format!("POST {PATH} HTTP/1.2\r\nHost: a\r\n\r\n"), "version", 400, "HTTP/1.1 or HTTP/1.0"),
        (format!("POST {PATH} HTTP/2.0\r\nHost: a\r\n\r\n"), "version", 400, "HTTP/1.1 or HTTP/1.0"),
        (format!("POST {PATH} {PATH} HTTP/1.1\r\nHost: a\r\n\r\n"), "version", 400, "HTTP/1.1 or HTTP/1.0"),
        (
            "POST no-slash:x:y HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "target",
            400,
            "the first line must have one target",
        ),
        (with_headers(101), "large", 431, "at most 64 KiB and 100 headers"),
        (lines(&format!("X: {}", "a".repeat(64 << 10))), "large", 431, "at most 64 KiB and 100 headers"),
    ]
}

fn counted(server: &Server, cause: &str) -> f64 {
    server.numbers()[&format!("attachd_heads_refused_total{{port=\"rest\",cause=\"{cause}\"}}")]
}

#[test]
fn a_head_that_cannot_be_read_is_refused_in_the_envelope_and_counted_by_cause() {
    let server = Server::start();
    for (head, cause, status, words) in refused() {
        let shown = head[..head.len().min(80)].escape_debug();
        for after_another in [false, true] {
            let before = counted(&server, cause);
            let mut connection = server.connect();
            if after_another {
                connection.assert_serves();
            }
            connection.send(head.as_bytes()).unwrap();
            let reply = connection.reply().unwrap_or_else(|| panic!("no reply to {shown}"));
            reply.assert_refusal(status, if status == 431 { LARGE } else { INVALID });
            assert!(reply.details().contains(words), "{shown}: {reply:?}");
            assert_eq!(reply.header("connection"), "close", "{shown}");
            assert!(!reply.header("date").is_empty(), "{shown}");
            assert!(connection.closed(), "{shown}");
            assert_eq!(counted(&server, cause), before + 1.0, "{shown}");
            let reason = if status == 431 { "HEAD_TOO_LARGE" } else { "INVALID_REQUEST" };
            assert_eq!(server.outcome(reply.header("x-request-id")), reason, "{shown}");
        }
        let logged = |line: &String| line.contains("\"DEBUG\"") && line.contains(&format!("\"cause\":\"{cause}\""));
        eventually("the cause is logged", || server.log().iter().any(logged));
    }
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn a_head_behind_another_request_on_the_wire_gets_its_envelope_after_that_ones_reply() {
    let server = Server::start();
    for (head, _, status, _) in refused() {
        let mut connection = server.connect();
        connection.send(&[honest().bytes(), honest().chunked(3).bytes(), head.into_bytes()].concat()).unwrap();
        assert_eq!(connection.reply().expect("a first reply").status, 201);
        assert_eq!(connection.reply().expect("a second reply").status, 201);
        assert_eq!(connection.reply().expect("a third reply").body["code"], status);
        assert!(connection.closed());
    }
}

#[test]
fn a_head_has_at_most_100_headers() {
    let server = Server::start();
    for (count, status) in [(99, 401), (100, 401), (101, 431)] {
        let mut connection = server.connect();
        connection.send(with_headers(count).as_bytes()).unwrap();
        assert_eq!(connection.reply().expect("a reply").body["code"], status, "{count}");
    }
}

#[test]
fn a_client_that_sends_much_after_a_head_that_cannot_be_read_still_reads_why() {
    let server = Server::start();
    let body = noise(40 << 20, 60);
    for head in ["POST / HTTP/9.9\r\n\r\n".to_owned(), with_headers(101)] {
        let mut connection = server.connect();
        connection.send(&[head.as_bytes(), &body].concat()).expect("all can be sent");
        let code = connection.reply().expect("a reply").body["code"].as_u64();
        assert!(matches!(code, Some(400 | 431)), "{code:?}");
        assert!(connection.closed());
    }
}

#[test]
fn a_head_that_was_begun_and_is_not_completed_in_time_is_told_so() {
    let limits = format!("max_upload_size = {MAX_UPLOAD}\nidle_timeout = \"1s\"");
    let server = Setup { limits, ..Setup::default() }.start();
    for after_another in [false, true] {
        let mut connection = server.connect();
        if after_another {
            connection.assert_serves();
        }
        connection.send(b"POST / HTTP/1.1\r\nHost: a\r\n").unwrap();
        let reply = connection.reply().expect("a reply");
        reply.assert_refusal(408, "The request did not arrive in time: the head was not complete in time");
        assert!(connection.closed());
    }
    assert_eq!(counted(&server, "slow"), 2.0);
    // A connection on which no head was begun is closed without a word.
    let mut idle = server.connect();
    idle.assert_serves();
    assert!(idle.reply().is_none());
    assert_eq!(counted(&server, "slow"), 2.0);
}

#[test]
fn an_upload_that_breaks_off_is_not_followed_by_words_of_the_library() {
    let server = Server::start();
    let ask = Ask::upload(1, 2, &Form::file(&noise(1000, 61))).chunked(100);
    let mut connection = server.connect();
    // A chunk whose size is no number, after the upload has begun.
    let broken = [&ask.head()[..], &ask.framed_body()[..3 * "64\r\n".len() + 3 * 102], b"zz\r\n"].concat();
    connection.send(&broken).unwrap();
    connection.reply().expect("a reply").assert_refusal(400, INVALID);
    assert!(connection.reply().is_none());
}

#[test]
fn the_admin_port_answers_a_head_that_cannot_be_read_without_a_body_and_counts_it() {
    let server = Server::start();
    let mut connection = Connection::open(server.admin);
    connection.send(b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n").unwrap();
    let reply = connection.reply().expect("a reply");
    assert_eq!((reply.status, &reply.body), (400, &Value::Null));
    let name = "attachd_heads_refused_total{port=\"admin\",cause=\"header\"}";
    // The library replies before it says why.
    eventually("it is counted", || server.numbers()[name] == 1.0);
}

#[test]
fn a_client_that_breaks_the_rules_of_http2_is_counted_on_each_port() {
    let server = Server::start();
    for (port, address) in [("rest", server.rest), ("grpc", server.grpc)] {
        let mut connection = Connection::open(address);
        connection.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        // A frame of data on the stream 0, where there is none.
        connection.send(&[&[0, 0, 0, 4, 0, 0, 0, 0, 0][..], &[0, 0, 1, 0, 0, 0, 0, 0, 0, b'x']].concat()).unwrap();
        let name = format!("attachd_heads_refused_total{{port=\"{port}\",cause=\"http2\"}}");
        eventually("it is counted", || server.numbers()[&name] == 1.0);
    }
}

#[test]
fn a_host_is_named_once_and_is_well_formed() {
    let server = Server::start();
    let ask = |line: &str, hosts: &str| {
        let honest = String::from_utf8(Ask::upload(1, 2, &Form::file(b"content")).bytes()).unwrap();
        honest.replace("Host: attachd\r\n", hosts).replace(&format!("POST {PATH} HTTP/1.1"), line).into_bytes()
    };
    let plain = format!("POST {PATH} HTTP/1.1");
    let absolute = |authority: &str| format!("POST http://{authority}{PATH} HTTP/1.1");
    for (line, hosts) in [
        (plain.clone(), "Host: a b\r\n"),
        (plain.clone(), "Host: a\r\nHost: b\r\n"),
        (plain.clone(), "Host: a\r\nHost: a\r\n"),
        (plain.clone(), "Host: a, b\r\n"),
        (plain.clone(), "Host: a,b\r\n"),
        (plain.clone(), "Host:\r\n"),
        (plain.clone(), "Host: \r\n"),
        (plain.clone(), ""),
        (plain.clone(), "Host: user@a\r\n"),
        (plain.clone(), "Host: user:secret@a\r\n"),
        (plain.clone(), "Host: a/b\r\n"),
        (plain.clone(), "Host: http://a\r\n"),
        (plain.clone(), "Host: a:x\r\n"),
        (plain.clone(), "Host: a:65536\r\n"),
        (plain.clone(), "Host: [::1\r\n"),
        (plain.clone(), "Host: <a>\r\n"),
        (plain.clone(), "Host: \"a\"\r\n"),
        (plain.clone(), "Host: caf\u{e9}\r\n"),
        (plain.replace("1.1", "1.0"), "Host: a b\r\n"),
        (plain.replace("1.1", "1.0"), "Host: a\r\nHost: a\r\n"),
        (absolute("a"), "Host: b\r\n"),
        (absolute("a"), "Host: a:81\r\n"),
        (absolute("a"), ""),
        (absolute("user@a"), "Host: a\r\n"),
    ] {
        let mut connection = server.connect();
        connection.send(&ask(&line, hosts)).unwrap();
        let reply = connection.reply().unwrap_or_else(|| panic!("no reply to {line} {hosts}"));
        reply.assert_refusal(400, INVALID);
        let words = reply.details().to_lowercase();
        assert!(words.contains("host") && !words.contains("secret"), "{line} {hosts}: {reply:?}");
    }
    assert!(server.objects().is_empty());
    for (line, hosts) in [
        (plain.clone(), "Host: attachd.example.com:8080\r\n"),
        (plain.clone(), "Host: [::1]:8080\r\n"),
        (plain.clone(), "Host: 127.0.0.1\r\n"),
        (plain.clone(), "host: under_score\r\n"),
        (plain.replace("1.1", "1.0"), ""),
        (absolute("a"), "Host: a\r\n"),
        (absolute("a"), "Host: A:80\r\n"),
        (absolute("a:81"), "Host: a:81\r\n"),
    ] {
        let mut connection = server.connect();
        connection.send(&ask(&line, hosts)).unwrap();
        assert_eq!(connection.reply().expect("a reply").status, 201, "{line} {hosts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http2_the_host_and_the_authority_are_the_same() {
    let server = Server::start();
    let stream = tokio::net::TcpStream::connect(server.rest).await.unwrap();
    let (mut client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (uri, hosts, status) in [
        (format!("http://attachd{PATH}"), &[][..], 401),
        (format!("http://attachd{PATH}"), &["attachd"], 401),
        (format!("http://attachd{PATH}"), &["ATTACHD:80"], 401),
        (format!("http://attachd{PATH}"), &["other"], 400),
        (format!("http://attachd{PATH}"), &["attachd", "attachd"], 400),
        (format!("http://attachd{PATH}"), &["a b"], 400),
        (format!("http://user@attachd{PATH}"), &[], 400),
    ] {
        let mut request = http::Request::post(&uri);
        for host in hosts {
            request = request.header("host", *host);
        }
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let reply = tokio::time::timeout(Duration::from_secs(20), client.send_request(request)).await.unwrap().unwrap();
        let (head, body) = reply.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!((head.status.as_u16(), body["code"].as_u64()), (status, Some(u64::from(status))), "{uri} {hosts:?}");
    }
}
