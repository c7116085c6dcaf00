//! Nodes of a storage cluster are ended, cut off and brought back while uploads go on. What was acknowledged is whole, what
//! was refused may be sent again and says so, and gc brings the storage back to what the records name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use attachd::pb::upload_attachment_request::Message;
use tonic::Code;

use crate::cluster::{self, Cluster, NODES};
use crate::conformance::{Door, digest};
use crate::crash::collect_garbage;
use crate::engines::{BUCKET, Place, Running};
use crate::harness::{Connection, Form, Server, Setup, chunk, eventually, finish, header, noise, token};
use crate::look::Look;

/// How many send uploads at once, each to attachments of its own.
const CALLERS: usize = 4;

/// How many attachments each has. It comes back to them, so most uploads replace.
const EACH: usize = 12;

/// How many uploads must be stored before the next thing happens.
const STORED: usize = 10;

/// How many must be refused where they have to be.
const REFUSED: usize = 3;

/// How long that may take. MinIO lets go of locks that nobody refreshes after two minutes at most, and may share a machine with much
/// else.
const PATIENCE: Duration = Duration::from_secs(300);

/// The time of a storage operation, with its second and third try.
const TIMEOUT: Duration = Duration::from_secs(6);

/// How long an upload may take whatever the storage does: some operations that each take all of their time.
const IN_TIME: Duration = Duration::from_secs(90);

/// How long a node that is back may take to be told what it missed.
const TOLD: Duration = Duration::from_secs(180);

/// What came of the uploads that began while one state of the cluster lasted, by the replica that took them.
#[derive(Default)]
struct Tally {
    stored: [AtomicUsize; 2],
    refused: [AtomicUsize; 2],
}

/// What was sent to each attachment, in this order.
type Ledger = BTreeMap<i64, Vec<Sent>>;

/// An upload that was answered.
#[derive(Debug)]
struct Sent {
    digest: String,
    acknowledged: bool,
    /// The state of the cluster at its begin, and which replica it went through.
    _through: (&'static str, usize),
}

/// Whether this may stand: what was acknowledged last, or anything since.
fn may_stand(sent: &[Sent], stands: Option<&String>) -> bool {
    let since = sent.iter().rposition(|sent| sent.acknowledged);
    match stands {
        Some(digest) => sent[since.unwrap_or_default()..].iter().any(|sent| sent.digest == *digest),
        None => since.is_none(),
    }
}

/// Uploads, and returns whether it was acknowledged. If not, the refusal is the one that is documented.
fn upload(server: &Server, door: Door, attachment: i64, bytes: &[u8]) -> bool {
    match door {
        Door::Rest => {
            let mut connection = Connection::open(server.rest);
            connection.writer().set_read_timeout(Some(IN_TIME)).unwrap();
            let reply = connection.upload(&token(&[1]), 1, attachment, &Form::file(bytes));
            if reply.status != 201 {
                reply.assert_refusal(503, "The storage is not available, try again later");
                assert!(!reply.header("retry-after").is_empty(), "{reply:?}");
            }
            reply.status == 201
        }
        Door::Grpc => {
            let mut messages = vec![Message::Header(header(1, attachment))];
            messages.extend(bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())));
            messages.push(finish());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let token = token(&[1]);
            let upload = async { tokio::time::timeout(IN_TIME, server.grpc_upload(&token, messages)).await };
            let sent = runtime.block_on(upload).expect("an answer in time");
            if let Err(refusal) = &sent {
                assert_eq!((refusal.code, &*refusal.reason), (Code::Unavailable, "STORAGE_UNAVAILABLE"), "{refusal:?}");
                assert!(refusal.retry_after.is_some(), "{refusal:?}");
            }
            sent.is_ok()
        }
    }
}

