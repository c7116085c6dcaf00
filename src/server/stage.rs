//! How far the process is on its way to its end. The stages come in this order, each once, and nobody goes back.

use tokio::sync::watch;

/// How far the process is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// All is served.
    Serving,
    /// All is served still, while those who send requests here learn to send them elsewhere. HTTP/1.1 connections are closed
    /// after the reply that is next on them.
    Leaving,
    /// Nothing new is accepted. What is in flight goes on, and connections are closed after it.
    Closing,
}

/// Tells of the stages.
#[derive(Clone, Debug)]
pub(super) struct Stages(watch::Receiver<Stage>);

impl Stages {
    /// The beginning, and whoever sets the stages after it.
    pub(super) fn begin() -> (watch::Sender<Stage>, Stages) {
        let (set, told) = watch::channel(Stage::Serving);
        (set, Stages(told))
    }

    /// The stage now.
    pub(super) fn now(&self) -> Stage {
        *self.0.borrow()
    }

    /// Waits until the process is at `stage` or past it. That the one who sets them is gone is the end as well.
    pub(super) async fn reach(&mut self, stage: Stage) {
        let _ = self.0.wait_for(|now| *now >= stage).await;
    }
}
