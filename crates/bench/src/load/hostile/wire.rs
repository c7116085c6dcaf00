//! HTTP/2 by hand: frames that no library would send (RFC 9113), and heads whose fields are literals (RFC 7541 §6.2.2).

use bytes::{Buf, Bytes, BytesMut};

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
/// A type that nobody knows.
pub const UNKNOWN: u8 = 0x99;

/// Flags. The first is ACK on some frames, and END_STREAM on others.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How long the head of a frame is, in bytes.
const HEAD: usize = 9;

/// The setting of the window that streams have at first.
const INITIAL_WINDOW: u16 = 4;

/// A frame. Its payload is less than 16 KiB.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client begins with. Its streams have windows of so many bytes.
pub fn preface(window: u32) -> Vec<u8> {
    let setting = [&INITIAL_WINDOW.to_be_bytes()[..], &window.to_be_bytes()].concat();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &setting)].concat()
}

/// The head of a request. `more` follows the pseudo-header fields.
pub fn head(stream: u32, method: &str, path: &str, more: &[(&str, &str)], ends: bool) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "attachd"), (":path", path)];
    let mut block = Vec::new();
    for (name, value) in pseudo.iter().chain(more) {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    frame(HEADERS, if ends { END_HEADERS | END_STREAM } else { END_HEADERS }, stream, &block)
}

/// A text with its length before it (RFC 7541 §5.1 and §5.2).
fn text(block: &mut Vec<u8>, text: &str) {
    const MOST: usize = 127;
    if text.len() < MOST {
        block.push(text.len() as u8);
    } else {
        block.push(MOST as u8);
        let mut rest = text.len() - MOST;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
    }
    block.extend_from_slice(text.as_bytes());
}

/// A frame that arrived.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub payload: Bytes,
}

impl Frame {
    /// Takes the next frame, if it is there as a whole.
    pub fn take(arrived: &mut BytesMut) -> Option<Frame> {
        let &[high, middle, low, kind, flags, ..] = arrived.get(..HEAD)? else { return None };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        if arrived.len() < HEAD + length {
            return None;
        }
        arrived.advance(HEAD);
        Some(Frame { kind, flags, payload: arrived.split_to(length).freeze() })
    }

    /// Whether it is the last of its stream.
    pub fn ends_stream(&self) -> bool {
        match self.kind {
            RST_STREAM => true,
            DATA | HEADERS => self.flags & END_STREAM > 0,
            _ => false,
        }
    }
}
