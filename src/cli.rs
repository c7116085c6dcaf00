//! The command line: one subcommand, one function, one exit code. 0 is success, 1 a failure while running, 2 a command or
//! a configuration that is wrong, 3 a request that may succeed later, 4 a token that is accepted and grants nothing.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config};
use crate::{rest, server, telemetry, tls};

mod allocator;
mod delete;
mod dev;
mod download;
mod failure;
mod gc;
mod get;
mod list;
mod maintenance;
mod man;
mod out;
mod progress;
mod register;
mod remote;
mod serve;
mod show;
mod shown;
mod token;
mod undelete;
mod upload;
mod verify;

use failure::Failure;

/// After how many tasks a thread of the runtime looks at sockets and timers. By default it is 61, which is long where each of them
/// may hash a batch.
const EVENTS: u32 = 16;

/// How long the process waits at its end until the log is written.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(3);

const EXIT_CODES: &str = "Exit codes:
  0  done
  1  failed
  2  the command or the configuration is wrong
  3  try again later (commands that send requests to a server)
  4  the token is accepted and grants nothing (`token inspect`)
A reader of standard output that closes its pipe is no failure, but ends `gc` and `verify` with 1.";

/// Takes file attachments over REST and gRPC and streams them into the storage that is configured.
///
/// Try it: `attachd dev` starts a server of your own and prints commands that upload to it.
#[derive(Debug, Parser)]
#[command(name = "attachd", version, propagate_version = true, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server for trying things out: files in a folder, a key of its own, a token printed
    Dev(dev::Arguments),
    /// Run the server
    Serve(ConfigFile),
    /// Look at a configuration as `serve` would, try the storage, and exit
    Check(ConfigFile),
    /// See a configuration as `serve` does
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Make a token, for development and tests, or explain one
    Token(Box<token::Arguments>),
    /// Register attachments over gRPC, so that they can be uploaded to, and print them as JSON
    Register(register::Arguments),
    /// Upload files over gRPC and print the stored attachments as JSON
    Upload(upload::Arguments),
    /// Look up attachments over gRPC and print them as JSON
    Get(get::Arguments),
    /// List the attachments of a client over gRPC, as a table or as JSON
    List(list::Arguments),
    /// Download attachments over gRPC to files or to standard output
    Download(download::Arguments),
    /// Delete attachments with their content over gRPC
    Delete(delete::Arguments),
    /// Undo the deletion of attachments over gRPC and print them as JSON
    Undelete(undelete::Arguments),
    /// Find content that no record names and what is kept of deleted attachments, and with --delete delete it
    Gc(gc::Arguments),
    /// Read all that is stored back and compare it with its records
    Verify(verify::Arguments),
    /// Print the description of the REST port, in OpenAPI 3.1
    Openapi,
    /// Print the completions of a shell, to be read by it
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the manual pages, one for each command, into a directory
    Man {
        /// The directory, which is created if it does not exist
        directory: PathBuf,
    },
    /// Print a reference of this version, in Markdown
    Reference {
        /// What of
        subject: Subject,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print what is in force, with defaults and overrides, secrets masked, and warn of what is dangerous
    Show(ConfigFile),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Subject {
    /// Every key of the configuration
    Configuration,
    /// Every metric of the admin port
    Metrics,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration, in TOML. Each key can be overridden by a variable: `limits.max_upload_size` by
    /// ATTACHD_LIMITS__MAX_UPLOAD_SIZE
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Reads the arguments of the process and does what they say.
pub fn main() -> ExitCode {
    allocator::keep_freed_memory();
    tls::install_crypto();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return explain(&error),
    };
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let done = builder.event_interval(EVENTS).enable_all().build().map_err(Failure::running).and_then(|runtime| {
        let done = runtime.block_on(run(arguments.command));
        // A storage call that hangs must not keep the process from ending.
        runtime.shutdown_timeout(std::time::Duration::from_secs(1));
        done
    });
    telemetry::flush(LAST_LINES);
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => end(failure),
    }
}

/// Prints the help that was asked for, or what is wrong with the arguments.
fn explain(error: &clap::Error) -> ExitCode {
    let shown = error.print();
    match shown {
        // Of a text for standard error there is no one left to tell.
        _ if error.use_stderr() => ExitCode::from(2),
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => end(out::unwritable(&error)),
        _ => ExitCode::SUCCESS,
    }
}

/// Reports a failure, and says how the process ends.
fn end(failure: Failure) -> ExitCode {
    if let Some(why) = failure.why {
        out::complain(&format!("attachd: {why}"));
    }
    ExitCode::from(failure.code)
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Serve(ConfigFile { config }) => {
            let config = Config::load(&config).map_err(Failure::usage)?;
            let telemetry = telemetry::start(&config.log, &config.traces).map_err(Failure::usage)?;
            show::log(&config)?;
            serve::run(config, telemetry, |_| Ok(())).await
        }
        Command::Check(ConfigFile { config: file }) => {
            let config = Config::load(&file).map_err(Failure::usage)?;
            show::print(&config)?;
            let found = server::check(&config).await;
            for warning in found.warnings {
                out::complain(&format!("warning: {warning}"));
            }
            match found.problems.as_slice() {
                [] => out::print(&format!("{} is good and the storage works\n", file.display())).map(drop),
                problems => Err(Failure::usage(problems.join("\nattachd: "))),
            }
        }
        Command::Config(ConfigCommand::Show(file)) => show::run(&file.config),
        Command::Token(arguments) => token::run(&arguments).await,
        Command::Register(arguments) => register::run(arguments).await,
        Command::Upload(arguments) => upload::run(arguments).await,
        Command::Get(arguments) => get::run(arguments).await,
        Command::List(arguments) => list::run(arguments).await,
        Command::Download(arguments) => download::run(arguments).await,
        Command::Delete(arguments) => delete::run(arguments).await,
        Command::Undelete(arguments) => undelete::run(arguments).await,
        Command::Gc(arguments) => gc::run(arguments).await,
        Command::Verify(arguments) => verify::run(arguments).await,
        Command::Openapi => {
            let document = rest::openapi::document().map_err(Failure::running)?;
            out::print(&format!("{document:#}\n")).map(drop)
        }
        Command::Completions { shell } => out::print(&completions(shell)).map(drop),
        Command::Man { directory } => man::write(Arguments::command(), &directory),
        Command::Reference { subject } => {
            let text = match subject {
                Subject::Configuration => config::reference::markdown(),
                Subject::Metrics => telemetry::metrics_reference(),
            };
            out::print(&text).map(drop)
        }
    }
}

/// The completions of a shell.
fn completions(shell: Shell) -> String {
    let shell = match shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "attachd", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
