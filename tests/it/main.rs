//! The suite: the real program, through real sockets. A file a capability; test names are sentences.

mod harness;

mod smoke;
