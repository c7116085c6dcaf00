//! Faults on purpose, for tests: a layer between `store` and the storage that fails, hangs, dawdles or loses answers where
//! its rules say so, and the crash points. It is compiled in only with the feature `faults`, and knows nothing of uploads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opendal::raw::oio::{Delete, List, Read, ReadStreamDyn, Write};
use opendal::raw::{
    Layer, OpCompose, OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpRestore, OpStat, OpWrite,
    RpCreateDir, RpPresign, RpRead, RpRename, RpRestore, RpStat, Service, ServiceInfo, Servicer, oio,
};
use opendal::{Buffer, BytesRange, Capability, Error, ErrorKind, Metadata, OperationContext, Result};
use serde::Deserialize;

use super::steps::Step;

mod wire;

pub use wire::on_the_way;

#[cfg(not(debug_assertions))]
compile_error!("the feature `faults` is for tests and has no place in a release");

/// How long a slow operation takes longer. Less than any timeout that a test sets.
const SLOWNESS: Duration = Duration::from_millis(200);

/// What every injected failure says, so that a test can look for it where it must not be.
const TEXT: &str = "injected by the storage: bucket secret-bucket, key clients/secret";

/// A kind of storage operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// A look at an object.
    Stat,
    /// The reading of an object, or of a part of it.
    Read,
    /// The beginning of an object in parts.
    Open,
    /// A write to an object that is not closed yet.
    Write,
    /// The closing of an object, which makes it visible.
    Close,
    /// The taking back of an object that is not closed.
    Abort,
    /// A deletion.
    Delete,
    /// The next entry of a listing.
    List,
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is not done, and may be tried again.
    Temporary,
    /// It is not done, since something is broken that may be mended.
    Broken,
    /// It is not done, and trying again will not help.
    Permanent,
    /// It is not done: not permitted.
    PermissionDenied,
    /// It is not done: there is no such object.
    NotFound,
    /// It is not done: too many requests.
    RateLimited,
    /// It never ends.
    Hang,
    /// It takes longer.
    Slow,
    /// It is done, and its answer says otherwise.
    Lost,
}

/// Which operations fail, and how.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The attachment whose operations are counted, whatever its client.
    pub attachment: u64,
    /// The kind of operation that is counted. Default any.
    pub operation: Option<Operation>,
    /// Which one fails, from 1.
    pub nth: u64,
    /// Whether all after it fail as well. Default false.
    #[serde(default)]
    pub always: bool,
    /// How it fails.
    pub fault: Fault,
}

/// Where the process ends itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crash {
    /// After which step.
    pub step: Step,
    /// At which passing of it, from 1.
    pub nth: u64,
}

/// A crash, and how often its step was passed.
#[derive(Debug)]
pub struct CrashPoint {
    crash: Crash,
    seen: AtomicU64,
}

impl From<Crash> for CrashPoint {
    fn from(crash: Crash) -> Self {
        CrashPoint { crash, seen: AtomicU64::new(0) }
    }
}

impl CrashPoint {
    /// Ends the process by SIGKILL if this is where it ends. Nothing is flushed, dropped or answered.
    pub fn passed(&self, step: Step) {
        if step != self.crash.step || self.seen.fetch_add(1, Ordering::Relaxed) + 1 != self.crash.nth {
            return;
        }
        let pid = std::process::id().to_string();
        // An abort runs no destructors either, should there be no `kill`.
        let _ = std::process::Command::new("kill").args(["-KILL", &pid]).status();
        std::process::abort();
    }
}

/// The layer.
#[derive(Clone, Debug)]
pub struct Faults(Arc<Vec<Counted>>);

#[derive(Debug)]
struct Counted {
    rule: Rule,
    part: String,
    seen: AtomicU64,
}

impl Faults {
    /// A layer with these rules.
    pub fn new(rules: &[Rule]) -> Faults {
        let counted = rules.iter().map(|rule| Counted {
            rule: *rule,
            part: format!("/{:019}", rule.attachment),
            seen: AtomicU64::new(0),
        });
        Faults(Arc::new(counted.collect()))
    }

    /// Counts an operation in every rule that it is in, and says what is to happen to it.
    fn next(&self, operation: Operation, path: &str) -> Option<Fault> {
        tracing::debug!(?operation, path, "storage operation");
        let mut fault = None;
        for Counted { rule, part, seen } in self.0.iter() {
            if !path.contains(part) || rule.operation.is_some_and(|kind| kind != operation) {
                continue;
            }
            let count = seen.fetch_add(1, Ordering::Relaxed) + 1;
            if count == rule.nth || (rule.always && count > rule.nth) {
                fault = fault.or(Some(rule.fault));
            }
        }
        fault
    }

    /// Does an operation of the local file system on the thread that calls, which may block. One that hangs ends once it is
    /// abandoned.
    pub fn act_now<T>(
        &self,
        operation: Operation,
        path: &str,
        abandoned: impl Fn() -> bool,
        work: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let kind = match self.next(operation, path) {
            None => return work(),
            Some(Fault::Hang) => {
                while !abandoned() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                io::ErrorKind::TimedOut
            }
            Some(Fault::Slow) => {
                std::thread::sleep(SLOWNESS);
                return work();
            }
            Some(Fault::Lost) => {
                drop(work());
                io::ErrorKind::Other
            }
            Some(Fault::Temporary | Fault::Broken) => io::ErrorKind::Other,
            Some(Fault::Permanent) => io::ErrorKind::NotADirectory,
            Some(Fault::PermissionDenied) => io::ErrorKind::PermissionDenied,
            Some(Fault::NotFound) => io::ErrorKind::NotFound,
            Some(Fault::RateLimited) => io::ErrorKind::ResourceBusy,
        };
        Err(io::Error::new(kind, TEXT))
    }

