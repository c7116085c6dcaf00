//! What waits to be written behind what is being written: whoever writes goes from one batch to the next without a sleep in
//! between, and whoever receives goes on meanwhile. It must not know where the bytes go.

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::backend::Kept;

/// How many batches may wait behind the one that is being written. With one, whoever writes need not wait for the next; more
/// only take more memory.
const BEHIND: usize = 1;

/// Some bytes of a content, and what stands for their memory.
pub struct Batch {
    bytes: Vec<Bytes>,
    held: Kept,
}

/// Where batches are put that are to be written after others.
pub struct Behind {
    batches: Option<mpsc::Sender<Batch>>,
    taken: watch::Receiver<Instant>,
}

/// The batches of one call of a sink, in their order. At least one.
pub struct Queue {
    first: Option<Batch>,
    rest: mpsc::Receiver<Batch>,
    taken: watch::Sender<Instant>,
}

impl Batch {
    /// A batch that drops `held` once it is written.
    pub fn new(bytes: Vec<Bytes>, held: impl Send + Sync + 'static) -> Batch {
        Batch { bytes, held: Kept::new(held) }
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (Vec<Bytes>, Kept) {
        (self.bytes, self.held)
    }
}

impl Behind {
    /// Puts a batch behind the others, once there is room.
    ///
    /// # Errors
    /// The batch, where nobody takes any more.
    pub async fn put(&self, batch: Batch) -> Result<(), Batch> {
        match &self.batches {
            Some(batches) => batches.send(batch).await.map_err(|refused| refused.0),
            None => Err(batch),
        }
    }

    /// Puts no more, so that nobody need look for more.
    pub fn close(&mut self) {
        self.batches = None;
    }

    /// When the batch was taken that is being written, or the first one was put where none is yet.
    pub fn taken(&self) -> Instant {
        *self.taken.borrow()
    }
}

impl Queue {
    /// A queue that begins with a batch, and has room for [`BEHIND`] more.
    pub fn new(first: Batch) -> (Behind, Queue) {
        let (batches, rest) = mpsc::channel(BEHIND);
        let (take, taken) = watch::channel(Instant::now());
        (Behind { batches: Some(batches), taken }, Queue { first: Some(first), rest, taken: take })
    }

    /// The next batch if there is one, else none will come any more.
    pub async fn next(&mut self) -> Option<Batch> {
        let batch = match self.at_hand() {
            Some(batch) => Some(batch),
            None => self.rest.recv().await,
        };
        self.take(batch)
    }

    /// Does what [`next`](Self::next) does, on a thread that may block.
    pub fn next_now(&mut self) -> Option<Batch> {
        let batch = self.at_hand().or_else(|| self.rest.blocking_recv());
        self.take(batch)
    }

    fn take(&self, batch: Option<Batch>) -> Option<Batch> {
        self.taken.send_replace(Instant::now());
        batch
    }

    /// What is there already. Where there is nothing the queue is closed, and has what was on its way into it and no more.
    fn at_hand(&mut self) -> Option<Batch> {
        let batch = self.first.take().or_else(|| self.rest.try_recv().ok());
        if batch.is_none() {
            self.close();
        }
        batch
    }

    /// Takes no more batches than are there.
    pub fn close(&mut self) {
        self.rest.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn batch(text: &'static str) -> Batch {
        Batch::new(vec![text.into()], ())
    }

    fn text(batch: Option<Batch>) -> Option<Bytes> {
        batch.map(|batch| batch.into_parts().0.remove(0))
    }

    #[tokio::test]
    async fn batches_come_in_their_order_until_none_is_at_hand() {
        let (behind, mut queue) = Queue::new(batch("a"));
        assert_eq!(text(queue.next().await).unwrap(), "a");
        assert!(behind.put(batch("b")).await.is_ok());
        assert_eq!(text(queue.next().await).unwrap(), "b");
        assert!(queue.next().await.is_none());
        assert_eq!(text(behind.put(batch("c")).await.err()).unwrap(), "c");
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn whoever_puts_waits_for_room() {
        let (behind, mut queue) = Queue::new(batch("a"));
        assert!(behind.put(batch("b")).await.is_ok());
        assert!(timeout(Duration::from_millis(1), behind.put(batch("c"))).await.is_err());
        assert_eq!(text(queue.next().await).unwrap(), "a");
        assert_eq!(text(queue.next().await).unwrap(), "b");
        assert!(timeout(Duration::from_secs(60), behind.put(batch("c"))).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_queue_that_is_closed_has_what_is_in_it_and_takes_no_more() {
        let (behind, mut queue) = Queue::new(batch("a"));
        assert!(behind.put(batch("b")).await.is_ok());
        queue.close();
        assert!(behind.put(batch("c")).await.is_err());
        assert_eq!(text(queue.next().await).unwrap(), "a");
        assert_eq!(text(queue.next().await).unwrap(), "b");
        assert!(queue.next().await.is_none());
    }

    #[tokio::test]
    async fn a_queue_that_is_dropped_lets_go_of_all_that_is_in_it() {
        let memory = Arc::new(());
        let (behind, queue) = Queue::new(Batch::new(Vec::new(), Arc::clone(&memory)));
        assert!(behind.put(Batch::new(Vec::new(), Arc::clone(&memory))).await.is_ok());
        drop(queue);
        assert_eq!(Arc::strong_count(&memory), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_what_is_put_while_the_other_side_comes_and_goes_nothing_is_lost_and_nothing_comes_twice() {
        let (mut behind, mut queue) = Queue::new(Batch::new(vec![Bytes::from_iter(0_u32.to_le_bytes())], ()));
        let mut taken = Vec::new();
        let mut number = 0_u32;
        while number < 20_000 {
            let call = tokio::task::spawn_blocking(move || {
                let mut taken = Vec::new();
                while let Some(batch) = queue.next_now() {
                    taken.push(u32::from_le_bytes(batch.into_parts().0[0][..].try_into().unwrap()));
                }
                taken
            });
            let refused = loop {
                number += 1;
                if let Err(batch) = behind.put(Batch::new(vec![Bytes::from_iter(number.to_le_bytes())], ())).await {
                    break batch;
                }
            };
            taken.extend(call.await.unwrap());
            (behind, queue) = Queue::new(refused);
        }
        assert!(taken.into_iter().eq(0..number));
    }
}
