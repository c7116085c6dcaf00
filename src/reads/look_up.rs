//! What all that is read has in common, and the look-up of one attachment.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::attachment::{Record, Target};
use crate::auth::Scope;
use crate::budget::Downloads;
use crate::error::{Error, Kind, Result};
use crate::fair::Turns;
use crate::operation::Rpc;
use crate::places::Places;
use crate::request::Call;
use crate::rights::{self, Stands};
use crate::store::Store;
use crate::telemetry::Limit;
use crate::throttle::Throttle;

/// What downloads may do.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// How many may be under way.
    pub max_downloads: usize,
    /// How long a caller may read nothing.
    pub idle_timeout: Duration,
    /// Bytes a second, at least, that a caller must read over each window of waiting for it. 0 asks for none.
    pub min_rate: u64,
    /// The window.
    pub min_rate_window: Duration,
}

/// What is read for callers.
#[derive(Debug)]
pub struct Reads {
    pub(super) store: Arc<Store>,
    pub(super) memory: Arc<Downloads>,
    pub(super) turns: Turns,
    pub(super) throttle: Throttle,
    pub(super) places: Places,
    pub(super) config: Config,
    pub(super) ended: CancellationToken,
}

impl Reads {
    /// Reads from `store`, with the memory of `memory`. It is worked on in `turns`. `throttle` has what clients may do.
    pub fn new(store: Arc<Store>, memory: Arc<Downloads>, turns: Turns, throttle: Throttle, config: Config) -> Reads {
        let places = Places::new(config.max_downloads, Limit::MaxDownloads);
        Reads { store, memory, turns, throttle, places, config, ended: CancellationToken::new() }
    }

    /// Cuts off the downloads that are under way, and serves no more.
    pub fn end(&self) {
        self.ended.cancel();
    }

    /// How many downloads there are now.
    pub fn in_flight(&self) -> usize {
        self.memory.active()
    }

    /// The memory of downloads.
    pub fn memory(&self) -> &Downloads {
        &self.memory
    }

    /// Whether the caller may do this by its token, and its client has not done too much.
    pub(super) fn permit(&self, call: &Call, rpc: Rpc, target: Target) -> Result<()> {
        rights::decide(&call.caller, rpc.row().scope, target, Stands::Unread)?;
        self.throttle.request(target.key.client)
    }

    /// Looks up one attachment.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::NotFound`], and what storage raises.
    pub async fn get(&self, call: &Call, target: Target) -> Result<Record> {
        let scope = Rpc::GetAttachment.row().scope;
        self.permit(call, Rpc::GetAttachment, target)?;
        let turn = self.turns.take(target.key.client, 0).await;
        let standing = self.store.record(target.key).await?;
        drop(turn);
        let record = may_see(call, scope, target, standing.record())?.clone();
        call.request.audit.done();
        Ok(record)
    }
}

/// The record, if there is one that the caller may see.
pub(super) fn may_see<'a>(call: &Call, scope: Scope, target: Target, record: Option<&'a Record>) -> Result<&'a Record> {
    let record = record.filter(|record| !record.is_deleted());
    rights::decide(&call.caller, scope, target, record.map_or(Stands::Missing, Stands::Found))?;
    record.ok_or_else(|| Error::new(Kind::NotFound))
}
