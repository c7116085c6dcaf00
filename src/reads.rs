//! The operations that read: look up, list, download. Both doors come through here with the same words, so this module knows
//! neither HTTP nor gRPC.

mod ahead;
mod download;
mod list;
mod look_up;
mod page_token;
mod query;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/reads.rs"]
pub mod fuzzing;

pub use download::{Download, Plan, Sent};
pub use look_up::{Config, Reads};
pub use query::{Page, Query};

pub use crate::store::Presented;
