//! The composition root: opens the storage, reads the keys, binds the three ports, runs, and drains. It builds everything
//! and decides nothing.

mod accept;
mod crowd;
mod files;
mod governor;
mod grpc;
mod handshakes;
mod health;
mod idle;
mod limits;
mod opening;
mod prefix;
mod pressure;
mod reads;
mod refused;
mod stage;
mod standing;
mod stream;
mod streams;
mod turn;
mod unsent;
mod victims;
mod watches;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/server.rs"]
pub mod fuzzing;

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{self, Health, Serves};
use crate::auth::{Certificates, Verifier};
use crate::budget::Budget;
use crate::config::{self, Config, Division, Warning};
use crate::edge::drains::Drains;
use crate::edge::refusals::Refusals;
use crate::error::{Error, Kind};
use crate::fair::Turns;
use crate::origin::Network;
use crate::reads::Reads;
use crate::rpc::Attachments;
use crate::store::{Access, OpenError, Store};
use crate::telemetry::{self, Metrics, Port};
use crate::throttle::Throttle;
use crate::upload::Uploads;
use crate::{auth, edge, rest, tls};
use accept::BoundPort;
use health::Serving;
use limits::{ADMIN_PARTING, BACKLOG, PARTING};
use opening::Speaks;
use stage::{Stage, Stages};

/// How long to wait before a storage that did not answer is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(5);

/// How long a start waits for the storage to show what it can do.
const PROVED_WITHIN: Duration = Duration::from_secs(10);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The storage could not be opened.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The storage cannot do what an upload needs.
    #[error("{}", about_storage(.0))]
    Unfit(Error),
    /// The storage signs no addresses, and downloads are to be redirected.
    #[error("download.redirect: {}; set it to false, or mend that", .0.for_operator())]
    Redirect(Error),
    /// A key could not be read.
    #[error(transparent)]
    Keys(#[from] auth::LoadError),
    /// A certificate could not be read.
    #[error(transparent)]
    Certificates(#[from] tls::LoadError),
    /// The proto cannot be served over REST.
    #[error("the proto cannot be served over REST: {0}")]
    Routes(String),
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
    division: Division,
    attachments: Attachments,
    health: Health,
    metrics: Metrics,
    certificates: Arc<Certificates>,
    tls: Tls,
    routes: Router,
    rest: TcpListener,
    grpc: TcpListener,
    admin: TcpListener,
}

/// The certificates of the doors.
#[derive(Debug)]
struct Tls {
    rest: Option<Arc<tls::Tls>>,
    grpc: Option<Arc<tls::Tls>>,
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

/// What a check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// What would keep a server from starting, or its storage from working. Empty if nothing would.
    pub problems: Vec<String>,
    /// What keeps no server from starting, and an operator should know.
    pub warnings: Vec<String>,
}

/// Looks at all that a start would look at, tries the storage, and asks the providers for their keys. The storage, which is
/// changed by that, is left alone if something else is wrong.
pub async fn check(config: &Config) -> Findings {
    let mut found = Findings::default();
    let mut note = |problem: Option<String>| found.problems.extend(problem);
    match Verifier::load(&config.auth) {
        Ok(verifier) => note(verifier.fetch_keys().await.err().map(|error| error.to_string())),
        Err(error) => note(Some(error.to_string())),
    }
    note(Certificates::load(&config.auth.certificates).err().map(|error| error.to_string()));
    note(Tls::load_one("rest.tls", &config.rest.tls, tls::HTTP).err().map(|error| error.to_string()));
    note(Tls::load_one("grpc.tls", &config.grpc.tls, tls::HTTP2).err().map(|error| error.to_string()));
    note(telemetry::check(&config.log, &config.traces).err().map(|error| error.to_string()));
    for (port, address) in config.ports() {
        match bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                found.warnings.push(format!("{port}.listen: {address} is in use at the moment"));
            }
            Err(error) => found.problems.push(StartError::Bind { port, address, error }.to_string()),
        }
    }
    found.warnings.extend(config.divide(files::most()).warning.map(|warning| warning.to_string()));
    if found.problems.is_empty() {
        match Store::open(&config.storage, Access::Write, config.limits.sizing(), &Metrics::default()) {
            Ok(store) => {
                found.warnings.extend(store.warnings().iter().map(ToString::to_string));
                match store.probe().await {
                    Ok(()) => {
                        found.warnings.extend(store.warning_when_empty().await.map(|warning| warning.to_string()));
                        found.problems.extend(prove_signing(&store, config).await.err().map(|error| error.to_string()));
                    }
                    Err(error) => found.problems.push(about_storage(&error)),
                }
            }
            Err(error) => found.problems.push(error.to_string()),
        }
    }
    found
}

