//! How often a request is tried, and how long the pauses between are. It must not know what is tried.

use std::time::Duration;

use super::super::out;
use super::failed::Failed;

/// The first pause, which doubles each time.
const FIRST: Duration = Duration::from_millis(500);

/// The longest pause of our own choice.
const LONGEST: Duration = Duration::from_secs(30);

/// How long all pauses of one request may take together, those included that a server asks for.
const ALTOGETHER: Duration = Duration::from_secs(10 * 60);

/// The tries that one request has.
#[derive(Debug)]
pub struct Tries {
    most: u32,
    done: u32,
    waited: Duration,
}

impl Tries {
    /// One try, and `more` after it.
    pub fn new(more: u32) -> Tries {
        Tries { most: more, done: 0, waited: Duration::ZERO }
    }

    /// Waits for the next try after `failed`, and says so; `false` if there is none. `name` is what the request is about.
    pub async fn again(&mut self, name: &str, failed: &Failed) -> bool {
        if !failed.is_retriable() || self.done >= self.most {
            return false;
        }
        let pause = pause(self.done, failed.asked_for(), random());
        if self.waited.saturating_add(pause) > ALTOGETHER {
            return false;
        }
        self.done += 1;
        self.waited += pause;
        let (done, most) = (self.done, self.most);
        out::complain(&format!(
            "attachd: {name}: {failed}; trying again in {:.1} s ({done} of {most})",
            pause.as_secs_f64()
        ));
        tokio::time::sleep(pause).await;
        true
    }
}

/// The pause after so many others: between half and all of a time that doubles, so that clients that failed together do not
/// come back together, and never less than the server asks for.
fn pause(done: u32, asked_for: Option<Duration>, random: u8) -> Duration {
    let own = FIRST.saturating_mul(1 << done.min(16)).min(LONGEST);
    let jitter = own.mul_f64(0.5 * f64::from(random) / 255.0);
    match asked_for {
        Some(least) => least.saturating_add(jitter),
        None => own / 2 + jitter,
    }
}

/// A random number. Without one all clients pause for the same time, which is no reason to fail.
fn random() -> u8 {
    let mut byte = [0];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_differ_between_clients() {
        for (done, least, most) in
            [(0, 250, 500), (1, 500, 1000), (2, 1000, 2000), (6, 15_000, 30_000), (99, 15_000, 30_000)]
        {
            assert_eq!(pause(done, None, 0), Duration::from_millis(least), "{done}");
            assert_eq!(pause(done, None, 255), Duration::from_millis(most), "{done}");
        }
    }

    #[test]
    fn a_pause_is_never_shorter_than_the_server_asks_for() {
        let asked = Duration::from_secs(7);
        assert_eq!(pause(0, Some(asked), 0), asked);
        assert_eq!(pause(0, Some(asked), 255), asked + Duration::from_millis(250));
        assert_eq!(pause(0, Some(Duration::MAX), 255), Duration::MAX);
    }
}
