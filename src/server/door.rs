//! The accept loop of the REST and admin ports: a connection that speaks HTTP/1.1 or HTTP/2 is handed to hyper with the limits
//! of the doors. It knows no route.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::limits::{
    ACCEPT_PAUSE, CONNECTION_WINDOW, HTTP1_BUFFER, MAX_FRAME, MAX_PENDING_RESETS, MAX_STREAMS, STREAM_WINDOW,
};

/// The first bytes of every HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to wait for the rest of a preface before looking again.
const PREFACE_PAUSE: Duration = Duration::from_millis(10);

/// Serves HTTP/1.1 and HTTP/2 without TLS. axum's own loop sets none of these limits.
pub(super) async fn serve(
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
