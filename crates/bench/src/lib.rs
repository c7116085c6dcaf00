//! What uploads and downloads cost: attachd beside bare programs that mark what is possible ("floors") and beside other servers, under
//! the same load, in turns. Each run has a process and a folder of its own; time, processor time and peak memory are those
//! of that process alone. README.md says how it is run, and RESULTS.md what came of it.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a measurement is far from the ends of its types"
)]

mod build;
mod cell;
mod content;
mod contestant;
mod engine;
mod error;
mod flame;
mod floor;
mod hostile;
mod load;
mod maintenance;
mod plain;
mod plant;
mod plot;
mod process;
mod read;
mod report;
mod server;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};

use cell::{Cell, Load, Medium};
use contestant::{Contestant, Door, Program};
use engine::Engine;
pub use error::Result;
use read::Planted;
use report::{Row, Run};
use server::{Place, Server};

/// How long the storage is left alone before a run that creates many files on a disk on which files were deleted.
const REST: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(name = "uploads", about = "Measures uploads: attachd, bare floors, other servers, in turns")]
struct Arguments {
    /// Which cells, by the beginnings of their names: large-1, large-4, many, slow, drip, idle, small, each with /disk or
    /// /tmpfs, get-1, get-ranges, get-many, get-small, get-slow, list-first, list-middle, list-last,
    /// share-4KiB, share-256KiB, share-16MiB [default: these]; overload- have more connections than
    /// can be served, hostile- are attacks, size- and connections- show how the cost grows
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    cells: Vec<String>,
    /// Which servers beside attachd and the floors: nginx, axum, tonic, miniserve, dufs, or none [default: axum, tonic, and
    /// nginx if it is installed]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    peers: Option<Vec<String>>,
    /// Run only the contestants whose names begin so
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each is run
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Small loads, once: shows that the benchmark works, and nothing else
    #[arg(long)]
    smoke: bool,
    /// Which build of attachd [default: cargo builds it from this repository]
    #[arg(long, value_name = "FILE")]
    attachd: Option<PathBuf>,
    /// The profile by which cargo builds attachd [default: bench, or dev with --smoke]
    #[arg(long, value_name = "NAME", conflicts_with = "attachd")]
    profile: Option<String>,
    /// Another build of attachd, to be compared with it
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// A MinIO: large-1, large-4 and many are run on S3 as well, beside a copy by OpenDAL
    #[arg(long, value_name = "FILE")]
    minio: Option<PathBuf>,
    /// How many attachments there are whose pages are listed
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(read::PAGE..))]
    attachments: u64,
    /// A storage root of attachd's that is used as it stands instead of a fresh one, such as `plant` makes
    #[arg(long, value_name = "DIR")]
    stored: Option<PathBuf>,
    /// A folder on a disk [default: in the build's own folder]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// A folder in memory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    tmpfs: PathBuf,
    /// Where `uploads.csv` and `uploads.svg` are written [default: in the build's own folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// cargo says that this is a benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Is a floor: prints its port, and stores below a folder what arrives
    #[command(hide = true)]
    Floor { floor: floor::Floor, root: PathBuf },
    /// Is a plain server, likewise
    #[command(hide = true)]
    Plain { plain: plain::Plain, root: PathBuf },
    /// Copies into S3 what it is told to
    #[command(hide = true)]
    Copy { at_once: usize, options: Vec<String> },
    /// Reads what `perf script` writes, and writes a picture of where the time goes
    Flame,
    /// Fills a storage root with attachments of one client
    Plant { root: PathBuf, attachments: u64 },
    /// Measures `attachd gc` and `attachd verify` over so many attachments, in a new folder below FOLDER
    Maintenance { folder: PathBuf, attachments: u64 },
}

/// Runs what the command line asks for. What is measured on a disk, and the results, lie in `folder` unless it names others.
///
/// # Errors
/// Anything that makes a measurement meaningless ends the benchmark: a server that does not start, an upload that is refused,
/// bytes that were accepted and are not stored.
pub fn run(folder: &Path) -> Result {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Floor { floor, root }) => floor::serve(*floor, root),
        Some(Command::Plain { plain, root }) => plain::serve(*plain, root),
        Some(Command::Copy { at_once, options }) => engine::copy(*at_once, options),
        Some(Command::Flame) => {
            print!("{}", flame::draw(std::io::stdin().lock())?);
            Ok(())
        }
        Some(Command::Plant { root, attachments }) => plant::attachments(root, *attachments),
        Some(Command::Maintenance { folder, attachments }) => {
            maintenance::measure(&attachd(&arguments)?, folder, *attachments)
        }
        None => measure(&arguments, folder),
    }
}

/// The program that is measured.
fn attachd(arguments: &Arguments) -> Result<PathBuf> {
    let usual = if arguments.smoke { "dev" } else { "bench" };
    match &arguments.attachd {
        Some(program) => Ok(program.clone()),
        None => build::attachd(arguments.profile.as_deref().unwrap_or(usual)),
    }
}

