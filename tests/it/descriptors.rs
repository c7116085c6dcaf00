//! Places of uploads and downloads, and the file descriptors that they and the connections share with the admin port.

use std::net::TcpStream;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{DownloadAttachmentRequest, UploadAttachmentRequest};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Code, Request};

use crate::harness::{
    Ask, Connection, Form, GrpcRefusal, Server, Setup, authorised, chunk, eventually, finish, header, noise, token,
};

const REFUSED: &str = "attachd_limited_total{limit=\"limits.max_uploads\"}";

/// An upload over REST that has begun and waits for the rest of its body. Each is of a client of its own: one alone does not get
/// all places.
fn begun(server: &Server, attachment: i64) -> (Connection, Vec<u8>) {
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[attachment]), attachment, attachment, &Form::file(&noise(5000, 1)), 2000);
    (connection, rest)
}

/// An upload over gRPC that has begun, and what it goes on with.
async fn begun_over_grpc(
    server: &Server,
    attachment: i64,
) -> (mpsc::UnboundedSender<Message>, tokio::task::JoinHandle<Result<(), GrpcRefusal>>) {
    let (send, messages) = mpsc::unbounded_channel();
    send.send(Message::Header(header(attachment, attachment))).unwrap();
    send.send(chunk(noise(2000, 1))).unwrap();
    let messages = UnboundedReceiverStream::new(messages);
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let request = authorised(Request::new(messages), &token(&[attachment]));
    let mut client = server.channel().await;
    let call = tokio::spawn(async move { Ok(client.upload_attachment(request).await.map(drop)?) });
    (send, call)
}

fn in_flight(server: &Server, expected: usize) {
    eventually("so many uploads are under way", || server.readiness()["uploads_in_flight"] == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_uploads_as_permitted_are_taken_at_once_and_one_more_is_refused() {
    let limits = "max_uploads = 3\n".to_owned();
    let server = Setup { limits, ..Setup::default() }.start();
    let one = |attachment| Ask::upload(1, attachment, &Form::file(b"one more"));
    let (mut first, rest) = begun(&server, 1);
    let (send, second) = begun_over_grpc(&server, 2).await;
    in_flight(&server, 2);
    // Two and one are as many as permitted.
    assert_eq!(server.connect().ask(&one(3)).status, 201);
    in_flight(&server, 2);
    let (third, _) = begun(&server, 3);
    in_flight(&server, 3);
    for _ in 0..20 {
        // It is refused without being asked for its body.
        let mut connection = server.connect();
        connection.send(&one(4).with("Expect", "100-continue").head()).unwrap();
        let reply = connection.reply().expect("a reply");
        reply.assert_refusal(503, "The service is at its limit, try again later");
        let seconds: u64 = reply.header("retry-after").parse().unwrap();
        assert!((1..=30).contains(&seconds), "{reply:?}");
        let messages = vec![Message::Header(header(1, 4)), chunk("x"), finish()];
        let refusal = server.grpc_upload(&token(&[1]), messages).await.expect_err("there is no place");
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "OVERLOADED"), "{refusal:?}");
        assert!((1..=30).contains(&refusal.retry_after.unwrap().as_secs()), "{refusal:?}");
    }
    assert_eq!(server.numbers()[REFUSED], 40.0);
    // All else is served.
    assert_eq!(server.connect().ask(&Ask::download(1, 3)).bytes, b"one more");

    // A client that goes away leaves its place, and so does an upload that ends.
    drop(third);
    in_flight(&server, 2);
    assert_eq!(server.connect().ask(&one(4)).status, 201);
    first.send(&rest).unwrap();
    assert_eq!(first.reply().unwrap().status, 201);
    send.send(finish()).unwrap();
    drop(send);
    second.await.unwrap().unwrap();
    in_flight(&server, 0);
    let held: Vec<_> = (1..=3).map(|attachment| begun(&server, attachment)).collect();
    in_flight(&server, 3);
    // The connection ends with that, so that the next request can reach another replica.
    let mut connection = server.connect();
    let reply = connection.ask(&one(4));
    assert_eq!((reply.status, reply.header("connection")), (503, "close"));
    assert!(connection.closed());
    drop(held);
    in_flight(&server, 0);
    let errors: Vec<_> = server.log().into_iter().filter(|line| line.contains("\"level\":\"ERROR\"")).collect();
    assert!(errors.is_empty(), "{errors:?}");
}

