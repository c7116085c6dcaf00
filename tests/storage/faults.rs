//! Every request to an S3 server with every fault, through both doors: the invariants hold and the answer comes in time.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::conformance::{DOORS, Door, PART, digest};
use crate::crash::collect_garbage;
use crate::engines::Engine;
use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, noise, token};

/// Does something with each case and the number of its attachment, on some threads.
pub fn for_each<'a, T: Sync>(cases: &'a [T], act: impl Fn(i64, &'a T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { break };
                    act(index as i64 + 1, case);
                }
            });
        }
    });
}

/// The size of the content of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Size {
    /// It is put with its record.
    Inline,
    /// It has an object of its own.
    Small,
    /// It is sent in two parts.
    Large,
}

impl Size {
    const ALL: [Size; 3] = [Size::Inline, Size::Small, Size::Large];

    fn bytes(self) -> usize {
        match self {
            Size::Inline => 6000,
            Size::Small => 20_000,
            Size::Large => PART + 1000,
        }
    }

    /// The requests of an upload to an attachment without content, then the one more of an upload that replaces an object.
    fn requests(self) -> &'static [&'static str] {
        match self {
            Size::Inline => &["read", "close", "delete"],
            Size::Small => &["read", "close", "close", "delete"],
            Size::Large => &["read", "open", "write", "write", "close", "close", "delete"],
        }
    }

    /// The requests of an upload to an attachment without content.
    fn first_requests(self) -> &'static [&'static str] {
        self.requests().split_last().expect("there are some").1
    }
}

/// What happens to a request, and whether to all later ones of the attachment as well.
const FAULTS: [(&str, bool); 15] = [
    ("temporary", false),
    ("temporary", true),
    ("broken", false),
    ("broken", true),
    ("permanent", false),
    ("permanent", true),
    ("permission_denied", false),
    ("permission_denied", true),
    ("not_found", false),
    ("rate_limited", false),
    ("rate_limited", true),
    ("hang", false),
    ("hang", true),
    ("slow", false),
    ("lost", false),
];

/// Two more, which are what a network does: the answer of this request, or of all from here on, is lost.
const LOST_FOR_GOOD: (&str, bool) = ("lost", true);

/// How many cases run at once: most of the time they wait for a timeout.
const WORKERS: usize = 12;

/// The time of a storage operation, with its second and third try.
const TIMEOUT: Duration = Duration::from_secs(6);

/// How long an upload may take whatever the storage does: a few operations that each take all of their time.
const IN_TIME: Duration = Duration::from_secs(30);

/// One upload with its fault.
#[derive(Clone, Debug)]
struct Case {
    door: Door,
    replace: bool,
    size: Size,
    operation: &'static str,
    /// The number of the request, from 1, of all that are about the attachment.
    nth: usize,
    fault: &'static str,
    always: bool,
    /// Whether it is the put of the record that fails, after which nobody knows.
    record: bool,
}

impl Case {
    /// What must be answered, where one answer is right.
    fn status(&self) -> Option<u16> {
        match (self.operation, self.fault, self.always) {
            // The caller does not wait for the tidying.
            ("delete", ..) | (_, "slow", _) => Some(201),
            // To put the parts together has all of the time in one try.
            ("close", "hang", false) if self.size == Size::Large && !self.record => Some(503),
            // It is tried again, and what was done and not answered is looked for.
            (_, "temporary" | "broken" | "rate_limited" | "hang" | "lost", false) => Some(201),
            (_, "temporary" | "broken" | "rate_limited" | "hang", true) => Some(503),
            (_, "permission_denied", _) => Some(500),
            _ => None,
        }
    }
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for size in Size::ALL {
        let operations = size.requests();
        let record = operations.len() - 2;
        for (door, replace) in [(Door::Rest, false), (Door::Rest, true), (Door::Grpc, false), (Door::Grpc, true)] {
            // An upload in parts is the same over both doors from its first part on.
            if size == Size::Large && door == Door::Grpc {
                continue;
            }
            let count = if replace { operations.len() } else { operations.len() - 1 };
            for (index, operation) in operations[..count].iter().enumerate() {
                for (fault, always) in FAULTS.into_iter().chain([LOST_FOR_GOOD]) {
                    let nth = index + 1;
                    cases.push(Case { door, replace, size, operation, nth, fault, always, record: index == record });
                }
            }
        }
    }
    cases
}

