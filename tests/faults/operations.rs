//! Every storage operation of an upload with every fault, through both doors.

use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use serde_json::Value;
use tonic::Code;

use crate::harness::storage::segments;
use crate::harness::{Form, Server, Setup, chunk, eventually, finish, header, noise, sha256, token};

/// The operations of an upload whose content has an object of its own to an attachment without content, then the one more of an
/// upload that replaces an object.
const OPERATIONS: [&str; 7] = ["Read", "Write", "Close", "Read", "Write", "Close", "Delete"];

/// The same of an upload whose content is put with its record.
const INLINE: [&str; 5] = ["Read", "Read", "Write", "Close", "Delete"];

/// Where the replaced content is deleted, in the first list.
const DELETE: usize = 6;

/// The faults, and whether all later operations of the attachment have them too.
const FAULTS: [(&str, bool); 12] = [
    ("temporary", false),
    ("temporary", true),
    ("permanent", false),
    ("permanent", true),
    ("permission_denied", false),
    ("not_found", false),
    ("rate_limited", false),
    ("hang", false),
    ("hang", true),
    ("slow", false),
    ("lost", false),
    ("lost", true),
];

/// How many uploads run at once: most of the time they wait for the timeout of one that hangs.
const WORKERS: usize = 16;

/// The timeout of a storage operation.
const TIMEOUT: &str = "timeout = \"4s\"\n";

/// One upload with its faults.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    grpc: bool,
    replace: bool,
    /// Whether the new content is put with its record. What it replaces has an object of its own.
    inline: bool,
    /// The rules, without the attachment.
    rules: Vec<String>,
    status: u16,
    /// Whether the new content may stand although it was refused: the answer of the put is not known.
    ambiguous: bool,
    /// Whether content that no record names may be left, for gc.
    garbage: bool,
    /// Whether the record cannot be asked for afterwards.
    blind: bool,
}

/// The documented reply.
fn status(operation: &str, is_record_close: bool, fault: &str, always: bool) -> u16 {
    match (operation, fault) {
        // The caller does not wait for the tidying.
        ("Delete", _) | (_, "slow") => 201,
        // A storage that says that there is no record is believed.
        ("Read", "not_found") => 201,
        // The put has happened, and the look at it says so.
        ("Close", "lost") if is_record_close && !always => 201,
        (_, "permanent" | "permission_denied" | "not_found") => 500,
        _ => 503,
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for grpc in [false, true] {
        for replace in [false, true] {
            for inline in [false, true] {
                cases.extend(at_each_operation(grpc, replace, inline));
            }
            cases.extend(pairs(grpc, replace));
        }
    }
    cases
}

fn at_each_operation(grpc: bool, replace: bool, inline: bool) -> Vec<Case> {
    let mut cases = Vec::new();
    let all: &[&str] = if inline { &INLINE } else { &OPERATIONS };
    let delete = all.len() - 1;
    for (index, operation) in all.iter().enumerate().take(if replace { all.len() } else { delete }) {
        for (fault, always) in FAULTS {
            // What was there before has had its operations.
            let nth = index + 1 + if replace { DELETE } else { 0 };
            let is_record_close = index + 1 == delete;
            let unsettled = is_record_close && (fault == "hang" || always);
            // At the second look at the record and the put of it, content is there already.
            let closed = !inline && (index == 3 && fault == "not_found" || index == 4 && fault == "hang");
            let overlooked = inline && index == 1 && fault == "not_found";
            cases.push(Case {
                name: format!("{fault} at {index} {operation}, inline: {inline}, always: {always}"),
                grpc,
                replace,
                inline,
                rules: vec![format!("nth = {nth}, always = {always}, fault = \"{fault}\"")],
                status: status(operation, is_record_close, fault, always),
                ambiguous: unsettled && fault == "lost",
                garbage: always || index == delete || unsettled || closed || overlooked,
                blind: always,
            });
        }
    }
    cases
}

/// A second fault in what is done about the first.
fn pairs(grpc: bool, replace: bool) -> Vec<Case> {
    let of = |operation: &str, nth: usize, fault: &str| {
        // The records and contents of what was there before: two reads, writes and closes.
        let nth = nth + if replace && operation != "abort" && operation != "delete" { 2 } else { 0 };
        format!("operation = \"{operation}\", nth = {nth}, fault = \"{fault}\"")
    };
    let case = |name: &str, rules: Vec<String>, status, ambiguous, garbage| Case {
        name: name.to_owned(),
        grpc,
        replace,
        inline: false,
        rules,
        status,
        ambiguous,
        garbage,
        blind: false,
    };
    let mut cases = vec![
        case("a lost put and a failed look", vec![of("close", 2, "lost"), of("read", 3, "temporary")], 503, true, true),
        case(
            "a lost close, a failed delete",
            vec![of("close", 1, "lost"), of("delete", 1, "permanent")],
            503,
            false,
            true,
        ),
        case("a lost close, a hanging delete", vec![of("close", 1, "lost"), of("delete", 1, "hang")], 503, false, true),
        case("a lost put, a slow look", vec![of("close", 2, "lost"), of("read", 3, "slow")], 201, false, false),
    ];
    for (what, operation, nth) in
        [("content", "write", 1), ("content", "close", 1), ("record", "write", 2), ("record", "close", 2)]
    {
        for fault in ["temporary", "permanent", "not_found", "hang", "slow", "lost"] {
            let rules = vec![of(operation, nth, "temporary"), of("abort", 1, fault)];
            // A put whose taking back hangs is late, so its content is left for it.
            let garbage = fault == "hang";
            cases.push(case(&format!("{operation} of the {what}, then abort: {fault}"), rules, 503, false, garbage));
        }
    }
    cases
}

fn rules(cases: &[Case]) -> String {
    let mut text = TIMEOUT.to_owned();
    text.push_str("faults = [\n");
    for (index, case) in cases.iter().enumerate() {
        for rule in &case.rules {
            let _ = writeln!(text, "{{ attachment = {}, {rule} }},", index + 1);
        }
    }
    text.push_str("]\n");
    text
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Uploads, and returns the status as REST says it. What the caller may read is looked at.
fn upload(server: &Server, runtime: &tokio::runtime::Runtime, grpc: bool, attachment: i64, bytes: &[u8]) -> u16 {
    let (status, text) = if grpc {
        let messages = vec![Message::Header(header(1, attachment)), chunk(bytes.to_vec()), finish()];
        let token = token(&[1]);
        let reply = server.grpc_upload(&token, messages);
        let reply = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), reply).await });
        match reply.expect("a request must have an end") {
            Ok(stored) => {
                assert_eq!(stored.sha256.as_deref(), Some(&sha256(bytes)[..]));
                (201, String::new())
            }
            Err(refusal) => {
                let (status, reason) = match refusal.code {
                    Code::Unavailable => (503, "STORAGE_UNAVAILABLE"),
                    Code::Internal => (500, "INTERNAL"),
                    _ => panic!("{refusal:?}"),
                };
                assert_eq!(refusal.reason, reason);
                (status, refusal.message)
            }
        }
    } else {
        let reply = server.connect().upload(&token(&[1]), 1, attachment, &Form::file(bytes));
        assert_eq!(reply.body["code"], reply.status);
        (reply.status, reply.details().to_owned())
    };
    let documented = match status {
        201 => "",
        503 => "The storage is not available, try again later",
        500 => "An internal server error occurred",
        other => panic!("{other}: {text}"),
    };
    assert_eq!(text, documented);
    status
}

