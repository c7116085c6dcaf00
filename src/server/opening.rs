//! How connections to a port begin: with a TLS handshake, if the port speaks TLS, and with the words by which the version of
//! HTTP is known. Each may take a limited time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshakes::Handshakes;
use super::prefix::Prefix;
use super::standing::Standing;
use super::stream::Stream;
use crate::telemetry::{self, Metrics, Port, Rejection};
use crate::tls::{self, Tls};

/// The first bytes of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of every TLS connection: a record of the handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// Which versions of HTTP a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1 and HTTP/2.
    Both,
    /// HTTP/2 alone, as gRPC does.
    Http2,
}

/// What a client wants, as far as its first words tell.
pub(super) enum Opening {
    /// A version of HTTP.
    Http(Stream, Version),
    /// HTTP without TLS where TLS is spoken.
    Unencrypted(Stream, Version),
}

/// How connections to one port begin.
pub(super) struct Openings {
    pub(super) port: Port,
    /// The certificate of the port; without it the port speaks plain text.
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) speaks: Speaks,
    /// How long a handshake may take.
    pub(super) handshake: Duration,
    /// How long a client may say nothing.
    pub(super) idle: Duration,
    pub(super) metrics: Metrics,
}

impl Openings {
    /// Waits for the handshake, where there is one, and for the first words of a client, each for a bounded time. None where
    /// they do not come. hyper's own timers start once it knows the version.
    pub(super) async fn open(&self, stream: TcpStream, from: SocketAddr, standing: &Arc<Standing>) -> Option<Opening> {
        let mut unencrypted = false;
        let mut stream = match &self.tls {
            None => Stream::from(stream),
            Some(tls) => match timeout(self.handshake, self.encrypt(tls, stream, from, standing)).await {
                Ok(Some(Ok(stream))) => stream,
                Ok(Some(Err(stream))) => {
                    unencrypted = true;
                    Stream::from(stream)
                }
                Ok(None) => {
                    self.metrics.refused(self.port, Rejection::Tls);
                    return None;
                }
                Err(_) => {
                    tracing::debug!("a handshake took too long");
                    self.metrics.refused(self.port, Rejection::Tls);
                    return None;
                }
            },
        };
        let Ok(Ok(Some(words))) = timeout(self.idle, stream.begins_with(PREFACE)).await else {
            self.metrics.refused(self.port, Rejection::Silent);
            return None;
        };
        let version = if words || self.speaks == Speaks::Http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        Some(if unencrypted { Opening::Unencrypted(stream, version) } else { Opening::Http(stream, version) })
    }

    /// The TLS handshake. A client that does not speak TLS gets its connection back, in the error.
    async fn encrypt(
        &self,
        tls: &Tls,
        stream: TcpStream,
        from: SocketAddr,
        standing: &Arc<Standing>,
    ) -> Option<Result<Stream, TcpStream>> {
        let mut first = [0];
        if stream.peek(&mut first).await.ok()? > 0 && first[0] != HANDSHAKE {
            return Some(Err(stream));
        }
        let shaken = async {
            // Until it is complete, a ClientHello costs no more than a connection that sends nothing.
            let hello = tls::client_hello(stream).await?;
            let _turn = self.handshakes.turn(Prefix::from(from.ip()), standing).await;
            tls.accept(hello).await
        };
        match shaken.await {
            Ok(stream) => {
                standing.shaken();
                Some(Ok(Stream::from(stream)))
            }
            Err(error) => {
                match tls::refused(&error) {
                    Some(why) if telemetry::permits_certificate() => {
                        let port = self.port.as_str();
                        tracing::info!(port, %from, why, "a client certificate was refused");
                    }
                    Some(_) => {}
                    None => tracing::debug!(%error, "a handshake failed"),
                }
                None
            }
        }
    }
}