/// Uploads over gRPC; `None` where there is no connection.
pub fn grpc_status(server: &Server, attachment: i64, bytes: &[u8]) -> Option<u16> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut messages = vec![Message::Header(header(1, attachment))];
    messages.extend(bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())));
    messages.push(finish());
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
        let channel = endpoint.connect().await.ok()?;
        let messages = messages.into_iter().map(|message| UploadAttachmentRequest { message: Some(message) });
        let mut request = Request::new(futures_util::stream::iter(messages));
        request.metadata_mut().insert("authorization", format!("Bearer {}", token(&[1])).parse().unwrap());
        match AttachmentServiceClient::new(channel).upload_attachment(request).await {
            Ok(_) => Some(201),
            Err(status) => match status.code() {
                Code::Unavailable => Some(503),
                Code::Internal => Some(500),
                _ => None,
            },
        }
    })
}

/// Uploads, looks at what the caller may read, and returns the status.
fn upload(server: &Server, door: Door, attachment: i64, bytes: &[u8]) -> u16 {
    if door == Door::Grpc {
        return grpc_status(server, attachment, bytes).expect("an answer that is documented");
    }
    let mut connection = Connection::open(server.rest);
    let form = Form::file(bytes);
    connection.writer().set_read_timeout(Some(IN_TIME)).unwrap();
    let reply = connection.upload(&token(&[1]), 1, attachment, &form);
    match reply.status {
        201 => {}
        503 => assert_eq!(reply.details(), "The storage is not available, try again later"),
        500 => assert_eq!(reply.details(), "An internal server error occurred"),
        _ => panic!("{reply:?}"),
    }
    reply.status
}

fn content(case: &Case, attachment: i64) -> (Vec<u8>, Vec<u8>) {
    let seed = attachment.unsigned_abs();
    (noise(Size::Small.bytes(), seed), noise(case.size.bytes(), seed + 100_000))
}

