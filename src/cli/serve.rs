//! `attachd serve`, and the signals that end a command.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use crate::config::Config;
use crate::server::{self, Server, StartError};
use crate::telemetry::Telemetry;

/// Serves until the process is told to end. `started` is called once the ports are bound.
pub async fn run(
    config: Config,
    telemetry: Telemetry,
    started: impl FnOnce(server::Addresses) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let server = Server::bind(config, telemetry.metrics.clone()).await.map_err(|error| match error {
        StartError::Storage(_)
        | StartError::Unfit(_)
        | StartError::Redirect(_)
        | StartError::Keys(_)
        | StartError::Certificates(_) => Failure::usage(error),
        StartError::Bind { .. } | StartError::Routes(_) => Failure::running(error),
    })?;
    // Whoever reads that it is ready may end it at once.
    let ends = ends().map_err(Failure::running)?;
    started(server.addresses().map_err(Failure::running)?)?;
    let ended = server.run(ends).await.map_err(Failure::running);
    telemetry.end().await;
    ended
}

/// Waits for the first SIGTERM or SIGINT. The second one ends the process at once.
pub fn ends() -> io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let mut next = async move || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        tokio::spawn(async move {
            next().await;
            std::process::exit(1);
        });
    })
}
