//! The suite: the real program, through real sockets. A file a capability; test names are sentences.

mod harness;

mod early;
mod framing;
mod http2;
mod limits;
mod multipart;
mod order;
mod rest;
mod smoke;
