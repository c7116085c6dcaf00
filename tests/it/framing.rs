//! How a body arrives: in one piece or in many, with a length or without, with more after it, or cut short.

use crate::harness::{Ask, BOUNDARY, Connection, Form, Server, eventually, honest, noise};

const INVALID: &str = "Validation error";

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

/// Data in which all that nearly is the boundary can be found.
fn near_misses() -> Vec<u8> {
    let short = &BOUNDARY[..BOUNDARY.len() - 1];
    format!(
        "--{BOUNDARY}x\r\n\r\n--{short}\r\n--{BOUNDARY}x\r\n-\r\n-{BOUNDARY}\n--{BOUNDARY}--\n\r--{BOUNDARY}\r\r\n\
         --{BOUNDARY}-\r\n--{BOUNDARY}- \r\n\r\n--{BOUNDARY}_\r\r\n--{BOUNDARY}-x--\r\n--{short}--\r\n--"
    )
    .into_bytes()
}

#[test]
fn near_misses_of_the_boundary_are_data_wherever_the_body_is_cut_in_two() {
    let server = Server::start();
    let bytes = near_misses();
    let ask = Ask::upload(1, 2, &Form::file(&bytes));
    let body = Form::file(&bytes).bytes();
    let mut connection = server.connect();
    for cut in 1..body.len() {
        // A chunk is a piece to the server however the network cuts it.
        let mut request = ask.clone().with("Transfer-Encoding", "chunked").head();
        for piece in [&body[..cut], &body[cut..]] {
            request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            request.extend_from_slice(piece);
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"0\r\n\r\n");
        connection.send(&request).unwrap();
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, 201, "cut at {cut}: {reply:?}");
        assert_eq!(server.stored(1, 2).unwrap(), bytes, "cut at {cut}");
    }
}

/// What follows a boundary in a delimiter line that breaks a rule.
const BROKEN: [&str; 22] = [
    "\n",
    "\r",
    "\rx",
    "\r\r\n",
    " \n",
    "\t\n",
    " \r",
    " x\r\n",
    "\tx\r\n",
    " --\r\n",
    "                                                                 \r\n",
    "--\n",
    "-- \n",
    "--\t\n",
    "--\rx",
    "--garbage",
    "--garbage\r\n",
    "--x",
    "---",
    "----\r\n",
    "-- x\r\n",
    "--\0\r\n",
];

#[test]
fn a_broken_delimiter_line_is_never_content_wherever_the_body_is_cut() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.ask(&upload()).status, 201);
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n";
    let after = format!("\r\n{head}\r\nmore\r\n--{BOUNDARY}--\r\n");
    for tail in BROKEN {
        for before in ["", "\r\n", &format!("--{BOUNDARY}\r\n{head}"), &format!("--{BOUNDARY}\r\n{head}content\r\n")] {
            let body = format!("{before}--{BOUNDARY}{tail}{after}");
            for ask in [upload().body(body.as_bytes()), upload().body(body.as_bytes()).chunked(1)] {
                server.assert_refused_on(&mut connection, &ask, 400, INVALID);
                let reply = connection.ask(&ask);
                assert!(reply.details().contains("malformed delimiter line"), "{body:?}: {reply:?}");
            }
        }
    }
    let body = format!("--{BOUNDARY}\r\n{head}content\r\n--{BOUNDARY}--garbage{after}");
    for cut in 1..body.len() {
        let mut request = upload().with("Transfer-Encoding", "chunked").head();
        for piece in [&body[..cut], &body[cut..]] {
            request.extend_from_slice(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes());
        }
        request.extend_from_slice(b"0\r\n\r\n");
        connection.send(&request).unwrap();
        let reply = connection.reply().expect("a reply");
        reply.assert_refusal(400, INVALID);
        assert!(reply.details().contains("malformed delimiter line"), "cut at {cut}: {reply:?}");
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"content", "the stored file is as it was");
}

#[test]
fn a_delimiter_line_with_padding_is_a_delimiter() {
    let server = Server::start();
    let head = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\n\r\n";
    for padding in ["", " ", "\t", " \t ", &" ".repeat(63), &" ".repeat(64)] {
        for end in ["", "\r\n", "\r\nepilogue\n"] {
            let body = format!("--{BOUNDARY}{padding}\r\n{head}content\r\n--{BOUNDARY}--{padding}{end}");
            for ask in [upload().body(body.as_bytes()), upload().body(body.as_bytes()).chunked(1)] {
                assert_eq!(server.connect().ask(&ask).status, 201, "{body:?}");
                assert_eq!(server.stored(1, 2).unwrap(), b"content");
            }
        }
    }
}

