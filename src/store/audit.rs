//! Reads every stored attachment back and compares it with its record, beside running uploads. It changes nothing, and
//! knows neither who asked for it nor how what it finds is shown.
//!
//! A record may be replaced while its content is read, and the replaced content deleted. So before anything bad is said of
//! content, the record is read again: if it names other content by now, that is what is looked at instead.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use futures_util::StreamExt;
use opendal::ErrorKind;
use tokio::sync::mpsc;

use super::finding::{Fate, Finding, Findings};
use super::inventory::{End, Visit, Walk, names};
use super::{Store, content_folder, content_path, failure, record_path};
use crate::attachment::{Content, Digest, Key, Record, Segment};
use crate::error::Result;

/// A check of all that is stored.
#[derive(Clone, Debug)]
pub struct Audit {
    /// Where to look.
    pub walk: Walk,
    /// Content that no record names is garbage when it is older than this.
    pub grace: Duration,
    /// The time from which ages are counted.
    pub now: SystemTime,
}

impl Audit {
    /// Looks at every attachment, and tells `listener` what it comes by.
    pub async fn run(self, store: &Arc<Store>, listener: mpsc::Sender<Finding>) -> End {
        let findings = Findings { listener, stop: self.walk.stop.clone() };
        let walk = self.walk.clone();
        let auditor = Auditor { store: Arc::clone(store), audit: Arc::new(self), findings: findings.clone() };
        walk.run(store, &findings, auditor).await
    }
}

#[derive(Clone)]
struct Auditor {
    store: Arc<Store>,
    audit: Arc<Audit>,
    findings: Findings,
}

/// What came of reading content back.
enum Verdict {
    /// It is what the record says. So many bytes were read.
    Whole(u64),
    /// It is not.
    Bad(Finding),
    /// The audit was stopped before all was read.
    Stopped,
}

impl Visit for Auditor {
    async fn visit(&self, key: Key) -> bool {
        let (mut records, mut bytes, mut objects) = (0, 0, 0);
        let record = self.content(key, &mut records, &mut bytes).await;
        let seen = match record {
            Ok(true) => match self.orphans(key, &mut objects).await {
                Ok(seen) => seen,
                Err(error) => {
                    self.findings.send(self.store.failed(&content_folder(key), error).await).await;
                    true
                }
            },
            Ok(false) => false,
            Err(finding) => {
                self.findings.send(finding).await;
                true
            }
        };
        if seen {
            self.findings.send(Finding::Attachment { records, objects, bytes }).await;
        }
        seen
    }
}

impl Auditor {
    /// Reads back what the record names, and reports it where it is bad. `false` says that the audit was stopped; an error
    /// is a record that cannot be read, so that nothing can be said of the content.
    async fn content(&self, key: Key, records: &mut u64, bytes: &mut u64) -> Result<bool, Finding> {
        let mut record = self.record(key).await?;
        *records = u64::from(record.is_some());
        // Each round but the first follows a commit to this attachment, so there are no more rounds than commits.
        while let Some(content) = record.as_ref().and_then(Record::content) {
            let verdict = self.read_back(key, content).await;
            let finding = match verdict {
                Verdict::Whole(read) => {
                    *bytes += read;
                    return Ok(true);
                }
                Verdict::Stopped => return Ok(false),
                Verdict::Bad(finding) => finding,
            };
            let again = self.record(key).await?;
            if again == record {
                self.findings.send(finding).await;
                return Ok(true);
            }
            record = again;
        }
        Ok(true)
    }

    async fn record(&self, key: Key) -> Result<Option<Record>, Finding> {
        match self.store.record(key).await {
            Ok(record) => Ok(record),
            Err(error) => Err(self.store.unreadable(key, error).await),
        }
    }

