//! Deletes content that no record names, and what is kept of attachments that were deleted, beside running uploads and beside
//! other sweeps. It knows neither who asked for it nor how what it finds is shown.
//!
//! Three things make it safe, none of which needs a lock or a word with the processes that take uploads:
//!
//! - **Age.** An upload puts its content there before its record names it. Until then the content looks like garbage, so
//!   nothing is touched that is not older than the grace, and the grace is longer than any upload may take. The age is in
//!   the name, from the clock of the process that took the upload: no backend need be asked, and none can be wrong.
//! - **Order.** The content is listed first and the record read after that. What was listed and is not named then was
//!   either never named, or was replaced; content is immutable and ids are fresh, so it will not be named again. The other
//!   way round, an upload that commits between the two looks would have content that the record which was read does not
//!   name yet.
//! - **Doubt.** Where the record cannot be read, it may name anything, so nothing of its attachment is deleted.
//!
//! Two sweeps at once come by the same garbage. Deleting what is gone is a success, so both may do it.
//!
//! Empty folders on a local file system are left: an upload makes the folder of its content and renames its file into it
//! later, and a sweep that removed the folder in between would fail that upload. They cost a directory entry each, and the
//! next upload to the attachment uses them.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opendal::ErrorKind;
use tokio::sync::mpsc;

use super::finding::{Fate, Finding, Findings};
use super::tombstone::Expiry;
use super::walk::{End, Object, Visit, Walk, names};
use crate::attachment::{Key, Record};
use crate::error::Result;
use crate::store::{Store, failure, layout};

/// A search for content that no record names.
#[derive(Clone, Debug)]
pub struct Gc {
    /// Where to look.
    pub walk: Walk,
    /// Content that is not older than this is left alone. It must be longer than any upload may take.
    pub grace: Duration,
    /// The time from which ages are counted. The start of the sweep does: while it runs, content looks younger than it is.
    pub now: SystemTime,
    /// Whether to delete, or only to say what would be deleted.
    pub delete: bool,
}

impl Gc {
    /// Looks at every attachment, and tells `listener` what it comes by.
    pub async fn run(self, store: &Arc<Store>, listener: mpsc::Sender<Finding>) -> End {
        let findings = Findings { listener, stop: self.walk.stop.clone() };
        let walk = self.walk.clone();
        let sweeper = Sweeper { store: Arc::clone(store), sweep: Arc::new(self), findings: findings.clone() };
        walk.run(store, &findings, sweeper).await
    }
}

#[derive(Clone)]
struct Sweeper {
    store: Arc<Store>,
    sweep: Arc<Gc>,
    findings: Findings,
}

impl Visit for Sweeper {
    async fn record(&self, key: Key) -> bool {
        self.findings.send(Finding::Attachment { bytes: 0 }).await;
        match self.store.record(key).await {
            Ok(standing) => {
                if let Some(record) = standing.record().filter(|record| self.store.can_forget(record)) {
                    self.deleted(record).await;
                }
            }
            Err(error) => self.findings.send(self.store.unreadable(key, error).await).await,
        }
        true
    }

    async fn content(&self, key: Key) -> bool {
        let mut objects = 0;
        let seen = match self.attachment(key, &mut objects).await {
            Ok(seen) => seen,
            Err(error) => {
                self.findings.send(self.store.failed(&layout::content(key), error).await).await;
                true
            }
        };
        self.findings.send(Finding::Content { objects }).await;
        seen
    }
}

impl Sweeper {
    /// Whether all content of the attachment was looked at.
    async fn attachment(&self, key: Key, objects: &mut u64) -> Result<bool> {
        let mut contents = self.store.contents(key).await?;
        loop {
            if self.sweep.walk.stop.is_cancelled() {
                return Ok(false);
            }
            let page = contents.page(&self.findings).await?;
            if page.is_empty() {
                return Ok(true);
            }
            *objects += page.len() as u64;
            // After the page was listed, and again after each page: see above.
            let Some(standing) = self.store.record_of_content(key, &self.findings).await else {
                return Ok(true);
            };
            for object in page {
                if self.sweep.walk.stop.is_cancelled() {
                    return Ok(false);
                }
                if !names(standing.record(), object.id) {
                    self.orphan(key, object).await;
                }
            }
        }
    }

    /// Gives up what is kept of a deleted attachment, once its deletion cannot be undone.
    async fn deleted(&self, record: &Record) {
        let (key, path) = (record.key, layout::record(record.key));
        let expiry = Expiry { now: self.sweep.now.into(), grace: self.sweep.grace };
        let fate = match (expiry.is_over(record), self.sweep.delete) {
            (false, _) => Fate::Young,
            (true, false) => Fate::Garbage,
            (true, true) => match self.store.forget(key, expiry).await {
                Ok(true) => Fate::Deleted,
                // The attachment was made anew meanwhile.
                Ok(false) => return,
                Err(error) => return self.findings.send(self.store.failed(&path, error).await).await,
            },
        };
        let age = record.deletion().map_or(Duration::ZERO, |deletion| expiry.age(deletion.deleted_at));
        self.findings.send(Finding::Deleted { path, age, fate }).await;
    }

