//! HTTP/2 that is mostly framing: the connection is ended before it costs much, and honest clients with many small requests are not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use attachd::pb::GetAttachmentRequest;
use attachd::pb::attachment_service_client::AttachmentServiceClient;
use futures_util::{StreamExt, stream};
use tonic::Request;
use tonic::transport::Endpoint;

use crate::harness::{Ask, Form, MAX_UPLOAD, Server, authorised, download, eventually, noise, token};

const MIB: u64 = 1 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, high, middle, low] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[high, middle, low, kind, flags], &stream.to_be_bytes()[..], payload].concat()
}

/// The head of a call without a token, each field as a literal (RFC 7541 §6.2.2).
fn call(stream: u32) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "attachd"),
        (":path", "/attachments.v2.AttachmentService/UploadAttachment"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let literal = |(name, value): (&str, &str)| {
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], text(name), text(value)].concat()
    };
    frame(1, 4, stream, &fields.map(literal).concat())
}

/// A connection on which the settings are exchanged, and all that comes is thrown away.
fn begun(address: SocketAddr) -> TcpStream {
    let mut connection = TcpStream::connect(address).unwrap();
    let hello = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(4, 0, 0, &[]), frame(4, 1, 0, &[])].concat();
    connection.write_all(&hello).unwrap();
    let mut reads = connection.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut room = vec![0; 64 << 10];
        while reads.read(&mut room).is_ok_and(|length| length > 0) {}
    });
    connection
}

/// Sends frames until the server has closed the connection, and returns how many it took.
fn flood(connection: &mut TcpStream, frame: &[u8]) -> usize {
    let many = frame.repeat(100);
    let taken = (0..100_000).take_while(|_| connection.write_all(&many).is_ok()).count();
    assert!(taken < 100_000, "it is never ended");
    taken * 100
}

fn ended(server: &Server, port: &str) -> f64 {
    server.numbers()[&format!("attachd_connections_evicted_total{{port=\"{port}\",state=\"flooding\"}}")]
}

#[test]
fn a_flood_of_any_frames_that_carry_nothing_ends_its_connection() {
    let server = Server::start();
    let (zero, one) = (&[0; 8][..], 1_u32.to_be_bytes());
    for (port, address) in [("rest", server.rest), ("grpc", server.grpc)] {
        for (count, (name, flood_of)) in [
            ("pings", frame(6, 0, 0, zero)),
            ("answers to no ping", frame(6, 1, 0, zero)),
            ("settings", frame(4, 0, 0, &[])),
            ("priorities", frame(2, 0, 1, &[0, 0, 0, 0, 15])),
            ("windows", frame(8, 0, 0, &one)),
            ("frames that nobody knows", frame(0x99, 0, 0, &[0; 100])),
        ]
        .into_iter()
        .enumerate()
        {
            let taken = flood(&mut begun(address), &flood_of);
            println!("{port}: {taken} {name}");
            eventually(name, || ended(&server, port) >= (count + 1) as f64);
        }
    }
    server.connect().assert_serves();
}

#[test]
fn content_of_a_byte_a_frame_ends_its_connection_before_it_takes_much_memory() {
    const CONNECTIONS: usize = 20;
    let server = Server::start();
    let before = server.peak_rss();
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut connection = begun(server.grpc);
                let streams: Vec<u32> = (0..100).map(|index| 2 * index + 1).collect();
                streams.iter().for_each(|stream| connection.write_all(&call(*stream)).unwrap());
                let bytes: Vec<u8> = streams.iter().flat_map(|stream| frame(0, 0, *stream, b"x")).collect();
                flood(&mut connection, &bytes);
            });
        }
    });
    let grown = (server.peak_rss() - before) / MIB;
    assert!(ended(&server, "grpc") > 0.0);
    assert!(grown <= 2 * CONNECTIONS as u64, "{grown} MiB more for {CONNECTIONS} connections");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_requests_and_large_replies_on_one_connection_are_no_flood() {
    let server = Server::start();
    let bytes = noise(MAX_UPLOAD, 1);
    for (attachment, bytes) in [(1, &b"x"[..]), (2, &bytes)] {
        assert_eq!(server.connect().ask(&Ask::upload(1, attachment, &Form::file(bytes))).status, 201);
    }
    for _ in 0..10 {
        assert!(server.grpc_download(&token(&[1]), download(1, 2)).await.expect("it is there").1 == bytes);
    }
    let channel = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap().connect().await.unwrap();
    let calls = stream::iter(0..6000).map(|_| {
        let mut client = AttachmentServiceClient::new(channel.clone());
        async move {
            let request = GetAttachmentRequest { client_id: 1, attachment_id: 1, ..Default::default() };
            client.get_attachment(authorised(Request::new(request), &token(&[1]))).await.map(drop)
        }
    });
    let failed: Vec<_> = calls.buffer_unordered(50).filter_map(async |reply| reply.err()).collect().await;
    assert!(failed.is_empty(), "{}: {:?}", failed.len(), failed.first());
    assert_eq!(ended(&server, "grpc"), 0.0);
}
