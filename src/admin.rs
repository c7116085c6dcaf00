//! The admin port: whether the process lives, has started and is ready, and what it counts. It stands apart from the doors
//! because other people may reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::auth::{Freshness, KeysState, Verifier};
use crate::budget::Budget;
use crate::fair::{Load, Turns};
use crate::reads::Reads;
use crate::store::Store;
use crate::telemetry::{self, Exposition, KeySet, Metrics, Snapshot};
use crate::upload::Uploads;

/// What readiness is read from.
#[derive(Clone, Debug)]
pub struct Health {
    /// The issuers, whose keys are looked at.
    pub verifier: Arc<Verifier>,
    /// The storage that is looked at.
    pub store: Arc<Store>,
    /// The uploads in flight.
    pub uploads: Arc<Uploads>,
    /// The downloads in flight.
    pub reads: Arc<Reads>,
    /// The memory in use.
    pub budget: Arc<Budget>,
    /// The turns that uploads and reads take.
    pub turns: Turns,
    /// Set once the process is to end.
    pub draining: Arc<AtomicBool>,
    /// Set once the process could have served requests.
    pub started: Arc<AtomicBool>,
    /// Set while the storage is not available, so that its loss and its recovery are logged once each.
    pub storage_lost: Arc<AtomicBool>,
}

/// What is served here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// Whether requests are to be sent here.
    pub requests: bool,
    /// Whether uploads are among them.
    pub uploads: bool,
}

/// What readiness says of uploads that are accepted.
const ACCEPTED: &str = "accepted";

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    /// Why not, or why uploads are refused, in words. Else empty.
    reasons: Vec<String>,
    /// `accepted`, or `refused` where everything else is served.
    uploads: &'static str,
    storage: &'static str,
    keys: Vec<Keys>,
    tokens_verified: u64,
    tokens_remembered: u64,
    draining: bool,
    uploads_in_flight: usize,
    downloads_in_flight: usize,
    budget_used_bytes: usize,
}

/// The keys of one issuer.
#[derive(Serialize)]
struct Keys {
    issuer: String,
    /// `fresh`, `stale` where the issuer was not reached when it was last asked, `unusable` where its tokens cannot be judged.
    state: &'static str,
    keys: usize,
    /// For how many seconds they have not been confirmed; null where they never were.
    age_seconds: Option<u64>,
    /// Whether they come from a provider rather than from a file.
    fetched: bool,
    /// How many times they were asked for since the start, and how many of these failed.
    attempts: u64,
    failures: u64,
}

impl From<KeysState> for Keys {
    fn from(state: KeysState) -> Keys {
        // A clock that was set back makes them new.
        let age = |confirmed: SystemTime| confirmed.elapsed().unwrap_or_default().as_secs();
        Keys {
            issuer: state.issuer,
            state: state.freshness.as_str(),
            keys: state.keys,
            age_seconds: state.confirmed.map(age),
            fetched: state.is_fetched,
            attempts: state.attempts,
            failures: state.failures,
        }
    }
}

/// The routes of the admin port: `/livez` says that the process answers, `/startupz` whether it could serve requests once
/// since it began, `/readyz` whether it should be sent requests now; the last two with 503 where not, and the reasons. `/metrics` has the
/// numbers.
pub fn routes(health: Health, metrics: &Metrics) -> Router {
    let read = health.clone();
    let exposition = Arc::new(Exposition::new(metrics, move || read.snapshot()));
    let metrics = get(async move |headers: HeaderMap| exposed(&exposition, &headers));
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/startupz", get(started))
        .route("/readyz", get(ready))
        .route("/metrics", metrics)
        .with_state(health)
}