/// What is wrong with the storage. A text that names an option needs no other beginning.
fn about_storage(error: &Error) -> String {
    let said = error.for_operator();
    if said.starts_with("storage.") { said } else { format!("storage: {said}") }
}

/// Refuses a storage that cannot do what an upload needs. One that is not there at the moment may come, and is asked then.
async fn prove(store: &Store) -> Result<(), StartError> {
    let late = |_| Error::new(Kind::StorageUnavailable).because("it did not answer in time");
    match timeout(PROVED_WITHIN, store.prove()).await.map_err(late).flatten() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == Kind::StorageUnavailable => {
            tracing::warn!(%error, "the storage is not available");
            Ok(())
        }
        Err(error) => Err(StartError::Unfit(error)),
    }
}

/// Refuses to redirect downloads to a storage that signs no addresses. If the key for that is not available at the moment, it may
/// be later.
async fn prove_signing(store: &Store, config: &Config) -> Result<(), StartError> {
    if !config.download.redirect {
        return Ok(());
    }
    let late = |_| Error::new(Kind::StorageUnavailable).because("its key was not available in time");
    match timeout(PROVED_WITHIN, store.prove_signing()).await.map_err(late).flatten() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == Kind::StorageUnavailable => {
            tracing::warn!(%error, "addresses of the storage cannot be signed at the moment");
            Ok(())
        }
        Err(error) => Err(StartError::Redirect(error)),
    }
}

/// Asks a storage that did not answer at the start until it is found fit, and warns of one that holds nothing.
async fn until_fit(store: Arc<Store>) {
    while let Err(error) = store.prove().await {
        if error.kind() != Kind::StorageUnavailable {
            tracing::error!(%error, "the storage cannot be used");
            return;
        }
        tokio::time::sleep(ASKED_AGAIN).await;
    }
    if let Some(warning) = store.warning_when_empty().await {
        tracing::warn!(key = warning.key(), why = warning.why(), "storage");
    }
}

impl Server {
    /// Opens everything and binds the ports, in the order in which an operator would want to hear of failures. What happens is
    /// counted in `metrics`.
    pub async fn bind(config: Config, metrics: Metrics) -> Result<Server, StartError> {
        let verifier = Arc::new(Verifier::load(&config.auth)?);
        let certificates = Arc::new(Certificates::load(&config.auth.certificates)?);
        let tls = Tls::load(&config)?;
        let store = Store::open(&config.storage, Access::Write, config.limits.sizing(), &metrics)?;
        for warning in store.warnings() {
            tracing::warn!(key = warning.key(), why = warning.why(), "storage");
        }
        prove(&store).await?;
        prove_signing(&store, &config).await?;
        let division = config.divide(files::raise());
        if let Some(Warning { key, why }) = &division.warning {
            tracing::warn!(key, why, "configuration");
        }
        let store = Arc::new(store.with_read_grace(config.attachments.read_grace));
        let budget = Arc::new(Budget::new(config.budget()));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // With two for each core, a client with few connections keeps less: ADR 0035.
        let turns = Turns::new(cores);
        let throttle = Throttle::new(&config.limits.per_client, &metrics);
        let upload = config.upload(division.uploads);
        let uploads =
            Arc::new(Uploads::new(Arc::clone(&store), Arc::clone(&budget), turns.clone(), throttle.clone(), upload));
        let reads = Arc::new(Reads::new(
            Arc::clone(&store),
            Arc::new(config.downloads()),
            turns.clone(),
            throttle,
            config.reads(division.downloads),
        ));
        let attachments =
            Attachments::new(Arc::clone(&verifier), Arc::clone(&uploads), Arc::clone(&reads), metrics.clone());
        let (draining, started, storage_lost) = (Arc::default(), Arc::default(), Arc::default());
        let health = Health { verifier, store, uploads, reads, budget, turns, draining, started, storage_lost };
        let routes = rest::routes(attachments.clone(), config.download.clone(), config.rest.beside())
            .map_err(StartError::Routes)?;
        let rest = listen("rest", config.rest.listen)?;
        let grpc = listen("grpc", config.grpc.listen)?;
        let admin = listen("admin", config.admin.listen)?;
        Ok(Server { config, division, attachments, health, metrics, certificates, tls, routes, rest, grpc, admin })
    }