    async fn act<T, W>(&self, operation: Operation, path: &str, work: W) -> Result<T>
    where
        W: Future<Output = Result<T>> + Send,
    {
        let kind = match self.next(operation, path) {
            None => return work.await,
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Slow) => {
                tokio::time::sleep(SLOWNESS).await;
                return work.await;
            }
            Some(Fault::Lost) => {
                let _ = work.await;
                return Err(Error::new(ErrorKind::Unexpected, TEXT).set_temporary());
            }
            Some(Fault::Temporary | Fault::Broken) => {
                return Err(Error::new(ErrorKind::Unexpected, TEXT).set_temporary());
            }
            Some(Fault::Permanent) => ErrorKind::Unexpected,
            Some(Fault::PermissionDenied) => ErrorKind::PermissionDenied,
            Some(Fault::NotFound) => ErrorKind::NotFound,
            Some(Fault::RateLimited) => ErrorKind::RateLimited,
        };
        Err(Error::new(kind, TEXT))
    }
}

impl Layer for Faults {
    fn apply_service(&self, inner: Servicer) -> Servicer {
        Arc::new(Faulty { inner, faults: self.clone() })
    }
}

/// A service under the layer.
#[derive(Debug)]
struct Faulty {
    inner: Servicer,
    faults: Faults,
}

/// What a service hands out, under the layer.
struct At<T> {
    inner: T,
    faults: Faults,
    path: String,
}

impl Faulty {
    fn at<T>(&self, path: &str, inner: T) -> At<T> {
        At { inner, faults: self.faults.clone(), path: path.to_owned() }
    }
}

impl Service for Faulty {
    type Reader = At<oio::Reader>;
    type Writer = At<oio::Writer>;
    type Lister = At<oio::Lister>;
    type Deleter = At<oio::Deleter>;
    type Copier = oio::Copier;
    type Composer = oio::Composer;

    fn info(&self) -> ServiceInfo {
        self.inner.info()
    }

    fn capability(&self) -> Capability {
        self.inner.capability()
    }

    async fn create_dir(&self, ctx: &OperationContext, path: &str, args: OpCreateDir) -> Result<RpCreateDir> {
        self.inner.create_dir(ctx, path, args).await
    }

    async fn stat(&self, ctx: &OperationContext, path: &str, args: OpStat) -> Result<RpStat> {
        self.faults.act(Operation::Stat, path, self.inner.stat(ctx, path, args)).await
    }

    fn read(&self, ctx: &OperationContext, path: &str, args: OpRead) -> Result<Self::Reader> {
        Ok(self.at(path, self.inner.read(ctx, path, args)?))
    }

    fn write(&self, ctx: &OperationContext, path: &str, args: OpWrite) -> Result<Self::Writer> {
        Ok(self.at(path, self.inner.write(ctx, path, args)?))
    }

    fn delete(&self, ctx: &OperationContext) -> Result<Self::Deleter> {
        Ok(self.at("", self.inner.delete(ctx)?))
    }

    fn list(&self, ctx: &OperationContext, path: &str, args: OpList) -> Result<Self::Lister> {
        Ok(self.at(path, self.inner.list(ctx, path, args)?))
    }

    fn copy(&self, ctx: &OperationContext, from: &str, to: &str, args: OpCopy) -> Result<Self::Copier> {
        self.inner.copy(ctx, from, to, args)
    }

    fn compose(&self, ctx: &OperationContext, to: &str, args: OpCompose) -> Result<Self::Composer> {
        self.inner.compose(ctx, to, args)
    }

    async fn rename(&self, ctx: &OperationContext, from: &str, to: &str, args: OpRename) -> Result<RpRename> {
        self.inner.rename(ctx, from, to, args).await
    }

    async fn restore(&self, ctx: &OperationContext, path: &str, args: OpRestore) -> Result<RpRestore> {
        self.inner.restore(ctx, path, args).await
    }

    async fn presign(&self, ctx: &OperationContext, path: &str, args: OpPresign) -> Result<RpPresign> {
        self.inner.presign(ctx, path, args).await
    }
}

impl Read for At<oio::Reader> {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn ReadStreamDyn>)> {
        self.faults.act(Operation::Read, &self.path, self.inner.open(range)).await
    }

    async fn read(&self, range: BytesRange) -> Result<(RpRead, Buffer)> {
        self.faults.act(Operation::Read, &self.path, self.inner.read(range)).await
    }
}

impl Write for At<oio::Writer> {
    async fn write(&mut self, bytes: Buffer) -> Result<()> {
        self.faults.act(Operation::Write, &self.path, self.inner.write(bytes)).await
    }

    async fn close(&mut self) -> Result<Metadata> {
        self.faults.act(Operation::Close, &self.path, self.inner.close()).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.act(Operation::Abort, &self.path, self.inner.abort()).await
    }
}

impl List for At<oio::Lister> {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        self.faults.act(Operation::List, &self.path, self.inner.next()).await
    }
}

impl Delete for At<oio::Deleter> {
    async fn delete<'a>(&'a mut self, path: &'a str, args: OpDelete) -> Result<()> {
        self.faults.act(Operation::Delete, path, self.inner.delete(path, args)).await
    }

    /// Deletes what was gathered; a deletion of one object is done by then.
    async fn close(&mut self) -> Result<()> {
        self.inner.close().await
    }
}
