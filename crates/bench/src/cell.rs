//! The loads that are measured, each on a disk or in memory. It knows how attachd is to run, and nothing else of servers.

use std::time::Duration;

use crate::contestant::{Contestant, Door, LARGE_MESSAGE, Program};
use crate::hostile::{self, Hostile};
use crate::plain::Plain;
use crate::read::{self, Read};
use crate::server::Manner;

/// How many connections attachd takes if it is not told otherwise.
const MAX_CONNECTIONS: usize = 4096;

/// Where the content is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// A file system on a disk.
    Disk,
    /// A file system in memory.
    Tmpfs,
    /// An S3 engine on the disk.
    S3,
}

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub enum Load {
    /// Nothing, for so long.
    Idle(Duration),
    /// So many uploads at once, each as fast as it goes, one for each connection.
    Bulk {
        /// How many.
        uploads: usize,
        /// Of how many bytes each.
        size: u64,
    },
    /// So many uploads at once, each a piece at a time, one for each connection.
    Paced {
        /// How many.
        uploads: usize,
        /// Of how many pieces each.
        pieces: u32,
        /// Of how many bytes each.
        piece: usize,
        /// One in how long.
        every: Duration,
    },
    /// Reads what was stored before.
    Read(Read),
    /// A client with few connections beside one with many.
    Share(Share),
    /// An attack beside honest clients.
    Hostile(Hostile),
    /// More connections than can be served.
    Overload(Overload),
    /// One upload after the other over each of so many connections.
    Small {
        /// Over how many connections.
        connections: usize,
        /// Of how many bytes each.
        size: usize,
        /// For how long.
        time: Duration,
    },
}

/// One upload after the other over each connection of two clients.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// How many connections the one has.
    pub crowd: usize,
    /// How many the other has, which is measured with and without the crowd.
    pub few: usize,
    /// Of how many bytes each upload is.
    pub size: usize,
    /// For how long each.
    pub time: Duration,
}

/// One upload after the other over each connection, in stages.
#[derive(Clone, Copy, Debug)]
pub struct Overload {
    /// Over how many connections, in each stage. The first number is what the server serves at its best.
    pub connections: [usize; 3],
    /// Of how many bytes each upload is.
    pub size: usize,
    /// For how long each stage is measured.
    pub time: Duration,
    /// For how long the first number of connections is measured again, from the moment on at which the others have gone.
    pub recovery: Duration,
}

/// A load and where it is stored.
#[derive(Clone, Debug)]
pub struct Cell {
    name: String,
    /// What it is, for people.
    pub title: String,
    /// Where it is stored.
    pub medium: Medium,
    /// What clients do.
    pub load: Load,
    /// attachd's memory budget, where it is not its default.
    budget: Option<&'static str>,
}

impl Cell {
    /// Its name, by which it is picked.
    pub fn name(&self) -> String {
        let medium = match self.medium {
            Medium::Disk => "disk",
            Medium::Tmpfs => "tmpfs",
            Medium::S3 => "s3",
        };
        format!("{}/{medium}", self.name)
    }

    /// Lines of attachd's `[limits]`.
    pub fn limits(&self) -> String {
        let mut limits = self.budget.map(|budget| format!("memory_budget = \"{budget}\"\n")).unwrap_or_default();
        if let Load::Paced { uploads, .. } = self.load
            && uploads > MAX_CONNECTIONS
        {
            limits += &format!("max_connections = {}\n", uploads * 2);
        }
        limits
    }

    /// How attachd is to run.
    pub fn manner(&self) -> Manner {
        match self.load {
            Load::Hostile(hostile) => Manner { tls: hostile.over_tls(), piped_log: hostile.piped_log() },
            _ => Manner::default(),
        }
    }

    /// Whether the contestant is measured under it: the door differs only where it is used, the size of messages only where
    /// there are many.
    pub fn takes(&self, contestant: &Contestant) -> bool {
        let (s3, copies) = (self.medium == Medium::S3, contestant.door == Door::Copy);
        if copies || s3 {
            return s3 && (copies || matches!(contestant.program, Program::Attachd(_)));
        }
        let is_over_rest = contestant.door == Door::Form;
        match (self.load, contestant.door) {
            (Load::Read(read), _) => match (&contestant.program, read) {
                (Program::Attachd(_), Read::Slow { .. } | Read::Pages { .. }) => is_over_rest,
                (Program::Attachd(_), _) => is_over_rest || contestant.door == Door::Grpc { message: LARGE_MESSAGE },
                (program, read) => program.gives_files() && !matches!(read, Read::Pages { .. }),
            },
            _ if matches!(contestant.program, Program::Plain(Plain::Files)) => false,
            (Load::Idle(_), door) => !matches!(door, Door::Grpc { .. }),
            (Load::Hostile(_) | Load::Overload(_), door) => {
                door == Door::Form && matches!(contestant.program, Program::Attachd(_))
            }
            (Load::Share(_), _) if !matches!(contestant.program, Program::Attachd(_)) => false,
            (Load::Paced { .. } | Load::Small { .. } | Load::Share(_), Door::Grpc { message }) => {
                message == LARGE_MESSAGE
            }
            _ => true,
        }
    }
}

