//! Reading, listing and deleting over every storage, and with a fault at every request: what comes back is whole, or the answer says
//! that it is not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use attachd::pb::{DownloadAttachmentRequest, ListAttachmentsRequest};

use crate::conformance::{DOORS, Door, PART, runtime, upload};
use crate::engines::Engine;
use crate::faults::for_each;
use crate::harness::{Ask, Reply, Server, Setup, deleter, download, eventually, noise, token};
use crate::way;

/// The largest content that is put with its record, in bytes.
const INLINE: usize = 16 << 10;

/// The time of a storage operation, with its second and third try.
const TIMEOUT: Duration = Duration::from_secs(6);

/// How long an answer may take whatever the storage does: a few operations that each take all of their time.
const IN_TIME: Duration = Duration::from_secs(40);

/// Sends a request and waits for as long as a storage may take.
fn ask(server: &Server, ask: &Ask) -> Reply {
    let mut connection = server.connect();
    connection.writer().set_read_timeout(Some(IN_TIME)).unwrap();
    connection.ask(ask)
}

fn delete(attachment: i64) -> Ask {
    Ask::json("DELETE", 1, &format!("/api/v2/clients/1/attachments/{attachment}"), "").by(&deleter())
}

/// All ids of the client, page by page.
fn listed(server: &Server, page_size: i32) -> Vec<i64> {
    let (mut ids, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListAttachmentsRequest { client_id: 1, page_size, page_token, ..Default::default() };
        let page = runtime().block_on(server.grpc_list(&token(&[1]), request)).expect("a page");
        ids.extend(page.attachments.iter().map(|attachment| attachment.attachment_id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        page_token = page.next_page_token;
    }
}

/// What is stored comes back whole and in ranges, is listed in order, and is gone once it is deleted.
pub fn comes_back_is_listed_and_deleted(engine: Engine) {
    let place = engine.place();
    let server = place.start();
    let sizes = [0, 1, INLINE, INLINE + 1, 100_000, PART, PART + 1, 3 * PART + 5];
    for (attachment, size) in (1_i64..).zip(sizes) {
        let bytes = noise(size, attachment.unsigned_abs());
        assert_eq!(upload(&server, Door::Rest, attachment, &bytes, false), 201);
        let reply = ask(&server, &Ask::download(1, attachment));
        assert!(reply.status == 200 && reply.bytes == bytes, "{size} bytes over REST: {}", reply.status);
        let read = runtime().block_on(server.grpc_download(&token(&[1]), download(1, attachment)));
        assert!(read.expect("it is there").1 == bytes, "{size} bytes over gRPC");
        for (from, to) in [(0, 1), (size / 2, size / 2 + 1), (size / 3, size), (1, size - size.min(1))] {
            if from >= to || to > size {
                continue;
            }
            let range = format!("bytes={from}-{}", to - 1);
            let reply = ask(&server, &Ask::download(1, attachment).with("Range", &range));
            assert!(reply.status == 206 && reply.bytes == bytes[from..to], "{range} of {size}: {}", reply.status);
            let (offset, length) = (from as i64, Some((to - from) as i64));
            let request = DownloadAttachmentRequest { offset, length, ..download(1, attachment) };
            let read = runtime().block_on(server.grpc_download(&token(&[1]), request)).expect("it is there").1;
            assert!(read == bytes[from..to], "{range} of {size} over gRPC");
        }
    }
    let mut ids: Vec<i64> = (1..=sizes.len() as i64).collect();
    for id in [1000, 9, i64::MAX, 77] {
        assert_eq!(upload(&server, Door::Grpc, id, b"x", false), 201);
    }
    ids.extend([9, 77, 1000, i64::MAX]);
    for page_size in [1, 5, 100] {
        assert_eq!(listed(&server, page_size), ids, "pages of {page_size}");
    }
    for id in [1, 4, 8, 77] {
        assert_eq!(ask(&server, &delete(id)).status, 200);
        assert_eq!(ask(&server, &Ask::download(1, id)).status, 404);
        assert_eq!(ask(&server, &delete(id)).status, 200);
    }
    ids.retain(|id| ![1, 4, 8, 77].contains(id));
    assert_eq!(listed(&server, 3), ids);
    assert_eq!(upload(&server, Door::Rest, 4, b"again", true), 201);
    assert_eq!(ask(&server, &Ask::download(1, 4)).bytes, b"again");
    place.assert_nothing_left(&[&server]);
}

/// What a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Download(Door),
    Delete,
}

#[derive(Clone, Debug)]
struct Case {
    act: Act,
    size: usize,
    nth: usize,
    fault: &'static str,
    always: bool,
}

/// Every fault at every request of a download and of a deletion.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in [6000, 20_000] {
        for act in DOORS.map(Act::Download).into_iter().chain([Act::Delete]) {
            // The deletion of small content ends with the record.
            let requests = if act == Act::Delete && size < INLINE { 2 } else { 3 };
            for nth in 1..=requests {
                for fault in [
                    "temporary",
                    "broken",
                    "permanent",
                    "permission_denied",
                    "not_found",
                    "rate_limited",
                    "hang",
                    "slow",
                    "lost",
                ] {
                    for always in [false, true] {
                        cases.push(Case { act, size, nth, fault, always });
                    }
                }
            }
        }
    }
    cases
}

