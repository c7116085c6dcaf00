//! Reads every stored attachment back and compares it with its record, beside running uploads. It changes nothing, and
//! knows neither who asked for it nor how what it finds is shown.
//!
//! A record may be replaced while its content is read, and the replaced content deleted. So before anything bad is said of
//! content, the record is read again: if it names other content by now, that is what is looked at instead.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use opendal::ErrorKind;
use tokio::sync::mpsc;

use super::finding::{Fate, Finding, Findings};
use super::walk::{End, Visit, Walk, names};
use crate::attachment::{Content, Key, Segment};
use crate::error::Result;
use crate::store::hash::Hash;
use crate::store::record::Stored;
use crate::store::{Store, failure, layout};

/// A check of all that is stored.
#[derive(Clone, Debug)]
pub struct Verify {
    /// Where to look.
    pub walk: Walk,
    /// Content that no record names is garbage when it is older than this.
    pub grace: Duration,
    /// The time from which ages are counted.
    pub now: SystemTime,
}

impl Verify {
    /// Looks at every attachment, and tells `listener` what it comes by.
    pub async fn run(self, store: &Arc<Store>, listener: mpsc::Sender<Finding>) -> End {
        let findings = Findings { listener, stop: self.walk.stop.clone() };
        let walk = self.walk.clone();
        let verifier = Verifier { store: Arc::clone(store), verify: Arc::new(self), findings: findings.clone() };
        walk.run(store, &findings, verifier).await
    }
}

#[derive(Clone)]
struct Verifier {
    store: Arc<Store>,
    verify: Arc<Verify>,
    findings: Findings,
}

/// What came of reading content back.
enum Verdict {
    /// It is what the record says. So many bytes were read.
    Whole(u64),
    /// It is not.
    Bad(Finding),
    /// The walk was stopped before all was read.
    Stopped,
}

impl Visit for Verifier {
    async fn record(&self, key: Key) -> bool {
        let mut bytes = 0;
        let seen = match self.attachment(key, &mut bytes).await {
            Ok(seen) => seen,
            Err(finding) => {
                self.findings.send(finding).await;
                true
            }
        };
        if seen {
            self.findings.send(Finding::Attachment { bytes }).await;
        }
        seen
    }

    async fn content(&self, key: Key) -> bool {
        let mut objects = 0;
        let seen = match self.orphans(key, &mut objects).await {
            Ok(seen) => seen,
            Err(error) => {
                self.findings.send(self.store.failed(&layout::content(key), error).await).await;
                true
            }
        };
        if seen {
            self.findings.send(Finding::Content { objects }).await;
        }
        seen
    }
}

impl Verifier {
    /// Reads back what the record names, and reports it if it is bad. `false` says that the walk was stopped; an error is a
    /// record that cannot be read, so that nothing can be said of the content.
    async fn attachment(&self, key: Key, bytes: &mut u64) -> Result<bool, Finding> {
        let mut stored = self.read(key).await?;
        // Each round but the first follows a commit to this attachment, so there are no more rounds than commits.
        while let Some(stands) = stored {
            let verdict = match stands.record.kept_content().filter(|content| !content.is_inline()) {
                Some(content) if stands.inline.is_empty() => self.segments(key, content).await,
                _ => behind(key, &stands),
            };
            let finding = match verdict {
                Verdict::Whole(read) => {
                    *bytes += read;
                    return Ok(true);
                }
                Verdict::Stopped => return Ok(false),
                Verdict::Bad(finding) => finding,
            };
            let again = self.read(key).await?;
            if again.as_ref().is_some_and(|again| again.record == stands.record) {
                self.findings.send(finding).await;
                return Ok(true);
            }
            stored = again;
        }
        Ok(true)
    }

    async fn read(&self, key: Key) -> Result<Option<Stored>, Finding> {
        match self.store.read(key).await {
            Ok((stored, _)) => Ok(stored),
            Err(error) => Err(self.store.unreadable(key, error).await),
        }
    }

