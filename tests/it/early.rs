//! Replies that come before the request has ended: they are there to be read, and they ask for nothing. And clients that
//! say nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use crate::harness::{Ask, Connection, Form, MAX_UPLOAD, Server, Setup, eventually, noise};

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

fn with_limits(limits: &str) -> Server {
    Setup { limits: format!("max_upload_size = {MAX_UPLOAD}\n{limits}"), ..Setup::default() }.start()
}

#[test]
fn a_client_that_asks_whether_to_send_is_refused_without_being_asked_to() {
    let server = Server::start();
    for (ask, status) in [
        (upload().by("a.b.c"), 401),
        (upload().without("Authorization"), 401),
        (upload().path("?project_id=x"), 400),
        (upload().by(&crate::harness::token(&[7])), 403),
        (upload().path("?project_id=5").at("/nowhere"), 404),
        (upload().method("PATCH"), 405),
        (upload().with("Content-Type", "text/plain"), 400),
        (upload().with("Content-Encoding", "gzip"), 400),
        (upload().with("Repr-Digest", "nonsense"), 400),
        (upload().with("If-Match", "*"), 412),
        (upload().with("If-Match", "nonsense"), 400),
    ] {
        let mut connection = server.connect();
        connection.send(&ask.with("Expect", "100-continue").head()).unwrap();
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(server.objects().is_empty());
    }
    server.connect().assert_serves();
}

#[test]
fn a_client_that_asks_whether_to_send_is_asked_to_and_then_served_and_may_go_on() {
    let server = Server::start();
    let mut connection = server.connect();
    for ask in [upload(), upload().chunked(3)] {
        connection.send(&ask.clone().with("Expect", "100-continue").head()).unwrap();
        assert_eq!(connection.reply().expect("leave to send").status, 100);
        connection.send(&ask.framed_body()).unwrap();
        assert_eq!(connection.reply().expect("a reply").status, 201);
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn a_client_that_was_asked_to_send_and_is_refused_midway_can_read_why() {
    let server = with_limits("");
    let mut connection = server.connect();
    let ask = Ask::upload(1, 2, &Form::file(&noise(MAX_UPLOAD + (24 << 20), 20))).chunked(1 << 20);
    connection.send(&ask.clone().with("Expect", "100-continue").head()).unwrap();
    assert_eq!(connection.reply().expect("leave to send").status, 100);
    // Such a client does send, so what it sends has to be read, or it would see a reset instead of the reply.
    connection.send(&ask.framed_body()).expect("all can be sent");
    let reply = connection.reply().expect("a reply");
    reply.assert_refusal(413, "The upload is larger than permitted");
    assert_eq!(reply.header("connection"), "close");
    assert!(server.objects().is_empty());
    assert!(connection.closed());
}

#[test]
fn a_client_that_sends_all_before_it_reads_reads_its_refusal() {
    let server = Server::start();
    let form = Form::file(&noise(100 << 20, 21));
    for (ask, status) in [
        (Ask::upload(1, 2, &form).by("a.b.c"), 401),
        (Ask::upload(1, 2, &form).by(&crate::harness::token(&[7])).chunked(1 << 20), 403),
        (Ask::upload(1, 2, &form).at("/nowhere"), 404),
        (Ask::upload(1, 2, &form), 413),
        (Ask::upload(1, 2, &form).chunked(1 << 20), 413),
    ] {
        let mut connection = server.connect();
        // Like many clients, reads nothing before it has sent all.
        connection.send(&ask.bytes()).expect("all can be sent");
        let reply = connection.reply().expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (status, "close"), "{reply:?}");
        assert!(server.objects().is_empty());
        assert!(connection.closed());
    }
    server.connect().assert_serves();
}

/// How many bytes of a refused body are read so that the connection can go on.
const QUICK: usize = 8 << 20;

#[test]
fn up_to_8_mib_to_come_the_connection_goes_on_and_past_them_it_is_closed() {
    let server = Server::start();
    let overhead = Form::file(b"").bytes().len();
    for (size, header) in [(QUICK - 1, ""), (QUICK, ""), (QUICK + 1, "close")] {
        let mut connection = server.connect();
        let ask = Ask::upload(1, 2, &Form::file(&noise(size - overhead, 27))).by("a.b.c");
        connection.send(&ask.bytes()).expect("all can be sent");
        let reply = connection.reply().expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (401, header), "{size}: {reply:?}");
        if header.is_empty() {
            connection.assert_serves();
        } else {
            assert!(connection.closed());
        }
    }
}

