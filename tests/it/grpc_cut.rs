//! Uploads that are cut: by an end without a finish, by a reset, by a connection that goes away, at every place.

use attachd::pb::upload_attachment_request::Message;
use h2::Reason;
use tonic::Code;

use crate::harness::{RawConnection, Server, chunk, eventually, finish, framed, header, noise, token};

/// A small upload to attachment 1 of client 1 as it stands on the wire, and the length of its header.
fn small() -> (Vec<u8>, usize) {
    let header = framed(Message::Header(header(1, 1)));
    let length = header.len();
    let rest = [chunk("some"), chunk(" content"), finish()].map(framed).concat();
    ([header, rest].concat(), length)
}

/// A server on which attachment 1 of client 1 has content, which no cut upload may change.
async fn filled() -> (Server, Vec<u8>) {
    let server = Server::start();
    let old = noise(5000, 1);
    let messages = vec![Message::Header(header(1, 1)), chunk(old.clone()), finish()];
    server.grpc_upload(&token(&[1]), messages).await.expect("an upload is stored");
    (server, old)
}

fn in_flight(server: &Server, count: u64) {
    eventually(&format!("{count} uploads are in flight"), || server.readiness()["uploads_in_flight"] == count);
}

/// Uploads the small upload as a whole.
async fn served(server: &Server, connection: &mut RawConnection) {
    let mut stream = connection.upload(&token(&[1]), &[]).await;
    stream.send(small().0);
    stream.end();
    stream.reply().await.expect("the next upload on the connection is served");
    assert_eq!(server.stored(1, 1).expect("it is stored"), b"some content");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_anywhere_before_its_end_is_aborted() {
    let (server, old) = filled().await;
    let mut connection = RawConnection::open(server.grpc).await;
    let (wire, _) = small();
    for cut in 0..wire.len() {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(wire[..cut].to_vec());
        stream.end();
        let refusal = stream.reply().await.expect_err("it was cut");
        let expected = (Code::Aborted, "INCOMPLETE_UPLOAD");
        assert_eq!((refusal.code, refusal.reason.as_str()), expected, "after {cut} bytes: {refusal:?}");
        assert!(server.stored(1, 1).expect("it is still there") == old, "after {cut} bytes");
    }
    served(&server, &mut connection).await;
}

/// Resets an upload at every place before its end.
async fn reset_everywhere(reason: Reason) {
    let (server, old) = filled().await;
    let mut connection = RawConnection::open(server.grpc).await;
    let (wire, header) = small();
    for cut in 0..wire.len() {
        let id = format!("cut-{cut}");
        let mut stream = connection.upload(&token(&[1]), &[("x-request-id", &id)]).await;
        stream.send(wire[..cut].to_vec());
        connection.delivered().await;
        if cut >= header {
            in_flight(&server, 1);
        }
        stream.reset(reason);
        connection.delivered().await;
        let outcome = server.outcome(&id);
        assert!(["CLIENT_GONE", "INCOMPLETE_UPLOAD"].contains(&outcome.as_str()), "after {cut} bytes: {outcome}");
        in_flight(&server, 0);
        assert!(server.stored(1, 1).expect("it is still there") == old, "after {cut} bytes");
    }
    served(&server, &mut connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cancelled_anywhere_stores_nothing() {
    reset_everywhere(Reason::CANCEL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_reset_anywhere_as_if_all_were_well_stores_nothing() {
    reset_everywhere(Reason::NO_ERROR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_reset_anywhere_with_an_error_stores_nothing() {
    reset_everywhere(Reason::INTERNAL_ERROR).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_right_after_the_finish_stores_all_or_nothing() {
    let (server, old) = filled().await;
    let mut connection = RawConnection::open(server.grpc).await;
    let (wire, _) = small();
    for reason in [Reason::CANCEL, Reason::NO_ERROR, Reason::INTERNAL_ERROR] {
        for round in 0..20 {
            let id = format!("{reason:?}-{round}");
            let mut stream = connection.upload(&token(&[1]), &[("x-request-id", &id)]).await;
            stream.send(wire.clone());
            if round % 2 == 0 {
                stream.end();
            }
            connection.delivered().await;
            stream.reset(reason);
            connection.delivered().await;
            let outcome = server.outcome(&id);
            in_flight(&server, 0);
            let stored = server.stored(1, 1).expect("something is there");
            let whole = stored == b"some content";
            assert!(whole || stored == old, "{id}: {outcome}, {} bytes", stored.len());
            assert!(whole || outcome != "OK", "{id}: it was said to be stored");
            let messages = vec![Message::Header(header(1, 1)), chunk(old.clone()), finish()];
            server.grpc_upload(&token(&[1]), messages).await.expect("an upload is stored");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_of_a_cancelled_upload_is_taken_back() {
    let (server, old) = filled().await;
    let mut connection = RawConnection::open(server.grpc).await;
    for reason in [Reason::CANCEL, Reason::NO_ERROR] {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(framed(Message::Header(header(1, 1))));
        for number in 0..3 {
            stream.send(framed(chunk(noise(1 << 20, number))));
        }
        stream.send(framed(chunk(noise(1 << 20, 4)))[..1000].to_vec());
        eventually("some of it is written", || !server.temporary().is_empty());
        stream.reset(reason);
        in_flight(&server, 0);
        assert!(server.temporary().is_empty(), "{:?}", server.temporary());
        assert!(server.stored(1, 1).expect("it is still there") == old);
    }
    served(&server, &mut connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_uploads_of_a_connection_that_goes_away_are_taken_back() {
    let (server, old) = filled().await;
    let mut connection = RawConnection::open(server.grpc).await;
    let mut streams = Vec::new();
    for attachment in 1..=5 {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(framed(Message::Header(header(1, attachment))));
        stream.send(framed(chunk(noise(200_000, 7))));
        streams.push(stream);
    }
    in_flight(&server, 5);
    eventually("all of them are written", || server.temporary().len() == 5);
    connection.vanish();
    in_flight(&server, 0);
    assert!(server.temporary().is_empty(), "{:?}", server.temporary());
    assert!(server.stored(1, 1).expect("it is still there") == old);
    assert_eq!(server.record(1, 2), None);
    served(&server, &mut RawConnection::open(server.grpc).await).await;
}
