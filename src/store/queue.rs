//! What waits to be written behind what is being written: whoever writes goes from one batch to the next without a sleep in
//! between, and whoever receives goes on meanwhile. It must not know where the bytes go.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::backend::Kept;
use super::lock;

/// Some bytes of a content, and what stands for their memory.
pub struct Batch {
    bytes: Vec<Bytes>,
    held: Kept,
}

/// Where a batch is put that is to be written after others.
pub struct Behind(Arc<Shared>);

/// The batches of one call of a sink, in their order. At least one.
pub struct Queue(Arc<Shared>);

/// An upload that sends a little now and then has a queue for each write, so it is small.
struct Shared {
    waiting: Mutex<Waiting>,
    /// Tells whoever waits that there is room, or that nobody takes any more.
    changed: Notify,
}

struct Waiting {
    /// The batch that the call began with.
    first: Option<Batch>,
    /// The one behind it. With one, whoever writes need not wait for the next; more would only take more memory.
    behind: Option<Batch>,
    closed: bool,
    taken: Instant,
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
    /// Puts a batch behind the others, once there is room. One caller at a time.
    ///
    /// # Errors
    /// The batch, where nobody takes any more.
    pub async fn put(&self, batch: Batch) -> Result<(), Batch> {
        loop {
            {
                let mut waiting = lock(&self.0.waiting);
                if waiting.closed {
                    return Err(batch);
                }
                if waiting.behind.is_none() {
                    waiting.behind = Some(batch);
                    return Ok(());
                }
            }
            // What was told since then is kept for who asks next.
            self.0.changed.notified().await;
        }
    }

    /// When the batch was taken that is being written, or the first one was put where none is yet.
    pub fn taken(&self) -> Instant {
        lock(&self.0.waiting).taken
    }
}

impl Queue {
    /// A queue that begins with a batch, and has room for one more.
    pub fn new(first: Batch) -> (Behind, Queue) {
        let waiting = Waiting { first: Some(first), behind: None, closed: false, taken: Instant::now() };
        let shared = Arc::new(Shared { waiting: Mutex::new(waiting), changed: Notify::new() });
        (Behind(Arc::clone(&shared)), Queue(shared))
    }

    /// The next batch if there is one, else none will come any more.
    pub fn next(&mut self) -> Option<Batch> {
        let mut waiting = lock(&self.0.waiting);
        let batch = waiting.first.take().or_else(|| waiting.behind.take());
        waiting.closed |= batch.is_none();
        waiting.taken = Instant::now();
        drop(waiting);
        self.0.changed.notify_one();
        batch
    }

    /// Takes no more batches than are there.
    pub fn close(&mut self) {
        lock(&self.0.waiting).closed = true;
        self.0.changed.notify_one();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
        let left = {
            let mut waiting = lock(&self.0.waiting);
            (waiting.first.take(), waiting.behind.take())
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(text(queue.next()).unwrap(), "a");
        assert!(behind.put(batch("b")).await.is_ok());
        assert_eq!(text(queue.next()).unwrap(), "b");
        assert!(queue.next().is_none());
        assert_eq!(text(behind.put(batch("c")).await.err()).unwrap(), "c");
        assert!(queue.next().is_none());
    }

    #[tokio::test]
    async fn whoever_puts_waits_for_room() {
        let (behind, mut queue) = Queue::new(batch("a"));
        assert!(behind.put(batch("b")).await.is_ok());
        assert!(timeout(Duration::from_millis(1), behind.put(batch("c"))).await.is_err());
        assert_eq!(text(queue.next()).unwrap(), "a");
        assert_eq!(text(queue.next()).unwrap(), "b");
        assert!(timeout(Duration::from_secs(60), behind.put(batch("c"))).await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_queue_that_is_closed_has_what_is_in_it_and_takes_no_more() {
        let (behind, mut queue) = Queue::new(batch("a"));
        assert!(behind.put(batch("b")).await.is_ok());
        queue.close();
        assert!(behind.put(batch("c")).await.is_err());
        assert_eq!(text(queue.next()).unwrap(), "a");
        assert_eq!(text(queue.next()).unwrap(), "b");
        assert!(queue.next().is_none());
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
                while let Some(batch) = queue.next() {
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
