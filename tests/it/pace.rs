//! How fast a client must send, through both doors.

use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use futures_util::{StreamExt, stream};
use tonic::Code;

use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, noise, token};

/// A server that wants 1000 bytes a second, over half a second.
fn demanding() -> Server {
    let limits = "max_upload_size = 8388608\nmin_rate = 1000\nmin_rate_window = \"500ms\"\nidle_timeout = \"10s\"\n";
    Setup { limits: limits.to_owned(), ..Setup::default() }.start()
}

/// A tick that a client sends by: 50 times a second.
const TICK: Duration = Duration::from_millis(20);

#[test]
fn a_client_of_rest_that_drips_is_refused_and_one_that_is_merely_slow_is_served() {
    let server = demanding();
    for (bytes, status) in [(1, 408), (100, 201)] {
        let mut connection = server.connect();
        let form = Form::file(&noise(bytes * 100, 70));
        let rest = connection.begin(&token(&[1]), 1, 2, &form, form.bytes().len() - bytes * 100);
        let mut writer = connection.writer();
        let drip = std::thread::spawn(move || {
            for piece in rest.chunks(bytes) {
                // Once it is refused, nobody need take it.
                if std::io::Write::write_all(&mut writer, piece).is_err() {
                    break;
                }
                std::thread::sleep(TICK);
            }
        });
        let reply = connection.reply().expect("a reply");
        if status == 408 {
            reply.assert_refusal(408, "The request did not arrive in time: at least 1000 bytes a second must arrive");
            assert!(server.objects().is_empty());
        } else {
            assert_eq!(reply.status, status, "{reply:?}");
        }
        drip.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_grpc_that_drips_is_refused_and_one_that_is_merely_slow_is_served() {
    let server = demanding();
    for bytes in [1, 100] {
        let ticks = stream::unfold(tokio::time::interval(TICK), |mut tick| async move {
            tick.tick().await;
            Some(((), tick))
        });
        let drops = ticks.take(100).map(move |()| chunk(vec![7; bytes]));
        let messages = stream::iter([Message::Header(header(1, 3))]).chain(drops).chain(stream::iter([finish()]));
        let reply = server.grpc_upload_stream(&token(&[1]), messages).await;
        if bytes == 1 {
            let refusal = reply.expect_err("it is too slow");
            assert_eq!((refusal.code, refusal.reason.as_str()), (Code::DeadlineExceeded, "CLIENT_TOO_SLOW"));
            eventually("nothing is left", || server.objects().is_empty());
        } else {
            reply.expect("it is fast enough");
        }
    }
}

#[test]
fn the_time_in_which_the_process_stood_still_is_not_held_against_its_callers() {
    let limits = "min_rate = 1000\nmin_rate_window = \"1s\"\nidle_timeout = \"2s\"\n";
    let server = Setup { limits: limits.to_owned(), ..Setup::default() }.start();
    let form = Form::file(&noise(200, 71));
    let open: Vec<_> = (1..=8)
        .map(|attachment| {
            let mut connection = server.connect();
            let rest = connection.begin(&token(&[1]), 1, attachment, &form, form.bytes().len() - 100);
            (connection, rest)
        })
        .collect();
    eventually("all of them are begun", || server.readiness()["uploads_in_flight"] == 8);
    server.signal("STOP");
    let (there, late): (Vec<_>, Vec<_>) = open.into_iter().enumerate().partition(|(number, _)| number % 2 == 0);
    let mut waiting = Vec::new();
    let mut send = |uploads: Vec<(usize, (Connection, Vec<u8>))>| {
        for (_, (mut connection, rest)) in uploads {
            connection.send(&rest).unwrap();
            waiting.push(connection);
        }
    };
    // Some send while it stands still, and some only once it goes on.
    send(there);
    std::thread::sleep(Duration::from_secs(6));
    server.signal("CONT");
    std::thread::sleep(Duration::from_millis(500));
    send(late);
    for mut connection in waiting {
        let reply = connection.reply().expect("a reply");
        assert_eq!(reply.status, 201, "{reply:?}");
    }
    // And who says nothing is not waited for, as before.
    let mut silent = server.connect();
    silent.begin(&token(&[1]), 1, 9, &form, form.bytes().len() - 100);
    silent.reply().expect("a reply").assert_refusal(408, "The request did not arrive in time: nothing arrived for 2 s");
}