    /// The addresses that were bound.
    pub fn addresses(&self) -> io::Result<Addresses> {
        Ok(Addresses { rest: self.rest.local_addr()?, grpc: self.grpc.local_addr()?, admin: self.admin.local_addr()? })
    }

    /// Serves until `shutdown`. Then everybody is told that no more requests are to be sent here, and for the delay all are
    /// served still; then nothing new is accepted, what is in flight may finish within the grace, and what has not is answered
    /// that it is to be tried again.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let addresses = self.addresses()?;
        let Server { config, division, attachments, health, metrics, certificates, tls, routes, rest, grpc, admin } =
            self;
        let Tls { rest: rest_tls, grpc: grpc_tls } = tls;
        for (port, address, tls) in
            [("rest", addresses.rest, rest_tls.is_some()), ("grpc", addresses.grpc, grpc_tls.is_some())]
        {
            if !tls {
                tracing::warn!(port, "the port speaks plain text: whoever is on the way reads tokens and files");
            }
            tracing::info!(port, %address, tls, "listening");
        }
        tracing::info!(port = "admin", address = %addresses.admin, tls = false, "listening");

        let limits = accept::ConnectionLimits {
            connections: division.connections,
            connections_of_address: config.limits.max_connections_per_address,
            handshakes: config.limits.max_handshakes,
            handshake: config.limits.handshake_timeout,
            idle: config.limits.idle_timeout,
            write: config.limits.write_timeout,
            min_rate: config.limits.min_rate.as_u64(),
            window: config.http2_window(),
        };
        let (stage, stages) = Stages::begin();
        let (serving, admin_serving) = (Serving::default(), Serving::default());
        let watches: Vec<_> = [&rest_tls, &grpc_tls]
            .into_iter()
            .flatten()
            .map(|tls| AbortOnDropHandle::new(tokio::spawn(Arc::clone(tls).watch())))
            .collect();
        let both = [serving.clone(), admin_serving.clone()];
        let verifier = Arc::clone(&health.verifier);
        let keys = AbortOnDropHandle::new(tokio::spawn(async move { verifier.keep_fresh().await }));
        let uploads = Arc::clone(&health.uploads);
        let presence = AbortOnDropHandle::new(tokio::spawn(async move { uploads.watch().await }));
        let fit = AbortOnDropHandle::new(tokio::spawn(until_fit(Arc::clone(&health.store))));
        // Before the ports serve: whoever asks first must not be told that there is no such service.
        let told = health::tell(&both, &health).await;
        let looks = AbortOnDropHandle::new(tokio::spawn(health::watch(both.clone(), health.clone(), told)));

