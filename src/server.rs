//! The composition root: opens the storage, reads the keys, binds the three ports, runs, and drains. It builds everything
//! and decides nothing.

mod door;
mod grpc;
mod limits;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fmt, io};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::{self, Health};
use crate::auth::Verifier;
use crate::budget::Budget;
use crate::config::Config;
use crate::rpc::Attachments;
use crate::store::{OpenError, Store};
use crate::upload::Uploads;
use crate::{auth, edge, rest};

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage could not be opened.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// A key could not be read.
    #[error(transparent)]
    Keys(#[from] auth::LoadError),
    /// A port could not be bound.
    #[error("{port}.listen: {address}: {error}")]
    Bind {
        /// The section of the configuration.
        port: &'static str,
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
}

/// A server whose ports are bound and that serves nothing yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    attachments: Attachments,
    health: Health,
    rest: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
}

/// The bound addresses.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// The REST port.
    pub rest: SocketAddr,
    /// The gRPC port.
    pub grpc: SocketAddr,
    /// The admin port.
    pub admin: SocketAddr,
}

/// Looks at all that a start would look at but the ports, and tries the storage.
pub async fn check(config: &Config) -> Result<(), Box<dyn std::error::Error>> {
    Verifier::load(&config.auth)?.fetch_keys().await?;
    Store::open(&config.storage)?.probe().await.map_err(|error| format!("storage: {error}"))?;
    Ok(())
}

impl Server {
    /// Opens everything and binds the ports, in the order in which an operator would want to hear of failures.
    pub async fn bind(config: Config) -> Result<Server, StartError> {
        let verifier = Arc::new(Verifier::load(&config.auth)?);
        let store = Arc::new(Store::open(&config.storage)?);
        let budget = Arc::new(Budget::new(config.budget()));
        let uploads = Arc::new(Uploads::new(Arc::clone(&store), Arc::clone(&budget), config.upload()));
        let attachments = Attachments::new(Arc::clone(&verifier), Arc::clone(&uploads));
        let health = Health { verifier, store, uploads, budget, draining: Arc::new(AtomicBool::new(false)) };
        let rest = listen("rest", config.rest.listen).await?;
        let grpc = listen("grpc", config.grpc.listen).await?;
        let admin = listen("admin", config.admin.listen).await?;
        Ok(Server { config, attachments, health, rest, grpc, admin })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses { rest: self.rest.local_addr()?, grpc: self.grpc.local_addr()?, admin: self.admin.local_addr()? })
    }

    /// Serves until `shutdown`, then lets what is in flight finish within the grace.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let addresses = self.addresses()?;
        for (port, address) in [("rest", addresses.rest), ("grpc", addresses.grpc), ("admin", addresses.admin)] {
            tracing::info!(port, %address, "listening");
        }
        let Server { config, attachments, health, rest, grpc, admin } = self;
        let header_timeout = config.limits.idle_timeout;
        let grace = config.shutdown.grace;
        let (stop, stopped) = watch::channel(false);
        let verifier = Arc::clone(&health.verifier);
        let keys = tokio::spawn(async move { verifier.keep_fresh().await });

        let routes = edge::around(rest::routes(attachments.clone()), config.edge());
        let rest = tokio::spawn(door::serve(rest, routes, header_timeout, grace, stopped.clone()));
        let grpc = tokio::spawn(grpc::serve(grpc, attachments, header_timeout, stopped.clone()));
        let admin = door::serve(admin, admin::routes(health.clone()), header_timeout, grace, stopped);
        let admin = tokio::spawn(admin);

        shutdown.await;
        tracing::info!(grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), "draining");
        health.draining.store(true, Ordering::Relaxed);
        // The tasks listen for as long as they run, and this is the only word there will be.
        let _ = stop.send(true);
        let drained = timeout(grace, async {
            let (rest, grpc, admin) = tokio::join!(rest, grpc, admin);
            health.uploads.settle().await;
            rest.and(grpc).and(admin)
        });
        match drained.await {
            Ok(Ok(())) => tracing::info!("drained"),
            Ok(Err(panic)) => return Err(io::Error::other(panic)),
            Err(_) => {
                tracing::warn!(uploads = health.uploads.in_flight(), "the grace has passed, uploads were cut off")
            }
        }
        keys.abort();
        Ok(())
    }
}

async fn listen(port: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { port, address, error })
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "REST {}, gRPC {}, admin {}", self.rest, self.grpc, self.admin)
    }
}