#[test]
fn every_fault_at_every_request_leaves_the_old_or_the_new_and_an_answer_in_time() {
    let cases = cases();
    let mut rules = format!("timeout = \"{}s\"\nfaults = [\n", TIMEOUT.as_secs());
    for (index, case) in cases.iter().enumerate() {
        let Case { nth, always, fault, .. } = case;
        rules += &format!("{{ attachment = {}, nth = {nth}, always = {always}, fault = \"{fault}\" }},\n", index + 1);
    }
    rules += "]\n";
    let place = Engine::Moto.place();
    // What is replaced was uploaded without faults, and however long that took.
    let server = place.start();
    for_each(&cases, |attachment, case| {
        if case.replace {
            assert_eq!(upload(&server, case.door, attachment, &content(case, attachment).0), 201);
        }
    });
    drop(server);
    let server = Setup { storage: rules, ..place.setup() }.start();
    let ended = Mutex::new(Vec::new());
    for_each(&cases, |attachment, case| {
        let look = std::panic::AssertUnwindSafe(|| one(&server, attachment, case));
        let status = std::panic::catch_unwind(look).ok();
        ended.lock().unwrap().push((attachment, case, status));
    });
    let mut ended = ended.into_inner().unwrap();
    ended.sort_by_key(|(attachment, ..)| *attachment);
    eventually("nothing is open and no memory is held", || {
        let state = server.readiness();
        state["uploads_in_flight"] == 0 && state["budget_used_bytes"] == 0
    });
    drop(server);
    let mut wrong = Vec::new();
    for (attachment, case, status) in &ended {
        let (old, new) = content(case, *attachment);
        let (old, new) = (case.replace.then(|| digest(&old)), Some(digest(&new)));
        let stands = place.look().stored(&place.root, *attachment);
        let ambiguous = case.record || (case.fault == "lost" && case.always);
        let good = match status {
            None => false,
            Some(status) if case.status().is_some_and(|right| right != *status) => false,
            Some(201) => stands == new,
            Some(_) if ambiguous => stands == old || stands == new,
            Some(_) => stands == old,
        };
        if !good {
            wrong.push(format!("{attachment}: {status:?}: {case:?}; new stands: {}", stands == new));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    collect_garbage(&place);
    let open = place.look().uploads(&place.root).len();
    place.look().assert_named(&place.root);
    println!("s3: {} faulty uploads; {open} uploads in parts left to the lifecycle rule", cases.len());
}

fn one(server: &Server, attachment: i64, case: &Case) -> u16 {
    let began = Instant::now();
    let status = upload(server, case.door, attachment, &content(case, attachment).1);
    assert!(began.elapsed() < IN_TIME, "{:?} is not in time", began.elapsed());
    status
}

/// The requests about an attachment so far, and whether it is the end of one that stands there.
fn steps(server: &Server, attachment: i64) -> Vec<(String, bool)> {
    let part = format!("/{attachment:019}");
    let lines = server.log().into_iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(&line).ok());
    let ours = lines.filter(|event| event["fields"]["path"].as_str().is_some_and(|path| path.contains(&part)));
    ours.filter_map(|event| {
        let ended = match event["fields"]["message"].as_str()? {
            "storage operation" => false,
            "storage operation ended" => true,
            _ => return None,
        };
        Some((event["fields"]["operation"].as_str()?.to_lowercase(), ended))
    })
    .collect()
}

/// The requests about an attachment so far, as they began.
fn requests(server: &Server, attachment: i64) -> Vec<String> {
    steps(server, attachment).into_iter().filter(|(_, ended)| !ended).map(|(operation, _)| operation).collect()
}

/// The requests about an attachment, once there are as many: a thread of its own reads the log, and may be behind a reply.
fn at_least(count: usize, server: &Server, attachment: i64) -> Vec<String> {
    eventually("the log says so", || requests(server, attachment).len() >= count);
    requests(server, attachment)
}

#[test]
fn a_record_that_stands_though_its_put_was_not_acknowledged_is_put_again_before_the_reply() {
    let place = Engine::Moto.place();
    let lost = "nth = 2, fault = \"lost\"";
    let storage = format!(
        "timeout = \"{}s\"\nfaults = [{{ attachment = 1, {lost} }}, {{ attachment = 2, {lost} }}, \
         {{ attachment = 2, nth = 5, always = true, fault = \"temporary\" }}]\n",
        TIMEOUT.as_secs()
    );
    let server = Setup { storage, ..place.setup() }.start();
    // The put whose answer is lost, the try that finds its own record in the way, a look, and the put that counts.
    let expected = ["read", "close", "close", "read", "close"];
    let bytes = noise(5000, 1);
    assert_eq!(upload(&server, Door::Rest, 1, &bytes), 201);
    assert_eq!(at_least(5, &server, 1), expected);
    assert_eq!(upload(&server, Door::Rest, 2, &bytes), 503);
    assert_eq!(at_least(5, &server, 2)[..5], expected);
    drop(server);
    // What may stand is left its content.
    assert_eq!([1, 2].map(|id| place.look().stored(&place.root, id)), [Some(digest(&bytes)), Some(digest(&bytes))]);
}

#[test]
fn content_that_is_there_though_no_answer_ever_said_so_is_taken_back() {
    let place = Engine::Moto.place();
    let lost = |nth: u64| format!("{{ attachment = 1, nth = {nth}, fault = \"lost\" }}");
    let storage = format!("timeout = \"{}s\"\nfaults = [{}]\n", TIMEOUT.as_secs(), [2, 3, 4].map(lost).join(", "));
    let server = Setup { storage, ..place.setup() }.start();
    assert_eq!(upload(&server, Door::Rest, 1, &noise(20_000, 1)), 503);
    place.assert_nothing_left(&[&server]);
    assert_eq!(upload(&server, Door::Rest, 1, &noise(5000, 2)), 201);
}

#[test]
fn an_upload_in_parts_that_the_storage_has_lost_is_to_be_sent_again() {
    let place = Engine::Moto.place();
    let rule =
        |attachment| format!("{{ attachment = {attachment}, operation = \"close\", nth = 1, fault = \"not_found\" }}");
    let server = Setup { storage: format!("faults = [{}]\n", [1, 2].map(rule).join(", ")), ..place.setup() }.start();
    // What was never in parts cannot have been lost: then something else is missing, and to send it again does not help.
    assert_eq!(upload(&server, Door::Rest, 1, &noise(PART, 1)), 500);
    assert_eq!(upload(&server, Door::Rest, 2, &noise(PART + 1, 2)), 503);
    eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
    place.assert_nothing_left(&[&server]);
    assert_eq!(upload(&server, Door::Rest, 2, &noise(PART + 1, 2)), 201);
}

#[test]
fn an_upload_takes_the_requests_that_are_listed_here() {
    let place = Engine::Moto.place();
    let server = place.setup().start();
    for (attachment, door) in [(1, DOORS[0]), (2, DOORS[1])] {
        // Content that was put with its record goes with it.
        let mut expected = Size::Inline.first_requests().to_vec();
        assert_eq!(upload(&server, door, attachment, &noise(Size::Inline.bytes(), 1)), 201);
        assert_eq!(at_least(2, &server, attachment), expected);
        expected.extend(Size::Small.first_requests());
        assert_eq!(upload(&server, door, attachment, &noise(Size::Small.bytes(), 2)), 201);
        assert_eq!(at_least(5, &server, attachment), expected);
        for size in [Size::Large, Size::Inline] {
            expected.extend(size.requests());
            assert_eq!(upload(&server, door, attachment, &noise(size.bytes(), 3)), 201);
            eventually("the replaced content is deleted", || requests(&server, attachment) == expected);
        }
    }
}

#[test]
fn a_retry_is_one_line_of_the_log() {
    let place = Engine::Moto.place();
    // The look at the record, the content, after which it is looked for, and the put of the record.
    let rule = |nth: u64| format!("{{ attachment = 1, nth = {nth}, fault = \"temporary\" }}");
    let storage = format!("faults = [{}]\n", [1, 3, 6].map(rule).join(", "));
    let mut setup = Setup { storage, ..place.setup() };
    setup.variables.insert("RUST_BACKTRACE", "1".to_owned());
    let server = setup.start();
    assert_eq!(upload(&server, Door::Rest, 1, &noise(Size::Small.bytes(), 1)), 201);
    let log = server.log();
    let lines: Vec<serde_json::Value> =
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect();
    let warned = |line: &&serde_json::Value| {
        line["level"] == "WARN" && line["target"].as_str().is_some_and(|target| target.contains("store"))
    };
    let retries: Vec<_> = lines.iter().filter(warned).map(|line| &line["fields"]).collect();
    assert_eq!(retries.len(), 3, "{retries:?}");
    for (retry, operation) in retries.into_iter().zip(["read", "write", "write"]) {
        assert_eq!(retry["message"], "a storage operation failed and is tried again");
        assert_eq!((&retry["operation"], &retry["attempt"]), (&operation.into(), &1.into()), "{retry}");
        let error = retry["error"].as_str().unwrap();
        assert!(!["context", "uri", "Parts {", "\n", "0: "].iter().any(|word| error.contains(word)), "{error}");
    }
}

/// A budget in which one part of an upload is sent at once.
const SMALL_BUDGET: &str = "memory_budget = \"32MiB\"\n";

#[test]
fn the_last_parts_of_an_upload_have_each_the_time_of_an_operation() {
    last_parts_in_time("");
}

#[test]
fn the_last_parts_of_an_upload_that_go_one_after_the_other_have_each_the_time_of_an_operation() {
    last_parts_in_time(SMALL_BUDGET);
}

fn last_parts_in_time(limits: &str) {
    // A server of its own: one that is slow for what others do would fail tries that are not to fail.
    let place = Engine::Moto.secluded();
    // Three puts of parts hang, some of them before the close and some in it: together they take longer than one operation may.
    let hangs = [3, 5, 6].map(|nth| format!("{{ attachment = 1, nth = {nth}, fault = \"hang\" }}")).join(", ");
    let storage = format!("timeout = \"{}s\"\nfaults = [{hangs}]\n", TIMEOUT.as_secs());
    let server = Setup { storage, limits: limits.to_owned(), ..place.setup() }.start();
    let bytes = noise(2 * PART + 1000, 1);
    assert_eq!(upload(&server, Door::Rest, 1, &bytes), 201);
    let expected = ["read", "open", "write", "write", "write", "write", "write", "write", "close"];
    assert_eq!(at_least(9, &server, 1)[..9], expected);
    assert_eq!(place.stored(&server, 1), Some(digest(&bytes)));
}

#[test]
fn two_parts_are_sent_while_the_next_one_is_taken_in_and_no_more_than_that() {
    // Two are sent, one is behind them, and one is gathered.
    sent_beside_what_comes("", 4);
}

#[test]
fn one_part_is_sent_while_the_next_one_is_taken_in_where_there_is_little_memory() {
    sent_beside_what_comes(SMALL_BUDGET, 3);
}

/// An upload of more parts than are `kept`, none of which the storage takes.
fn sent_beside_what_comes(limits: &str, kept: usize) {
    let place = Engine::Moto.secluded();
    let storage = format!(
        "timeout = \"{}s\"\nfaults = [{{ attachment = 1, operation = \"write\", nth = 1, always = true, fault = \"hang\" }}]\n",
        TIMEOUT.as_secs()
    );
    let server = Setup { storage, limits: limits.to_owned(), ..place.setup() }.start();
    let received = || server.numbers()["attachd_upload_received_bytes_total{door=\"rest\"}"];
    let parts = |count: usize| f64::from(u32::try_from(count * PART).unwrap());
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| upload(&server, Door::Rest, 1, &noise(6 * PART, 1)));
        eventually("as many parts have come", || received() >= parts(kept));
        std::thread::sleep(TIMEOUT / 12);
        // Beside them a few batches are under way.
        assert!(received() < parts(kept + 1), "{}", received());
        assert_eq!(ended.join().unwrap(), 503);
    });
    eventually("no memory is held", || server.readiness()["budget_used_bytes"] == 0);
    place.assert_nothing_left(&[&server]);
}