fn measure(arguments: &Arguments, folder: &Path) -> Result {
    let attachd = attachd(arguments)?;
    let disk = arguments.disk.as_deref().unwrap_or(folder);
    let out = arguments.out.clone().unwrap_or_else(|| folder.join("uploads"));
    let rounds = if arguments.smoke { 1 } else { arguments.rounds };
    let mut cells = cell::all(arguments.smoke, arguments.minio.is_some(), arguments.attachments);
    if arguments.cells.is_empty() {
        // They take long, and say little of speed.
        cells.retain(|cell| arguments.smoke || !matches!(cell.load, Load::Hostile(_) | Load::Overload(_)));
    } else {
        cells.extend(cell::growth());
        cells.retain(|cell| picked(&arguments.cells, &cell.name()));
    }
    let mut contestants = contestant::all(arguments.peers.as_deref(), &attachd, arguments.against.as_deref())?;
    contestants.retain(|contestant| picked(&arguments.only, contestant.name));
    if cells.is_empty() || contestants.is_empty() || rounds == 0 {
        return Err("there is nothing to run".into());
    }
    let (mut rows, mut planted) = (Vec::new(), None);
    for cell in &cells {
        let folder = match cell.medium {
            Medium::Disk | Medium::S3 => disk,
            Medium::Tmpfs => arguments.tmpfs.as_path(),
        };
        planted = match cell.load {
            Load::Read(read) => Some(Planted::new(read, folder, planted.take())?),
            _ => None,
        };
        rows.extend(turns(cell, &contestants, rounds, folder, planted.as_ref(), arguments)?);
    }
    if let Some(table) = report::attacks(&cells, &rows) {
        println!("{table}");
    }
    fs::create_dir_all(&out)?;
    fs::write(out.join("uploads.csv"), report::csv(&rows))?;
    fs::write(out.join("uploads.svg"), plot::bars(&rows))?;
    println!("{} and uploads.svg are written", out.join("uploads.csv").display());
    if arguments.smoke {
        // Every run was looked at; one that fails ends the benchmark.
        println!("{} passed, 0 failed", rows.iter().map(|row| row.runs.len()).sum::<usize>());
    }
    Ok(())
}

fn picked(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|picked| name.starts_with(picked.as_str()))
}

/// Runs every contestant once in each round, since the speed of a machine drifts, and prints the table of the cell.
fn turns(
    cell: &Cell,
    contestants: &[Contestant],
    rounds: usize,
    folder: &Path,
    planted: Option<&Planted>,
    arguments: &Arguments,
) -> Result<Vec<Row>> {
    let mut rows: Vec<Row> = contestants
        .iter()
        .filter(|c| cell.takes(c))
        .map(|c| Row { cell: cell.name(), contestant: c.clone(), runs: Vec::new() })
        .collect();
    // Many small files are deleted only once all have run: where files were just deleted, new ones are slow to create.
    let mut folders = Vec::new();
    for round in 0..rounds {
        let first = round % rows.len().max(1);
        for turn in 0..rows.len() {
            let row = (first + turn) % rows.len();
            let contestant = rows[row].contestant.clone();
            let data = tempfile::Builder::new().prefix("uploads-").tempdir_in(folder)?;
            process::flush(data.path())?;
            let minio = arguments.minio.as_deref().filter(|_| cell.medium == Medium::S3);
            let engine = minio.map(|minio| Engine::start(minio, data.path())).transpose()?;
            let (root, plain) = planted.map(|planted| (planted.root(), planted.plain())).unzip();
            let root = root.as_deref().or(arguments.stored.as_deref());
            let mut place =
                Place { folder: data.path(), root, plain: plain.as_deref(), engine: engine.as_ref(), ids: 0 };
            if place.root.is_some() {
                place.ids = (round * rows.len() + row + 1) as u64 * load::IDS * load::IDS;
            }
            let run = one(cell, &contestant, &place)
                .map_err(|error| format!("{} of {}: {error}", cell.name(), contestant.name))?;
            rows[row].runs.push(run);
            match (cell.medium, cell.load) {
                (Medium::Disk, Load::Small { .. }) => folders.push(data),
                _ => data.close()?,
            }
        }
    }
    println!("{}", report::table(cell, &rows));
    if let Load::Idle(_) = cell.load {
        for contestant in contestants {
            if let (Program::Attachd(program), Door::Form) = (&contestant.program, contestant.door) {
                let size = process::stripped(program)? as f64 / f64::from(1 << 20);
                println!("{}: {size:.1} MiB, stripped", contestant.name);
            }
        }
    }
    if !folders.is_empty() {
        drop(folders);
        std::thread::sleep(REST);
    }
    Ok(rows)
}

/// One contestant under one load, in a folder of its own.
fn one(cell: &Cell, contestant: &Contestant, place: &Place) -> Result<Run> {
    let server = Server::start(contestant, place, &cell.limits(), cell.manner())?;
    let (server_before, client_before) = (server.cpu()?, process::own_cpu(std::process::id())?);
    let outcome = load::drive(cell, contestant, &server)?;
    let run = Run {
        outcome,
        server_cpu: server.cpu()?.saturating_sub(server_before),
        client_cpu: process::own_cpu(std::process::id())?.saturating_sub(client_before),
        resident: server.resident()?,
        peak: server.peak()?,
    };
    // Uploads of a crowd are cut off at the end, and what they had written is being removed.
    if place.root.is_some() || place.engine.is_some() || matches!(cell.load, Load::Share(_)) {
        return Ok(run);
    }
    let stored = process::stored(&server.root())?;
    if stored < run.outcome.bytes {
        return Err(format!("{} bytes were accepted and {stored} are stored", run.outcome.bytes).into());
    }
    Ok(run)
}