/// The operations of one attachment so far, by the log of the layer.
fn operations(server: &Server, attachment: i64) -> Vec<String> {
    let part = format!("/{attachment:019}");
    let lines = server.log();
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ours = events.filter(|event| {
        let fields = &event["fields"];
        fields["message"] == "storage operation" && fields["path"].as_str().is_some_and(|path| path.contains(&part))
    });
    ours.map(|event| event["fields"]["operation"].as_str().unwrap().to_owned()).collect()
}

fn idle(server: &Server) {
    eventually("nothing is open and no memory is held", || {
        let state = server.readiness();
        state["uploads_in_flight"] == 0 && state["budget_used_bytes"] == 0
    });
}

fn every_fault_at_every_operation(service: &'static str) {
    let cases = cases();
    let server = Setup { service, storage: rules(&cases), ..Setup::default() }.start();
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let runtime = runtime();
                while let Some((index, case)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| cases.get(index).map(|case| (index, case)))
                {
                    let attachment = i64::try_from(index + 1).unwrap();
                    let look = std::panic::AssertUnwindSafe(|| one(&server, &runtime, attachment, case));
                    if std::panic::catch_unwind(look).is_err() {
                        failed.lock().unwrap().push(format!("{attachment}: {}: {case:?}", case.name));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n"));
    idle(&server);
    println!("{service}: {} faulty uploads", cases.len());
    if service == "fs" {
        left_behind(server, &cases);
    }
}

fn one(server: &Server, runtime: &tokio::runtime::Runtime, attachment: i64, case: &Case) {
    let seed = attachment.cast_unsigned();
    let (old, new) = (noise(20_000, seed), noise(if case.inline { 6000 } else { 30_000 }, seed + 100_000));
    if case.replace {
        assert_eq!(upload(server, runtime, case.grpc, attachment, &old), 201);
    }
    let status = upload(server, runtime, case.grpc, attachment, &new);
    assert_eq!(status, case.status);
    let standing = case.replace.then_some(&old);
    let expected = if status == 201 { Some(&new) } else { standing };
    match server_stored(server, runtime, attachment, case) {
        Seen::Nothing => assert_eq!(expected, None),
        Seen::Digest(digest) if case.ambiguous => {
            assert!(digest == sha256(&new) || Some(digest) == standing.map(|old| sha256(old)));
        }
        Seen::Digest(digest) => assert_eq!(Some(digest), expected.map(|bytes| sha256(bytes))),
        Seen::Unknown => {}
    }
}

enum Seen {
    Nothing,
    Digest([u8; 32]),
    Unknown,
}

/// What stands: on fs by reading it, on memory by registering the attachment once more.
fn server_stored(server: &Server, runtime: &tokio::runtime::Runtime, attachment: i64, case: &Case) -> Seen {
    if server.root().exists() {
        return server.stored(1, attachment).map_or(Seen::Nothing, |bytes| Seen::Digest(sha256(&bytes)));
    }
    if case.blind {
        return Seen::Unknown;
    }
    let request = RegisterAttachmentRequest { client_id: 1, attachment_id: attachment, ..Default::default() };
    // A put that is late keeps its lock until it has ended or was given up.
    let mut known = None;
    eventually("the attachment can be asked for", || {
        known = runtime.block_on(server.grpc_register(&token(&[1]), request)).ok();
        known.is_some()
    });
    let digest = known.and_then(|known| known.sha256);
    digest.map_or(Seen::Nothing, |digest| Seen::Digest(digest.as_ref().try_into().unwrap()))
}

/// After a restart temporary files are gone, and content that no record names is there only where a fault kept it.
fn left_behind(server: Server, cases: &[Case]) {
    let server = Setup::default().start_in(server.kill());
    assert_eq!(crate::files(&server.root().join(".attachd-tmp")), Vec::<std::path::PathBuf>::new());
    let mut garbage = 0;
    for (index, case) in cases.iter().enumerate() {
        let attachment = i64::try_from(index + 1).unwrap();
        let there = server.contents(attachment);
        let named = server.record(1, attachment).map_or(0, |record| segments(&record).len());
        assert!(
            there == named || (case.garbage && there > named),
            "{there} contents, {named} named: {attachment} {case:?}"
        );
        garbage += there - named;
    }
    println!("fs: {garbage} contents left for gc");
    drop(server.kill());
}

#[test]
fn every_fault_at_every_operation_on_fs_leaves_the_old_or_the_new_and_the_documented_reply() {
    every_fault_at_every_operation("fs");
}

#[test]
fn every_fault_at_every_operation_in_memory_leaves_the_old_or_the_new_and_the_documented_reply() {
    every_fault_at_every_operation("memory");
}

#[test]
fn an_upload_takes_the_storage_operations_that_are_listed_here() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        let runtime = runtime();
        for (attachment, grpc) in [(1, false), (2, true)] {
            let mut expected: Vec<&str> = Vec::new();
            for (size, more) in [
                (20_000, &OPERATIONS[..DELETE]),
                (20_000, &OPERATIONS),
                (5000, &INLINE),
                // Content that was put with its record goes with it.
                (5000, &INLINE[..INLINE.len() - 1]),
                (20_000, &OPERATIONS[..DELETE]),
            ] {
                expected.extend(more);
                assert_eq!(upload(&server, &runtime, grpc, attachment, &noise(size, 1)), 201);
                eventually("all are in the log", || operations(&server, attachment) == expected);
            }
        }
    }
}

