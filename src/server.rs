//! The composition root: opens the storage, reads the keys, binds the three ports, runs, and drains. It builds everything
//! and decides nothing.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use std::{fmt, io};

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tower_http::catch_panic::CatchPanicLayer;

use crate::admin::{self, Health};
use crate::auth::Verifier;
use crate::budget::Budget;
use crate::config::Config;
use crate::error::Error;
use crate::pb::attachment_service_server::AttachmentServiceServer;
use crate::pb::{self};
use crate::rpc::{Attachments, MAX_MESSAGE};
use crate::store::{OpenError, Store};
use crate::upload::Uploads;
use crate::{auth, edge, rest};

/// HTTP/2 flow control, in bytes. A stream's window is smaller than the connection's, so that one stalled upload does not
/// stop the others on its connection.
const STREAM_WINDOW: u32 = 1 << 20;
/// The window of an HTTP/2 connection, in bytes.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The largest HTTP/2 frame that clients may send, in bytes. Larger frames cost less to take apart.
const MAX_FRAME: u32 = 256 << 10;
/// How many streams an HTTP/2 connection may have open. hyper's own limit is taken away by tonic, so it is set here.
const MAX_STREAMS: u32 = 200;
/// How many streams a client may reset before they were accepted; past it the connection is closed (rapid reset).
const MAX_PENDING_RESETS: usize = 20;
/// The HTTP/1 read buffer, in bytes: what arrives is handed on in pieces of at most this size.
const HTTP1_BUFFER: usize = 256 << 10;
/// How long the accept loop rests after a failure such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The first bytes of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of a preface before looking again.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

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
    Verifier::load(&config.auth)?;
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
        let attachments = Attachments::new(verifier, Arc::clone(&uploads));
        let health = Health { store, uploads, budget, draining: Arc::new(AtomicBool::new(false)) };
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

        let routes = edge::around(rest::routes(attachments.clone()), config.edge());
        let rest = tokio::spawn(serve_http(rest, routes, header_timeout, grace, stopped.clone()));
        let grpc = tokio::spawn(serve_grpc(grpc, attachments, header_timeout, stopped.clone()));
        let admin = serve_http(admin, admin::routes(health.clone()), header_timeout, grace, stopped);
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
        Ok(())
    }
}

async fn listen(port: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| StartError::Bind { port, address, error })
}

/// Serves HTTP/1.1 and HTTP/2 without TLS. axum's own loop sets none of these limits.
async fn serve_http(
    listener: TcpListener,
    routes: Router,
    header_timeout: Duration,
    grace: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .max_buf_size(HTTP1_BUFFER)
        // A client may say that it has sent all, and wait for the reply. One that is cut off in its body is noticed there.
        .half_close(true);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(header_timeout);
    let builder = Arc::new(builder);
    let graceful = Arc::new(GracefulShutdown::new());
    let stopping = stopped.clone();
    let mut stop = pin!(stopped.wait_for(|stopped| *stopped));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stop => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        let (builder, watcher, mut stopping) = (Arc::clone(&builder), graceful.watcher(), stopping.clone());
        tokio::spawn(async move {
            // Whoever has asked for nothing yet is not waited for at the end.
            let speaks = tokio::select! {
                biased;
                speaks = speaks(&stream, header_timeout) => speaks,
                _ = stopping.wait_for(|stopped| *stopped) => false,
            };
            if !speaks {
                return;
            }
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                tracing::debug!(error, "a connection ended badly");
            }
        });
    }
    drop(listener);
    if let Some(graceful) = Arc::into_inner(graceful)
        && timeout(grace, graceful.shutdown()).await.is_err()
    {
        tracing::debug!("connections were still open at the end of the grace");
    }
}

/// Whether a client says in time which version of HTTP it speaks. hyper's own timers start once it knows that.
async fn speaks(stream: &TcpStream, within: Duration) -> bool {
    // A connection without TCP_NODELAY is slower and otherwise the same.
    let _ = stream.set_nodelay(true);
    let said = async {
        let mut said = [0; PREFACE.len()];
        loop {
            match stream.peek(&mut said).await {
                Ok(0) | Err(_) => return false,
                // What was said already can be seen again at once, so that more of it has to be waited for.
                Ok(length) if length < PREFACE.len() && PREFACE.starts_with(&said[..length]) => {
                    tokio::time::sleep(PREFACE_PAUSE).await;
                }
                Ok(_) => return true,
            }
        }
    };
    timeout(within, said).await.unwrap_or(false)
}

async fn serve_grpc(
    listener: TcpListener,
    attachments: Attachments,
    keep_alive: Duration,
    mut stopped: watch::Receiver<bool>,
) {
    let service = AttachmentServiceServer::new(attachments).max_decoding_message_size(MAX_MESSAGE);
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<AttachmentServiceServer<Attachments>>().await;
    let reflection = |version: &str| tracing::error!(version, "the descriptors cannot be reflected");
    let described = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut routes = Routes::new(service).add_service(health);
    match described().build_v1() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1"),
    }
    match described().build_v1alpha() {
        Ok(service) => routes = routes.add_service(service),
        Err(_) => reflection("v1alpha"),
    }
    let mut server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_max_pending_accept_reset_streams(Some(MAX_PENDING_RESETS))
        .http2_keepalive_interval(Some(keep_alive))
        .layer(CatchPanicLayer::custom(panicked));
    let stop = async move {
        // An error means that the server itself is gone, which is a stop as well.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let served = server.add_routes(routes).serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop).await;
    if let Err(error) = served {
        tracing::error!(%error, "the gRPC port ended");
    }
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> http::Response<tonic::body::Body> {
    let error = Error::internal("a panic");
    tracing::error!(%error, "a panic in a gRPC request");
    error.to_status().into_http()
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "REST {}, gRPC {}, admin {}", self.rest, self.grpc, self.admin)
    }
}
