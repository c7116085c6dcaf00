//! A wait with an end that moves on all the time. To set a timer for each wait wakes a thread each time, where that timer is the
//! next one to go off. This one is left as it is and looked at when it goes off. It must not know what is waited for.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use tokio::time::{Instant, Sleep, sleep_until};

/// A timer that is used again and again.
#[derive(Debug, Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Waits for `arrival`, until `end` at most.
    pub(super) async fn until<F: Future>(&mut self, end: Instant, arrival: F) -> Option<F::Output> {
        let mut arrival = pin!(arrival);
        poll_fn(|context| {
            if let Poll::Ready(arrived) = arrival.as_mut().poll(context) {
                return Poll::Ready(Some(arrived));
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(end)));
            if end < timer.deadline() {
                timer.as_mut().reset(end);
            }
            while timer.as_mut().poll(context).is_ready() {
                if timer.deadline() >= end {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(end);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::time::Duration;

    use tokio::time::{sleep, timeout};

    use super::*;

    /// Waits in vain until an end, and says how long that took.
    async fn in_vain(alarm: &mut Alarm, wait: Duration) -> Duration {
        let asked = Instant::now();
        let waited = timeout(Duration::from_secs(60), alarm.until(asked + wait, pending::<()>())).await;
        assert_eq!(waited, Ok(None));
        asked.elapsed()
    }

    #[tokio::test]
    async fn each_wait_has_its_own_end_be_it_later_or_earlier_than_the_one_before() {
        let mut alarm = Alarm::default();
        for wait in [20, 5, 40, 40, 1].map(Duration::from_millis) {
            assert!(in_vain(&mut alarm, wait).await >= wait);
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_over_before_its_end_leaves_nothing_to_the_next() {
        let mut alarm = Alarm::default();
        let (short, long) = (Duration::from_millis(50), Duration::from_secs(3600));
        assert!(alarm.until(Instant::now() + short, sleep(short / 10)).await.is_some());
        assert!(in_vain(&mut alarm, 2 * short).await >= 2 * short);
        assert!(alarm.until(Instant::now() + long, sleep(short / 10)).await.is_some());
        assert!(in_vain(&mut alarm, short).await >= short);
    }

    #[tokio::test]
    async fn the_timer_is_left_as_it_is_for_a_later_end_and_set_for_an_earlier_one() {
        let mut alarm = Alarm::default();
        let first = Instant::now() + Duration::from_secs(60);
        for (end, set) in [(0, 0), (60, 0), (3600, 0), (-30, -30), (0, -30)] {
            let after = |seconds: i64| {
                let by = Duration::from_secs(seconds.unsigned_abs());
                if seconds < 0 { first - by } else { first + by }
            };
            assert!(alarm.until(after(end), sleep(Duration::from_millis(1))).await.is_some());
            assert_eq!(alarm.0.as_ref().unwrap().deadline(), after(set), "{end}");
        }
    }

    #[tokio::test]
    async fn what_has_arrived_is_taken_though_the_end_has_passed() {
        let mut alarm = Alarm::default();
        let end = Instant::now();
        assert_eq!(alarm.until(end, ready(7)).await, Some(7));
        in_vain(&mut alarm, Duration::ZERO).await;
        assert_eq!(alarm.until(end, ready(8)).await, Some(8));
    }
}
