//! What a connection may hold and how it is paced: the numbers of both doors in one place. They know nothing of what is
//! served.

use std::time::Duration;

/// The window of an HTTP/2 stream, in bytes, where the memory budget is `budget`: what a client may send before it is read.
/// 256 of them are the budget, as long as they are neither smaller than what a fast client needs nor larger than one gains by.
pub(super) fn stream_window(budget: u64) -> u32 {
    u32::try_from((budget / 256).clamp(64 << 10, 1 << 20)).unwrap_or(1 << 20)
}
/// How many windows of a stream the window of a connection has: more than one, so that one stalled upload does not stop the others
/// on its connection.
pub(super) const CONNECTION_WINDOWS: u32 = 4;
/// The largest HTTP/2 frame that clients may send, in bytes. Larger frames cost less to take apart, and are put together first.
pub(super) const MAX_FRAME: u32 = 64 << 10;
/// How many streams an HTTP/2 connection may have open. hyper's own limit is taken away by tonic, so it is set here.
pub(super) const MAX_STREAMS: u32 = 200;
/// What the headers of one HTTP/2 request may have, in bytes, by the count of RFC 9113 §6.5.2: the longest token, and as much again.
pub(super) const MAX_HEADERS: u32 = 32 << 10;
/// How many streams a client may reset before they were accepted; past it the connection is closed (rapid reset).
pub(super) const MAX_PENDING_RESETS: usize = 20;
/// The HTTP/1 read buffer, in bytes: what arrives is handed on in pieces of at most this size. It is kept as long as the connection.
pub(super) const HTTP1_BUFFER: usize = 64 << 10;
/// How long the accept loop rests after a failure such as too many open files.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client that has connected may take to begin to ask for something once the port closes. A proxy that opens a
/// connection for a request does it at once, if its machine is not busy otherwise.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);
/// How long the last answers of the admin port may take at the end.
pub(super) const ADMIN_PARTING: Duration = Duration::from_millis(250);
/// How long the answers may take to go out that say to uploads which outlived the grace that they are cut off.
pub(super) const PARTING: Duration = Duration::from_secs(3);
/// How often the storage is looked at for the sake of gRPC health, whose watchers are told of changes.
pub(super) const HEALTH_PAUSE: Duration = Duration::from_secs(2);
