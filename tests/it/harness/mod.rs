//! What the tests stand on: the program as a process of its own, clients that can say anything, tokens, multipart bodies.

mod ask;
mod grpc;
mod http;
mod metrics;
mod pki;
mod provider;
mod raw;
mod server;
pub mod storage;
mod token;

pub use ask::{Ask, honest};
pub use grpc::{GrpcRefusal, authorised, chunk, download, finish, header, request_id};
pub use http::{BOUNDARY, Connection, Form, Reply, from_address, is_quiet};
pub use metrics::numbers;
pub use pki::{Authority, Identity, connect_tls, grpc_over_tls, pem};
pub use provider::{Answer, Provider, SigningKey};
pub use raw::{RawConnection, RawReply, RawStream, framed, message_frame};
pub use server::{Server, Setup, run};
pub use storage::{content_folder, hold_all_locks, read_record, record_path};
pub use token::{ALL_SCOPES, AUDIENCE, ISSUER, SECRET, claims, deleter, mint, mint_with, token, token_with};

/// The largest upload of a server that a test started without saying otherwise, in bytes.
pub const MAX_UPLOAD: usize = 8 << 20;

/// Bytes that look like nothing in particular, the same for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The SHA-256 digest of bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 digest has 32 bytes")
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until `holds`, for a bounded time, and panics with `what` where it never does.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "it never came to be that {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
