//! The process ends by SIGKILL at every step of an upload, and at any time, over S3. What was acknowledged is whole, what was
//! not is the old or the new, and gc brings the bucket back to what the records name.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::conformance::{DOORS, Door, digest};
use crate::engines::{Engine, Place};
use crate::harness::{Server, noise};
use crate::kills::{self, STEPS};

/// How many kills, where `ATTACHD_TEST_KILLS` says nothing.
const KILLS: usize = 50;

/// What may stand under each id: nothing, or a digest, from the oldest to the newest.
///
/// What was sent but not acknowledged stays possible after the process that sent it has ended: an engine may have received
/// the whole request and carry it out later.
#[derive(Default)]
struct Ledger(BTreeMap<i64, Vec<Option<String>>>);

impl Ledger {
    fn begun(&mut self, attachment: i64, bytes: &[u8]) {
        self.0.entry(attachment).or_insert_with(|| vec![None]).push(Some(digest(bytes)));
    }

    fn acknowledged(&mut self, attachment: i64, bytes: &[u8]) {
        self.0.insert(attachment, vec![Some(digest(bytes))]);
    }

    fn check(&mut self, place: &Place, attachment: i64) {
        let stands = place.look().stored(&place.root, attachment);
        let may = self.0.get_mut(&attachment).unwrap();
        let at = may.iter().position(|one| *one == stands);
        let at = at.unwrap_or_else(|| panic!("attachment {attachment} is {stands:?}, which is none of {may:?}"));
        // What is older does not come back.
        may.drain(..at);
    }
}

/// Uploads over a connection that may break, and returns whether it was acknowledged.
fn upload(server: &Server, door: Door, attachment: i64, bytes: &[u8]) -> bool {
    if door == Door::Grpc {
        return crate::faults::grpc_status(server, attachment, bytes) == Some(201);
    }
    kills::upload(server.rest, attachment, bytes)
}

fn keeps_what_was_acknowledged_through_kills(engine: Engine, kills: usize) {
    let place = engine.place();
    let mut ledger = Ledger::default();
    let mut done = 0;
    'steps: loop {
        for replace in [false, true] {
            for door in DOORS {
                for step in STEPS {
                    if step == "replaced_deleted" && !replace {
                        continue;
                    }
                    if done >= kills * 3 / 4 {
                        break 'steps;
                    }
                    done += 1;
                    at_step(&place, &mut ledger, i64::try_from(done).unwrap(), step, door, replace);
                }
            }
        }
    }
    let at_steps = done;
    let mut acknowledged = 0;
    while done < kills {
        done += 1;
        acknowledged += at_any_time(&place, &mut ledger, done);
    }
    // Every id once more, then gc: what is left is what the records name. Uploads in parts that were open are left to the
    // bucket's lifecycle rule.
    for attachment in ledger.0.keys().copied().collect::<Vec<_>>() {
        ledger.check(&place, attachment);
    }
    let before = place.look().kept(&place.root).len();
    collect_garbage(&place);
    for attachment in ledger.0.keys().copied().collect::<Vec<_>>() {
        ledger.check(&place, attachment);
    }
    let after = place.look().kept(&place.root);
    let stored = ledger.0.values().filter(|may| may[0].is_some()).count();
    place.look().assert_named(&place.root);
    assert_eq!(after.keys().filter(|key| key.contains("/records/")).count(), stored, "{after:?}");
    println!(
        "{engine:?}: {done} kills, {at_steps} of them at steps; {acknowledged} acknowledged beside the others; {} objects before gc, {} after",
        before,
        after.len()
    );
}

#[test]
fn after_a_kill_at_any_step_or_time_what_was_acknowledged_is_whole_and_gc_leaves_what_the_records_name() {
    keeps_what_was_acknowledged_through_kills(Engine::Moto, kills::kills(KILLS));
}

