//! The accept loop of a port: it takes connections, serves them, and asks them to go elsewhere at the end. It knows no route.

use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{MissedTickBehavior, timeout};
use tokio_util::task::TaskTracker;

use super::crowd::{Crowd, Place, Room};
use super::handshakes::Handshakes;
use super::idle::{Requests, UnderWay};
use super::limits::{
    ACCEPT_PAUSE, HTTP1_BUFFER, HTTP1_HEADERS, LAST_CALL, MAX_FRAME, MAX_HEADERS, MAX_PENDING_RESETS, MAX_STREAMS,
    PARTING, SWEEP,
};
use super::opening::{Opening, Openings, Speaks};
use super::reads::Reads;
use super::refused;
use super::stage::{Stage, Stages};
use super::standing::{Exchange, Standing};
use super::stream::Stream;
use super::streams::Streams;
use super::turn::{Reply, Speaking, Turn};
use super::watches::Watches;
use crate::auth::{Certificates, Peer};
use crate::edge::drains::Drains;
use crate::edge::{self, Cut};
use crate::origin::{FORWARDED_FOR, Network, Origin};
use crate::request::Arrival;
use crate::telemetry::{Eviction, HeadFault, Metrics, Port, Rejection};
use crate::tls::Tls;

/// The request that stands in for one whose head could not be read, so that the routes answer it as they do any other.
const STAND_IN: &[u8] = b"- * HTTP/1.1\r\nHost: -\r\nConnection: close\r\n\r\n";

/// What connections may do.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionLimits {
    /// How many there may be. For further ones, others are closed. If none can be, they wait to be accepted.
    pub(super) connections: usize,
    /// How many an address may have. 0 sets no limit.
    pub(super) connections_of_address: usize,
    /// How many handshakes may be under way. Further ones wait, each address in turn, for as long as a handshake may take.
    pub(super) handshakes: usize,
    /// How long a handshake may take.
    pub(super) handshake: Duration,
    /// How long a client may say nothing.
    pub(super) idle: Duration,
    /// How long a client may take nothing of a reply.
    pub(super) write: Duration,
    /// How many bytes of a reply a second it takes at least, or 0.
    pub(super) min_rate: u64,
    /// The window of an HTTP/2 stream, in bytes.
    pub(super) window: u32,
}

/// A port that is bound.
pub(super) struct BoundPort {
    /// What the log and the metrics call it.
    pub(super) port: Port,
    /// Where connections come from.
    pub(super) listener: TcpListener,
    /// Its certificate; without it the port speaks plain text.
    pub(super) tls: Option<Arc<Tls>>,
    /// Whom the certificates of clients speak for.
    pub(super) certificates: Arc<Certificates>,
    /// Which versions of HTTP it speaks.
    pub(super) speaks: Speaks,
    /// Whose word is taken for where a request comes from.
    pub(super) trusted_proxies: Vec<Network>,
    /// What it serves.
    pub(super) routes: edge::Routes,
    /// What it serves to a client that does not speak TLS where it should; without it that client is hung up on.
    pub(super) plain: Option<edge::Routes>,
    /// Whether the routes answer for heads that could not be read. Else the HTTP library does, without a body.
    pub(super) explains: bool,
    /// What connections may do.
    pub(super) limits: ConnectionLimits,
    /// How what a client sends after the last reply is drained.
    pub(super) drains: Drains,
    /// Where they are counted.
    pub(super) metrics: Metrics,
}

/// What every connection to a port needs.
struct Connections {
    openings: Openings,
    certificates: Arc<Certificates>,
    trusted_proxies: Vec<Network>,
    routes: edge::Routes,
    plain: Option<edge::Routes>,
    explains: bool,
    limits: ConnectionLimits,
    drains: Drains,
    port: Port,
    metrics: Metrics,
    http1: http1::Builder,
    reads: Reads,
    http2: http2::Builder<Streams>,
}

