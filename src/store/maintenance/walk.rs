//! What lies in the storage: a walk over all records and all folders of content, with bounded memory and bounded concurrency,
//! whatever the number of objects. It finds and hands on; what is to be done about what it finds, it must not know.
//!
//! The walk goes down the layout level by level, clients first; of a client the records, then the content. Backends list names
//! in orders of their own, so to give the walk an order in which it can be stopped and begun again, the clients are taken by
//! ascending number: one pass over the listing keeps the lowest numbers that are still to come, as many as
//! [`CLIENTS_PER_PASS`], and drops the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::{fmt, mem};

use futures_util::StreamExt;
use opendal::{EntryMode, Lister};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::finding::{Finding, Findings};
use crate::attachment::{Id, Key, Record, SegmentId};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::store::backend::Backend;
use crate::store::layout::{self, CLIENTS};
use crate::store::{Standing, Store, failure};

/// How many clients one pass over the listing of clients takes: 8 bytes each, and one more pass for each so many.
const CLIENTS_PER_PASS: usize = 65_536;

/// How many clients are listed at once. A storage of many clients with few attachments each would otherwise wait for one
/// listing after the other.
const CLIENTS_AT_ONCE: usize = 8;

/// How many content names of one attachment are held at once.
const PAGE: usize = 1000;

/// Which part of the storage to walk over, and how.
#[derive(Clone, Debug)]
pub struct Walk {
    /// The client to begin with: those with lower numbers are left out.
    pub from: Option<Id>,
    /// How many attachments are looked at at once.
    pub concurrency: usize,
    /// Ends the walk early, between two objects.
    pub stop: CancellationToken,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All was seen.
    Complete,
    /// It was stopped. Every client with a lower number than this one was seen.
    Stopped(Id),
}

/// An object in an attachment's folder of content, under a name of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Object {
    pub id: SegmentId,
    /// In bytes, where the listing says it.
    pub size: Option<u64>,
    /// Whether it is no file but a symbolic link.
    pub is_link: bool,
}

/// Does something with what a walk comes by. `false` says that it was stopped on the way.
pub(super) trait Visit: Clone + Send + Sync + 'static {
    /// Looks at a record.
    fn record(&self, key: Key) -> impl Future<Output = bool> + Send;

    /// Looks at a folder of content.
    fn content(&self, key: Key) -> impl Future<Output = bool> + Send;
}

/// Which of the two folders of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Records,
    Content,
}

impl Walk {
    /// Takes `visitor` to every attachment. What the walk itself comes by, it sends to `findings`.
    pub(super) async fn run<V: Visit>(&self, store: &Arc<Store>, findings: &Findings, visitor: V) -> End {
        let permits = Arc::new(Semaphore::new(self.concurrency));
        let mut shards: JoinSet<(Id, bool)> = JoinSet::new();
        // The clients that were begun and not seen to their end.
        let mut unfinished = BTreeSet::new();
        if let Backend::Local(local) = &store.backend {
            match local.links().await {
                // That of all clients is met by the walk.
                Ok(links) => {
                    for path in links.into_iter().filter(|path| path != CLIENTS.trim_end_matches('/')) {
                        findings.send(Finding::Link { path }).await;
                    }
                }
                Err(error) => findings.send(Finding::Failed { path: String::new(), error }).await,
            }
        }
        let mut next = self.from.or(Id::try_from(1).ok());
        let mut first_pass = true;
        'passes: while let Some(from) = next {
            let pass = match store.clients(from, findings, mem::take(&mut first_pass)).await {
                Ok(pass) => pass,
                Err(error) => {
                    findings.send(store.failed(CLIENTS, error).await).await;
                    break;
                }
            };
            next = match pass.last() {
                Some(last) if pass.len() == CLIENTS_PER_PASS => {
                    last.get().checked_add(1).and_then(|next| Id::try_from(next).ok())
                }
                _ => None,
            };
            for client in pass {
                if shards.len() >= CLIENTS_AT_ONCE {
                    reap(shards.join_next().await, &mut unfinished, findings).await;
                }
                unfinished.insert(client);
                if self.stop.is_cancelled() {
                    break 'passes;
                }
                let shard = Shard {
                    store: Arc::clone(store),
                    client,
                    permits: Arc::clone(&permits),
                    stop: self.stop.clone(),
                    findings: findings.clone(),
                };
                let visitor = visitor.clone();
                shards.spawn(async move { (client, shard.run(visitor).await) });
            }
        }
        while let Some(ended) = shards.join_next().await {
            reap(Some(ended), &mut unfinished, findings).await;
        }
        match unfinished.first() {
            Some(client) if self.stop.is_cancelled() => End::Stopped(*client),
            _ => End::Complete,
        }
    }
}

