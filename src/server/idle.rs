//! How many requests are under way on a connection of HTTP/2. A client that answers pings and asks for nothing would otherwise
//! keep its connection for ever. This module does not know what is asked.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// The requests of one connection. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(watch::Sender<usize>);

/// A request that is under way until this is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Requests);

impl Requests {
    /// A request begins.
    pub(super) fn begin(&self) -> UnderWay {
        self.0.send_modify(|count| *count += 1);
        UnderWay(self.clone())
    }

    /// Waits until no request was under way for so long.
    pub(super) async fn idle(&self, time: Duration) {
        let mut count = self.0.subscribe();
        // The sender is here, so neither of the two fails.
        while count.wait_for(|count| *count == 0).await.is_ok() {
            tokio::select! {
                biased;
                _ = count.changed() => {}
                () = sleep(time) => return,
            }
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_connection_is_idle_while_none_of_its_requests_is_under_way() {
        let requests = Requests::default();
        requests.idle(Duration::ZERO).await;
        let (first, second) = (requests.begin(), requests.begin());
        for request in [first, second] {
            assert!(requests.idle(Duration::ZERO).now_or_never().is_none());
            drop(request);
        }
        requests.idle(Duration::ZERO).await;
    }
}