    async fn read_back(&self, key: Key, content: &Content) -> Verdict {
        let listed: Option<u64> = content.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.size));
        if listed != Some(content.size) {
            let why = format!("the size of {} bytes is not the sum of its segments", content.size);
            return Verdict::Bad(Finding::Damaged { path: record_path(key), why });
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        for segment in &content.segments {
            let path = content_path(key, segment.id);
            match self.read_segment(&path, segment, &mut hash).await {
                Ok(true) => {}
                Ok(false) => return Verdict::Stopped,
                Err(Finding::Failed { path, error }) => return Verdict::Bad(self.store.failed(&path, error).await),
                Err(finding) => return Verdict::Bad(finding),
            }
        }
        let found = Digest::new("sha256", hash.finish().as_ref());
        match (found, content.segments.last()) {
            (Ok(found), _) if found == content.sha256 => Verdict::Whole(content.size),
            (_, last) => Verdict::Bad(Finding::Damaged {
                path: last.map_or_else(|| record_path(key), |segment| content_path(key, segment.id)),
                why: "its digest is not the one in the record".to_owned(),
            }),
        }
    }

    /// Hashes one segment. `false` says that the audit was stopped.
    async fn read_segment(&self, path: &str, segment: &Segment, hash: &mut digest::Context) -> Result<bool, Finding> {
        let bad = |error: opendal::Error| match error.kind() {
            ErrorKind::NotFound => Finding::Missing { path: path.to_owned() },
            ErrorKind::RangeNotSatisfied => shorter(path, segment.size),
            _ => Finding::Failed { path: path.to_owned(), error: failure(error) },
        };
        // One small request more than it takes, and for that a wrong size is known before all of it is read, and reads can
        // be bounded by what is there: an unbounded one allocates megabytes for a file of a few bytes.
        let found = self.store.operator.stat(path).await.map_err(bad)?;
        let size = found.content_length();
        // Of what is no file, such as a link, the attempt to read it says more.
        if found.is_file() && size != segment.size {
            let why = format!("{size} bytes are there, the record says {}", segment.size);
            return Err(Finding::Damaged { path: path.to_owned(), why });
        }
        let reader = self.store.operator.reader(path).await.map_err(bad)?;
        let mut stream = reader.into_stream(0..segment.size).await.map_err(bad)?;
        let mut read = 0;
        while let Some(buffer) = stream.next().await {
            let buffer = buffer.map_err(bad)?;
            read += buffer.len() as u64;
            for bytes in buffer {
                hash.update(&bytes);
            }
            if self.audit.walk.stop.is_cancelled() {
                return Ok(false);
            }
        }
        if read == segment.size { Ok(true) } else { Err(shorter(path, segment.size)) }
    }

    /// Reports content that no record names. `false` says that the audit was stopped.
    async fn orphans(&self, key: Key, objects: &mut u64) -> Result<bool> {
        let mut contents = self.store.contents(key).await?;
        loop {
            if self.audit.walk.stop.is_cancelled() {
                return Ok(false);
            }
            let page = contents.page(&self.findings).await?;
            if page.is_empty() {
                return Ok(true);
            }
            *objects += page.len() as u64;
            // After the listing, or content whose upload commits in between would look like an orphan.
            let record = match self.record(key).await {
                Ok(record) => record,
                Err(finding) => {
                    self.findings.send(finding).await;
                    return Ok(true);
                }
            };
            for object in page.into_iter().filter(|object| !names(record.as_ref(), object.id)) {
                let age = object.id.age(self.audit.now);
                let fate = if age > self.audit.grace { Fate::Garbage } else { Fate::Young };
                let path = content_path(key, object.id);
                if object.is_link {
                    self.findings.send(Finding::Link { path }).await;
                    continue;
                }
                self.findings.send(Finding::Orphan { path, size: object.size, age, fate }).await;
            }
        }
    }
}

fn shorter(path: &str, size: u64) -> Finding {
    Finding::Damaged { path: path.to_owned(), why: format!("it ends before its {size} bytes") }
}