/// Takes note of a client that was seen to its end.
async fn reap(
    ended: Option<Result<(Id, bool), tokio::task::JoinError>>,
    unfinished: &mut BTreeSet<Id>,
    findings: &Findings,
) {
    match ended {
        Some(Ok((client, true))) => {
            unfinished.remove(&client);
        }
        Some(Ok((_, false))) | None => {}
        Some(Err(panic)) => {
            findings.send(Finding::Failed { path: CLIENTS.to_owned(), error: Error::internal(panic) }).await;
        }
    }
}

/// The walk over the attachments of one client.
struct Shard {
    store: Arc<Store>,
    client: Id,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    findings: Findings,
}

impl Shard {
    /// Whether all of the client was seen. A listing that fails was seen as far as it goes.
    async fn run<V: Visit>(self, visitor: V) -> bool {
        let mut all = true;
        for kind in self.kinds().await {
            let path = self.path(kind);
            let mut visits: JoinSet<bool> = JoinSet::new();
            let listed = self.list(kind, &path, visitor.clone(), &mut visits, &mut all).await;
            while let Some(visited) = visits.join_next().await {
                all &= self.seen(&path, visited).await;
            }
            if let Err(error) = listed {
                self.findings.send(self.store.failed(&path, error).await).await;
            }
        }
        all
    }

    fn path(&self, kind: Kind) -> String {
        match kind {
            Kind::Records => layout::records(self.client),
            Kind::Content => layout::contents(self.client),
        }
    }

    /// Which of its two folders the client has, in the order in which they are walked over.
    async fn kinds(&self) -> Vec<Kind> {
        let path = format!("{CLIENTS}{}/", self.client);
        let mut kinds = Vec::new();
        let listed = async {
            let mut names = Names::of(&self.store, &path).await?;
            while let Some(Name { name, mode, .. }) = names.next().await? {
                let path = format!("{path}{name}");
                let ours =
                    [Kind::Records, Kind::Content].into_iter().find(|kind| self.path(*kind) == format!("{path}/"));
                match ours.filter(|_| mode == EntryMode::DIR) {
                    Some(kind) => kinds.push(kind),
                    None => self.findings.send(self.store.foreign(path, mode).await).await,
                }
            }
            Ok(())
        };
        if let Err(error) = listed.await {
            self.findings.send(self.store.failed(&path, error).await).await;
        }
        kinds.sort();
        kinds
    }

    async fn list<V: Visit>(
        &self,
        kind: Kind,
        path: &str,
        visitor: V,
        visits: &mut JoinSet<bool>,
        all: &mut bool,
    ) -> Result<()> {
        let mut names = Names::of(&self.store, path).await?;
        while let Some(Name { name, mode, .. }) = names.next().await? {
            let expected = if kind == Kind::Content { EntryMode::DIR } else { EntryMode::FILE };
            let Some(attachment) = layout::attachment_of(&name).filter(|_| mode == expected) else {
                self.findings.send(self.store.foreign(format!("{path}{name}"), mode).await).await;
                continue;
            };
            // The permits are what bounds the tasks, of all clients together.
            let permit = tokio::select! {
                biased;
                () = self.stop.cancelled() => None,
                permit = Arc::clone(&self.permits).acquire_owned() => permit.ok(),
            };
            let Some(permit) = permit else {
                *all = false;
                return Ok(());
            };
            while let Some(visited) = visits.try_join_next() {
                *all &= self.seen(path, visited).await;
            }
            let (visitor, key) = (visitor.clone(), Key { client: self.client, attachment });
            visits.spawn(async move {
                let seen = match kind {
                    Kind::Records => visitor.record(key).await,
                    Kind::Content => visitor.content(key).await,
                };
                drop(permit);
                seen
            });
        }
        Ok(())
    }

    async fn seen(&self, path: &str, visited: Result<bool, tokio::task::JoinError>) -> bool {
        match visited {
            Ok(seen) => seen,
            Err(panic) => {
                self.findings.send(Finding::Failed { path: path.to_owned(), error: Error::internal(panic) }).await;
                true
            }
        }
    }
}

impl Store {
    /// The lowest clients from `from` on, [`CLIENTS_PER_PASS`] at most.
    async fn clients(&self, from: Id, findings: &Findings, report_foreign: bool) -> Result<BTreeSet<Id>> {
        let mut lowest = BTreeSet::new();
        let mut names = Names::of(self, CLIENTS).await?;
        while let Some(Name { name, mode, .. }) = names.next().await? {
            match layout::client_of(&name).filter(|_| mode == EntryMode::DIR) {
                Some(client) if client >= from => {
                    lowest.insert(client);
                    if lowest.len() > CLIENTS_PER_PASS {
                        lowest.pop_last();
                    }
                }
                Some(_) => {}
                None if report_foreign => findings.send(self.foreign(format!("{CLIENTS}{name}"), mode).await).await,
                None => {}
            }
        }
        Ok(lowest)
    }