/// The limit of the servers that refuse early, past which they have much to come.
const LIMIT: usize = 16 << 20;

/// Requests that are refused while more of their body is to come, each with what has been sent of it by then.
fn refused_early(server: &Server) -> Vec<(u16, Vec<u8>)> {
    assert_eq!(server.connect().ask(&Ask::upload(1, 3, &Form::file(b"first"))).status, 201);
    let much = noise(50 << 20, 28);
    let form = Form::file(&much);
    let upload = |attachment| Ask::upload(1, attachment, &form);
    let foreign = crate::harness::token(&[7]);
    let unread = [
        (401, upload(2).by("a.b.c")),
        (401, upload(2).without("Authorization")),
        (400, upload(2).path("?project_id=x")),
        (400, upload(2).with("Content-Type", "text/plain")),
        (400, upload(2).with("Host", "a b")),
        (403, upload(2).by(&foreign)),
        (404, upload(2).at("/nowhere")),
        (404, upload(3).path("?project_id=5")),
        (405, upload(2).method("PATCH")),
        (412, upload(3).with("If-None-Match", "*")),
    ];
    let mut begun = Vec::new();
    for (status, ask) in unread {
        for ask in [ask.clone(), ask.chunked(1 << 20)] {
            begun.push((status, [&ask.head()[..], &ask.framed_body()[..1000]].concat()));
        }
    }
    begun.push((413, upload(2).head()));
    // In the middle of the body: too much of it, and a part that is not expected.
    let past = upload(2).chunked(1 << 20);
    begun.push((413, [past.head(), past.framed_body()[..LIMIT + (2 << 20)].to_vec()].concat()));
    let other = Form::default().part("Content-Disposition: form-data; name=\"other\"", &much);
    let ask = Ask::upload(1, 2, &other).chunked(1 << 20);
    begun.push((400, [&ask.head()[..], &ask.framed_body()[..100 << 10]].concat()));
    // Declared as no more than may come, and malformed at its beginning.
    let ask = Ask::upload(1, 2, &form).with("Content-Length", &(LIMIT - 1).to_string());
    begun.push((400, [ask.head(), vec![b'x'; 100 << 10]].concat()));
    begun
}

#[test]
fn a_client_that_has_much_to_send_and_stops_reads_its_refusal_and_the_end_at_once() {
    let server = Setup { limits: format!("max_upload_size = {LIMIT}"), ..Setup::default() }.start();
    for (status, bytes) in refused_early(&server) {
        let began = Instant::now();
        let mut connection = server.connect();
        connection.send(&bytes).expect("the beginning can be sent");
        let reply = connection.reply().expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (status, "close"), "{reply:?}");
        // It neither sends nor closes, and sees that nothing more will come.
        assert!(connection.closed());
        // Far less than `limits.drain_time`.
        assert!(began.elapsed() < Duration::from_secs(10), "{status}: {:?}", began.elapsed());
    }
    server.connect().assert_serves();
}

#[test]
fn a_client_that_never_stops_sending_reads_its_refusal_and_the_end_at_once() {
    let server = Setup { limits: format!("max_upload_size = {LIMIT}"), ..Setup::default() }.start();
    for (status, bytes) in refused_early(&server) {
        let began = Instant::now();
        let mut connection = server.connect();
        connection.send(&bytes).expect("the beginning can be sent");
        let mut writer = connection.writer();
        let sender = std::thread::spawn(move || while writer.write_all(&[b'x'; 4096]).is_ok() {});
        let reply = connection.reply().expect("a reply");
        assert_eq!((reply.status, reply.header("connection")), (status, "close"), "{reply:?}");
        assert!(connection.closed());
        assert!(began.elapsed() < Duration::from_secs(10), "{status}: {:?}", began.elapsed());
        connection.writer().shutdown(Shutdown::Both).unwrap();
        sender.join().unwrap();
    }
    server.connect().assert_serves();
}

