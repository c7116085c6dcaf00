//! What the functions of the benchmark return.

use std::error::Error;

/// The result of a measurement. An error ends the benchmark, so its text is all that matters.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
