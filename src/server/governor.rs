//! What a client sends over HTTP/2, frame by frame. A frame costs the server much the same whatever it carries, so a client that
//! sends mostly framing has the server work and remember for nothing: data of a byte a frame, pings, settings, windows, and
//! frames that nobody knows. This module counts frames against what they bring, and says when it is too much. It knows frames
//! by their first nine bytes (RFC 9113 §4.1), and no more of the protocol.

use std::time::Instant;

use crate::rate::Bucket;

/// What one frame costs. A frame of data pays for itself with as many bytes.
const FRAME: u64 = 64;

/// What the head of a request brings beside its own cost: some frames that go with every request.
const REQUEST: u64 = 4 * FRAME;

/// For how many bytes that are sent to the client it may send a frame: it confirms what it receives.
const BYTES_A_FRAME: u64 = 4096;

/// How many frames a millisecond are free.
const FREE: u64 = 1;

/// How many frames may come before any of that, at most. Each may be remembered, with about 250 bytes.
const BURST: u64 = 6000;

/// The words that a client begins with (RFC 9113 §3.4), in bytes.
const PREFACE: usize = 24;

/// The head of a frame, in bytes.
const HEAD: usize = 9;

/// The types of frames that bring something (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Governor {
    /// How many bytes are left of what is not looked at: the preface, or what a frame carries.
    skipped: usize,
    head: [u8; HEAD],
    /// How many bytes of the head have come.
    come: usize,
    credit: Bucket,
    /// Bytes that were sent and not counted yet.
    sent: u64,
}

impl Governor {
    /// A connection that begins at `now`.
    pub(super) fn new(now: Instant) -> Governor {
        let credit = Bucket::full(FREE * FRAME, BURST * FRAME, now);
        Governor { skipped: PREFACE, head: [0; HEAD], come: 0, credit, sent: 0 }
    }

    /// So many bytes were sent to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// Looks at the next bytes that came, until `now`. Whether they may come: once they may not, the connection is to be ended.
    pub(super) fn permits(&mut self, mut bytes: &[u8], now: Instant) -> bool {
        self.credit.refill(now);
        let frames = self.sent / BYTES_A_FRAME;
        self.sent %= BYTES_A_FRAME;
        self.credit.earn(frames * FRAME);
        while !bytes.is_empty() {
            let skipped = self.skipped.min(bytes.len());
            self.skipped -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEAD - self.come).min(bytes.len());
            self.head[self.come..self.come + taken].copy_from_slice(&bytes[..taken]);
            self.come += taken;
            bytes = &bytes[taken..];
            if self.come == HEAD && !self.frame() {
                return false;
            }
        }
        true
    }

    /// A frame begins. Whether it may.
    fn frame(&mut self) -> bool {
        let [high, middle, low, kind, ..] = self.head;
        self.skipped = u32::from_be_bytes([0, high, middle, low]) as usize;
        self.come = 0;
        self.credit.earn(match kind {
            DATA => self.skipped as u64,
            HEADERS => REQUEST,
            _ => 0,
        });
        self.credit.pay(FRAME)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, length: usize) -> Vec<u8> {
        let [_, high, middle, low] = u32::try_from(length).unwrap().to_be_bytes();
        [&[high, middle, low, kind, 0, 0, 0, 0, 1][..], &vec![0; length]].concat()
    }

    fn begun(now: Instant) -> Governor {
        let mut governor = Governor::new(now);
        assert!(governor.permits(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", now));
        governor
    }

    /// How many of so many frames are permitted.
    fn permitted(governor: &mut Governor, now: Instant, kind: u8, length: usize, most: u64) -> u64 {
        let frame = frame(kind, length);
        (0..most).take_while(|_| governor.permits(&frame, now)).count() as u64
    }

    #[test]
    fn frames_that_carry_nothing_are_bounded_and_so_many_a_second_are_free() {
        let now = Instant::now();
        // Pings, settings, priorities, windows, and what nobody knows.
        for (kind, length) in [(6, 8), (4, 0), (2, 5), (8, 4), (0x99, 100)] {
            let mut governor = begun(now);
            assert_eq!(permitted(&mut governor, now, kind, length, BURST), BURST, "{kind}");
            let later = now + Duration::from_millis(500);
            assert_eq!(permitted(&mut governor, later, kind, length, 500 * FREE), 500 * FREE, "{kind}");
            let much_later = now + Duration::from_secs(3600);
            assert_eq!(permitted(&mut governor, much_later, kind, length, 10 * BURST), BURST, "{kind}");
        }
    }

    #[test]
    fn data_pays_for_its_frames_from_64_bytes_on() {
        let now = Instant::now();
        for length in [64, 1000, 16_384] {
            assert_eq!(permitted(&mut begun(now), now, DATA, length, 10 * BURST), 10 * BURST);
        }
        assert_eq!(permitted(&mut begun(now), now, DATA, 0, 10 * BURST), BURST);
        // At the cap nothing is earned, so the first one costs all of its price.
        assert_eq!(permitted(&mut begun(now), now, DATA, 32, 10 * BURST), 2 * BURST - 1);
    }

    #[test]
    fn requests_and_what_is_sent_to_a_client_pay_for_frames() {
        let now = Instant::now();
        let mut governor = begun(now);
        for _ in 0..10 * BURST {
            let frames = [frame(HEADERS, 20), frame(DATA, 5), frame(8, 4), frame(6, 8)].concat();
            assert!(governor.permits(&frames, now));
        }
        let mut governor = begun(now);
        for _ in 0..10 * BURST {
            governor.sent(16_384);
            assert!(governor.permits(&[frame(8, 4), frame(8, 4)].concat(), now));
        }
    }

    #[test]
    fn frames_are_found_wherever_the_bytes_are_split() {
        let now = Instant::now();
        let bytes: Vec<u8> = (0..BURST + 1).flat_map(|index| frame(6, (index % 30) as usize)).collect();
        for step in [1, 7, 9, 1000] {
            let mut governor = begun(now);
            let refused = bytes.chunks(step).position(|chunk| !governor.permits(chunk, now));
            // The head of the last frame is the first that is too much.
            let last = bytes.len() - frame(6, (BURST % 30) as usize).len() + HEAD - 1;
            assert_eq!(refused, Some(last / step), "{step}");
        }
    }
}
