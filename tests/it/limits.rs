//! How much may be uploaded.

use crate::harness::{Ask, Form, MAX_UPLOAD, Server, Setup, noise};

const TOO_LARGE: &str = "The upload is larger than permitted";

fn of_size(size: usize) -> Ask {
    Ask::upload(1, 2, &Form::file(&noise(size, 10)))
}

#[test]
fn content_up_to_the_limit_is_stored_and_one_byte_more_is_not() {
    let limit = 100_000;
    let server = Setup { limits: format!("max_upload_size = {limit}"), ..Setup::default() }.start();
    for (attachment, size) in [(2, limit - 1), (3, limit)] {
        let bytes = noise(size, 11);
        let ask = Ask::upload(1, attachment, &Form::file(&bytes));
        for ask in [ask.clone(), ask.chunked(1000)] {
            assert_eq!(server.connect().ask(&ask).status, 201, "{size}");
            assert_eq!(server.stored(1, attachment).unwrap(), bytes);
        }
    }
    for more in [1, 2, 50_000, 1_000_000] {
        for ask in [of_size(limit + more), of_size(limit + more).chunked(1000), of_size(limit + more).chunked(1 << 20)]
        {
            server.assert_refused(&ask, 413, TOO_LARGE);
        }
    }
}

#[test]
fn what_comes_around_the_file_does_not_count_towards_its_limit() {
    let limit = 10_000;
    let server = Setup { limits: format!("max_upload_size = {limit}"), ..Setup::default() }.start();
    let other = "Content-Disposition: form-data; name=\"other\"";
    let file = "Content-Disposition: form-data; name=\"file\"";
    let bytes = noise(limit, 12);
    let form = Form::default().part(other, &noise(30_000, 13)).part(file, &bytes).part(other, &noise(30_000, 14));
    for ask in [Ask::upload(1, 2, &form), Ask::upload(1, 2, &form).chunked(777)] {
        assert_eq!(server.connect().ask(&ask).status, 201);
        assert_eq!(server.stored(1, 2).unwrap(), bytes);
    }
}

#[test]
fn a_declared_length_far_too_large_is_refused_before_any_of_the_body_is_sent() {
    let server = Server::start();
    for length in [2 * MAX_UPLOAD as u64, u64::MAX - 2] {
        let mut connection = server.connect();
        connection.send(&of_size(10).with("Content-Length", &length.to_string()).head()).unwrap();
        // Nothing of the body was sent, and there is the reply.
        connection.reply().expect("a reply").assert_refusal(413, TOO_LARGE);
        assert!(server.objects().is_empty());
    }
    server.connect().assert_serves();
}

#[test]
fn a_declared_length_far_too_large_is_refused_without_asking_for_the_body() {
    let server = Server::start();
    let mut connection = server.connect();
    let length = (2 * MAX_UPLOAD).to_string();
    connection.send(&of_size(10).with("Content-Length", &length).with("Expect", "100-continue").head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(413, TOO_LARGE);
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}
