//! Deletes content that no record names, beside running uploads and beside other sweeps. It knows neither who asked for it
//! nor how what it finds is shown.
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
use super::walk::{End, Object, Visit, Walk, names};
use crate::attachment::Key;
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
    async fn record(&self, _: Key) -> bool {
        self.findings.send(Finding::Attachment { bytes: 0 }).await;
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
            let standing = match self.store.record(key).await {
                Ok(standing) => standing,
                Err(error) => {
                    let finding = self.store.unreadable(key, error).await;
                    // A link in place of the record was met by the walk.
                    if !matches!(finding, Finding::Link { .. }) {
                        self.findings.send(finding).await;
                    }
                    return Ok(true);
                }
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
    use crate::attachment::{Id, SegmentId, UploadId};
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