/// Whether the content came back. Anything else must say so.
fn read_back(server: &Server, door: Door, attachment: i64, bytes: &[u8]) -> bool {
    match door {
        Door::Rest => {
            let reply = ask(server, &Ask::download(1, attachment));
            assert!([200, 404, 500, 503].contains(&reply.status), "{reply:?}");
            let is_whole = reply.status == 200 && reply.bytes == bytes;
            assert!(is_whole || reply.status != 200 || reply.bytes.len() < bytes.len(), "other bytes came back");
            is_whole
        }
        Door::Grpc => match runtime().block_on(server.grpc_download(&token(&[1]), download(1, attachment))) {
            Ok((_, read)) => {
                assert!(read == bytes, "other bytes came back");
                true
            }
            Err(_) => false,
        },
    }
}

fn content(attachment: i64, case: &Case) -> Vec<u8> {
    noise(case.size, attachment.unsigned_abs())
}

fn one(server: &Server, attachment: i64, case: &Case) {
    let bytes = content(attachment, case);
    let began = Instant::now();
    match case.act {
        Act::Download(door) => {
            let is_whole = read_back(server, door, attachment, &bytes);
            let passes = !case.always && ["temporary", "broken", "rate_limited", "hang", "slow"].contains(&case.fault);
            assert!(is_whole || !passes, "a fault that passes was not survived");
        }
        Act::Delete => {
            let status = ask(server, &delete(attachment)).status;
            assert!([200, 404, 500, 503].contains(&status), "{status}");
            if !case.always {
                // The fault is over, so what stands can be seen: all of it, or nothing.
                let reply = ask(server, &Ask::download(1, attachment));
                let stands = reply.status == 200 && reply.bytes == bytes;
                assert!(stands || reply.status == 404, "{status}, then {}", reply.status);
                assert!(!stands || status != 200, "it was deleted and still stands");
            }
        }
    }
    assert!(began.elapsed() < IN_TIME * 2, "{:?} is not in time", began.elapsed());
}