#[test]
fn each_part_that_is_sent_beside_others_is_counted_with_what_became_of_it() {
    let place = Engine::Moto.place();
    let limited = "attachment = 1, operation = \"write\", nth = 2, fault = \"rate_limited\"";
    let server = Setup { storage: format!("faults = [{{ {limited} }}]\n"), ..place.setup() }.start();
    let [ok, limited] = ["ok", "rate_limited"]
        .map(|outcome| format!("attachd_storage_operations_total{{operation=\"write\",outcome=\"{outcome}\"}}"));
    let timed = "attachd_storage_operation_duration_seconds_count{operation=\"write\"}";
    let before = server.numbers();
    assert_eq!(upload(&server, Door::Rest, 1, &noise(4 * PART + 1000, 1)), 201);
    let after = server.numbers();
    let more = |series: &str| after[series] - before[series];
    // The end is sent by the close as well, beside the last whole part; and a record is handed on before its put is closed.
    assert_eq!((more(&ok), more(&limited), more(timed)), (6.0, 1.0, 7.0));
    place.assert_nothing_left(&[&server]);
}

#[test]
fn an_upload_in_parts_is_taken_back_once_none_of_them_is_under_way() {
    let place = Engine::Moto.place();
    let slow = "attachment = 1, operation = \"write\", nth = 1, always = true, fault = \"slow\"";
    let server = Setup { storage: format!("faults = [{{ {slow} }}]\n"), ..place.setup() }.start();
    let mut connection = server.connect();
    connection.begin(&token(&[1]), 1, 1, &Form::file(&noise(6 * PART, 1)), 3 * PART + PART / 2);
    eventually("two parts are under way", || {
        requests(&server, 1).iter().filter(|request| *request == "write").count() == 2
    });
    drop(connection);
    eventually("it is taken back", || requests(&server, 1).contains(&"abort".to_owned()));
    let steps = steps(&server, 1);
    let before = &steps[..steps.iter().position(|(request, _)| request == "abort").unwrap()];
    let writes = |end: bool| before.iter().filter(|(request, ended)| request == "write" && *ended == end).count();
    assert_eq!((writes(false), writes(true)), (2, 2), "{steps:?}");
    place.assert_nothing_left(&[&server]);
}
