//! Bytes that no gRPC client would send.

use attachd::pb::upload_attachment_request::Message;
use tonic::Code;

use crate::harness::{GrpcRefusal, RawConnection, Server, chunk, finish, framed, header, token};

/// The header of an upload to attachment 1 of client 1, framed.
fn begun() -> Vec<u8> {
    framed(Message::Header(header(1, 1)))
}

/// Uploads on a connection that has seen worse.
async fn served(server: &Server, connection: &mut RawConnection) {
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    stream.send([begun(), framed(chunk("fine")), framed(finish())].concat());
    stream.end();
    stream.reply().await.expect("the next upload on the connection is served");
    assert_eq!(server.stored(1, 1).expect("it is stored"), b"fine");
}

/// Sends a body as it is, and expects a refusal.
async fn refused(server: &Server, headers: &[(&str, &str)], body: Vec<u8>, end: bool) -> GrpcRefusal {
    let mut connection = RawConnection::open(server.grpc).await;
    let before = server.record(1, 1);
    let mut stream = connection.upload(&token(&[1]), headers).await;
    stream.send(body);
    if end {
        stream.end();
    }
    let refusal = stream.reply().await.expect_err("it is no upload");
    assert_eq!(server.record(1, 1), before, "it changed something: {refusal:?}");
    served(server, &mut connection).await;
    refusal
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_says_it_is_huge_is_refused_before_memory_is_taken_for_it() {
    let server = Server::start();
    served(&server, &mut RawConnection::open(server.grpc).await).await;
    let before = server.peak_rss();
    for first in [Vec::new(), begun()] {
        for length in [u32::MAX, i32::MAX.cast_unsigned(), 1 << 30, (4 << 20) + (64 << 10) + 1] {
            let body = [&first[..], &[0], &length.to_be_bytes(), b"some"].concat();
            let refusal = refused(&server, &[], body, false).await;
            let expected = (Code::InvalidArgument, "INVALID_REQUEST");
            assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{length}: {refusal:?}");
        }
    }
    let grown = server.peak_rss() - before;
    assert!(grown < 64 << 20, "{grown} bytes more than before");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_does_not_decode_is_refused() {
    let server = Server::start();
    let flagged = |flag: u8| {
        let mut message = framed(chunk("content"));
        message[0] = flag;
        message
    };
    // A chunk whose own length passes the end of its message, a field of a wire type that there is not, a header whose
    // filename is not UTF-8, and a tag without end.
    let damaged: [&[u8]; 4] = [
        &[0, 0, 0, 0, 3, 0x12, 0x7f, 0x00],
        &[0, 0, 0, 0, 1, 0x17],
        &[0, 0, 0, 0, 5, 0x0a, 3, 0x2a, 1, 0xff],
        &[0, 0, 0, 0, 2, 0xff, 0xff],
    ];
    let damaged = damaged.iter().map(|bytes| (bytes.to_vec(), "a message could not be decoded"));
    let flags = [(1, "a message is marked as compressed"), (2, "the flag before a message"), (255, "the flag before")];
    for (bad, text) in damaged.chain(flags.map(|(flag, text)| (flagged(flag), text))) {
        for first in [Vec::new(), begun(), [begun(), framed(chunk("content"))].concat()] {
            for end in [false, true] {
                let body = [&first[..], &bad, &framed(finish())].concat();
                let refusal = refused(&server, &[], body, end).await;
                let expected = (Code::InvalidArgument, "INVALID_REQUEST");
                assert_eq!((refusal.code, refusal.reason.as_str()), expected, "{bad:?}: {refusal:?}");
                assert!(refusal.message.starts_with(&format!("Validation error: {text}")), "{refusal:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_may_arrive_byte_by_byte() {
    let server = Server::start();
    let mut connection = RawConnection::open(server.grpc).await;
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    for byte in [begun(), framed(chunk("byte by byte")), framed(finish())].concat() {
        stream.send(vec![byte]);
        connection.delivered().await;
    }
    stream.end();
    stream.reply().await.expect("it is stored");
    assert_eq!(server.stored(1, 1).expect("it is stored"), b"byte by byte");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_is_not_known_is_passed_over() {
    let server = Server::start();
    let mut connection = RawConnection::open(server.grpc).await;
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    let mut header = begun();
    // Field 100, a varint, behind the header of the oneof.
    header.extend_from_slice(&[0xa0, 0x06, 0x01]);
    header[4] += 3;
    stream.send([header, framed(chunk("new")), framed(finish())].concat());
    stream.end();
    stream.reply().await.expect("it is stored");
    assert_eq!(server.stored(1, 1).expect("it is stored"), b"new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_of_the_client_that_has_passed_ends_the_call_and_stores_nothing() {
    let server = Server::start();
    // The content is there, and all that lacks is the end of the stream.
    for body in [Vec::new(), begun(), [begun(), framed(chunk("content")), framed(finish())].concat()] {
        let refusal = refused(&server, &[("grpc-timeout", "1n")], body, false).await;
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DeadlineExceeded, "CLIENT_TOO_SLOW"), "{refusal:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_that_is_none_does_not_stop_an_upload() {
    let server = Server::start();
    let mut connection = RawConnection::open(server.grpc).await;
    for (number, value) in ["", "1", "n", "-1S", "1s", "123456789S", "99999999H", "1S1S", "x"].into_iter().enumerate() {
        let mut stream = connection.upload(&token(&[1]), &[("grpc-timeout", value)]).await;
        let content = format!("number {number}");
        stream.send([begun(), framed(chunk(content.clone())), framed(finish())].concat());
        stream.end();
        stream.reply().await.unwrap_or_else(|refusal| panic!("{value:?}: {refusal:?}"));
        assert_eq!(server.stored(1, 1).expect("it is stored"), content.as_bytes());
    }
}