#[test]
fn near_misses_of_the_boundary_are_data_in_chunks_of_any_size() {
    let server = Server::start();
    let bytes = near_misses();
    let mut connection = server.connect();
    for size in 1..40 {
        let reply = connection.ask(&Ask::upload(1, 2, &Form::file(&bytes)).chunked(size));
        assert_eq!(reply.status, 201, "{size}: {reply:?}");
        assert_eq!(server.stored(1, 2).unwrap(), bytes, "{size}");
    }
}

#[test]
fn a_request_that_is_written_byte_by_byte_is_stored_as_it_was_sent() {
    let server = Server::start();
    let bytes = near_misses();
    let mut connection = server.connect();
    for ask in [Ask::upload(1, 2, &Form::file(&bytes)), Ask::upload(1, 3, &Form::file(&bytes)).chunked(7)] {
        for byte in ask.bytes() {
            connection.send(&[byte]).unwrap();
        }
        assert_eq!(connection.reply().expect("a reply").status, 201);
    }
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
    assert_eq!(server.stored(1, 3).unwrap(), bytes);
}

#[test]
fn data_that_is_all_line_breaks_or_all_dashes_is_stored_as_it_was_sent() {
    let server = Server::start();
    let mut connection = server.connect();
    for pattern in ["\r", "\n", "-", "\r\n", "\r\n-", "\r\n--", "\r\n--a-boundary-of-the-test"] {
        let bytes = pattern.as_bytes().repeat((1 << 20) / pattern.len());
        for ask in [Ask::upload(1, 2, &Form::file(&bytes)), Ask::upload(1, 2, &Form::file(&bytes)).chunked(997)] {
            assert_eq!(connection.ask(&ask).status, 201, "{pattern:?}");
            assert!(server.stored(1, 2).unwrap() == bytes, "{pattern:?}");
        }
    }
}

#[test]
fn a_file_of_no_bytes_is_a_file() {
    let server = Server::start();
    let mut connection = server.connect();
    for (attachment, chunk) in [(2, None), (3, Some(1)), (4, Some(4096))] {
        let ask = Ask::upload(1, attachment, &Form::file(b""));
        let reply = connection.ask(&chunk.map_or(ask.clone(), |size| ask.chunked(size)));
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(server.stored(1, attachment).unwrap(), b"");
        assert_eq!(server.content(1, attachment)["size"], 0);
    }
}

#[test]
fn an_epilogue_is_passed_over_and_a_pipelined_second_request_after_it_is_served() {
    let server = Server::start();
    let mut body = Form::file(b"first").bytes();
    body.extend_from_slice(format!("an epilogue\r\n--{BOUNDARY}\r\nthat looks like a part").as_bytes());
    let second = Ask::upload(1, 3, &Form::file(b"second"));
    for first in [upload().body(&body), upload().body(&body).chunked(5)] {
        let mut connection = server.connect();
        connection.send(&[first.bytes(), second.bytes()].concat()).unwrap();
        assert_eq!(connection.reply().expect("a first reply").status, 201);
        assert_eq!(connection.reply().expect("a second reply").status, 201);
        assert_eq!(server.stored(1, 2).unwrap(), b"first");
        assert_eq!(server.stored(1, 3).unwrap(), b"second");
    }
}

#[test]
fn a_pipelined_request_behind_a_refused_one_is_served() {
    let server = Server::start();
    for refused in [upload().by("a.b.c"), upload().body(b"nonsense"), upload().body(b"nonsense").chunked(3)] {
        let mut connection = server.connect();
        connection.send(&[refused.bytes(), honest().bytes()].concat()).unwrap();
        assert!(matches!(connection.reply().expect("a first reply").status, 400 | 401));
        assert_eq!(connection.reply().expect("a second reply").status, 201);
        assert!(server.objects().is_empty());
    }
}

#[test]
fn a_body_without_its_closing_boundary_stores_nothing() {
    let server = Server::start();
    let whole = Form::file(&noise(2000, 6)).bytes();
    let closing = whole.len() - "--\r\n".len();
    // Without the last line break it is still closed; the cuts before that all are not.
    for end in
        [closing + 1, closing, closing - 1, closing - BOUNDARY.len(), closing - BOUNDARY.len() - 4, 1000, 60, 10, 0]
    {
        for ask in [upload().body(&whole[..end]), upload().body(&whole[..end]).chunked(100)] {
            server.assert_refused(&ask, 400, INVALID);
        }
    }
    // A part that is not the last one is complete, and the form is not.
    let open = &whole[..closing];
    server.assert_refused(&upload().body(&[open, b"\r\n"].concat()), 400, INVALID);
}

#[test]
fn the_line_break_after_the_closing_boundary_may_be_missing() {
    let server = Server::start();
    let whole = Form::file(b"content").bytes();
    for end in [whole.len() - 2, whole.len() - 1, whole.len()] {
        for ask in [upload().body(&whole[..end]), upload().body(&whole[..end]).chunked(3)] {
            let reply = server.connect().ask(&ask);
            assert_eq!(reply.status, 201, "{end} of {}: {reply:?}", whole.len());
        }
    }
}

