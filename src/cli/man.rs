//! `attachd man`: the manual pages, made of the help of each command.

use std::fs;
use std::path::Path;

use clap::Command;
use clap_mangen::Man;

use super::failure::Failure;

/// The program and its version, at the foot of each page.
const SOURCE: &str = concat!("attachd ", env!("CARGO_PKG_VERSION"));

/// The date, which no page has: the same sources make the same page on any day. An empty one would be left out, and the source
/// taken for it.
const DATE: &str = " ";

/// Writes `attachd.1`, and `attachd-COMMAND.1` for each command and each command of it, into a directory.
pub fn write(command: Command, directory: &Path) -> Result<(), Failure> {
    let unwritable = |error| Failure::running(format!("{}: {error}", directory.display()));
    fs::create_dir_all(directory).map_err(unwritable)?;
    // The commands below `help` are those that there are anyway.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let mut commands = vec![command];
    while let Some(command) = commands.pop() {
        commands.extend(command.get_subcommands().filter(|command| !command.is_hide_set()).cloned());
        Man::new(command).date(DATE).source(SOURCE).manual("attachd").generate_to(directory).map_err(unwritable)?;
    }
    Ok(())
}
