//! The admin port: whether the process lives and whether it is ready. It stands apart from the doors because other people
//! may reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::budget::Budget;
use crate::store::Store;
use crate::upload::Uploads;

/// What readiness is read from.
#[derive(Clone, Debug)]
pub struct Health {
    /// The storage that is looked at.
    pub store: Arc<Store>,
    /// The uploads in flight.
    pub uploads: Arc<Uploads>,
    /// The memory in use.
    pub budget: Arc<Budget>,
    /// Set once the process is to end.
    pub draining: Arc<AtomicBool>,
}

#[derive(Serialize)]
struct Readiness {
    ready: bool,
    storage: &'static str,
    draining: bool,
    uploads_in_flight: usize,
    budget_used_bytes: usize,
}

/// The routes of the admin port: `/livez` says that the process answers, `/readyz` whether it should be sent requests (503
/// where not), with the reasons.
pub fn routes(health: Health) -> Router {
    Router::new().route("/livez", get(async || "ok")).route("/readyz", get(ready)).with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, Json<Readiness>) {
    let storage = health.store.health().await;
    if let Err(error) = &storage {
        tracing::warn!(%error, "the storage is not available");
    }
    let draining = health.draining.load(Ordering::Relaxed);
    let readiness = Readiness {
        ready: storage.is_ok() && !draining,
        storage: if storage.is_ok() { "available" } else { "unavailable" },
        draining,
        uploads_in_flight: health.uploads.in_flight(),
        budget_used_bytes: health.budget.used_bytes(),
    };
    (if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(readiness))
}
