//! The target that tries the governor of HTTP/2 frames.

#![allow(clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use std::time::{Duration, Instant};

use super::governor::Governor;

/// What a client sends is permitted, or not, however it is cut, and as if all frames were counted at once. All of it comes
/// `pause` after the connection began, `times` over.
pub fn governor(pieces: &[&[u8]], times: usize, sent: usize, pause: Duration) {
    let whole = pieces.concat().repeat(times);
    let begin = Instant::now();
    let permitted = |pieces: Vec<&[u8]>| {
        let mut governor = Governor::new(begin);
        governor.sent(sent);
        pieces.into_iter().all(|piece| governor.permits(piece, begin + pause))
    };
    let expected = by_hand(&whole, sent, pause);
    assert_eq!(permitted(vec![&whole]), expected);
    assert_eq!(permitted(whole.chunks(9).collect()), expected);
    let (mut cut, mut rest) = (Vec::new(), &whole[..]);
    for size in pieces.iter().map(|piece| piece.len()).cycle() {
        if rest.is_empty() {
            break;
        }
        let piece;
        (piece, rest) = rest.split_at(size.min(rest.len()));
        cut.push(piece);
    }
    assert_eq!(permitted(cut), expected);
}

/// Counts what a connection has left, frame by frame: at most 6,000 frames, of 64 each.
fn by_hand(bytes: &[u8], sent: usize, pause: Duration) -> bool {
    const MOST: u64 = 6000 * 64;
    let free = u64::try_from(pause.as_millis()).unwrap() * 64;
    let mut left = (MOST + free + sent as u64 / 4096 * 64).min(MOST);
    let mut rest = bytes.get(24..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let earned = match head[3] {
            0 => length as u64,
            1 => 256,
            _ => 0,
        };
        left = (left + earned).min(MOST);
        if left < 64 {
            return false;
        }
        left -= 64;
        rest = after.get(length..).unwrap_or_default();
    }
    true
}
