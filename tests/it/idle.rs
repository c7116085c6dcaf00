//! Connections whose clients do nothing: they are ended, and those that do something are not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::Request;
use tokio::time::timeout;

use crate::harness::{
    Ask, Form, RawConnection, Server, Setup, chunk, eventually, finish, framed, header, noise, run, token,
};

/// Longer than any time that a test waits for.
const LONG: Duration = Duration::from_secs(60);

/// A server with short times.
fn server(limits: &str) -> Server {
    Setup { limits: format!("{limits}\n"), ..Setup::default() }.start()
}

fn evicted(server: &Server, port: &str, state: &str) -> f64 {
    server.numbers()[&format!("attachd_connections_evicted_total{{port=\"{port}\",state=\"{state}\"}}")]
}

fn open(server: &Server, port: &str) -> f64 {
    server.numbers()[&format!("attachd_connections_open{{port=\"{port}\"}}")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http2_that_asks_for_nothing_is_ended_though_it_answers_pings() {
    let server = server("idle_timeout = \"1s\"");
    for (port, address) in [("rest", server.rest), ("grpc", server.grpc)] {
        // Its library answers every ping, and sends some.
        let silent = RawConnection::open(address).await;
        timeout(LONG, silent.ended()).await.expect("it is ended");
        let mut asks = RawConnection::open(address).await;
        asks.ask(Request::post("http://attachd/nowhere").body(Vec::new()).unwrap()).await;
        timeout(LONG, asks.ended()).await.expect("it is ended after its request");
        assert_eq!(evicted(&server, port, "idle"), 2.0, "{port}");
        eventually("nothing is open", || open(&server, port) == 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_http2_with_a_request_goes_on_however_little_comes() {
    let server = server("idle_timeout = \"1s\"\nmin_rate = 0");
    let mut connection = RawConnection::open(server.grpc).await;
    let mut upload = connection.upload(&token(&[1]), &[]).await;
    upload.send(framed(Message::Header(header(1, 1))));
    for _ in 0..6 {
        // Four times as long as a connection without a request would have, in all.
        tokio::time::sleep(Duration::from_millis(700)).await;
        upload.send(framed(chunk(b"x".to_vec())));
    }
    upload.send(framed(finish()));
    upload.end();
    assert_eq!(upload.reply().await.expect("it is stored").size, Some(6));
    assert_eq!(evicted(&server, "grpc", "idle"), 0.0);
}

/// Sends requests and reads no reply, until the server takes no more or has closed the connection.
fn asks_and_does_not_read(address: SocketAddr, requests: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    while stream.write_all(requests).is_ok() {}
    stream
}

#[test]
fn a_client_that_reads_no_reply_is_cut_off_on_every_port() {
    let server = server("write_timeout = \"1s\"");
    let described = Ask::json("GET", 1, "/openapi.json", "").bytes();
    let metrics = b"GET /metrics HTTP/1.1\r\nHost: attachd\r\n\r\n".to_vec();
    for (port, address, request) in [("rest", server.rest, described), ("admin", server.admin, metrics)] {
        let held = asks_and_does_not_read(address, &request);
        eventually("it is cut off", || evicted(&server, port, "stalled") == 1.0);
        drop(held);
    }
    eventually("nothing is open", || open(&server, "rest") == 0.0);
    // One that reads slowly goes on.
    assert_eq!(server.connect().ask(&Ask::json("GET", 1, "/openapi.json", "")).status, 200);
}

/// A connection of HTTP/2 whose streams have windows of so many bytes at first.
async fn narrow(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let handshake = h2::client::Builder::new().initial_window_size(window).handshake(socket).await;
    let (requests, connection) = handshake.expect("the port speaks HTTP/2");
    tokio::spawn(async move {
        // How the connection ends is seen by the streams.
        let _ = connection.await;
    });
    requests
}

/// Asks for what has a body, and returns the status and the body.
async fn answered(requests: &mut SendRequest<Bytes>, path: &str) -> (u16, RecvStream) {
    *requests = requests.clone().ready().await.expect("the connection is open");
    let request =
        Request::get(format!("http://attachd{path}")).header("authorization", format!("Bearer {}", token(&[1])));
    let request = request.body(()).unwrap();
    let (reply, _) = requests.send_request(request, true).unwrap();
    let (head, body) = timeout(LONG, reply).await.expect("there is a reply").unwrap().into_parts();
    (head.status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_whose_window_stays_closed_is_reset_and_its_connection_goes_on() {
    let server = server("write_timeout = \"1s\"\nmin_rate = \"0B\"");
    for (port, address, path, status) in [
        ("rest", server.rest, "/openapi.json", 200),
        ("grpc", server.grpc, "/nowhere", 415),
        ("admin", server.admin, "/metrics", 200),
    ] {
        let mut requests = narrow(address, 0).await;
        for _ in 0..2 {
            let (told, mut body) = answered(&mut requests, path).await;
            assert_eq!(told, status, "{port}");
            let ended = timeout(LONG, body.data()).await.expect("it is ended");
            assert_eq!(ended.unwrap().unwrap_err().reason(), Some(Reason::CANCEL), "{port}");
        }
        assert_eq!(evicted(&server, port, "stalled"), 0.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_one_byte_of_all_its_response_is_reset_and_holds_nothing() {
    let server = server("write_timeout = \"1s\"\nmin_rate = \"0B\"");
    let bytes = noise(100_000, 1);
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(&bytes))).status, 201);
    let download = "/api/v2/clients/1/attachments/2/content";
    for path in ["/openapi.json", download] {
        let mut requests = narrow(server.rest, 1).await;
        for _ in 0..2 {
            let (told, mut body) = answered(&mut requests, path).await;
            assert_eq!(told, 200, "{path}");
            let taken = timeout(LONG, body.data()).await.expect("there is a byte").unwrap();
            assert_eq!(taken.expect("a byte").len(), 1, "{path}");
            let ended = timeout(LONG, body.data()).await.expect("it is ended");
            assert_eq!(ended.unwrap().unwrap_err().reason(), Some(Reason::CANCEL), "{path}");
        }
    }
    eventually("no memory is held", || server.numbers()["attachd_download_budget_used_bytes"] == 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_nothing_of_much_content_has_the_time_of_a_small_part() {
    // 32 KiB, with which a download begins, would have 64 s.
    let server = server("write_timeout = \"1s\"\nmin_rate = \"512B\"");
    let bytes = noise(1 << 20, 1);
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(&bytes))).status, 201);
    for window in [0, 20_000] {
        let mut requests = narrow(server.rest, window).await;
        let (told, mut body) = answered(&mut requests, "/api/v2/clients/1/attachments/2/content").await;
        assert_eq!(told, 200);
        let ended = timeout(LONG, async {
            loop {
                if let Err(error) = body.data().await.expect("it does not end by itself") {
                    break error;
                }
            }
        });
        assert_eq!(ended.await.expect("it is ended").reason(), Some(Reason::CANCEL), "{window}");
    }
    // A client that reads gets all of it.
    let mut requests = narrow(server.rest, 20_000).await;
    let (_, mut body) = answered(&mut requests, "/api/v2/clients/1/attachments/2/content").await;
    let mut got = Vec::new();
    while let Some(part) = timeout(LONG, body.data()).await.expect("it goes on") {
        let part = part.expect("it is not reset");
        got.extend_from_slice(&part);
        body.flow_control().release_capacity(part.len()).unwrap();
    }
    assert!(got == bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_its_window_little_by_little_gets_the_whole_reply() {
    let server = server("write_timeout = \"1s\"");
    let mut requests = narrow(server.rest, 1000).await;
    let (_, mut body) = answered(&mut requests, "/openapi.json").await;
    let (mut got, mut slowly) = (Vec::new(), 0);
    while let Some(bytes) = timeout(LONG, body.data()).await.expect("it goes on") {
        let bytes = bytes.expect("it is not reset");
        got.extend_from_slice(&bytes);
        // Longer than a client may take nothing, in all.
        if slowly < 4 {
            slowly += 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        body.flow_control().release_capacity(bytes.len()).unwrap();
    }
    let whole = server.connect().ask(&Ask::json("GET", 1, "/openapi.json", ""));
    assert!(got == whole.bytes && slowly == 4);
}

#[test]
fn the_time_for_a_reply_is_more_than_zero() {
    let folder = tempfile::tempdir().unwrap();
    for (time, fits) in [("0s", false), ("1ms", true)] {
        let limits = format!("write_timeout = \"{time}\"\n");
        let config = Setup { limits, ..Setup::default() }.write(folder.path());
        let ended = run(&["check", "--config", config.to_str().unwrap()]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(if fits { 0 } else { 2 }), "{time}: {said}");
        assert!(fits || said.contains("limits.write_timeout: must be more than zero"), "{said}");
    }
}
