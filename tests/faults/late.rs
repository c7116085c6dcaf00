//! What becomes of an operation that outlives its time: when its upload is answered, and what is counted of it.

use std::time::{Duration, Instant};

use crate::harness::{Ask, Form, Server, Setup, eventually, noise, token};

#[test]
fn a_write_that_hangs_counts_as_abandoned_once_it_is_given_up() {
    let rule = "{ attachment = 1, operation = \"write\", nth = 1, fault = \"hang\" }";
    let server = Setup { storage: format!("timeout = \"1s\"\nfaults = [{rule}]\n"), ..Setup::default() }.start();
    let reply = server.connect().upload(&token(&[1]), 1, 1, &Form::file(&noise(1 << 20, 1)));
    assert_eq!(reply.status, 503, "{reply:?}");
    let count = |outcome: &str| {
        let series = format!("attachd_storage_operations_total{{operation=\"write\",outcome=\"{outcome}\"}}");
        server.numbers().get(&series).copied().unwrap_or_default()
    };
    eventually("it is counted", || count("abandoned") > 0.0);
    eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
    assert_eq!((count("abandoned"), count("ok")), (1.0, 0.0));
    eventually("nothing is left of it", || server.temporary().is_empty());
}

#[test]
fn a_record_that_is_put_after_its_time_has_a_second_line_in_the_audit_trail() {
    // The thread that commits renames the content first, then the record: that one takes longer than the storage has, and less
    // than what is late has after that.
    let delay = "inject=renameat,renameat2:delay_enter=3000000:when=2";
    let words = ["strace", "-D", "-f", "-e", "trace=renameat,renameat2", "-e", delay, "-o", "/dev/null"];
    let wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    let server = Setup { storage: "timeout = \"2s\"\n".to_owned(), wrapper, ..Setup::default() }.start();
    let reply = server.connect().ask(&Ask::upload(1, 1, &Form::file(&noise(20_000, 1))).with("X-Request-Id", "mine"));
    assert_eq!(reply.status, 503, "{reply:?}");
    let audit = || {
        let mut lines = server.events("audit");
        lines.retain(|line| line["request_id"] == "mine");
        lines
    };
    eventually("its outcome is known", || audit().len() == 2);
    let told: Vec<_> = audit().iter().map(|line| (line["outcome"].clone(), line.get("late").is_some())).collect();
    assert_eq!(told, [("unknown".into(), false), ("done".into(), true)]);
    assert_eq!(server.stored(1, 1), Some(noise(20_000, 1)));
}

/// The time of a storage operation.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A server on whose storage each write to one of the attachments up to `last` hangs, from the one of this number on.
fn hanging(last: i64, nth: usize) -> Server {
    let rule = |attachment| {
        format!("{{ attachment = {attachment}, operation = \"write\", nth = {nth}, always = true, fault = \"hang\" }}")
    };
    let rules: Vec<_> = (1..=last).map(rule).collect();
    let storage = format!("timeout = \"{}s\"\nfaults = [{}]\n", TIMEOUT.as_secs(), rules.join(", "));
    Setup { storage, ..Setup::default() }.start()
}

#[test]
fn the_time_of_a_write_that_hangs_counts_from_its_begin_whenever_more_comes() {
    const PAUSE: Duration = Duration::from_secs(4);
    let server = hanging(1, 1);
    let form = Form::file(&noise(4 << 20, 1));
    let mut connection = server.connect();
    let began = Instant::now();
    // One batch that is being written, and one that waits behind it.
    let rest = connection.begin(&token(&[1]), 1, 1, &form, 300 << 10);
    std::thread::sleep(PAUSE);
    let _ = connection.send(&rest);
    let reply = connection.reply().expect("a reply");
    assert_eq!(reply.status, 503, "{reply:?}");
    let took = began.elapsed();
    assert!((TIMEOUT..PAUSE + TIMEOUT).contains(&took), "{took:?}");
}

#[test]
fn the_time_of_a_write_that_hangs_is_waited_for_once() {
    let server = hanging(2, 1);
    // The one ends in time to wait for what was begun, the other waits to have more written behind it.
    std::thread::scope(|scope| {
        for (attachment, size) in [(1, 300 << 10), (2, 4 << 20)] {
            let server = &server;
            scope.spawn(move || {
                let began = Instant::now();
                let reply = server.connect().upload(&token(&[1]), 1, attachment, &Form::file(&noise(size, 1)));
                assert_eq!(reply.status, 503, "{reply:?}");
                let took = began.elapsed();
                assert!((TIMEOUT..2 * TIMEOUT).contains(&took), "{size}: {took:?}");
            });
        }
    });
    // Then it is given up, after as long again.
    eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
    eventually("nothing is left of it", || server.temporary().is_empty());
}

#[test]
fn many_writes_that_hang_at_once_hold_up_nobody_else() {
    const HANG: i64 = 8;
    let server = hanging(HANG, 2);
    let all_hang = || server.readiness()["uploads_in_flight"] == HANG;
    std::thread::scope(|scope| {
        for attachment in 1..=HANG {
            let server = &server;
            scope.spawn(move || {
                let began = Instant::now();
                let form = Form::file(&noise(4 << 20, attachment.unsigned_abs()));
                let reply = server.connect().upload(&token(&[1]), 1, attachment, &form);
                assert_eq!(reply.status, 503, "{reply:?}");
                let took = began.elapsed();
                assert!((TIMEOUT..2 * TIMEOUT).contains(&took), "{attachment}: {took:?}");
            });
        }
        eventually("all of them are under way", all_hang);
        // More than a batch, so that it is written by itself, and by as many as the cores could be held up by.
        for attachment in HANG + 1..=2 * HANG {
            let reply = server.connect().upload(&token(&[1]), 1, attachment, &Form::file(&noise(1 << 20, 1)));
            assert_eq!(reply.status, 201, "{reply:?}");
        }
        assert!(all_hang(), "it is not that they have ended");
    });
    eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
    eventually("nothing is left of it", || server.temporary().is_empty());
}
