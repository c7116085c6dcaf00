//! `attachd config show`, and what every command that reads a configuration says of its dangers.

use std::path::Path;

use super::failure::Failure;
use super::out;
use crate::config::{self, Config, Warning};
use crate::telemetry;

/// Prints the configuration in force to standard output, and its warnings to standard error, so that the one can be kept in
/// a file.
pub fn run(file: &Path) -> Result<(), Failure> {
    let config = Config::load(file).map_err(Failure::usage)?;
    let shown = config.shown().map_err(Failure::running)?;
    print(&config)?;
    out::print(&shown).map(drop)
}

/// Prints the warnings to standard error.
pub fn print(config: &Config) -> Result<(), Failure> {
    complain(warnings(config)?);
    Ok(())
}

/// Reads a configuration for a command that does not judge it, and warns of variables that were meant for it and are ignored.
pub fn load(file: &Path) -> Result<Config, Failure> {
    let config = Config::load(file).map_err(Failure::usage)?;
    ignored_variables()?;
    Ok(config)
}

/// Prints warnings of variables that were meant for the configuration and are ignored.
fn ignored_variables() -> Result<(), Failure> {
    complain(config::ignored_variables().map_err(Failure::usage)?);
    Ok(())
}

/// Writes the warnings to the log, whatever its filter says: one of them is that the filter leaves out the audit trail.
pub fn log(config: &Config) -> Result<(), Failure> {
    let warnings = warnings(config)?;
    telemetry::regardless(&config.log, || {
        for Warning { key, why } in warnings {
            tracing::warn!(key, why, "configuration");
        }
    });
    Ok(())
}

fn complain(warnings: Vec<Warning>) {
    for warning in warnings {
        out::complain(&format!("warning: {warning}"));
    }
}

fn warnings(config: &Config) -> Result<Vec<Warning>, Failure> {
    let mut warnings = config.warnings(telemetry::memory_limit());
    warnings.extend(config::ignored_variables().map_err(Failure::usage)?);
    Ok(warnings)
}