/// Serves a port until the stage of closing, and returns when its last connection has ended.
pub(super) async fn serve(port: BoundPort, stages: Stages) {
    let BoundPort {
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
        drains,
        metrics,
    } = port;
    let name = port.as_str();
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(HTTP1_BUFFER)
        .max_header_size(HTTP1_HEADERS)
        // A client may say that it has sent all, and wait for the reply. One that is cut off in its body is noticed there.
        .half_close(true);
    let mut http2 = http2::Builder::new(Streams { patience: limits.write, min_rate: limits.min_rate });
    http2
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.window)
        .initial_connection_window_size(limits.window * MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(limits.idle);
    let openings = Openings {
        port,
        tls,
        handshakes: Arc::new(Handshakes::new(port, limits.handshakes, metrics.clone())),
        speaks,
        handshake: limits.handshake,
        idle: limits.idle,
        metrics: metrics.clone(),
    };
    let connections = Arc::new(Connections {
        openings,
        certificates,
        trusted_proxies,
        routes,
        plain,
        explains,
        limits,
        drains,
        port,
        metrics,
        http1,
        reads: Reads::default(),
        http2,
    });

    let room = Room {
        connections: limits.connections,
        of_address: limits.connections_of_address,
        idle: limits.idle,
        handshake: limits.handshake,
        write: limits.write,
    };
    let crowd = Arc::new(Crowd::new(port, room, connections.trusted_proxies.clone(), connections.metrics.clone()));
    let open = TaskTracker::new();
    let take = |stream: TcpStream, address: SocketAddr, place: Place| {
        let (connections, stages) = (Arc::clone(&connections), stages.clone());
        open.spawn(async move {
            let open = connections.metrics.connected(connections.port);
            tokio::select! {
                biased;
                () = place.standing().evicted() => {}
                () = connections.serve(stream, address, stages, place.standing()) => {}
            }
            drop((place, open));
        });
    };
    let refuse = || {
        drop(connections.metrics.connected(connections.port));
        connections.metrics.refused(connections.port, Rejection::Address);
    };
    let mut closing = stages.clone();
    let mut closing = pin!(closing.reach(Stage::Closing));
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The one that was accepted last, until it has a place.
    let mut new: Option<(TcpStream, SocketAddr)> = None;
    loop {
        let place = async {
            match &new {
                Some((_, address)) => crowd.enter(*address).await,
                None => pending().await,
            }
        };
        tokio::select! {
            biased;
            () = &mut closing => break,
            _ = sweep.tick(), if crowd.is_crowded() => crowd.sweep(),
            place = place => match (place, new.take()) {
                (Some(place), Some((stream, address))) => take(stream, address, place),
                _ => refuse(),
            },
            accepted = listener.accept(), if new.is_none() => match accepted {
                Ok(accepted) => new = Some(accepted),
                Err(error) => {
                    tracing::warn!(port = name, %error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    if let Some((stream, address)) = new {
        take(stream, address, crowd.enter_anyway(address));
    }
    // Clients whom the system has connected already have no reason to think that they will not be served.
    if let Ok(listener) = listener.into_std() {
        while let Ok((stream, address)) = listener.accept() {
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                take(stream, address, crowd.enter_anyway(address));
            }
        }
    }
    open.close();
    open.wait().await;
}

impl Connections {
    /// Serves one connection to its end.
    async fn serve(&self, stream: TcpStream, address: SocketAddr, stages: Stages, standing: &Arc<Standing>) {
        // A connection without TCP_NODELAY is slower and otherwise the same.
        let _ = stream.set_nodelay(true);
        let mut closing = stages.clone();
        let last_call = async {
            closing.reach(Stage::Closing).await;
            tokio::time::sleep(LAST_CALL).await;
        };
        // Whoever has asked for nothing is not waited for at the end.
        let opening = tokio::select! {
            biased;
            // In a box, which is gone once the client has begun.
            opening = Box::pin(self.openings.open(stream, address, standing)) => opening,
            () = last_call => None,
        };
        match opening {
            Some(Opening::Http(stream, version)) => {
                let certificate = stream.client_certificate();
                let peer = certificate.map(|certificate| self.certificates.peer(certificate)).unwrap_or_default();
                self.speak(stream, version, &self.routes, (address, peer), stages, standing).await;
            }
            Some(Opening::Unencrypted(stream, version)) => {
                if let Some(routes) = &self.plain {
                    self.speak(stream, version, routes, (address, Peer::default()), stages, standing).await;
                }
            }
            None => {}
        }
    }

    /// Speaks HTTP until the client has no more to ask, or the process is to end.
    async fn speak(
        &self,
        stream: Stream,
        version: Version,
        routes: &edge::Routes,
        (address, peer): (SocketAddr, Peer),
        stages: Stages,
        standing: &Arc<Standing>,
    ) {
        let turn = Turn::default();
        let requests = (version == Version::HTTP_2).then(Requests::default);
        let watches = Watches::default();
        let stream = stream.written_within(self.limits.write, standing, self.port, &self.metrics);
        let service = hyper::service::service_fn(|mut request: Request<Incoming>| {
            if version == Version::HTTP_2 {
                request.extensions_mut().insert(watches.clone());
            }
            let said = request.headers().get_all(FORWARDED_FOR).iter().map(HeaderValue::as_bytes);
            let origin = Origin::of(address, said, &self.trusted_proxies);
            let arrival = Arrival { origin, peer: peer.clone(), unreadable: None };
            let speaking = (version < Version::HTTP_2).then(|| turn.begin());
            let under_way = requests.as_ref().map(Requests::begin);
            answer(routes, arrival, &stages, request, (&turn, standing.begin(), speaking, under_way))
        });
        if let Some(requests) = &requests {
            if let Err(error) = self.speak_http2(stream, service, requests, stages.clone()).await {
                self.ended_badly(address, &error, refused::http2(&error));
            }
            return;
        }
        let stream = stream.beside(&self.reads);
        let stream = if self.explains { stream.in_turn(&turn) } else { stream };
        let (stream, begun, ended) = self.speak_http1(stream, service, stages.clone()).await;
        let fault = ended.as_ref().err().and_then(|error| refused::http1(error, begun));
        if let Err(error) = &ended {
            self.ended_badly(address, error, fault);
        }
        if !self.explains {
            return;
        }
        let stream = match fault.filter(|fault| *fault == HeadFault::Slow || turn.was_silenced()) {
            None => stream,
            // The library has said nothing, or not been heard.
            Some(fault) => {
                let service = hyper::service::service_fn(|request: Request<Incoming>| {
                    // A head that cannot be read names no proxy either.
                    let origin = Origin::of(address, std::iter::empty(), &[]);
                    let arrival = Arrival { origin, peer: peer.clone(), unreadable: Some(refused::reply(fault)) };
                    answer(routes, arrival, &stages, request, (&turn, standing.begin(), Some(turn.begin()), None))
                });
                turn.cut();
                // In a box, which few connections need.
                Box::pin(self.speak_http1(stream.hearing(STAND_IN).in_turn(&turn), service, stages.clone())).await.0
            }
        };
        let drain = turn.was_cut().then(|| self.drains.begin());
        // A client that is gone by now wants nothing more.
        let _ = timeout(self.drains.time(), Box::pin(stream.part(drain))).await;
    }

    /// Speaks HTTP/2 until the end, or until the client has asked for nothing for too long.
    async fn speak_http2<S>(&self, stream: Stream, service: S, requests: &Requests, stages: Stages) -> hyper::Result<()>
    where
        S: HttpService<Incoming, ResBody = Reply, Error = Infallible>,
        S::Future: Send + 'static,
    {
        // In a box, since the task would have room for the connections of all versions.
        let mut connection = Box::pin(self.http2.serve_connection(TokioIo::new(stream.governed()), service));
        let ended = tokio::select! {
            biased;
            ended = to_its_end(connection.as_mut(), |connection| connection.graceful_shutdown(), stages) => Some(ended),
            () = requests.idle(self.limits.idle) => None,
        };
        if let Some(ended) = ended {
            return ended;
        }
        self.metrics.evicted(self.port, Eviction::Idle);
        connection.as_mut().graceful_shutdown();
        // A request that crosses the word of the end is served.
        tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            () = requests.idle(PARTING) => Ok(()),
        }
    }

    /// Speaks HTTP/1 until the end, and returns the connection and whether the head of another request was begun on it.
    async fn speak_http1<S>(&self, stream: Stream, service: S, stages: Stages) -> (Stream, bool, hyper::Result<()>)
    where
        S: HttpService<Incoming, ResBody = Reply, Error = Infallible>,
    {
        let mut connection = Box::pin(self.http1.serve_connection(TokioIo::new(stream), service));
        let ended = to_its_end(connection.as_mut(), |connection| connection.graceful_shutdown(), stages).await;
        let parts = Pin::into_inner(connection).into_parts();
        (parts.io.into_inner(), !parts.read_buf.is_empty(), ended)
    }

    fn ended_badly(&self, address: SocketAddr, error: &hyper::Error, fault: Option<HeadFault>) {
        match fault {
            Some(fault) => {
                self.metrics.head_refused(self.port, fault);
                let port = self.port.as_str();
                tracing::debug!(port, %address, cause = fault.as_str(), %error, "the head of a request was refused");
            }
            None => tracing::debug!(%address, %error, "a connection ended badly"),
        }
    }
}

/// Drives a connection, which is asked to end once the port closes. It comes first, so that what it has received is looked at
/// before that.
async fn to_its_end<C: Future>(
    mut connection: Pin<&mut C>,
    ask: impl FnOnce(Pin<&mut C>),
    mut stages: Stages,
) -> C::Output {
    let closing = stages.reach(Stage::Closing);
    tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = closing => {
            ask(connection.as_mut());
            connection.await
        }
    }
}

/// Hands a request to the routes. On the way to the end of the process, an HTTP/1.1 client is told that its connection ends
/// with this reply, so that its next request goes elsewhere; HTTP/2 says so by GOAWAY, when the port closes.
fn answer(
    routes: &edge::Routes,
    arrival: Arrival,
    stages: &Stages,
    request: Request<Incoming>,
    (turn, exchange, speaking, under_way): (&Turn, Exchange, Option<Speaking>, Option<UnderWay>),
) -> impl Future<Output = Result<Response<Reply>, Infallible>> + use<> {
    let http1 = (request.version() < Version::HTTP_2).then(|| (stages.clone(), turn.clone()));
    let reply = routes.serve(arrival, request.map(Body::new));
    async move {
        let mut reply = reply.await;
        if let Some((stages, turn)) = http1 {
            if reply.extensions().get::<Cut>().is_some() {
                turn.cut();
            }
            if stages.now() > Stage::Serving {
                reply.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
        }
        Ok(reply.map(|body| Reply::new(body, exchange, speaking, under_way)))
    }
}