        let drains = Drains::new(config.drains(), &metrics);
        let refusals = Refusals::new(config.limits.refusals_per_second, &metrics);
        let bound = |port, listener, tls, speaks, trusted: &[Network], routes, plain| {
            let (certificates, metrics, trusted_proxies) =
                (Arc::clone(&certificates), metrics.clone(), trusted.to_vec());
            let explains = port == Port::Rest;
            BoundPort {
                port,
                listener,
                tls,
                certificates,
                speaks,
                trusted_proxies,
                routes,
                plain,
                explains,
                limits,
                drains: drains.clone(),
                metrics,
            }
        };
        let cors = Arc::new(config.rest.cors.clone());
        let routes = edge::around(routes, drains.clone(), refusals.clone(), Arc::clone(&cors), metrics.clone());
        let plain = rest_tls
            .is_some()
            .then(|| edge::around(rest::speaks_tls(), drains.clone(), refusals.clone(), cors, metrics.clone()));
        let rest = bound(Port::Rest, rest, rest_tls, Speaks::Both, &config.rest.trusted_proxies, routes, plain);
        let rest = tokio::spawn(accept::serve(rest, stages.clone()));
        let grpc = bound(
            Port::Grpc,
            grpc,
            grpc_tls,
            Speaks::Http2,
            &config.grpc.trusted_proxies,
            edge::grpc::around(
                grpc::routes(attachments.clone(), &serving, config.grpc.reflection),
                attachments,
                drains.clone(),
                refusals,
                metrics.clone(),
            ),
            None,
        );
        let grpc = tokio::spawn(accept::serve(grpc, stages));
        // Whoever watches the process does so to its end.
        let (end, admin_stages) = Stages::begin();
        let routes = admin::routes(health.clone(), &metrics).merge(admin_serving.routes());
        let admin = bound(Port::Admin, admin, None, Speaks::Both, &[], edge::Routes::bare(routes), None);
        let limits = accept::ConnectionLimits { connections: division.admin_connections, ..limits };
        let admin = BoundPort { limits, ..admin };
        let admin = AbortOnDropHandle::new(tokio::spawn(accept::serve(admin, admin_stages)));

        shutdown.await;
        let config::Shutdown { delay, grace } = config.shutdown;
        tracing::info!(delay_ms = milliseconds(delay), grace_ms = milliseconds(grace), "draining");
        health.draining.store(true, Ordering::Relaxed);
        drop(looks);
        for serving in &both {
            serving.set(Serves::default());
        }
        // The doors listen for as long as they are open, and nobody else need be told.
        let _ = stage.send(Stage::Leaving);
        tokio::time::sleep(delay).await;
        let _ = stage.send(Stage::Closing);
        serving.end();

        let drained = async {
            let (rest, grpc) = tokio::join!(rest, grpc);
            health.uploads.settle().await;
            rest.and(grpc)
        };
        let mut drained = pin!(drained);
        let done = match timeout(grace, drained.as_mut()).await {
            Ok(done) => Ok(done),
            Err(_) => {
                let (uploads, downloads) = (health.uploads.in_flight(), health.reads.in_flight());
                tracing::warn!(uploads, downloads, "the grace has passed, requests are cut off");
                health.uploads.end();
                health.reads.end();
                timeout(PARTING, drained).await
            }
        };
        drop((watches, keys, presence, fit));
        admin_serving.end();
        let _ = end.send(Stage::Closing);
        match done {
            Ok(Ok(())) => tracing::info!("drained"),
            Ok(Err(panic)) => return Err(io::Error::other(panic)),
            Err(_) => {
                tracing::warn!(uploads = health.uploads.in_flight(), "connections are still open and are cut off")
            }
        }
        // A probe that is being answered is; one that holds its connection open is not waited for.
        let _ = timeout(ADMIN_PARTING, admin).await;
        Ok(())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Tls {
    fn load(config: &Config) -> Result<Tls, tls::LoadError> {
        Ok(Tls {
            rest: Tls::load_one("rest.tls", &config.rest.tls, tls::HTTP)?,
            grpc: Tls::load_one("grpc.tls", &config.grpc.tls, tls::HTTP2)?,
        })
    }

    fn load_one(
        section: &'static str,
        config: &Option<tls::Config>,
        protocols: tls::Protocols,
    ) -> Result<Option<Arc<tls::Tls>>, tls::LoadError> {
        config.as_ref().map(|config| tls::Tls::load(section, config, protocols).map(Arc::new)).transpose()
    }
}

fn listen(port: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    bind(address).and_then(|socket| socket.listen(BACKLOG)).map_err(|error| StartError::Bind { port, address, error })
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a process that has ended keep its port for a minute otherwise.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "REST {}, gRPC {}, admin {}", self.rest, self.grpc, self.admin)
    }
}
