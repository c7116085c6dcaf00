//! Where what blocks is done: on a thread of its own, or in a pool of as few threads as keep up. A thread of the pool that has
//! done its piece of work takes the next one without a sleep in between, and it is the sleeping and waking that a change of
//! threads costs; more come in only where those at work wait for a disk. It must not know what the work is.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::lock;
use crate::attachment::Id;
use crate::error::{Error, Result};
use crate::fair::{Load, Queue};

/// How long a piece of work takes at least where it waits for a disk. Without that it takes a tenth.
const SLOW: Duration = Duration::from_millis(1);

/// How long nothing may end while something waits, until one more thread comes in.
const STUCK: Duration = Duration::from_millis(2);

/// How often a thread that has nothing to do lets others have its processor, and looks again, before it leaves: those others
/// may be about to ask for work.
const LINGERS: u32 = 16;

/// Whether nobody waits any more for what a thread does.
#[derive(Clone, Debug, Default)]
pub struct Abandoned(Arc<AtomicBool>);

impl Abandoned {
    /// Says that nobody waits any more.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Sets it when dropped before the end.
struct Awaited(Option<Abandoned>);

impl Awaited {
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(abandoned) = &self.0 {
            abandoned.set();
        }
    }
}

/// Does what blocks on a thread that may. The thread is told when nobody waits for it any more.
pub(super) async fn on_thread<T: Send + 'static>(
    abandoned: Abandoned,
    work: impl FnOnce(&Abandoned) -> T + Send + 'static,
) -> Result<T> {
    let awaited = Awaited(Some(abandoned.clone()));
    let done = tokio::task::spawn_blocking(move || work(&abandoned)).await;
    awaited.ended();
    done.map_err(Error::internal)
}

/// A pool of threads, which are those of the runtime for what blocks, while they are here.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    fewest: usize,
    most: usize,
    state: Mutex<State>,
}

struct State {
    waiting: Queue<Work>,
    /// How many threads there may be at this time, between the fewest and the most.
    wanted: usize,
    at_work: usize,
    /// When each piece that is being done was begun, by its number.
    begun: Vec<(u64, Instant)>,
    next: u64,
    /// How many pieces have ended.
    ended: u64,
    /// Whether somebody looks that pieces end.
    watched: bool,
}

