//! The process ends by SIGKILL at every step of an upload, and at any time. What was acknowledged is whole, what was not is
//! the old or the new, and temporary files are swept.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use tempfile::TempDir;
use tonic::Request;
use tonic::transport::Endpoint;

use crate::harness::{Server, Setup, chunk, eventually, finish, header, noise, token};
use crate::kills::{self, STEPS};

/// How many kills, where `ATTACHD_TEST_KILLS` says nothing.
const KILLS: usize = 60;

/// How many uploads are under way at a kill of any time.
const AT_ONCE: usize = 4;

/// What may stand under each id.
#[derive(Default)]
struct Ledger(BTreeMap<i64, Vec<Option<Vec<u8>>>>);

impl Ledger {
    /// An upload was begun: what stands may now be that.
    fn begun(&mut self, attachment: i64, bytes: &[u8]) {
        self.0.entry(attachment).or_insert_with(|| vec![None]).push(Some(bytes.to_vec()));
    }

    /// An upload was acknowledged: nothing else may stand.
    fn acknowledged(&mut self, attachment: i64, bytes: &[u8]) {
        self.0.insert(attachment, vec![Some(bytes.to_vec())]);
    }

    /// Looks at the storage, and forgets what turned out not to stand.
    fn check(&mut self, server: &Server, attachments: &[i64]) {
        for attachment in attachments {
            let may = &self.0[attachment];
            let stands = server.stored(1, *attachment);
            assert!(may.contains(&stands), "attachment {attachment} is none of the {} that it may be", may.len());
            self.0.insert(*attachment, vec![stands]);
        }
    }
}

/// Uploads, and returns whether it was acknowledged.
fn upload(server: &Server, grpc: bool, attachment: i64, bytes: &[u8]) -> bool {
    if grpc {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut messages = vec![Message::Header(header(1, attachment))];
        messages.extend(bytes.chunks(1 << 20).map(|bytes| chunk(bytes.to_vec())));
        messages.push(finish());
        runtime.block_on(async {
            let endpoint = Endpoint::from_shared(format!("http://{}", server.grpc)).unwrap();
            let Ok(channel) = endpoint.connect().await else {
                return false;
            };
            let messages = messages.into_iter().map(|message| UploadAttachmentRequest { message: Some(message) });
            let mut request = Request::new(futures_util::stream::iter(messages));
            request.metadata_mut().insert("authorization", format!("Bearer {}", token(&[1])).parse().unwrap());
            AttachmentServiceClient::new(channel).upload_attachment(request).await.is_ok()
        })
    } else {
        kills::upload(server.rest, attachment, bytes)
    }
}

/// Starts a server on a storage that another left, and looks that it swept.
fn restart(setup: Setup, folder: TempDir) -> Server {
    let server = setup.start_in(folder);
    assert_eq!(crate::files(&server.root().join(".attachd-tmp")), Vec::<std::path::PathBuf>::new());
    server
}

#[test]
fn after_a_kill_at_any_step_or_time_what_was_acknowledged_is_whole_and_the_rest_is_old_or_new() {
    let kills = kills::kills(KILLS);
    let mut ledger = Ledger::default();
    let mut folder = tempfile::tempdir().unwrap();
    let mut done = 0;
    let mut acknowledged = 0;
    'steps: loop {
        for replace in [false, true] {
            for grpc in [false, true] {
                for step in STEPS {
                    if step == "replaced_deleted" && !replace {
                        continue;
                    }
                    // The last quarter at least is for any time.
                    if done >= kills * 3 / 4 {
                        break 'steps;
                    }
                    done += 1;
                    let attachment = i64::try_from(done).unwrap();
                    folder = at_step(&mut ledger, folder, attachment, step, grpc, replace);
                }
            }
        }
    }
    let at_steps = done;
    while done < kills {
        done += 1;
        folder = at_any_time(&mut ledger, folder, done, &mut acknowledged);
    }
    let server = restart(Setup::default(), folder);
    let all: Vec<i64> = ledger.0.keys().copied().collect();
    ledger.check(&server, &all);
    println!("{done} kills, {at_steps} of them at steps; {acknowledged} acknowledged beside the others");
    // Content that no record names is gc's to find, not a failure of this.
    drop(server.kill());
}

#[test]
fn after_a_kill_at_any_step_of_a_deletion_all_of_the_attachment_stands_or_nothing() {
    let folder = Cell::new(Some(tempfile::tempdir().unwrap()));
    let start = |variables| restart(Setup { variables, ..Setup::default() }, folder.take().unwrap());
    kills::in_deletions(start, |server| folder.set(Some(server.kill())));
}

fn at_step(ledger: &mut Ledger, folder: TempDir, attachment: i64, step: &str, grpc: bool, replace: bool) -> TempDir {
    let nth = if replace && step != "replaced_deleted" { 2 } else { 1 };
    let variables = BTreeMap::from([
        ("ATTACHD_STORAGE__CRASH__STEP", step.to_owned()),
        ("ATTACHD_STORAGE__CRASH__NTH", nth.to_string()),
    ]);
    let mut server = restart(Setup { variables, ..Setup::default() }, folder);
    let seed = attachment.cast_unsigned();
    // Every third is put with its record, where the steps of a content of its own do not come.
    let inline = attachment % 3 == 0 && !step.starts_with("content") && step != "replaced_deleted";
    let (old, new) = (noise(20_000, seed), noise(if inline { 3000 } else { 30_000 }, seed + 1_000_000));
    if replace {
        ledger.begun(attachment, &old);
        assert!(upload(&server, grpc, attachment, &old));
        ledger.acknowledged(attachment, &old);
    }
    ledger.begun(attachment, &new);
    let stored = upload(&server, grpc, attachment, &new);
    if stored {
        ledger.acknowledged(attachment, &new);
    }
    assert!(!stored || step == "replaced_deleted", "{step} comes before the reply");
    assert_eq!(server.wait(), None, "it ended by a signal at {step}");
    let server = restart(Setup::default(), server.kill());
    ledger.check(&server, &[attachment]);
    server.kill()
}

fn at_any_time(ledger: &mut Ledger, folder: TempDir, round: usize, acknowledged: &mut usize) -> TempDir {
    let server = restart(Setup::default(), folder);
    let random = noise(8, round as u64);
    // Some ids have content from the round before, some have none.
    let ids: Vec<i64> = (0..AT_ONCE).map(|index| i64::try_from(100_000 + round * 2 + index).unwrap()).collect();
    let bytes = |index: usize| noise(1000 + usize::from(random[index]) * 12_000, (round * AT_ONCE + index) as u64);
    for (index, id) in ids.iter().enumerate() {
        ledger.begun(*id, &bytes(index));
    }
    let stored: Vec<bool> = std::thread::scope(|scope| {
        let server = &server;
        let uploads: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(index, id)| scope.spawn(move || upload(server, index % 2 == 1, *id, &bytes(index))))
            .collect();
        // Any time will do; this is not to wait for something.
        std::thread::sleep(Duration::from_millis(u64::from(random[7]) * 6));
        server.signal("KILL");
        uploads.into_iter().map(|upload| upload.join().unwrap()).collect()
    });
    for (index, id) in ids.iter().enumerate().filter(|(index, _)| stored[*index]) {
        *acknowledged += 1;
        ledger.acknowledged(*id, &bytes(index));
    }
    let server = restart(Setup::default(), server.kill());
    ledger.check(&server, &ids);
    eventually("the server is idle", || server.readiness()["uploads_in_flight"] == 0);
    server.kill()
}