    /// Reads content back that is in objects of its own: each segment by its digest, and all of it by that of the whole.
    async fn segments(&self, key: Key, content: &Content) -> Verdict {
        let listed: Option<u64> = content.segments.iter().try_fold(0_u64, |sum, segment| sum.checked_add(segment.size));
        if listed != Some(content.size) {
            let why = format!("the size of {} bytes is not the sum of its segments", content.size);
            return Verdict::Bad(Finding::Damaged { path: layout::record(key), why });
        }
        let mut whole = Hash::default();
        for (segment, id) in content.segments.iter().zip(content.segment_ids()) {
            let path = layout::segment(key, id);
            match self.read_segment(&path, segment, &mut whole).await {
                Ok(true) => {}
                Ok(false) => return Verdict::Stopped,
                Err(Finding::Failed { path, error }) => return Verdict::Bad(self.store.failed(&path, error).await),
                Err(finding) => return Verdict::Bad(finding),
            }
        }
        if whole.finish() == content.sha256 {
            return Verdict::Whole(content.size);
        }
        let why = "the digest of its segments is not the one in the record".to_owned();
        Verdict::Bad(Finding::Damaged { path: layout::record(key), why })
    }

    /// Hashes one segment. `false` says that the walk was stopped.
    async fn read_segment(&self, path: &str, segment: &Segment, whole: &mut Hash) -> Result<bool, Finding> {
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
        let (mut read, mut hash) = (0, Hash::default());
        while let Some(buffer) = stream.next().await {
            let buffer = buffer.map_err(bad)?;
            read += buffer.len() as u64;
            for bytes in buffer {
                hash.update(&bytes);
                whole.update(&bytes);
            }
            if self.verify.walk.stop.is_cancelled() {
                return Ok(false);
            }
        }
        if read < segment.size {
            return Err(shorter(path, segment.size));
        }
        if hash.finish() != segment.sha256 {
            let why = "its digest is not the one in the record".to_owned();
            return Err(Finding::Damaged { path: path.to_owned(), why });
        }
        Ok(true)
    }

    /// Reports content that no record names. `false` says that the walk was stopped.
    async fn orphans(&self, key: Key, objects: &mut u64) -> Result<bool> {
        let mut contents = self.store.contents(key).await?;
        loop {
            if self.verify.walk.stop.is_cancelled() {
                return Ok(false);
            }
            let page = contents.page(&self.findings).await?;
            if page.is_empty() {
                return Ok(true);
            }
            *objects += page.len() as u64;
            // After the listing, or content whose upload commits in between would look like an orphan.
            let Some(standing) = self.store.record_of_content(key, &self.findings).await else {
                return Ok(true);
            };
            for object in page.into_iter().filter(|object| !names(standing.record(), object.id)) {
                let age = object.id.upload.age(self.verify.now);
                let fate = if age > self.verify.grace { Fate::Garbage } else { Fate::Young };
                let path = layout::segment(key, object.id);
                if object.is_link {
                    self.findings.send(Finding::Link { path }).await;
                    continue;
                }
                self.findings.send(Finding::Orphan { path, size: object.size, age, fate }).await;
            }
        }
    }
}

/// Compares what is behind a record with what the record says of it.
fn behind(key: Key, stored: &Stored) -> Verdict {
    let content = stored.record.kept_content().filter(|content| content.is_inline());
    let (found, says) = (stored.inline.len() as u64, content.map_or(0, |content| content.size));
    let mut hash = Hash::default();
    hash.update(&stored.inline);
    let why = if found != says {
        format!("{found} bytes are behind the record, which says {says}")
    } else if content.is_some_and(|content| hash.finish() != content.sha256) {
        "the digest of its content is not the one that it says".to_owned()
    } else {
        return Verdict::Whole(found);
    };
    Verdict::Bad(Finding::Damaged { path: layout::record(key), why })
}

fn shorter(path: &str, size: u64) -> Finding {
    Finding::Damaged { path: path.to_owned(), why: format!("it ends before its {size} bytes") }
}
