//! The main job through both doors.

use crate::harness::{Form, Server, chunk, finish, header, noise, token};
use attachd::pb::upload_attachment_request::Message;

#[test]
fn an_upload_over_rest_is_stored_as_it_was_sent() {
    let server = Server::start();
    let bytes = noise(100_000, 1);
    let reply = server.connect().upload(&token(&[1]), 1, 2, &Form::file(&bytes));
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
}

#[tokio::test]
async fn an_upload_over_grpc_is_stored_as_it_was_sent() {
    let server = Server::start();
    let bytes = noise(100_000, 1);
    let messages = vec![Message::Header(header(1, 2)), chunk(bytes.clone()), finish()];
    let stored = server.grpc_upload(&token(&[1]), messages).await.unwrap();
    assert_eq!(stored.size, Some(100_000));
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
}
