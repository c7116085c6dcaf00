//! Counts and times what is sent to a service of OpenDAL's, each try of its own: it lies below whatever tries again. A layer
//! that changes nothing.
//!
//! Where a writer sends several parts at once, a call of it says what became of a part, the one that it hands on or another one
//! before that failed, but not how long that took: it waits for one that was sent before, or not at all. That is how long the task
//! of a part takes.

use std::sync::Arc;
use std::time::Instant;

use opendal::raw::oio::{Delete, List, Read, ReadStreamDyn, Write};
use opendal::raw::{
    BoxedStaticFuture, Layer, OpCompose, OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpRestore,
    OpStat, OpWrite, RpCreateDir, RpPresign, RpRead, RpRename, RpRestore, RpStat, Service, ServiceInfo, Servicer, oio,
};
use opendal::{
    Buffer, BytesRange, Capability, Error, ErrorKind, Execute, Executor, Metadata, OperationContext, Result,
};

use crate::telemetry::{Metrics, Operation, Outcome, Timing};

/// The layer.
#[derive(Clone, Debug)]
pub struct Measured(Metrics);

/// Runs the tasks of a writer, each of which sends a part.
struct Parts {
    inner: Arc<dyn Execute>,
    metrics: Metrics,
}

impl Measured {
    /// A layer that counts in `metrics`.
    pub fn new(metrics: Metrics) -> Measured {
        Measured(metrics)
    }

    async fn time<T>(&self, operation: Operation, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.until(self.0.operation(operation), work).await
    }

    async fn until<T>(&self, timing: Timing, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let done = work.await;
        timing.end(done.as_ref().err().map_or(Outcome::Ok, outcome));
        done
    }
}

fn outcome(error: &Error) -> Outcome {
    match error.kind() {
        ErrorKind::NotFound => Outcome::NotFound,
        ErrorKind::ConditionNotMatch | ErrorKind::AlreadyExists => Outcome::Condition,
        ErrorKind::RateLimited => Outcome::RateLimited,
        ErrorKind::PermissionDenied => Outcome::Denied,
        _ if error.is_temporary() => Outcome::Unavailable,
        _ => Outcome::Failed,
    }
}

impl Layer for Measured {
    fn apply_service(&self, inner: Servicer) -> Servicer {
        Arc::new(Under { inner, layer: self.clone() })
    }
}

impl Execute for Parts {
    fn execute(&self, part: BoxedStaticFuture<()>) {
        let metrics = self.metrics.clone();
        self.inner.execute(Box::pin(async move {
            let began = Instant::now();
            part.await;
            metrics.took(Operation::Write, began.elapsed());
        }));
    }

    fn timeout(&self) -> Option<BoxedStaticFuture<()>> {
        self.inner.timeout()
    }
}

/// A writer under the layer.
pub struct Writer {
    inner: Under<oio::Writer>,
    /// Whether it sends several parts at once.
    several: bool,
}

/// A service, or what it hands out, under the layer.
#[derive(Debug)]
struct Under<T> {
    inner: T,
    layer: Measured,
}

impl<T> Under<T> {
    fn over<U>(&self, inner: U) -> Under<U> {
        Under { inner, layer: self.layer.clone() }
    }
}

impl Service for Under<Servicer> {
    type Reader = Under<oio::Reader>;
    type Writer = Writer;
    type Lister = Under<oio::Lister>;
    type Deleter = Deletion;
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
        self.layer.time(Operation::Stat, self.inner.stat(ctx, path, args)).await
    }

    fn read(&self, ctx: &OperationContext, path: &str, args: OpRead) -> Result<Self::Reader> {
        Ok(self.over(self.inner.read(ctx, path, args)?))
    }

    fn write(&self, ctx: &OperationContext, path: &str, args: OpWrite) -> Result<Self::Writer> {
        let several = args.concurrent() > 1;
        let inner = if several {
            let parts = Parts { inner: ctx.executor().clone().into_inner(), metrics: self.layer.0.clone() };
            self.inner.write(&ctx.with_executor(Executor::with(parts)), path, args)?
        } else {
            self.inner.write(ctx, path, args)?
        };
        Ok(Writer { inner: self.over(inner), several })
    }

    fn delete(&self, ctx: &OperationContext) -> Result<Self::Deleter> {
        Ok(Deletion { inner: self.inner.delete(ctx)?, layer: self.layer.clone(), timing: None })
    }

    fn list(&self, ctx: &OperationContext, path: &str, args: OpList) -> Result<Self::Lister> {
        Ok(self.over(self.inner.list(ctx, path, args)?))
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

impl Read for Under<oio::Reader> {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn ReadStreamDyn>)> {
        self.layer.time(Operation::Read, self.inner.open(range)).await
    }

    async fn read(&self, range: BytesRange) -> Result<(RpRead, Buffer)> {
        self.layer.time(Operation::Read, self.inner.read(range)).await
    }
}

impl Write for Writer {
    async fn write(&mut self, bytes: Buffer) -> Result<()> {
        let Under { inner, layer } = &mut self.inner;
        let timing = layer.0.operation(Operation::Write);
        let timing = if self.several { timing.untimed() } else { timing };
        layer.until(timing, inner.write(bytes)).await
    }

    async fn close(&mut self) -> Result<Metadata> {
        let Under { inner, layer } = &mut self.inner;
        layer.time(Operation::Close, inner.close()).await
    }

    async fn abort(&mut self) -> Result<()> {
        let Under { inner, layer } = &mut self.inner;
        layer.time(Operation::Abort, inner.abort()).await
    }
}

impl List for Under<oio::Lister> {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        self.layer.time(Operation::List, self.inner.next()).await
    }
}

/// A deletion, under the layer. Some services delete when they are told what, others when they are told that this was all.
struct Deletion {
    inner: oio::Deleter,
    layer: Measured,
    timing: Option<Timing>,
}

impl Deletion {
    fn end(&mut self, done: &Result<()>) {
        if let Some(timing) = self.timing.take() {
            timing.end(done.as_ref().err().map_or(Outcome::Ok, outcome));
        }
    }
}

impl Delete for Deletion {
    async fn delete<'a>(&'a mut self, path: &'a str, args: OpDelete) -> Result<()> {
        self.timing.get_or_insert_with(|| self.layer.0.operation(Operation::Delete));
        let told = self.inner.delete(path, args).await;
        if told.is_err() {
            self.end(&told);
        }
        told
    }

    async fn close(&mut self) -> Result<()> {
        let done = self.inner.close().await;
        self.end(&done);
        done
    }
}