    async fn orphan(&self, key: Key, object: Object) {
        let path = layout::segment(key, object.id);
        if object.is_link {
            self.findings.send(Finding::Link { path }).await;
            return;
        }
        let age = object.id.upload.age(self.sweep.now);
        let old = age > self.sweep.grace;
        let size = match object.size {
            // What is not garbage is not worth a request.
            None if old => self.store.operator.stat(&path).await.ok().map(|metadata| metadata.content_length()),
            size => size,
        };
        let fate = match (old, self.sweep.delete) {
            (false, _) => Fate::Young,
            (true, false) => Fate::Garbage,
            (true, true) => match self.store.operator.delete(&path).await {
                Ok(()) => Fate::Deleted,
                // Another sweep, or the upload that replaced it, was faster.
                Err(error) if error.kind() == ErrorKind::NotFound => Fate::Deleted,
                Err(error) => {
                    self.findings.send(self.store.failed(&path, failure(error)).await).await;
                    return;
                }
            },
        };
        self.findings.send(Finding::Orphan { path, size, age, fate }).await;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::attachment::{Content, Digest, Filename, Id, MediaType, Segment, SegmentId, State, Target, UploadId};
    use crate::store::backend::Version;
    use crate::store::steps::Steps;
    use crate::store::{Access, Config};

    const GRACE: Duration = Duration::from_secs(3600);
    const TICK: Duration = Duration::from_millis(1);

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123)
    }

    fn key(client: i64, attachment: i64) -> Key {
        Key { client: Id::new("x", client).unwrap(), attachment: Id::new("x", attachment).unwrap() }
    }

    fn stores() -> Vec<(Arc<Store>, Option<tempfile::TempDir>)> {
        let folder = tempfile::tempdir().unwrap();
        let root = BTreeMap::from([("root".to_owned(), folder.path().to_str().unwrap().to_owned())]);
        let open = |service: &str, options| {
            let sizing = crate::store::Sizing { largest: 1 << 20, memory: 0 };
            let metrics = crate::telemetry::Metrics::default();
            Store::open(&Config::new(service, options), Access::Write, sizing, &metrics).unwrap()
        };
        vec![(Arc::new(open("memory", BTreeMap::new())), None), (Arc::new(open("fs", root)), Some(folder))]
    }

    async fn plant(store: &Store, key: Key, age: Duration) -> SegmentId {
        let id = SegmentId { upload: UploadId::aged(now(), age), number: 0 };
        let put =
            store.backend.clone().put(layout::segment(key, id), b"12345"[..].into(), Version::Any, Steps::default());
        put.await.unwrap();
        id
    }

    fn sweep(from: Option<Id>) -> Gc {
        let walk = Walk { from, concurrency: 4, stop: CancellationToken::new() };
        Gc { walk, grace: GRACE, now: now(), delete: true }
    }

    async fn run(store: &Arc<Store>, sweep: Gc) -> (End, Vec<Finding>) {
        let (listener, mut findings) = mpsc::channel(1000);
        let end = sweep.run(store, listener).await;
        let mut all = Vec::new();
        while let Some(finding) = findings.recv().await {
            all.push(finding);
        }
        (end, all)
    }

    #[tokio::test]
    async fn only_what_is_older_than_the_grace_is_deleted() {
        for (store, _folder) in stores() {
            let mut planted = Vec::new();
            for (attachment, age) in [(1, GRACE - TICK), (2, GRACE), (3, GRACE + TICK)] {
                planted.push((key(1, attachment), plant(&store, key(1, attachment), age).await));
            }
            let (end, findings) = run(&store, sweep(None)).await;
            assert_eq!(end, End::Complete);
            let mut left = Vec::new();
            for (key, id) in planted {
                left.push(store.operator.exists(&layout::segment(key, id)).await.unwrap());
            }
            assert_eq!(left, [true, true, false]);
            let mut fates: Vec<_> = findings
                .iter()
                .filter_map(|finding| match finding {
                    Finding::Orphan { size, age, fate, .. } => Some((*age, *fate, size.filter(|_| *age > GRACE))),
                    _ => None,
                })
                .collect();
            fates.sort_by_key(|(age, ..)| *age);
            let expected =
                [(GRACE - TICK, Fate::Young, None), (GRACE, Fate::Young, None), (GRACE + TICK, Fate::Deleted, Some(5))];
            assert_eq!(fates, expected);
        }
    }

    /// Puts a record as it is, with content behind it.
    async fn put(store: &Store, record: &Record, inline: &'static [u8]) {
        let bytes = crate::store::record::encode(None, record, &[inline.into()]).unwrap();
        let put = store.backend.clone().put(layout::record(record.key), bytes, Version::Any, Steps::default());
        put.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_deletion_keeps_is_given_up_when_it_can_no_longer_be_undone() {
        const WINDOW: Duration = Duration::from_secs(2 * 3600);
        for (store, folder) in stores() {
            let began = SystemTime::now();
            let target = |attachment| Target { key: key(1, attachment), project: None, portfolio: None };
            let registered = |attachment| Record::registered(target(attachment), "someone");
            let mut planted = Vec::new();
            for attachment in [1, 2, 3] {
                let id = SegmentId { upload: UploadId::aged(began, GRACE), number: 0 };
                let in_object = attachment == 2;
                if in_object {
                    let path = layout::segment(key(1, attachment), id);
                    let put = store.backend.clone().put(path, b"12345"[..].into(), Version::Any, Steps::default());
                    put.await.unwrap();
                    planted.push(layout::segment(key(1, attachment), id));
                }
                let sha256 = Digest::of([1; 32]);
                let segment = Segment { number: 0, size: 5, sha256, other: serde_json::Map::new() };
                let content = Content {
                    upload_id: id.upload,
                    filename: Filename::new("a.txt").unwrap(),
                    content_type: MediaType::new("").unwrap(),
                    size: 5,
                    sha256,
                    segments: if in_object { vec![segment] } else { Vec::new() },
                    created_at: began.into(),
                    uploaded_by: "someone".to_owned(),
                    other: serde_json::Map::new(),
                };
                let stored = Record { state: State::Stored(content), ..registered(attachment) };
                let record = if attachment == 3 { stored } else { stored.deleted("someone", WINDOW) };
                put(&store, &record, b"12345").await;
            }
            put(&store, &registered(4).deleted("someone", Duration::ZERO), b"").await;
            let is_file = folder.is_some();
            let lengths = async || {
                let mut lengths = Vec::new();
                for attachment in 1..=4 {
                    let found = store.operator.read(&layout::record(key(1, attachment))).await;
                    lengths.push(found.ok().map(|found| found.len()));
                }
                lengths
            };
            let before = lengths().await;
            // Past the grace, and a moment before the window ends; then past both.
            for (now, over) in [(began + WINDOW - TICK * 1000, 0), (began + WINDOW + GRACE, 2)] {
                for delete in [false, true] {
                    let (end, findings) = run(&store, Gc { now, delete, ..sweep(None) }).await;
                    assert_eq!(end, End::Complete);
                    let fate = if delete { Fate::Deleted } else { Fate::Garbage };
                    let is_over =
                        |finding: &&Finding| matches!(finding, Finding::Deleted { fate: found, .. } if *found == fate);
                    // A file without content goes too, with the grace; an object has nothing to give up.
                    let expected = over + usize::from(is_file);
                    let again = usize::from(is_file && over > 0);
                    assert_eq!(findings.iter().filter(is_over).count(), expected - again, "{findings:?}");
                }
                let after = lengths().await;
                assert_eq!(after[2], before[2], "a stored attachment does not change");
                assert_eq!(after[3].is_none(), is_file);
                if over == 0 {
                    assert_eq!(after[..2], before[..2]);
                    assert!(store.operator.exists(&planted[0]).await.unwrap());
                } else if is_file {
                    assert_eq!(after[..2], [None, None]);
                } else {
                    assert!(after[0].unwrap() < before[0].unwrap() && after[1].unwrap() < before[1].unwrap());
                }
            }
            assert!(!store.operator.exists(&planted[0]).await.unwrap(), "the content went in the same sweep");
            assert!(run(&store, Gc { now: began + WINDOW + GRACE, ..sweep(None) }).await.1.iter().all(|finding| {
                !matches!(finding, Finding::Deleted { .. } | Finding::Orphan { .. } | Finding::Unreadable { .. })
            }));
        }
    }

    #[tokio::test]
    async fn a_sweep_begins_where_it_is_told_to() {
        for (store, _folder) in stores() {
            let old = GRACE * 2;
            // 10 comes before 9 where names are compared as text.
            let clients = [2, 9, 10, 11, i64::MAX];
            for client in clients {
                plant(&store, key(client, 1), old).await;
            }
            let (end, findings) = run(&store, sweep(Some(key(10, 1).client))).await;
            assert_eq!(end, End::Complete);
            let deleted = findings.iter().filter(|finding| matches!(finding, Finding::Orphan { .. })).count();
            assert_eq!(deleted, 3);
            let (_, findings) = run(&store, sweep(None)).await;
            let deleted = findings.iter().filter(|finding| matches!(finding, Finding::Orphan { .. })).count();
            assert_eq!(deleted, 2);
        }
    }

    #[tokio::test]
    async fn a_sweep_that_is_stopped_names_the_lowest_client_that_is_left() {
        for (store, _folder) in stores() {
            for client in [9, 10] {
                plant(&store, key(client, 1), GRACE * 2).await;
            }
            let stopped = sweep(None);
            stopped.walk.stop.cancel();
            let (end, findings) = run(&store, stopped).await;
            assert_eq!(end, End::Stopped(key(9, 1).client));
            assert!(findings.is_empty(), "{findings:?}");
        }
    }

    #[tokio::test]
    async fn when_nobody_listens_the_sweep_ends() {
        for (store, _folder) in stores() {
            for client in 1..100 {
                plant(&store, key(client, 1), GRACE * 2).await;
            }
            let (listener, findings) = mpsc::channel(1);
            drop(findings);
            assert!(matches!(sweep(None).run(&store, listener).await, End::Stopped(_)));
        }
    }
}