type Work = Box<dyn FnOnce() + Send>;

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("fewest", &self.0.fewest).field("most", &self.0.most).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `fewest` threads where the work waits for nothing, and of up to `most` where it does. None is there before
    /// there is work.
    pub fn new(fewest: usize, most: usize) -> Pool {
        let state = State {
            waiting: Queue::default(),
            wanted: fewest,
            at_work: 0,
            begun: Vec::new(),
            next: 0,
            ended: 0,
            watched: false,
        };
        Pool(Arc::new(Inner { fewest, most: most.max(fewest), state: Mutex::new(state) }))
    }

    /// Does a piece of work of about so many bytes for a client, when its turn comes. If nobody waits for it
    /// any more, the work learns of that, and is done all the same.
    ///
    /// # Errors
    /// Where the work panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        (client, bytes): (Id, usize),
        abandoned: Abandoned,
        work: impl FnOnce(&Abandoned) -> T + Send + 'static,
    ) -> Result<T> {
        let awaited = Awaited(Some(abandoned.clone()));
        let (tell, told) = oneshot::channel();
        let work = Box::new(move || {
            // Nobody may listen any more.
            let _ = tell.send(work(&abandoned));
        });
        self.begin(client, bytes, work);
        let done = told.await;
        awaited.ended();
        done.map_err(|_| Error::internal("work on a thread panicked"))
    }

    /// What waits for a thread, and what threads do.
    pub fn load(&self) -> Load {
        let state = lock(&self.0.state);
        Load { waiting: state.waiting.len(), active: state.begun.len() }
    }

    fn begin(&self, client: Id, bytes: usize, work: Work) {
        let mut state = lock(&self.0.state);
        state.waiting.push(client, 0, bytes, work);
        if state.at_work < state.wanted {
            self.join(&mut state);
        } else if !state.watched {
            state.watched = true;
            tokio::spawn(self.clone().watch());
        }
    }

    fn join(&self, state: &mut State) {
        state.at_work += 1;
        let pool = self.clone();
        tokio::task::spawn_blocking(move || pool.work());
    }

    fn work(&self) {
        let mut state = lock(&self.0.state);
        let mut lingered = 0;
        while state.at_work <= state.wanted {
            let Some(work) = state.waiting.pop() else {
                if lingered == LINGERS {
                    break;
                }
                lingered += 1;
                drop(state);
                std::thread::yield_now();
                state = lock(&self.0.state);
                continue;
            };
            lingered = 0;
            let (number, began) = (state.next, Instant::now());
            state.next += 1;
            state.begun.push((number, began));
            drop(state);
            // Whoever waits for it is told, since what would tell of its end is dropped.
            let _ = catch_unwind(AssertUnwindSafe(work));
            let slow = began.elapsed() >= SLOW;
            state = lock(&self.0.state);
            state.ended += 1;
            state.begun.retain(|(other, _)| *other != number);
            if !slow {
                self.shrink(&mut state);
            } else if !state.waiting.is_empty() {
                self.grow(&mut state);
            }
        }
        state.at_work -= 1;
    }

    /// Lets one thread go, unless those that are left would all wait: a thread whose piece has not come to its end is nobody who
    /// keeps up.
    fn shrink(&self, state: &mut State) {
        if state.wanted > self.0.fewest {
            let wait = state.begun.iter().filter(|(_, began)| began.elapsed() >= SLOW).count();
            state.wanted = (state.wanted - 1).max((self.0.fewest + wait).min(self.0.most));
        }
    }

    /// Lets one more thread in.
    fn grow(&self, state: &mut State) {
        state.wanted = (state.wanted + 1).min(self.0.most);
        if state.at_work < state.wanted {
            self.join(state);
        }
    }

    /// Lets more threads in where none of those at work gets to its end, for as long as something waits.
    async fn watch(self) {
        let mut ended = None;
        loop {
            tokio::time::sleep(STUCK).await;
            let mut state = lock(&self.0.state);
            if state.waiting.is_empty() {
                state.watched = false;
                return;
            }
            if ended.replace(state.ended) == Some(state.ended) {
                self.grow(&mut state);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn whose() -> (Id, usize) {
        (Id::try_from(1).unwrap(), 0)
    }

    fn idle(pool: &Pool) -> bool {
        let state = lock(&pool.0.state);
        state.at_work == 0 && state.waiting.is_empty() && !state.watched
    }

    async fn until(holds: impl Fn() -> bool) {
        let held = async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), held).await.expect("it comes to be");
    }

    #[tokio::test]
    async fn work_of_one_client_is_done_in_its_order() {
        let pool = Pool::new(1, 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let all = (0..100).map(|number| {
            let order = Arc::clone(&order);
            pool.run(whose(), Abandoned::default(), move |_| order.lock().unwrap().push(number))
        });
        for done in futures_util::future::join_all(all).await {
            done.unwrap();
        }
        let order = std::mem::take(&mut *order.lock().unwrap());
        assert!(order.into_iter().eq(0..100));
        until(|| idle(&pool)).await;
    }

    #[tokio::test]
    async fn a_client_that_asks_for_little_does_not_wait_for_all_that_another_has_asked_for() {
        let pool = Pool::new(1, 1);
        let order = Arc::new(Mutex::new(Vec::new()));
        let (go, wait) = mpsc::channel::<()>();
        let first = pool.run(whose(), Abandoned::default(), move |_| wait.recv().unwrap());
        let clients = std::iter::repeat_n(1, 100).chain([2]);
        let all = clients.map(|client| {
            let order = Arc::clone(&order);
            let whose = (Id::try_from(client).unwrap(), 0);
            pool.run(whose, Abandoned::default(), move |_| order.lock().unwrap().push(client))
        });
        let go = async { go.send(()).unwrap() };
        let (first, all, ()) = tokio::join!(first, futures_util::future::join_all(all), go);
        assert!(first.is_ok() && all.iter().all(Result::is_ok));
        let at = order.lock().unwrap().iter().position(|client| *client == 2).unwrap();
        assert!(at < 10, "{at}");
    }

    #[tokio::test]
    async fn where_all_at_work_wait_others_come_in_up_to_the_most_and_leave_again() {
        let pool = Pool::new(2, 5);
        let (at_once, most, open) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let all: Vec<_> = (0..20)
            .map(|_| {
                let (at_once, most, open) = (Arc::clone(&at_once), Arc::clone(&most), Arc::clone(&open));
                let pool = pool.clone();
                tokio::spawn(async move {
                    let work = move |_: &Abandoned| {
                        most.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        while !open.load(Ordering::SeqCst) {
                            thread::sleep(Duration::from_millis(1));
                        }
                        at_once.fetch_sub(1, Ordering::SeqCst);
                    };
                    pool.run(whose(), Abandoned::default(), work).await
                })
            })
            .collect();
        until(|| at_once.load(Ordering::SeqCst) == 5).await;
        open.store(true, Ordering::SeqCst);
        for done in all {
            done.await.unwrap().unwrap();
        }
        assert_eq!(most.load(Ordering::SeqCst), 5);
        // Short work needs no more than the fewest.
        while lock(&pool.0.state).wanted > 2 {
            pool.run(whose(), Abandoned::default(), |_| ()).await.unwrap();
        }
        until(|| idle(&pool)).await;
    }

    #[tokio::test]
    async fn where_some_hang_short_work_keeps_as_many_threads_as_it_had_without_them() {
        let pool = Pool::new(1, 4);
        let (go, wait) = mpsc::channel::<()>();
        let hung = pool.clone();
        let hung = tokio::spawn(async move { hung.run(whose(), Abandoned::default(), move |_| wait.recv()).await });
        until(|| lock(&pool.0.state).begun.len() == 1).await;
        for ended in 1..=10 {
            pool.run(whose(), Abandoned::default(), |_| ()).await.unwrap();
            until(|| lock(&pool.0.state).ended == ended).await;
            assert!(lock(&pool.0.state).wanted >= 2, "one that hangs, and one beside it");
        }
        go.send(()).unwrap();
        hung.await.unwrap().unwrap().unwrap();
        while lock(&pool.0.state).wanted > 1 {
            pool.run(whose(), Abandoned::default(), |_| ()).await.unwrap();
        }
        until(|| idle(&pool)).await;
    }

    #[tokio::test]
    async fn work_that_panics_is_told_of_and_its_thread_goes_on() {
        let pool = Pool::new(1, 1);
        let (go, wait) = mpsc::channel::<()>();
        let (panics, other) = tokio::join!(
            pool.run(whose(), Abandoned::default(), move |_| {
                wait.recv().unwrap();
                panic!("on purpose");
            }),
            async {
                let other = pool.run(whose(), Abandoned::default(), |_| 7);
                go.send(()).unwrap();
                other.await
            }
        );
        assert!(panics.is_err());
        assert_eq!(other.unwrap(), 7);
        until(|| idle(&pool)).await;
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_told_so_and_done() {
        let pool = Pool::new(1, 1);
        let (go, wait) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let work = pool.run(whose(), Abandoned::default(), move |abandoned| {
            wait.recv().unwrap();
            tell.send(abandoned.is_set()).unwrap();
        });
        assert!(tokio::time::timeout(Duration::from_millis(5), work).await.is_err());
        go.send(()).unwrap();
        assert!(told.recv().unwrap());
    }
}
