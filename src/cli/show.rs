//! `attachd config show`, and what every command that reads a configuration says of its dangers.

use std::io::{self, Write};

use super::{ConfigFile, Failure};
use crate::config::{Config, Warning};
use crate::telemetry;

/// Prints the configuration in force to standard output, and its warnings to standard error, so that the one can be kept in
/// a file.
pub fn run(ConfigFile { config }: &ConfigFile) -> Result<(), Failure> {
    let config = Config::load(config).map_err(Failure::usage)?;
    let shown = config.shown().map_err(Failure::running)?;
    io::stdout().write_all(shown.as_bytes()).map_err(Failure::running)?;
    print(&config);
    Ok(())
}

/// Prints the warnings to standard error.
pub fn print(config: &Config) {
    for warning in warnings(config) {
        eprintln!("warning: {warning}");
    }
}

/// Writes the warnings to the log.
pub fn log(config: &Config) {
    for Warning { key, why } in warnings(config) {
        tracing::warn!(key, why, "configuration");
    }
}

fn warnings(config: &Config) -> Vec<Warning> {
    config.warnings(telemetry::memory_limit())
}
