//! One suite that every storage must pass, over real servers: what is stored is whole, what is refused leaves nothing, and
//! replicas that share a storage keep each other's promises. `tests/storage/setup.sh` installs the servers.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "../it/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the whole suite")]
mod harness;

#[path = "../faults/kills.rs"]
mod kills;

mod cluster;
mod completion;
mod conformance;
mod crash;
mod engines;
mod faults;
mod look;
mod memory;
mod outage;
mod reading;
mod reads;
mod redirect;
mod refused;
mod replicas;
mod synced;
mod way;

/// Whether the long form is asked for.
fn long() -> bool {
    std::env::var_os("ATTACHD_TEST_LONG").is_some()
}
