//! Who is measured: which program, and how it is spoken to.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::floor::Floor;
use crate::plain::Plain;

/// gRPC messages, in bytes of content.
pub const LARGE_MESSAGE: usize = 1 << 20;
const SMALL_MESSAGE: usize = 64 << 10;

/// A program, and one way to speak to it.
#[derive(Clone, Debug)]
pub struct Contestant {
    /// What it is called in tables, and by which it is picked.
    pub name: &'static str,
    /// What runs.
    pub program: Program,
    /// How it is spoken to.
    pub door: Door,
}

/// What runs.
#[derive(Clone, Debug)]
pub enum Program {
    /// A build of attachd.
    Attachd(PathBuf),
    /// A bare program that marks what is possible.
    Floor(Floor),
    /// A server as it is written in an afternoon.
    Plain(Plain),
    /// A copy by OpenDAL, with nobody who uploads.
    Copy {
        /// How many parts of an object are sent at once.
        at_once: usize,
    },
    /// nginx with its DAV module.
    Nginx,
    /// miniserve.
    Miniserve,
    /// dufs.
    Dufs,
}

impl Program {
    /// Whether it serves plain files.
    pub fn gives_files(&self) -> bool {
        matches!(self, Program::Nginx | Program::Plain(Plain::Files))
    }
}

/// How an upload is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// `PUT` with the bare content.
    Put,
    /// `POST` of a form to attachd's route.
    Form,
    /// `POST` of a form to miniserve's route.
    MiniserveForm,
    /// By a word to the process, which has the content already.
    Copy,
    /// attachd's RPC.
    Grpc {
        /// With how many bytes of content in a message.
        message: usize,
    },
}

/// attachd, the floors, and the peers that are asked for, or else those that are there.
pub fn all(peers: Option<&[String]>, attachd: &Path, against: Option<&Path>) -> Result<Vec<Contestant>> {
    let attachd = || Program::Attachd(attachd.to_owned());
    let mut all = vec![
        Contestant { name: "floor", program: Program::Floor(Floor::Write), door: Door::Put },
        Contestant { name: "floor-sha", program: Program::Floor(Floor::Sha), door: Door::Put },
        Contestant { name: "floor-fsync", program: Program::Floor(Floor::Fsync), door: Door::Put },
        Contestant { name: "floor-commit", program: Program::Floor(Floor::Commit), door: Door::Put },
        // Of reading.
        Contestant { name: "floor-sha", program: Program::Plain(Plain::Files), door: Door::Put },
        Contestant { name: "attachd REST", program: attachd(), door: Door::Form },
        Contestant { name: "attachd gRPC 1 MiB", program: attachd(), door: Door::Grpc { message: LARGE_MESSAGE } },
        Contestant { name: "attachd gRPC 64 KiB", program: attachd(), door: Door::Grpc { message: SMALL_MESSAGE } },
    ];
    for (name, at_once) in [("OpenDAL copy", 1), ("OpenDAL copy, two parts at once", 2)] {
        all.push(Contestant { name, program: Program::Copy { at_once }, door: Door::Copy });
    }
    if let Some(path) = against {
        let before = || Program::Attachd(path.to_owned());
        all.push(Contestant { name: "before REST", program: before(), door: Door::Form });
        all.push(Contestant {
            name: "before gRPC 1 MiB",
            program: before(),
            door: Door::Grpc { message: LARGE_MESSAGE },
        });
        all.push(Contestant {
            name: "before gRPC 64 KiB",
            program: before(),
            door: Door::Grpc { message: SMALL_MESSAGE },
        });
    }
    let usual = ["nginx", "axum", "tonic"].map(str::to_owned);
    for name in peers.unwrap_or(&usual) {
        match name.as_str() {
            "none" => {}
            "nginx" if peers.is_some() || installed("nginx") => {
                all.push(Contestant { name: "nginx", program: Program::Nginx, door: Door::Put });
            }
            "nginx" => println!("nginx is not installed and therefore left out"),
            "axum" => all.push(Contestant { name: "axum", program: Program::Plain(Plain::Axum), door: Door::Form }),
            "tonic" => {
                for (name, message) in [("tonic 1 MiB", LARGE_MESSAGE), ("tonic 64 KiB", SMALL_MESSAGE)] {
                    all.push(Contestant { name, program: Program::Plain(Plain::Tonic), door: Door::Grpc { message } });
                }
            }
            "miniserve" => {
                all.push(Contestant { name: "miniserve", program: Program::Miniserve, door: Door::MiniserveForm });
            }
            "dufs" => all.push(Contestant { name: "dufs", program: Program::Dufs, door: Door::Put }),
            unknown => return Err(format!("there is no peer {unknown:?}").into()),
        }
    }
    Ok(all)
}

/// Whether a program can be run by its name.
fn installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}