    /// What is said of something that is not attachd's.
    async fn foreign(&self, path: String, mode: EntryMode) -> Finding {
        let is_link = mode == EntryMode::Unknown && self.is_link(&path).await;
        if is_link { Finding::Link { path } } else { Finding::Foreign { path } }
    }

    /// What is said of an operation that failed. No link is followed, so that is why it does at one.
    pub(super) async fn failed(&self, path: &str, error: Error) -> Finding {
        let path = path.to_owned();
        if self.is_link(&path).await {
            Finding::Link { path }
        } else {
            Finding::Failed { path, error: self.meanings.explain(error) }
        }
    }

    /// What is said of a record that cannot be read.
    pub(super) async fn unreadable(&self, key: Key, error: Error) -> Finding {
        let path = layout::record(key);
        if self.is_link(&path).await {
            Finding::Link { path }
        } else {
            Finding::Unreadable { path, error: self.meanings.explain(error) }
        }
    }

    /// The record that may name content which was found. If it cannot be read, so that nothing is known of the content, that is
    /// reported unless the visit of the record has.
    pub(super) async fn record_of_content(&self, key: Key, findings: &Findings) -> Option<Standing> {
        match self.record(key).await {
            Ok(standing) => Some(standing),
            Err(error) => {
                let found = self.operator.stat(&layout::record(key)).await;
                let is_visited = found.is_ok_and(|found| found.is_file());
                if !is_visited || error.kind() != ErrorKind::Internal {
                    let finding = self.unreadable(key, error).await;
                    // A link in place of the record was met by the walk.
                    if !matches!(finding, Finding::Link { .. }) {
                        findings.send(finding).await;
                    }
                }
                None
            }
        }
    }

    async fn is_link(&self, path: &str) -> bool {
        match &self.backend {
            Backend::Local(local) => local.is_link(path).await,
            Backend::Objects(_) => false,
        }
    }

    /// Begins to list the content of an attachment.
    pub(super) async fn contents(self: &Arc<Self>, key: Key) -> Result<Contents> {
        let path = layout::content(key);
        let names = Names::of(self, &path).await?;
        Ok(Contents { store: Arc::clone(self), names, path })
    }
}

/// The listing of an attachment's content, page by page.
pub(super) struct Contents {
    store: Arc<Store>,
    names: Names,
    path: String,
}

impl Contents {
    /// The next objects; none at the end. What is not ours goes to `findings`.
    pub async fn page(&mut self, findings: &Findings) -> Result<Vec<Object>> {
        let mut page = Vec::new();
        while page.len() < PAGE
            && let Some(Name { name, mode, size }) = self.names.next().await?
        {
            let path = format!("{}{name}", self.path);
            match SegmentId::parse(&name).filter(|_| mode != EntryMode::DIR) {
                Some(id) => {
                    let is_link = mode == EntryMode::Unknown && self.store.is_link(&path).await;
                    page.push(Object { id, size, is_link });
                }
                None => findings.send(self.store.foreign(path, mode).await).await,
            }
        }
        Ok(page)
    }
}

/// The names in one folder.
struct Names {
    folder: String,
    lister: Lister,
}

struct Name {
    /// Without the folder, and without the slash that a folder's name ends with.
    name: String,
    mode: EntryMode,
    size: Option<u64>,
}

impl Names {
    async fn of(store: &Store, folder: &str) -> Result<Names> {
        let lister = store.operator.lister(folder).await.map_err(failure)?;
        Ok(Names { folder: folder.to_owned(), lister })
    }

    async fn next(&mut self) -> Result<Option<Name>> {
        while let Some(entry) = self.lister.next().await {
            let entry = entry.map_err(failure)?;
            // A listing has the folder itself among its entries.
            let Some(name) = entry.path().strip_prefix(&self.folder).filter(|name| !name.is_empty()) else {
                continue;
            };
            let mode = entry.metadata().mode();
            let size = (mode == EntryMode::FILE).then(|| entry.metadata().content_length());
            return Ok(Some(Name { name: name.trim_end_matches('/').to_owned(), mode, size }));
        }
        Ok(None)
    }
}

/// Whether a record names an object.
pub(super) fn names(record: Option<&Record>, id: SegmentId) -> bool {
    record.and_then(Record::kept_content).is_some_and(|content| content.segment_ids().any(|named| named == id))
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Complete => f.write_str("complete"),
            End::Stopped(client) => write!(f, "stopped before client {client} was seen to its end"),
        }
    }
}
