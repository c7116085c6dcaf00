//! The log under load: a reader that stalls holds up nobody but those who change something, and floods of refused requests leave
//! it short.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Ask, Connection, Form, Server, Setup, eventually, run};

/// A server with a log at its usual level, and these lines in the section.
fn server(lines: &str) -> Server {
    Setup { log: format!("filter = \"info\"\n{lines}\n"), ..Setup::default() }.start()
}

fn upload(server: &Server, attachment: i64) -> u16 {
    server.connect().ask(&Ask::upload(1, attachment, &Form::file(b"x"))).status
}

/// The status of a path of the admin port.
fn status(server: &Server, path: &str) -> u16 {
    Connection::open(server.admin).request("GET", path, &[], b"").status
}

fn dropped(server: &Server, kind: &str) -> f64 {
    server.numbers()[&format!("attachd_log_dropped_lines_total{{kind=\"{kind}\"}}")]
}

#[test]
fn while_nobody_reads_the_log_all_goes_on_until_the_audit_trail_has_no_room_for_a_change() {
    let server = server("queue = \"64KiB\"\naudit_timeout = \"200ms\"");
    assert_eq!(upload(&server, 1), 201);
    let stalled = server.stall_log();
    // What fits into the pipe and into the queue is logged; after that only changes wait, and only for their time.
    let mut stored = 1;
    let refused = loop {
        assert!(stored < 5000, "the log is endless");
        match upload(&server, stored + 1) {
            201 => stored += 1,
            status => break status,
        }
    };
    assert!(stored > 100, "{stored} were stored before the queue was full");
    assert_eq!(refused, 503);
    assert_eq!(server.connect().ask(&Ask::download(1, stored + 1)).status, 404, "what was refused is not stored");
    for attachment in [1, stored] {
        assert_eq!(server.connect().ask(&Ask::download(1, attachment)).bytes, b"x");
    }
    assert_eq!(status(&server, "/livez"), 200);
    assert_eq!(status(&server, "/readyz"), 503);
    let readiness = server.readiness();
    assert!(readiness["reasons"].to_string().contains("nobody reads the log"), "{readiness}");
    eventually("lines of reads are dropped", || {
        assert_eq!(server.connect().ask(&Ask::download(1, 1)).status, 200);
        dropped(&server, "audit") > 0.0 && dropped(&server, "request") > 0.0
    });
    drop(stalled);
    eventually("it is ready again", || server.readiness()["ready"] == true);
    assert_eq!(upload(&server, stored + 1), 201);
    let done = |event: &Value| event["action"] == "upload" && event["outcome"] == "done";
    let done = || server.events("audit").iter().filter(|event| done(event)).count();
    eventually("every change has its line", || done() == usize::try_from(stored + 1).unwrap());
}

#[test]
fn of_many_refused_requests_the_log_has_some_and_the_number_of_the_others() {
    const MANY: usize = 1500;
    let server = server("refusals_per_second = 20");
    let mut connection = server.connect();
    for _ in 0..MANY {
        let ask = Ask::json("GET", 1, "/api/v2/clients/1/attachments/7", "");
        assert_eq!(connection.ask(&ask).status, 404);
    }
    let of = |message: &str, field: &str| {
        let events = server.events(message);
        events.iter().filter(|event| event[field] == "NOT_FOUND").count()
    };
    let summed = |field: &str| {
        let told = server.events("lines of refused requests were left out");
        let told = told.iter().filter(|event| event["outcome"] == "NOT_FOUND");
        told.map(|event| event[field].as_u64().expect("a number") as usize).sum::<usize>()
    };
    eventually("the others are counted", || summed("requests") + of("request", "outcome") == MANY);
    assert_eq!(summed("audits") + of("audit", "reason"), MANY);
    assert!((200..600).contains(&of("request", "outcome")), "{}", of("request", "outcome"));
    assert_eq!(dropped(&server, "refusal") as usize, summed("requests") + summed("audits"));
    // A change is not among them, nor is a refusal of another kind.
    assert_eq!(upload(&server, 1), 201);
    assert_eq!(server.connect().ask(&Ask::download(1, 1).without("Authorization")).status, 401);
    eventually("they have their lines", || {
        let has = |reason: &str| server.events("audit").iter().any(|event| event["reason"] == reason);
        has("OK") && has("TOKEN_MISSING")
    });
}

#[test]
fn a_long_path_and_a_long_method_are_cut_in_the_log() {
    let server = server("");
    let path = format!("/{}", "a".repeat(30_000));
    let method: &'static str = Box::leak("X".repeat(1000).into_boxed_str());
    assert_eq!(server.connect().ask(&Ask::json("GET", 1, &path, "")).status, 404);
    assert!(server.connect().ask(&Ask::json(method, 1, "/api/v2/clients/1/attachments/1", "")).status >= 400);
    eventually("they are logged", || server.events("request").len() == 2);
    let events = server.events("request");
    assert_eq!(events[0]["path"], format!("/{}…", "a".repeat(255)));
    assert_eq!(events[1]["method"], "X".repeat(16) + "…");
}

#[test]
fn the_sizes_and_times_of_the_log_have_their_limits() {
    let folder = tempfile::tempdir().unwrap();
    for (line, fits) in [
        ("queue = \"65535B\"", false),
        ("queue = \"64KiB\"", true),
        ("queue = \"1GiB\"", true),
        ("queue = \"1073741825B\"", false),
        ("audit_timeout = \"0s\"", false),
        ("audit_timeout = \"1ms\"", true),
        ("refusals_per_second = 0", true),
        ("refusals_per_second = -1", false),
    ] {
        let config = Setup { log: format!("{line}\n"), ..Setup::default() }.write(folder.path());
        let ended = run(&["check", "--config", config.to_str().unwrap()]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(if fits { 0 } else { 2 }), "{line}: {said}");
        assert!(fits || said.contains(&format!("log.{}", line.split(' ').next().unwrap())), "{said}");
    }
}

#[test]
fn what_is_said_at_the_end_is_written_before_the_process_ends() {
    let mut server = server("");
    assert_eq!(upload(&server, 1), 201);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while server.events("drained").is_empty() {
        assert!(std::time::Instant::now() < deadline, "the last lines are missing: {:?}", server.log().last());
        std::thread::yield_now();
    }
    assert!(server.log().iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}