#[test]
fn a_write_in_the_middle_of_a_large_content_that_fails_or_hangs_leaves_nothing() {
    let faults = ["temporary", "hang", "lost"];
    let mut storage = format!("{TIMEOUT}faults = [\n");
    for (attachment, fault) in (1..).zip(faults) {
        let _ =
            writeln!(storage, "{{ attachment = {attachment}, operation = \"write\", nth = 3, fault = \"{fault}\" }},");
    }
    storage.push_str("]\n");
    let server = Setup { storage, ..Setup::default() }.start();
    let runtime = runtime();
    for (attachment, grpc) in [(1, false), (2, true), (3, false)] {
        // A gRPC message holds at most 4 MiB, which is one write.
        let bytes = noise(4 << 20, 1);
        let status = if grpc {
            let chunks = bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec()));
            let messages = std::iter::once(Message::Header(header(1, attachment))).chain(chunks).chain([finish()]);
            let refusal = runtime.block_on(server.grpc_upload(&token(&[1]), messages.collect())).unwrap_err();
            if refusal.code == Code::Unavailable { 503 } else { 0 }
        } else {
            upload(&server, &runtime, false, attachment, &bytes)
        };
        assert_eq!(status, 503);
        assert_eq!(server.record(1, attachment), None);
    }
    idle(&server);
    // The file of a write that never ended cannot be taken back by the process that waits for it.
    let server = Setup::default().start_in(server.kill());
    server.assert_tidy();
}