/// A server that may have so many descriptors: at first, and at most.
fn start_with(descriptors: &str, limits: &str) -> Server {
    let wrapper = vec!["prlimit".to_owned(), format!("--nofile={descriptors}")];
    Setup { wrapper, limits: limits.to_owned(), ..Setup::default() }.start()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_port_answers_while_uploads_and_connections_use_all_that_they_may() {
    let server = start_with("300:300", "");
    let told = server.events("configuration");
    let told = told.iter().find(|event| event["key"] == "limits.max_connections").expect("a warning");
    let why = told["why"].as_str().unwrap();
    let before = |words: &str| {
        let (number, _) = why.split_once(words).expect("the number is named");
        number.rsplit(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let (connections, uploads) = (before(" connections on each port"), before(" uploads are served"));
    assert!(why.contains("may have 300:") && connections > 20 && uploads > 10, "{why}");
    let idle = server.numbers()["process_open_fds"];

    let mut held: Vec<_> = (0..connections + 20).map(|index| begun(&server, index as i64 + 1).0).collect();
    let silent: Vec<_> = (0..connections + 20).map(|_| TcpStream::connect(server.grpc).unwrap()).collect();
    in_flight(&server, uploads);
    eventually("each has its file", || server.temporary().len() == uploads);
    eventually("all descriptors are used", || {
        let numbers = server.numbers();
        let open = |port| numbers[&format!("attachd_connections_open{{port=\"{port}\"}}")];
        open("grpc") == connections as f64 && open("rest") >= uploads as f64
    });
    let probe = |path: &str| Connection::open(server.admin).request("GET", path, &[], b"").status;
    for path in ["/livez", "/startupz", "/readyz", "/metrics"] {
        for _ in 0..10 {
            assert_eq!(probe(path), 200, "{path}");
        }
    }
    let open = server.numbers()["process_open_fds"];
    assert!(open <= 300.0 && open >= (2 * connections + uploads) as f64, "{open}");
    drop(silent);
    let refused = held.iter_mut().filter_map(|connection| {
        connection.writer().set_nonblocking(true).unwrap();
        let arrived = connection.writer().peek(&mut [0]);
        connection.writer().set_nonblocking(false).unwrap();
        arrived.ok()
    });
    assert!(refused.count() > 0, "those past the limit are refused");
    drop(held);
    in_flight(&server, 0);
    eventually("the descriptors come back", || server.numbers()["process_open_fds"] <= idle + 4.0);
    assert_eq!(server.connect().ask(&Ask::upload(1, 1, &Form::file(b"x"))).status, 201);
    assert!(!server.log().iter().any(|line| line.contains("os error 24")), "descriptors ran out");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_that_the_descriptors_permit_are_kept_and_used_to_the_last() {
    // 64 for the process and 18 for the admin port, 2 × 40 for connections, 3 × 40 for uploads, and 18 for downloads.
    let server = start_with("300:300", "max_connections = 40\nmax_uploads = 40\n");
    assert!(server.events("configuration").iter().all(|event| event["key"] != "limits.max_uploads"));
    let held: Vec<_> = (0..20).map(|index| begun(&server, index + 1)).collect();
    let mut streams = Vec::new();
    for index in 20..40 {
        streams.push(begun_over_grpc(&server, index + 1).await);
    }
    in_flight(&server, 40);
    assert_eq!(server.connect().ask(&Ask::upload(1, 99, &Form::file(b"x"))).status, 503);
    assert_eq!(Connection::open(server.admin).request("GET", "/readyz", &[], b"").status, 200);
    for (mut connection, rest) in held {
        connection.send(&rest).unwrap();
        assert_eq!(connection.reply().unwrap().status, 201);
    }
    for (send, call) in streams {
        send.send(finish()).unwrap();
        drop(send);
        call.await.unwrap().unwrap();
    }
    server.assert_tidy();
}

#[test]
fn the_limit_of_open_files_is_raised_as_far_as_the_process_may() {
    let server = start_with("64:4096", "");
    assert_eq!(server.numbers()["process_max_fds"], 4096.0);
}

#[test]
fn one_client_leaves_places_to_others_and_gets_three_quarters_of_them() {
    let server = Setup { limits: "max_uploads = 40\n".to_owned(), ..Setup::default() }.start();
    let form = Form::file(&noise(5000, 1));
    let begin = |client: i64, attachment: i64| {
        let mut connection = server.connect();
        connection.begin(&token(&[client]), client, attachment, &form, 2000);
        connection
    };
    let held: Vec<_> = (1..=30).map(|attachment| begin(1, attachment)).collect();
    in_flight(&server, 30);
    assert_eq!(server.connect().ask(&Ask::upload(1, 31, &form)).status, 503);
    for client in 2..=5 {
        assert_eq!(server.connect().ask(&Ask::upload(client, 1, &form)).status, 201);
    }
    let _other = begin(2, 2);
    in_flight(&server, 31);
    drop(held);
    in_flight(&server, 1);
    assert_eq!(server.connect().ask(&Ask::upload(1, 31, &form)).status, 201);
}

/// Attachments of some clients that are too large for what the system holds of a connection that is not read.
fn stored(server: &Server, clients: std::ops::RangeInclusive<i64>) {
    let form = Form::file(&noise(16 << 20, 2));
    for client in clients {
        assert_eq!(server.connect().ask(&Ask::upload(client, 1, &form)).status, 201);
    }
}

/// A download that is not read on, and the status that it begins with.
fn begun_download(server: &Server, client: i64) -> (Connection, u16) {
    let mut connection = server.connect();
    connection.send(&Ask::download(client, 1).bytes()).unwrap();
    let status = connection.reply_without_body().expect("a head").status;
    (connection, status)
}

/// The same, which is served.
fn served_download(server: &Server, client: i64) -> Connection {
    let (connection, status) = begun_download(server, client);
    assert_eq!(status, 200);
    connection
}

fn downloads_in_flight(server: &Server, expected: usize) {
    eventually("so many downloads are under way", || server.readiness()["downloads_in_flight"] == expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_downloads_as_permitted_are_served_at_once_and_one_more_is_refused() {
    let limits = "max_downloads = 3\nmax_upload_size = \"64MiB\"\n".to_owned();
    let server = Setup { limits, ..Setup::default() }.start();
    stored(&server, 1..=4);
    let refused = "attachd_limited_total{limit=\"limits.max_downloads\"}";
    let mut held: Vec<_> = (1..=2).map(|client| served_download(&server, client)).collect();
    // One more is served to its end, and leaves its place.
    assert_eq!(server.connect().ask(&Ask::download(3, 1)).status, 200);
    downloads_in_flight(&server, 2);
    held.push(served_download(&server, 3));
    assert_eq!(server.numbers()[refused], 0.0);
    let reply = server.connect().ask(&Ask::download(4, 1));
    reply.assert_refusal(503, "The service is at its limit, try again later");
    let seconds: u64 = reply.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&seconds), "{reply:?}");
    let refusal = download(&server, 4).await.expect_err("there is no place");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unavailable, "OVERLOADED"), "{refusal:?}");
    assert_eq!(server.numbers()[refused], 2.0);
    // Uploads and look-ups are served.
    assert_eq!(server.connect().ask(&Ask::upload(4, 2, &Form::file(b"x"))).status, 201);
    let mut look_up = server.connect();
    look_up.send(&Ask::download(4, 1).method("HEAD").bytes()).unwrap();
    assert_eq!(look_up.reply_without_body().expect("a head").status, 200);
    held.pop();
    downloads_in_flight(&server, 2);
    download(&server, 4).await.unwrap();
    downloads_in_flight(&server, 2);
    assert_eq!(server.connect().ask(&Ask::download(4, 1)).status, 200);
}

/// A download over gRPC to its end.
async fn download(server: &Server, client: i64) -> Result<(), GrpcRefusal> {
    let request = DownloadAttachmentRequest { client_id: client, attachment_id: 1, ..Default::default() };
    let request = authorised(Request::new(request), &token(&[client]));
    let mut messages = server.channel().await.download_attachment(request).await?.into_inner();
    while messages.message().await?.is_some() {}
    Ok(())
}

#[test]
fn open_downloads_leave_descriptors_to_uploads_and_to_the_admin_port() {
    let server = start_with("300:300", "max_connections = 60\nmax_uploads = 20\nmax_upload_size = \"64MiB\"\n");
    // 64 for the process and 18 for the admin port, 2 × 60 for connections, 3 × 20 for uploads.
    let places = 300 - 64 - 18 - 120 - 60;
    stored(&server, 1..=2);
    let idle = server.numbers()["process_open_fds"];
    let begun: Vec<_> = (0..55).map(|index| begun_download(&server, index % 2 + 1)).collect();
    let (held, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(|(_, status)| *status == 200);
    assert!(refused.iter().all(|(_, status)| *status == 503));
    assert!((places - 5..=places).contains(&held.len()), "{} of {places} places", held.len());
    downloads_in_flight(&server, held.len());
    assert!(server.numbers()["process_open_fds"] >= idle + held.len() as f64 * 2.0);
    drop(refused);
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(&noise(1 << 20, 3)))).status, 201);
    assert_eq!(Connection::open(server.admin).request("GET", "/readyz", &[], b"").status, 200);
    drop(held);
    downloads_in_flight(&server, 0);
    eventually("the descriptors come back", || server.numbers()["process_open_fds"] <= idle + 4.0);
    assert!(!server.log().iter().any(|line| line.contains("os error 24")), "descriptors ran out");
}