fn exposed(exposition: &Exposition, headers: &HeaderMap) -> Result<impl IntoResponse + use<>, StatusCode> {
    let accepts: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    match exposition.encode(&accepts.join(",")) {
        Ok((kind, body)) => Ok(([(CONTENT_TYPE, kind)], body)),
        Err(error) => {
            tracing::error!(%error, "the metrics could not be written");
            Err(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

impl From<KeysState> for KeySet {
    fn from(state: KeysState) -> KeySet {
        KeySet {
            usable: state.freshness != Freshness::Unusable,
            issuer: state.issuer,
            confirmed: state.confirmed,
            attempts: state.attempts,
            failures: state.failures,
            keys: state.keys,
        }
    }
}

impl Health {
    /// What is read for `/metrics`, which waits for nothing.
    fn snapshot(&self) -> Snapshot {
        let (verifications, free) = (self.verifier.verifications(), self.store.free());
        // The queue for the memory of uploads has numbers of its own.
        let shared = [("processors", self.turns.load()), ("download_memory", self.reads.memory().load())];
        let queues = shared.into_iter().chain(self.store.load());
        Snapshot {
            queues: queues.map(|(name, Load { waiting, active })| (name, waiting, active)).collect(),
            budget_bytes: self.budget.total_bytes(),
            budget_used_bytes: self.budget.used_bytes(),
            budget_waiting: self.budget.waiting(),
            budget_waits: self.budget.waits(),
            budget_refused: self.budget.refused(),
            uploads_in_flight: self.uploads.in_flight(),
            downloads_in_flight: self.reads.in_flight(),
            download_budget_bytes: self.reads.memory().total_bytes(),
            download_budget_used_bytes: self.reads.memory().used_bytes(),
            late_operations: self.store.late(),
            storage_free_bytes: free.map(|free| free.bytes),
            storage_free_inodes: free.and_then(|free| free.inodes),
            draining: self.draining.load(Ordering::Relaxed),
            tokens_verified: verifications.made,
            tokens_remembered: verifications.spared,
            key_sets: self.verifier.keys().into_iter().map(KeySet::from).collect(),
        }
    }
}

async fn started(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let readiness = health.readiness().await;
    let started = health.started.load(Ordering::Relaxed);
    (if started { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(readiness))
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let readiness = health.readiness().await;
    (if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(readiness))
}

impl Health {
    /// Looks at all that a request needs.
    async fn readiness(&self) -> Readiness {
        let storage = self.store.health().await;
        match &storage {
            Err(error) if !self.storage_lost.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "the storage is not available");
            }
            Ok(()) if self.storage_lost.swap(false, Ordering::Relaxed) => {
                tracing::info!("the storage is available again");
            }
            _ => {}
        }
        let draining = self.draining.load(Ordering::Relaxed);
        let verifications = self.verifier.verifications();
        let mut reasons = Vec::new();
        if let Err(error) = &storage {
            reasons.push(self.store.trouble(error));
        }
        if !self.verifier.is_ready() {
            reasons.push("the keys of an issuer are not known".to_owned());
        }
        if telemetry::is_stuck() {
            reasons.push("nobody reads the log, and it has no room for the audit trail".to_owned());
        }
        if draining {
            reasons.push("the process is about to end".to_owned());
        }
        let ready = reasons.is_empty();
        if ready {
            self.started.store(true, Ordering::Relaxed);
        }
        // All replicas of a storage share it. None could take uploads in the place of this one, and all can serve reads.
        let shortage = if storage.is_ok() { self.store.shortage().await } else { None };
        reasons.extend(shortage.map(|why| format!("uploads are refused: {why} in the storage folder")));
        Readiness {
            ready,
            uploads: if reasons.is_empty() { ACCEPTED } else { "refused" },
            reasons,
            storage: if storage.is_ok() { "available" } else { "unavailable" },
            keys: self.verifier.keys().into_iter().map(Keys::from).collect(),
            tokens_verified: verifications.made,
            tokens_remembered: verifications.spared,
            draining,
            uploads_in_flight: self.uploads.in_flight(),
            downloads_in_flight: self.reads.in_flight(),
            budget_used_bytes: self.budget.used_bytes(),
        }
    }

    /// Whether requests are to be sent here.
    pub async fn serves(&self) -> Serves {
        let readiness = self.readiness().await;
        Serves { requests: readiness.ready, uploads: readiness.uploads == ACCEPTED }
    }
}
