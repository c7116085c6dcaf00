//! `attachd token`: makes a token, or explains one.

use clap::{Args, Subcommand};

use super::failure::Failure;

mod inspect;
mod mint;

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[group(skip)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    mint: mint::Arguments,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a token where a secret or private key is at hand, as `attachd token` without a command does
    Mint(mint::Arguments),
    /// Explain a token: whose it is, which check it fails, which rights it grants. Exit code 1 if it would be refused, 4 if it grants nothing
    Inspect(inspect::Arguments),
}

pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        None => mint::run(&arguments.mint),
        Some(Command::Mint(arguments)) => mint::run(arguments),
        Some(Command::Inspect(arguments)) => inspect::run(arguments).await,
    }
}