/// Runs all cases over a storage.
fn every_fault(engine: Engine) {
    let cases = cases();
    let mut rules = format!("timeout = \"{}s\"\nfaults = [\n", TIMEOUT.as_secs());
    for (index, Case { nth, always, fault, .. }) in cases.iter().enumerate() {
        rules += &format!("{{ attachment = {}, nth = {nth}, always = {always}, fault = \"{fault}\" }},\n", index + 1);
    }
    rules += "]\n";
    let place = engine.place();
    // What is read was uploaded without faults, and however long that took.
    let server = place.start();
    for_each(&cases, |attachment, case| {
        assert_eq!(upload(&server, Door::Rest, attachment, &content(attachment, case), false), 201);
    });
    drop(server);
    let server = Setup { storage: rules, ..place.setup() }.start();
    let wrong = Mutex::new(Vec::new());
    for_each(&cases, |attachment, case| {
        let run = std::panic::AssertUnwindSafe(|| one(&server, attachment, case));
        if let Err(why) = std::panic::catch_unwind(run) {
            let why = why.downcast_ref::<String>().cloned().unwrap_or_default();
            wrong.lock().unwrap().push(format!("{attachment}: {case:?}: {why}"));
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    eventually("nothing is open and no memory is held", || {
        let state = server.readiness();
        let held = server.numbers()["attachd_download_budget_used_bytes"];
        state["uploads_in_flight"] == 0 && state["downloads_in_flight"] == 0 && held == 0.0
    });
}

#[test]
fn every_fault_of_an_s3_server_while_reading_or_deleting_is_told_or_survived() {
    every_fault(Engine::Moto);
}

/// Replaces an attachment while its download has arrived by half, then cuts the storage's reply, so that the rest is asked for
/// again. Returns what came back.
fn replaced_in_the_middle(read_grace: &'static str) -> (Reply, Vec<u8>) {
    let place = Engine::Moto.place();
    let (half, is_half) = mpsc::channel();
    let (go_on, goes_on) = mpsc::channel::<()>();
    let (goes_on, is_first) = (Mutex::new(goes_on), AtomicBool::new(true));
    let endpoint = way::to(&place, move |request| {
        let is_content = request.line.starts_with("GET ") && request.line.contains("/content/00");
        if !is_content || !is_first.swap(false, Ordering::Relaxed) {
            return request.pass();
        }
        let reply = request.carry_out()?;
        request.send(&reply[..reply.len() / 2])?;
        half.send(()).unwrap();
        goes_on.lock().unwrap().recv().unwrap();
        request.cut()
    });
    let mut setup = Setup { attachments: read_grace, ..place.setup() };
    setup.variables.insert("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint);
    let server = setup.start();
    let bytes = noise(4 << 20, 1);
    assert_eq!(upload(&server, Door::Rest, 1, &bytes, false), 201);
    let contents = || place.look().kept(&place.root).keys().filter(|key| key.contains("/content/")).count();
    let reply = std::thread::scope(|scope| {
        let download = scope.spawn(|| ask(&server, &Ask::download(1, 1)));
        is_half.recv().unwrap();
        assert_eq!(upload(&server, Door::Rest, 1, &noise(4 << 20, 2), false), 201);
        if read_grace.contains("\"0s\"") {
            eventually("the old content is gone", || contents() == 1);
        }
        go_on.send(()).unwrap();
        download.join().unwrap()
    });
    let is_graceful = !read_grace.contains("\"0s\"");
    assert!(!is_graceful || contents() == 2, "the old content is there after the download");
    eventually("the old content goes after the grace", || contents() == 1);
    assert!(ask(&server, &Ask::download(1, 1)).bytes == noise(4 << 20, 2), "the new content stands");
    (reply, bytes)
}

#[test]
fn a_download_whose_content_is_replaced_comes_whole_within_the_grace_and_is_cut_without_one() {
    let (reply, bytes) = replaced_in_the_middle("read_grace = \"8s\"");
    assert!(reply.status == 200 && reply.bytes == bytes, "{} bytes came", reply.bytes.len());
    let (reply, bytes) = replaced_in_the_middle("read_grace = \"0s\"");
    assert_eq!(reply.status, 200);
    assert!(reply.bytes.len() < bytes.len(), "all of it came, though half of it was gone");
    assert!(bytes.starts_with(&reply.bytes), "bytes of other content came");
}

#[test]
fn a_page_on_s3_reads_the_records_that_it_shows_and_lists_once() {
    let place = Engine::Moto.place();
    let server = place.start();
    for id in 1..=12 {
        assert_eq!(upload(&server, Door::Rest, id, b"x", false), 201);
    }
    let reads = |server: &Server| {
        let numbers = server.numbers();
        let of = |operation: &str| {
            numbers[&format!("attachd_storage_operations_total{{operation=\"{operation}\",outcome=\"ok\"}}")]
        };
        (of("read"), of("list"))
    };
    let before = reads(&server);
    let request = ListAttachmentsRequest { client_id: 1, page_size: 5, ..Default::default() };
    let first = runtime().block_on(server.grpc_list(&token(&[1]), request.clone())).expect("a page");
    let after = reads(&server);
    assert_eq!(after.0 - before.0, 5.0, "{before:?} {after:?}");
    // From a name on, what is before is not read again.
    let second = ListAttachmentsRequest { page_token: first.next_page_token, ..request };
    let second = runtime().block_on(server.grpc_list(&token(&[1]), second)).expect("a page");
    assert_eq!(second.attachments[0].attachment_id, 6);
    assert_eq!(reads(&server).0 - after.0, 5.0);
}