#[test]
fn past_the_bytes_that_are_drained_the_connection_is_closed_and_the_reply_was_there() {
    let server = with_limits("drain_bytes = \"64KiB\"");
    let mut connection = server.connect();
    let ask = Ask::upload(1, 2, &Form::file(&noise(4 << 20, 22))).by("a.b.c");
    connection.send(&ask.head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(401, "JWT token invalid");
    let body = ask.framed_body();
    let sent = body.chunks(4096).all(|piece| connection.send(piece).is_ok());
    assert!(!sent || connection.closed(), "a body past the limit was taken");
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn up_to_the_bytes_that_are_drained_the_connection_goes_on() {
    let server = with_limits("drain_bytes = \"64KiB\"");
    let ask = Ask::upload(1, 2, &Form::file(&noise(60 << 10, 23))).by("a.b.c");
    for ask in [ask.clone(), ask.chunked(1000)] {
        server.assert_refused(&ask, 401, "JWT token invalid");
    }
}

#[test]
fn past_the_time_in_which_is_drained_the_connection_is_closed_and_the_reply_was_there() {
    let server = with_limits("drain_time = \"300ms\"");
    let mut connection = server.connect();
    let ask = upload().by("a.b.c");
    connection.send(&ask.head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(401, "JWT token invalid");
    // The rest of the body never comes.
    assert!(connection.closed());
    server.connect().assert_serves();
}

/// A client that has its refusal, and of which the server reads what it is still to send.
fn drained(server: &Server, ask: &Ask) -> Connection {
    let mut connection = server.connect();
    connection.send(&ask.head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(401, "JWT token invalid");
    connection
}

/// What a limit has ended.
fn limited(server: &Server, key: &str) -> f64 {
    server.numbers()[&format!("attachd_limited_total{{limit=\"limits.{key}\"}}")]
}

#[test]
fn past_so_many_that_are_drained_the_oldest_is_closed_and_the_others_go_on() {
    let server = with_limits("max_drains = 2");
    let (small, large) = (upload().by("a.b.c"), Ask::upload(1, 2, &Form::file(&noise(9 << 20, 27))).by("a.b.c"));
    let [mut first, mut second] = [(); 2].map(|()| drained(&server, &small));
    assert_eq!(limited(&server, "max_drains"), 0.0);
    let mut third = drained(&server, &small);
    assert!(first.closed());
    assert_eq!(limited(&server, "max_drains"), 1.0);
    // One that has sent all makes room.
    third.send(&small.framed_body()).unwrap();
    third.assert_serves();
    // Connections that are about to be closed count as well.
    let closing = [(); 2].map(|()| drained(&server, &large));
    assert!(second.closed());
    assert_eq!(limited(&server, "max_drains"), 2.0);
    for mut connection in closing {
        connection.send(&large.framed_body()).unwrap();
        assert!(connection.closed());
    }
    server.connect().assert_serves();
}

#[test]
fn past_the_bytes_a_second_that_are_drained_they_are_read_more_slowly() {
    let server = with_limits("drain_bytes_per_second = \"1MiB\"\ndrain_time = \"4s\"");
    let small = upload().by("a.b.c");
    let mut connection = drained(&server, &small);
    connection.send(&small.framed_body()).unwrap();
    connection.assert_serves();
    assert_eq!(limited(&server, "drain_bytes_per_second"), 0.0);
    // It takes about a second, and the connection goes on.
    let more = Ask::upload(1, 2, &Form::file(&noise(2 << 20, 28))).by("a.b.c");
    let mut connection = drained(&server, &more);
    connection.send(&more.framed_body()).unwrap();
    connection.assert_serves();
    assert_eq!(limited(&server, "drain_bytes_per_second"), 1.0);
    // What would take longer than its time is closed.
    let large = Ask::upload(1, 2, &Form::file(&noise(64 << 20, 28))).by("a.b.c");
    let mut connection = drained(&server, &large);
    let sent = large.framed_body().chunks(4096).all(|piece| connection.send(piece).is_ok());
    assert!(!sent && connection.closed());
    assert_eq!(limited(&server, "drain_bytes_per_second"), 2.0);
    server.connect().assert_serves();
}

/// Whether the server closes the connection, having said nothing but what `permitted` holds.
fn closes(stream: &mut TcpStream, permitted: impl Fn(&[u8]) -> bool) -> bool {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return permitted(&said),
            Ok(length) => said.extend_from_slice(&piece[..length]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return permitted(&said),
            Err(error) => panic!("the connection is left open: {error}"),
        }
    }
}

#[test]
fn a_connection_on_which_no_whole_head_arrives_in_time_is_closed() {
    let server = with_limits("idle_timeout = \"1s\"");
    // Nothing; what may yet become the preface of HTTP/2; heads that stop in every place.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let mut beginnings: Vec<&[u8]> =
        vec![b"", b"G", b"POST /api", b"POST / HTTP/1.1\r\n", b"POST / HTTP/1.1\r\nHost: a\r\n"];
    beginnings.extend([1, 2, 5, 16, 23].map(|length| &preface.as_bytes()[..length]));
    let mut open: Vec<_> = beginnings
        .iter()
        .map(|beginning| {
            let mut stream = TcpStream::connect(server.rest).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            stream.write_all(beginning).unwrap();
            stream
        })
        .collect();
    for (stream, beginning) in open.iter_mut().zip(&beginnings) {
        let text = String::from_utf8_lossy(beginning);
        // A head that was begun may be told that it took too long.
        assert!(closes(stream, |said| said.is_empty() || said.starts_with(b"HTTP/1.1 408")), "{text:?}");
    }
    server.connect().assert_serves();
}

#[test]
fn connections_that_have_said_nothing_yet_do_not_hold_up_the_end_of_the_server() {
    let mut server = Server::start();
    let mut open = [(); 2].map(|()| TcpStream::connect(server.rest).unwrap());
    // Which version of HTTP this is cannot be told yet.
    open[1].write_all(b"P").unwrap();
    // Accepted after those.
    server.connect().assert_serves();
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    eventually("the log is read to its end", || {
        server.log().iter().any(|line| line.contains("drained") || line.contains("the grace has passed"))
    });
    assert!(server.log().iter().any(|line| line.contains("\"drained\"")), "the grace was waited for");
}

#[test]
fn a_connection_that_was_served_and_is_then_idle_is_closed() {
    let server = with_limits("idle_timeout = \"1s\"");
    let mut connection = server.connect();
    connection.assert_serves();
    assert!(connection.closed());
}

#[test]
fn a_body_that_stops_is_answered_that_it_took_too_long_and_stores_nothing() {
    let server = with_limits("idle_timeout = \"1s\"\ndrain_time = \"300ms\"");
    let ask = Ask::upload(1, 2, &Form::file(&noise(2 << 20, 24)));
    let body = ask.framed_body();
    // Before anything, in the part's header, in its first bytes, in the middle of it, before the last byte.
    let ends = [0, 40, 200, 1 << 20, body.len() - 1];
    let mut stalled = Vec::new();
    for ask in [ask.clone(), ask.chunked(1 << 20)] {
        for end in ends {
            let mut connection = server.connect();
            // A slow machine may have given up on it by now.
            let _ = connection.send(&[&ask.head()[..], &ask.framed_body()[..end]].concat());
            stalled.push((end, connection));
        }
    }
    for (end, mut connection) in stalled {
        let reply = connection.reply().unwrap_or_else(|| panic!("no reply after {end} bytes"));
        reply.assert_refusal(408, "The request did not arrive in time");
        assert!(connection.closed());
    }
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn an_upload_that_never_stops_is_cut_off_by_its_longest_time() {
    let server = with_limits("max_upload_time = \"1s\"");
    let mut connection = server.connect();
    let ask = Ask::upload(1, 2, &Form::file(&noise(1 << 20, 25)));
    connection.send(&ask.head()).unwrap();
    // A byte at a time, never idle, and never at the end of it.
    let mut writer = connection.writer();
    let body = ask.framed_body();
    let sender = std::thread::spawn(move || {
        for byte in body.chunks(1) {
            if writer.write_all(byte).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let reply = connection.reply().expect("a reply");
    reply.assert_refusal(408, "The request did not arrive in time");
    assert!(server.objects().is_empty());
    connection.writer().shutdown(Shutdown::Both).unwrap();
    sender.join().unwrap();
    server.connect().assert_serves();
}

#[test]
fn a_client_that_leaves_while_its_refused_body_is_drained_holds_nothing_up() {
    let server = Server::start();
    for _ in 0..20 {
        let mut connection = server.connect();
        let ask = Ask::upload(1, 2, &Form::file(&noise(1 << 20, 26))).by("a.b.c");
        connection.send(&ask.bytes()[..100_000]).unwrap();
        connection.reply().expect("a reply").assert_refusal(401, "JWT token invalid");
    }
    eventually("the server is idle", || server.readiness()["uploads_in_flight"] == 0);
    Connection::open(server.rest).assert_serves();
}
