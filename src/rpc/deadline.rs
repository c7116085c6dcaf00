//! The deadline of a call, which its client names in `grpc-timeout`. A call whose deadline passes is ended and changes nothing,
//! unless it has begun to change the storage: then the outcome of the change is the reply.

use std::pin::pin;
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::telemetry::Trail;

/// The metadata key of the time that a client gives its call.
pub const TIMEOUT: &str = "grpc-timeout";

/// Waits for a call until the deadline that `timeout`, the value of [`TIMEOUT`], names. A value that is no time is ignored.
///
/// # Errors
/// [`Kind::ClientTooSlow`] if the deadline passes before the storage is being changed, and what the call raises.
pub async fn before_deadline<T>(
    timeout: Option<&[u8]>,
    trail: &Trail,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let mut call = pin!(call);
    let Some(time) = timeout.and_then(parse) else {
        return call.await;
    };
    match tokio::time::timeout(time, &mut call).await {
        Ok(done) => done,
        Err(_) if trail.has_begun_to_change() => call.await,
        Err(_) => Err(Error::new(Kind::ClientTooSlow).detail("the deadline of the call has passed")),
    }
}

/// One to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn parse(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_one_to_eight_digits_and_a_unit() {
        let read = |text: &'static str| parse(text.as_bytes());
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(read("2M"), Some(Duration::from_secs(120)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("4m"), Some(Duration::from_millis(4)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for text in ["", "1", "H", "123456789S", "-1S", "+1S", "1s", "1 S", "1.5S"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
