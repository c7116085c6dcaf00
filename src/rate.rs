//! A rate that is not to be passed, by the generic cell rate algorithm (ITU-T I.371). It needs one number for whatever is limited:
//! when the next piece would be due if all came at the rate. Times are nanoseconds since a moment of the caller's choice. This
//! module must not know what is limited.

/// One second.
pub const SECOND: u64 = 1_000_000_000;

/// When the next piece is due, if the next one was `due` and one that takes `cost` comes at `now`.
///
/// It may come as long as what came before it is less than `burst` ahead of the rate, whatever its own cost is.
///
/// # Errors
/// How long to wait, if it may not come yet.
pub fn spend(due: u64, now: u64, cost: u64, burst: u64) -> Result<u64, u64> {
    let due = due.max(now);
    let ahead = due - now;
    if ahead < burst { Ok(due.saturating_add(cost)) } else { Err((ahead - burst).saturating_add(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of `tries` pieces may come at `now`.
    fn come(due: &mut u64, now: u64, tries: u32) -> u32 {
        let mut came = 0;
        for _ in 0..tries {
            if let Ok(next) = spend(*due, now, SECOND / 10, 2 * SECOND) {
                (*due, came) = (next, came + 1);
            }
        }
        came
    }

    #[test]
    fn a_burst_comes_at_once_and_then_so_many_a_second() {
        let mut due = 0;
        assert_eq!(come(&mut due, 0, 100), 20);
        assert_eq!(come(&mut due, 0, 1), 0);
        assert_eq!(come(&mut due, SECOND, 100), 10);
        assert_eq!(come(&mut due, 100 * SECOND, 100), 20);
    }

    #[test]
    fn who_has_to_wait_is_told_for_how_long_exactly() {
        let due = 5 * SECOND;
        let wait = spend(due, 0, SECOND, 2 * SECOND).unwrap_err();
        assert!(spend(due, wait - 1, SECOND, 2 * SECOND).is_err());
        assert_eq!(spend(due, wait, SECOND, 2 * SECOND), Ok(due + SECOND));
        // What is larger than the burst comes, and then its time has to pass.
        assert_eq!(spend(0, 0, 50 * SECOND, 2 * SECOND), Ok(50 * SECOND));
        assert_eq!(spend(0, 0, u64::MAX, 1), Ok(u64::MAX));
    }
}