/// Sends one upload after the other, through both replicas and both doors in turn, and returns what may stand.
fn send(servers: &[Server; 2], caller: usize, tallies: &[Tally], now: &AtomicUsize, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::new();
    for turn in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let attachment = i64::try_from(caller * 1000 + turn % EACH + 1).unwrap();
        // Some are in parts, most are of one, and the smallest lie beside what the storage notes of them.
        let size = [6000, 300_000, 70, 2 << 20][turn % 4] + if turn % EACH == 5 { 8 << 20 } else { 0 };
        let bytes = noise(size, (caller * 1_000_000 + turn) as u64);
        let replica = (caller + turn) % 2;
        let door = if (caller + turn) % 4 < 2 { Door::Rest } else { Door::Grpc };
        let state = now.load(Ordering::SeqCst);
        let acknowledged = upload(&servers[replica], door, attachment, &bytes);
        let sent = Sent { digest: digest(&bytes), acknowledged, _through: (STATES[state % STATES.len()], replica) };
        ledger.entry(attachment).or_default().push(sent);
        let tally = &tallies[state];
        if acknowledged {
            tally.stored[replica].fetch_add(1, Ordering::SeqCst);
        } else {
            tally.refused[replica].fetch_add(1, Ordering::SeqCst);
            // As one who comes back later.
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    ledger
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until what a node shows of an attachment is right, in the time that it may take to be told of it.
fn shows(
    look: &Look,
    root: &str,
    attachment: i64,
    right: impl Fn(Option<&String>) -> bool,
    expected: impl Fn() -> String,
) {
    let deadline = Instant::now() + TOLD;
    loop {
        // Until it is told it may show a record whose content was deleted since.
        let stands = look.try_stored(root, attachment);
        if stands.as_ref().is_ok_and(|stands| right(stands.as_ref())) {
            return;
        }
        assert!(Instant::now() < deadline, "{attachment} is {stands:?}, {}", expected());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The states that the cluster is put through, one after the other.
const STATES: [&str; 8] = [
    "whole",
    "without a node that no replica speaks to",
    "whole again",
    "without the first replica's node",
    "whole once more",
    "with a node cut off that no replica speaks to",
    "with the second replica's node cut off",
    "whole at the end",
];

/// Puts the cluster through its states, in each of which uploads are stored, and refused where they have to be.
fn go_through(cluster: &mut Cluster, tallies: &[Tally], now: &AtomicUsize) {
    let next = |expected: &str| {
        let state = now.fetch_add(1, Ordering::SeqCst) + 1;
        assert_eq!(STATES[state % STATES.len()], expected);
    };
    let count = |counter: fn(&Tally) -> &[AtomicUsize; 2], replica: usize| {
        counter(&tallies[now.load(Ordering::SeqCst)])[replica].load(Ordering::SeqCst)
    };
    let stored = |replica: usize| {
        let what = format!("replica {replica} stores: {}", STATES[now.load(Ordering::SeqCst) % STATES.len()]);
        wait(&what, || count(|tally| &tally.stored, replica) >= STORED);
    };
    let refused = |replica: usize| {
        let what = format!("replica {replica} refuses: {}", STATES[now.load(Ordering::SeqCst) % STATES.len()]);
        wait(&what, || count(|tally| &tally.refused, replica) >= REFUSED);
    };
    (0..2).for_each(stored);

    cluster.kill(2);
    next("without a node that no replica speaks to");
    (0..2).for_each(stored);
    cluster.begin(2);
    cluster.wait_until_whole();
    next("whole again");
    (0..2).for_each(stored);

    cluster.kill(0);
    next("without the first replica's node");
    refused(0);
    stored(1);
    cluster.begin(0);
    cluster.wait_until_whole();
    next("whole once more");
    (0..2).for_each(stored);

    cluster.unplug(2);
    next("with a node cut off that no replica speaks to");
    (0..2).for_each(stored);
    cluster.plug(2);
    cluster.wait_until_whole();
    cluster.unplug(1);
    next("with the second replica's node cut off");
    refused(1);
    stored(0);
    cluster.plug(1);
    cluster.wait_until_whole();
    next("whole at the end");
    (0..2).for_each(stored);
}

#[test]
fn what_a_cluster_acknowledged_is_whole_though_its_nodes_end_and_come_back_one_after_the_other() {
    let this = "outage::what_a_cluster_acknowledged_is_whole_though_its_nodes_end_and_come_back_one_after_the_other";
    if !cluster::inside(this) {
        return;
    }
    let rounds = if crate::long() { 5 } else { 1 };
    let mut cluster = Cluster::start();
    let looks: [Look; NODES] = std::array::from_fn(|node| Look::at("s3", &cluster::endpoint(node), BUCKET));
    looks[0].make();
    // Without versions, three overwrites that each failed on other drives leave none that enough of them hold.
    looks[0].keep_versions();
    let places = [0, 1].map(|node| {
        let look = Look::at("s3", &cluster::endpoint(node), BUCKET);
        Place::at("s3", Arc::new(Running::elsewhere(cluster::endpoint(node), look)), "cluster")
    });
    let storage = format!("timeout = \"{}s\"\n", TIMEOUT.as_secs());
    let servers = places.each_ref().map(|place| Setup { storage: storage.clone(), ..place.setup() }.start());
    let tallies: Vec<Tally> = (0..rounds * STATES.len()).map(|_| Tally::default()).collect();
    let (now, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ledger: Ledger = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                let (servers, tallies, now, stop) = (&servers, &tallies, &now, &stop);
                scope.spawn(move || send(servers, caller, tallies, now, stop))
            })
            .collect();
        let stops = Stops(&stop);
        for round in 0..rounds {
            if round > 0 {
                now.fetch_add(1, Ordering::SeqCst);
            }
            go_through(&mut cluster, &tallies, &now);
        }
        drop(stops);
        callers.into_iter().flat_map(|caller| caller.join().expect("every answer was a documented one")).collect()
    });
    for server in &servers {
        eventually("the server is idle", || server.readiness()["uploads_in_flight"] == 0);
    }
    // Whichever node is asked: what was acknowledged last, or what was refused since and came about all the same. One that was
    // away shows what stood before until it has been told what it missed.
    let root = &places[0].root;
    for (look, (attachment, sent)) in looks.iter().flat_map(|look| ledger.iter().map(move |entry| (look, entry))) {
        shows(look, root, *attachment, |stands| may_stand(sent, stands), || format!("after {sent:#?}"));
    }
    // Sending it again settles it, and there is nothing else.
    let settled = ledger.keys().map(|attachment| {
        let bytes = noise(if attachment % 3 == 0 { 5000 } else { 50_000 }, attachment.unsigned_abs());
        let replica = usize::try_from(attachment % 2).unwrap();
        // A put that was cut off may have left the storage's lock of that object, which has to lapse.
        wait(&format!("{attachment} is stored"), || upload(&servers[replica], Door::Rest, *attachment, &bytes));
        (*attachment, digest(&bytes))
    });
    let settled: BTreeMap<i64, String> = settled.collect();
    for server in &servers {
        eventually("the server is idle", || server.readiness()["uploads_in_flight"] == 0);
    }
    let before = looks[0].kept(root).len();
    collect_garbage(&places[0]);
    for look in &looks {
        look.assert_named(root);
        for (attachment, digest) in &settled {
            shows(look, root, *attachment, |stands| stands == Some(digest), || format!("{digest} was acknowledged"));
        }
    }
    let (code, said) = places[1].run("", &["verify"]);
    assert_eq!(code, Some(0), "{said}");
    for (index, tally) in tallies.iter().enumerate() {
        let sum = |counters: &[AtomicUsize; 2]| counters.each_ref().map(|counter| counter.load(Ordering::SeqCst));
        let state = STATES[index % STATES.len()];
        println!("cluster: {state}: stored {:?}, refused {:?}", sum(&tally.stored), sum(&tally.refused));
    }
    println!("cluster: {before} objects before gc, {} after", looks[0].kept(root).len());
}

/// Ends the uploads when dropped, so that a test that fails does not wait for them for ever.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