#[test]
fn after_a_kill_at_any_step_or_time_what_was_acknowledged_is_whole_on_minio() {
    keeps_what_was_acknowledged_through_kills(Engine::Minio, kills::kills(KILLS));
}

#[test]
fn after_a_kill_at_any_step_of_a_deletion_all_of_the_attachment_stands_or_nothing() {
    let place = Engine::Moto.place();
    let start = |variables: BTreeMap<&'static str, String>| {
        let mut setup = place.setup();
        setup.variables.extend(variables);
        setup.start()
    };
    kills::in_deletions(start, |server| drop(server.kill()));
    collect_garbage(&place);
    place.look().assert_named(&place.root);
}

/// Deletes what no record names, with a grace of a second.
pub fn collect_garbage(place: &Place) {
    // It is older than the grace by then.
    std::thread::sleep(Duration::from_secs(2));
    let (code, said) = place.run("max_upload_time = \"500ms\"\n", &["gc", "--delete", "--grace", "1s"]);
    assert_eq!(code, Some(0), "{said}");
}

fn at_step(place: &Place, ledger: &mut Ledger, attachment: i64, step: &str, door: Door, replace: bool) {
    let nth = if replace && step != "replaced_deleted" { 2 } else { 1 };
    let mut setup = place.setup();
    setup.variables.insert("ATTACHD_STORAGE__CRASH__STEP", step.to_owned());
    setup.variables.insert("ATTACHD_STORAGE__CRASH__NTH", nth.to_string());
    let mut server = setup.start();
    let seed = attachment.cast_unsigned();
    // Every third is put with its record, where the steps of a content of its own do not come.
    let inline = attachment % 3 == 0 && !step.starts_with("content") && step != "replaced_deleted";
    let (old, new) = (noise(20_000, seed), noise(if inline { 3000 } else { 30_000 }, seed + 1_000_000));
    if replace {
        ledger.begun(attachment, &old);
        assert!(upload(&server, door, attachment, &old));
        ledger.acknowledged(attachment, &old);
    }
    ledger.begun(attachment, &new);
    let stored = upload(&server, door, attachment, &new);
    if stored {
        ledger.acknowledged(attachment, &new);
    }
    assert!(!stored || step == "replaced_deleted", "{step} comes before the reply");
    assert_eq!(server.wait(), None, "it ended by a signal at {step}");
    ledger.check(place, attachment);
}

/// Four uploads, one of them in parts, and a kill while they run.
fn at_any_time(place: &Place, ledger: &mut Ledger, round: usize) -> usize {
    let server = place.start();
    let random = noise(8, round as u64);
    // Some ids have content from the round before, some have none.
    let ids: [i64; 4] = std::array::from_fn(|index| i64::try_from(100_000 + round * 2 + index).unwrap());
    let bytes: [Vec<u8>; 4] = std::array::from_fn(|index| {
        let size = if index == 0 { (8 << 20) + 1000 } else { 1000 + usize::from(random[index]) * 2000 };
        noise(size, (round * 4 + index) as u64)
    });
    for (id, bytes) in ids.iter().zip(&bytes) {
        ledger.begun(*id, bytes);
    }
    let stored = std::thread::scope(|scope| {
        let uploads = std::array::from_fn::<_, 4, _>(|index| {
            let (server, bytes, id) = (&server, &bytes[index], ids[index]);
            scope.spawn(move || upload(server, DOORS[index % 2], id, bytes))
        });
        // Any time will do; this is not to wait for something.
        std::thread::sleep(Duration::from_millis(u64::from(random[7]) * 4));
        server.signal("KILL");
        uploads.map(|upload| upload.join().unwrap())
    });
    for (index, _) in stored.iter().enumerate().filter(|(_, stored)| **stored) {
        ledger.acknowledged(ids[index], &bytes[index]);
    }
    drop(server.kill());
    for id in ids {
        ledger.check(place, id);
    }
    stored.iter().filter(|stored| **stored).count()
}