#[test]
fn an_encoded_body_is_refused_and_an_identity_is_none() {
    let server = Server::start();
    for coding in ["gzip", "GZIP", "deflate", "br", "zstd", "x-unknown", "gzip, identity", "identity, gzip", ""] {
        server.assert_refused(&upload().with("Content-Encoding", coding), 400, INVALID);
    }
    let twice = upload().and("Content-Encoding", "identity").and("Content-Encoding", "gzip");
    server.assert_refused(&twice, 400, INVALID);
    for coding in ["identity", "Identity"] {
        assert_eq!(server.connect().ask(&upload().with("Content-Encoding", coding)).status, 201);
    }
}

/// Looks that the server has answered with a 4xx, if at all, and has closed the connection, and is there for others.
fn assert_closed(server: &Server, connection: &mut Connection) {
    if let Some(reply) = connection.reply() {
        assert!((400..500).contains(&reply.status), "{reply:?}");
    }
    assert!(connection.closed());
    // Where the client was gone before there was a reply, what was begun is taken back behind its back.
    eventually("nothing is left", || server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn a_length_that_is_none_is_refused_and_the_connection_closed() {
    let server = Server::start();
    for length in ["-1", "+5", "5,6", "5, 5", "0x10", "1e3", "abc", "18446744073709551616", " ", "1 0"] {
        let mut connection = server.connect();
        let _ = connection.send(&upload().with("Content-Length", length).bytes());
        assert_closed(&server, &mut connection);
    }
    let mut connection = server.connect();
    let _ = connection.send(&upload().with("Content-Length", "10").and("Content-Length", "11").bytes());
    assert_closed(&server, &mut connection);
}

#[test]
fn an_unknown_transfer_encoding_is_refused_and_the_connection_closed() {
    let server = Server::start();
    for encoding in ["gzip", "chunked, gzip", "identity", "xchunked", "chunked;q=1"] {
        let mut connection = server.connect();
        let _ = connection.send(&upload().chunked(100).with("Transfer-Encoding", encoding).bytes());
        assert_closed(&server, &mut connection);
    }
}

#[test]
fn a_length_beside_chunks_never_hides_a_second_request() {
    let server = Server::start();
    let inner = Ask::upload(1, 3, &Form::file(b"smuggled")).bytes();
    // By its chunks the first request ends before the second; by its length the second is its body.
    let first = upload().chunked(50);
    let length = (first.framed_body().len() + inner.len()).to_string();
    for ask in [
        first.clone().with("Content-Length", &length).and("Transfer-Encoding", "chunked"),
        first.clone().with("Transfer-Encoding", "chunked").and("Content-Length", &length),
    ] {
        let mut connection = server.connect();
        let _ = connection.send(&[ask.bytes(), inner.clone()].concat());
        // RFC 9112 §6.3 leaves two answers: a refusal, or the chunks alone and a closed connection.
        let reply = connection.reply().expect("a reply");
        assert!(matches!(reply.status, 201 | 400), "{reply:?}");
        assert!(connection.reply().is_none(), "a second request was read after a framing that is ambiguous");
        assert!(server.record(1, 3).is_none());
        server.connect().assert_serves();
    }
}

#[test]
fn a_length_shorter_than_the_form_stores_nothing_and_the_rest_is_no_request() {
    let server = Server::start();
    let body = Form::file(b"content").bytes();
    let mut connection = server.connect();
    let _ = connection.send(&upload().with("Content-Length", &(body.len() - 10).to_string()).bytes());
    connection.reply().expect("a reply").assert_refusal(400, INVALID);
    assert_closed(&server, &mut connection);
}

#[test]
fn a_length_that_the_client_does_not_live_up_to_stores_nothing() {
    let server = Server::start();
    let whole = Form::file(&noise(100_000, 7));
    let long = |ask: Ask| ask.with("Content-Length", "200000");
    for ask in [long(Ask::upload(1, 2, &whole)), long(Ask::upload(1, 2, &whole).body(&whole.bytes()[..50_000]))] {
        let mut connection = server.connect();
        connection.send(&ask.bytes()).unwrap();
        connection.shut();
        connection.reply().expect("a reply").assert_refusal(400, INVALID);
        assert_closed(&server, &mut connection);
    }
}

#[test]
fn chunks_that_break_off_or_are_malformed_store_nothing() {
    let server = Server::start();
    let whole = Ask::upload(1, 2, &Form::file(&noise(10_000, 8))).chunked(1000);
    let framed = whole.framed_body();
    let mut broken = vec![framed[..framed.len() - "0\r\n\r\n".len()].to_vec(), framed[..5000].to_vec()];
    for head in ["-1\r\n", "zz\r\n", "fffffffffffffffff\r\n", "\r\n"] {
        broken.push([&framed[..framed.len() - 5], head.as_bytes(), b"aaaaa\r\n0\r\n\r\n"].concat());
    }
    for body in broken {
        let mut connection = server.connect();
        let _ = connection.send(&[whole.head(), body].concat());
        connection.shut();
        assert_closed(&server, &mut connection);
    }
}

#[test]
fn chunk_extensions_and_trailers_are_passed_over_and_bounded() {
    let server = Server::start();
    let ask = upload().with("Transfer-Encoding", "chunked");
    let body = Form::file(b"content").bytes();
    let request = |extension: &str, trailer: &str| {
        let first = format!("{:x};{extension}\r\n", body.len());
        [ask.head(), first.into_bytes(), body.clone(), format!("\r\n0\r\n{trailer}\r\n").into_bytes()].concat()
    };
    let mut connection = server.connect();
    connection.send(&request("a=b;c=\"d\"", "X-Trailer: x\r\nX-Digest: sha-256=:AAAA:\r\n")).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    connection.assert_serves();
    std::fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    let line = "X-Trailer: x\r\n".repeat(200_000);
    for request in [request(&"a".repeat(1 << 20), ""), request("a", &line)] {
        let mut connection = server.connect();
        let _ = connection.send(&request);
        assert_closed(&server, &mut connection);
    }
}

#[test]
fn a_client_that_goes_away_in_mid_body_leaves_nothing() {
    let server = Server::start();
    let ask = Ask::upload(1, 2, &Form::file(&noise(3 << 20, 9)));
    let request = ask.bytes();
    for end in [request.len() / 2, request.len() - 1] {
        let mut connection = server.connect();
        connection.send(&request[..end]).unwrap();
        eventually("the upload has begun", || server.readiness()["uploads_in_flight"] == 1);
        drop(connection);
        eventually("the upload is taken back", || server.readiness()["uploads_in_flight"] == 0);
        eventually("nothing is left", || server.objects().is_empty());
    }
    server.connect().assert_serves();
}

#[test]
fn a_client_that_says_it_has_sent_all_still_gets_its_reply() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&Ask::upload(1, 2, &Form::file(b"content")).bytes()).unwrap();
    connection.shut();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn a_request_names_its_host_once() {
    let server = Server::start();
    let honest = String::from_utf8(Ask::upload(1, 2, &Form::file(b"content")).bytes()).unwrap();
    for host in ["", "Host: a\r\nHost: b\r\n"] {
        let mut connection = server.connect();
        connection.send(honest.replace("Host: attachd\r\n", host).as_bytes()).unwrap();
        let reply = connection.reply().expect("a reply");
        assert_eq!((reply.status, reply.details()), (400, "Validation error: the header Host must be given once"));
        assert!(server.objects().is_empty());
        connection.assert_serves();
    }
}

#[test]
fn a_head_has_64_kib_at_most_whether_or_not_it_ends() {
    const LIMIT: usize = 64 << 10;
    let server = Server::start();
    let status = |length: usize, end: &str| {
        let head = "POST /api/v2/clients/1/attachments/2 HTTP/1.1\r\nHost: attachd\r\nContent-Length: 0\r\nX-Long: ";
        let mut connection = server.connect();
        connection.send(head.as_bytes()).unwrap();
        connection.send(&vec![b'a'; length - head.len() - end.len()]).unwrap();
        connection.send(end.as_bytes()).unwrap();
        connection.reply_without_body().expect("a reply").status
    };
    let ended = |length| status(length, "\r\n\r\n");
    assert_eq!([LIMIT - 1, LIMIT, LIMIT + 1].map(ended), [401, 401, 431]);
    assert_eq!(status(LIMIT, ""), 431);
}

#[test]
fn thousands_of_tiny_chunks_are_stored_over_http1_and_a_flood_of_them_is_refused() {
    let server = Server::start();
    let upload = |bytes: &[u8]| Ask::upload(1, 1, &Form::file(bytes));
    let stored = noise(9000, 1);
    assert_eq!(server.connect().ask(&upload(&stored).chunked(1)).status, 201);
    assert!(server.stored(1, 1).unwrap() == stored);
    let refused = server.connect().ask(&upload(&noise(100_000, 2)).chunked(1));
    refused.assert_refusal(400, "Validation error: too many chunks have less than 64 bytes; send larger chunks");
    assert!(server.stored(1, 1).unwrap() == stored);
    let large = noise(1_000_000, 3);
    assert_eq!(server.connect().ask(&upload(&large).chunked(64)).status, 201);
    assert!(server.stored(1, 1).unwrap() == large);
}
