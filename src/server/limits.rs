//! What a connection may hold and how it is paced: the numbers of both doors in one place. They know nothing of what is
//! served.

use std::time::Duration;

use crate::config::HTTP2_WINDOW;

/// How many connections the system keeps until they are accepted. It has a limit of its own as well (`net.core.somaxconn`).
pub(super) const BACKLOG: u32 = 4096;
/// The largest HTTP/2 frame that clients may send, in bytes. Larger frames cost less to take apart, and are put together first.
pub(super) const MAX_FRAME: u32 = 64 << 10;
/// How many streams an HTTP/2 connection may have open. The window of a connection is that of as many streams, so that uploads
/// which wait for memory never keep the others on their connection from getting on, and from giving theirs back.
pub(super) const MAX_STREAMS: u32 = 200;
// The largest window that HTTP/2 knows has 31 bits (RFC 9113 §6.9.1).
const _: () = assert!(*HTTP2_WINDOW.end() * (MAX_STREAMS as u64) < 1 << 31);
/// What the headers of one HTTP/2 request may have, in bytes, by the count of RFC 9113 §6.5.2: the longest token, and as much again.
pub(super) const MAX_HEADERS: u32 = 32 << 10;
/// How many streams a client may reset before they were accepted; past it the connection is closed (rapid reset).
pub(super) const MAX_PENDING_RESETS: usize = 20;
/// The HTTP/1 read buffer, in bytes: what arrives is handed on in pieces of at most this size, which is that of a write to a file. It is
/// kept as long as the connection.
pub(super) const HTTP1_BUFFER: usize = 256 << 10;
/// How long the head of an HTTP/1 request may be, in bytes, and so the trailers of a body in chunks.
pub(super) const HTTP1_HEADERS: usize = 64 << 10;
/// How many connections of a port may read as much at once.
pub(super) const HTTP1_FEW: usize = 16;
/// What each may read at once where there are more, in bytes.
pub(super) const HTTP1_MANY: usize = 64 << 10;
/// What those have together, in bytes: the more there are, the less each reads.
pub(super) const HTTP1_BUFFERS: usize = 8 << 20;
/// What each of them has at least.
pub(super) const HTTP1_LEAST: usize = 16 << 10;
/// How long the accept loop rests after a failure such as too many open files.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection is silent or idle, at least, before it gives way to a new one. A client that has just connected gets the
/// time to send its request, and a response the time to be sent.
pub(super) const SETTLING: Duration = Duration::from_millis(500);
/// How long a connection may be silent or idle when all places are taken.
pub(super) const LEAST_REST: Duration = Duration::from_secs(1);
/// How often connections are checked for that while more than half of the places are taken.
pub(super) const SWEEP: Duration = Duration::from_millis(250);
/// How long a handshake may take, from its place on, before it makes way for one of an address with fewer handshakes.
pub(super) const SLOW_HANDSHAKE: Duration = Duration::from_secs(1);
/// How long to wait before the next search, if no connection could give way.
pub(super) const NO_VICTIM_PAUSE: Duration = Duration::from_millis(25);
/// How long a client that has connected may take to begin to ask for something once the port closes. A proxy that opens a
/// connection for a request does it at once, if its machine is not busy otherwise.
pub(super) const LAST_CALL: Duration = Duration::from_secs(2);
/// How long the last answers of the admin port may take at the end.
pub(super) const ADMIN_PARTING: Duration = Duration::from_millis(250);
/// How long the answers may take to go out that say to uploads which outlived the grace that they are cut off.
pub(super) const PARTING: Duration = Duration::from_secs(3);
/// How long the first look at the storage for the sake of gRPC health may keep the ports from serving.
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How often the storage is looked at for the sake of gRPC health, whose watchers are told of changes.
pub(super) const HEALTH_PAUSE: Duration = Duration::from_secs(2);
/// How many calls on one connection may watch gRPC health. Past it RESOURCE_EXHAUSTED.
pub(super) const WATCHES_OF_CONNECTION: usize = 16;
/// How many calls on a port may.
pub(super) const WATCHES_OF_PORT: usize = 1024;
