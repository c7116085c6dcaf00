//! The configuration: a TOML file, overridden by `ATTACHD_SECTION__KEY` variables, read once into typed values before
//! anything is opened.

mod address;
mod descriptors;
mod load;
mod overrides;
mod problems;
pub mod reference;
mod sections;
mod show;
#[cfg(test)]
mod tests;
mod warnings;

pub use descriptors::Division;
pub use load::{ignored_variables, token};
pub use problems::Error;
pub(crate) use sections::HTTP2_WINDOW;
pub use sections::{Attachments, Config, Grpc, Limits, Listen, OnUnknown, Rest, Shutdown};
pub use warnings::{GC_GRACE, Warning};