/// All of them, with those on S3 if there is an engine, and pages out of so many attachments. `smoke` is for seeing that they
/// work.
pub fn all(smoke: bool, s3: bool, attachments: u64) -> Vec<Cell> {
    let mut cells = Vec::new();
    let scale = if smoke { 64 } else { 1 };
    for medium in [Medium::Disk, Medium::Tmpfs, Medium::S3].into_iter().filter(|medium| s3 || *medium != Medium::S3) {
        let mut add = |name: &str, title: &str, load, budget| {
            cells.push(Cell { name: name.to_owned(), title: title.to_owned(), medium, load, budget });
        };
        add("large-1", "1 × 1 GiB", Load::Bulk { uploads: 1, size: (1 << 30) / scale }, None);
        add("large-4", "4 × 256 MiB", Load::Bulk { uploads: 4, size: (256 << 20) / scale }, None);
        let many = if smoke { 32 } else { 256 };
        add("many", "256 × 4 MiB", Load::Bulk { uploads: many, size: (4 << 20) / scale }, Some("32MiB"));
        if medium == Medium::S3 {
            continue;
        }
        let pieces = if smoke { 4 } else { 64 };
        let slow = Load::Paced { uploads: many, pieces, piece: 64 << 10, every: Duration::from_micros(62_500) };
        add("slow", "256 at 1 MiB/s", slow, Some("32MiB"));
        let drips = if smoke { 100 } else { 1000 };
        let pieces = if smoke { 2 } else { 8 };
        let drip = Load::Paced { uploads: drips, pieces, piece: 64, every: Duration::from_millis(500) };
        add("drip", "1,000 drips of 64 bytes, two in a second", drip, Some("32MiB"));
        if medium == Medium::Disk {
            add("idle", "nothing to do", Load::Idle(Duration::from_millis(if smoke { 100 } else { 1000 })), None);
        }
        let time = Duration::from_millis(if smoke { 100 } else { 2000 });
        add("small", "4 KiB × 32 connections", Load::Small { connections: 32, size: 4 << 10, time }, None);
    }
    for (name, size, seconds) in [("4KiB", 4 << 10, 3), ("256KiB", 256 << 10, 5), ("16MiB", 16 << 20, 10)] {
        let time = if smoke { Duration::from_millis(200) } else { Duration::from_secs(seconds) };
        let share =
            Share { crowd: if smoke { 20 } else { 500 }, few: 5, size: if smoke { 4 << 10 } else { size }, time };
        let (name, title) =
            (format!("share-{name}"), format!("{name} over 5 connections, beside 500 of another client"));
        cells.push(Cell { name, title, medium: Medium::Tmpfs, load: Load::Share(share), budget: None });
    }
    for (name, size, few, budget) in
        [("4KiB", 4 << 10, 32, None), ("256KiB", 256 << 10, 32, Some("32MiB")), ("4MiB", 4 << 20, 8, Some("32MiB"))]
    {
        let connections = if smoke { [4, 16, 50] } else { [few, 4 * few, 1500] };
        let (time, recovery) = if smoke { (200, 100) } else { (3000, 2000) };
        let overload = Overload {
            connections,
            size: if smoke { 4 << 10 } else { size },
            time: Duration::from_millis(time),
            recovery: Duration::from_millis(recovery),
        };
        let name = format!("overload-{name}");
        let title = format!("uploads over more and more connections, {name}");
        cells.push(Cell { name, title, medium: Medium::Tmpfs, load: Load::Overload(overload), budget });
    }
    for (name, title, hostile) in hostile::all(smoke) {
        let (name, title, load) = (name.to_owned(), title.to_owned(), Load::Hostile(hostile));
        cells.push(Cell { name, title, medium: Medium::Tmpfs, load, budget: None });
    }
    for (name, title, load) in read::all(smoke, attachments) {
        let (name, load) = (name.to_owned(), Load::Read(load));
        cells.push(Cell { name, title, medium: Medium::Disk, load, budget: None });
    }
    cells
}

/// How many uploads at once go with the 20,000 files that a process is often granted: each has a connection and a file.
const MOST_CONNECTIONS: usize = 9500;

/// How the cost of an upload grows with its size and with the number of connections. Those of `size-` go through one
/// connection; those of `connections-` hold each connection open for four seconds.
pub fn growth() -> Vec<Cell> {
    let mut cells = Vec::new();
    for medium in [Medium::Disk, Medium::Tmpfs] {
        let mut add = |name: String, load, budget| cells.push(Cell { title: name.clone(), name, medium, load, budget });
        for (size, name) in [(4 << 10, "4KiB"), (64 << 10, "64KiB"), (1 << 20, "1MiB"), (16 << 20, "16MiB")] {
            let time = Duration::from_secs(1);
            add(format!("size-{name}"), Load::Small { connections: 1, size, time }, None);
        }
        for (size, name) in [(256 << 20, "256MiB"), (1 << 30, "1GiB"), (8 << 30, "8GiB")] {
            add(format!("size-{name}"), Load::Bulk { uploads: 1, size }, None);
        }
        for uploads in [1, 10, 100, 1000, MOST_CONNECTIONS] {
            let every = Duration::from_millis(500);
            let load = Load::Paced { uploads, pieces: 8, piece: 64, every };
            add(format!("connections-{uploads}"), load, Some("32MiB"));
        }
    }
    cells
}
