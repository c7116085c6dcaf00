//! What real clients send is stored as they mean it, however it is cut; and gRPC records the same name for the same file.

use attachd::pb::UploadHeader;
use attachd::pb::upload_attachment_request::Message;
use attachd_multipart::{Boundary, Event, Limits, Parser};
use bytes::Bytes;

use crate::harness::{Ask, Form, Server, chunk, finish, header, token};

mod table;

use table::{Outcome, SENT, Sent};

/// Content that a careless parser would end too early.
const CONTENT: &[u8] = b"\r\n--x\r\n";

fn ask(sent: &Sent) -> Ask {
    Ask::upload(1, 2, &Form::default()).with("Content-Type", &sent.content_type()).body(&sent.body(CONTENT))
}

#[test]
fn a_part_of_each_client_is_recorded_as_documented_sent_whole_or_byte_by_byte() {
    let server = Server::start();
    let mut connection = server.connect();
    for sent in SENT {
        for ask in [ask(sent), ask(sent).chunked(1)] {
            let reply = connection.ask(&ask);
            match sent.outcome {
                Outcome::Recorded(name) => {
                    assert_eq!(reply.status, 201, "{}: {reply:?}", sent.client);
                    assert_eq!(server.content(1, 2)["filename"], name, "{}", sent.client);
                    assert_eq!(server.stored(1, 2).unwrap(), CONTENT, "{}", sent.client);
                    std::fs::remove_dir_all(server.root().join("clients/1")).unwrap();
                }
                Outcome::Refused(text) => {
                    reply.assert_refusal(400, "Validation error");
                    assert!(reply.details().contains(text), "{}: {reply:?}", sent.client);
                    assert!(server.objects().is_empty(), "{}", sent.client);
                }
            }
        }
    }
}

#[test]
fn a_part_of_each_client_is_read_the_same_wherever_its_body_is_cut_in_two() {
    let read = |sent: &Sent, pieces: [&[u8]; 2]| {
        let boundary = Boundary::from_content_type(Some(sent.content_type().as_bytes())).unwrap();
        let mut parser = Parser::new(&boundary, Limits::default());
        let (mut name, mut content, mut closed) = (None, Vec::new(), false);
        for piece in pieces {
            parser.push(Bytes::copy_from_slice(piece));
            while let Some(event) = parser.next().map_err(|error| error.to_string())? {
                match event {
                    Event::Part(head) => name = head.filename,
                    Event::Data(data) => content.extend_from_slice(&data),
                    Event::PartEnd => {}
                    Event::Closed => closed = true,
                }
            }
        }
        parser.finish().unwrap();
        while let Some(event) = parser.next().unwrap() {
            closed |= event == Event::Closed;
        }
        assert!(closed, "{}", sent.client);
        Ok::<_, String>((name, content))
    };
    for sent in SENT {
        let body = sent.body(CONTENT);
        let whole = read(sent, [&body, b""]);
        assert_eq!(whole.is_ok(), matches!(sent.outcome, Outcome::Recorded(_)), "{}: {whole:?}", sent.client);
        for cut in 1..body.len() {
            assert_eq!(read(sent, [&body[..cut], &body[cut..]]), whole, "{} cut at {cut}", sent.client);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_records_the_same_name_for_a_file_as_the_clients_that_can_say_it() {
    let server = Server::start();
    for sent in SENT {
        // What cannot be said over REST is left out: a name with a line break, one with bare quotes, and one that its client
        // has percent-encoded.
        let Outcome::Recorded(name) = sent.outcome else { continue };
        if name.contains('%') && name != sent.named {
            continue;
        }
        let header = UploadHeader { filename: sent.named.to_owned(), ..header(1, 2) };
        let messages = vec![Message::Header(header), chunk(CONTENT.to_vec()), finish()];
        server.grpc_upload(&token(&[1]), messages).await.unwrap();
        assert_eq!(server.content(1, 2)["filename"], name, "{}", sent.client);
    }
}
