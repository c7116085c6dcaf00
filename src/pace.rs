//! Whether a caller sends or reads fast enough. It must not know what is sent, nor what becomes of a caller that is too slow.

use std::time::Duration;

/// How fast a caller was since the window began.
#[derive(Debug, Default)]
pub struct Pace {
    waited: Duration,
    bytes: u64,
}

impl Pace {
    /// Counts `bytes` that were waited for, and at the end of each window of waiting says whether they are enough.
    pub fn keeps_up(&mut self, waited: Duration, bytes: u64, rate: u64, window: Duration) -> bool {
        self.waited += waited;
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < window {
            return true;
        }
        let Pace { waited, bytes } = std::mem::take(self);
        u128::from(bytes) * 1000 >= u128::from(rate) * waited.as_millis()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_too_slow_where_a_window_brings_less_than_the_rate() {
        const WINDOW: Duration = Duration::from_secs(10);
        let judged = |bytes| Pace::default().keeps_up(WINDOW, bytes, 100, WINDOW);
        assert!(!judged(999));
        assert!(judged(1000));
        assert!(judged(1001));
        // Before the window is over nothing is said, and what came in one does not count in the next.
        let mut pace = Pace::default();
        assert!(pace.keeps_up(WINDOW / 2, 0, 100, WINDOW));
        assert!(pace.keeps_up(WINDOW / 2, 1 << 30, 100, WINDOW));
        assert!(!pace.keeps_up(WINDOW, 1, 100, WINDOW));
        assert!(Pace::default().keeps_up(WINDOW, 0, 0, WINDOW));
    }
}
