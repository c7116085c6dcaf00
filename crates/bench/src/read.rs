//! The loads of reading, and the attachments that they read. What is planted is stored twice on the same file system: as attachd
//! stores it, and as plain files for the servers that it is compared with. It knows no server.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

use crate::content::noise;
use crate::error::Result;
use crate::plant;

/// Up to this size content is stored with its record, in bytes. It is attachd's default.
const INLINE: u64 = 16 << 10;

/// What clients read.
#[derive(Clone, Copy, Debug)]
pub enum Read {
    /// Downloads at once, each as fast as it goes, one for each connection.
    Bulk {
        /// How many.
        downloads: usize,
        /// Of how many bytes each.
        size: u64,
    },
    /// One download after the other over each connection.
    Small {
        /// How many connections.
        connections: usize,
        /// Of how many bytes each.
        size: u64,
        /// For how long.
        time: Duration,
    },
    /// One range after the other over each connection, at offsets that follow no order.
    Ranges {
        /// How many connections.
        connections: usize,
        /// Of how many bytes each.
        length: u64,
        /// How many bytes the content has.
        size: u64,
        /// For how long.
        time: Duration,
    },
    /// Downloads at once that each take a piece now and then. attachd gets an upload at full speed beside them.
    Slow {
        /// How many.
        readers: usize,
        /// How many bytes the content has.
        size: u64,
        /// How many bytes are taken at once.
        piece: usize,
        /// How often.
        every: Duration,
        /// For how long, once all have begun.
        time: Duration,
        /// How many bytes the upload has.
        upload: u64,
    },
    /// One page of a listing after the other, over one connection, always the same one.
    Pages {
        /// How many attachments the client has.
        attachments: u64,
        /// How many of them are before the page.
        before: u64,
        /// For how long.
        time: Duration,
    },
}

/// How many attachments a page has.
pub const PAGE: u64 = 100;

/// How many attachments the connections of [`Read::Small`] read in turns.
const SPREAD: u64 = 1024;

/// All of them, each with its name and its title. `smoke` is for seeing that they work.
pub fn all(smoke: bool, attachments: u64) -> Vec<(&'static str, String, Read)> {
    let scale = if smoke { 64 } else { 1 };
    let time = Duration::from_millis(if smoke { 100 } else { 2000 });
    let size = (1 << 30) / scale;
    let many = if smoke { 32 } else { 256 };
    let slow = Read::Slow {
        readers: if smoke { 50 } else { 1000 },
        size: (64 << 20) / scale,
        piece: 4 << 10,
        every: Duration::from_millis(500),
        time,
        upload: size,
    };
    let mut all = vec![
        ("get-1", "1 × 1 GiB".to_owned(), Read::Bulk { downloads: 1, size }),
        (
            "get-ranges",
            "64 KiB at random offsets of 1 GiB × 8 connections".to_owned(),
            Read::Ranges { connections: 8, length: 64 << 10, size, time },
        ),
        ("get-many", "256 × 4 MiB".to_owned(), Read::Bulk { downloads: many, size: (4 << 20) / scale }),
        ("get-small", "4 KiB × 32 connections".to_owned(), Read::Small { connections: 32, size: 4 << 10, time }),
        ("get-slow", "1,000 slow readers".to_owned(), slow),
    ];
    let attachments = if smoke { 5 * PAGE } else { attachments };
    let middle = attachments / 2;
    for (name, place, before) in
        [("list-first", "first", 0), ("list-middle", "middle", middle), ("list-last", "last", attachments - PAGE)]
    {
        let title = format!("the {place} page of {PAGE} out of {attachments}");
        all.push((name, title, Read::Pages { attachments, before, time }));
    }
    all
}

/// What is planted for loads that read the same.
#[derive(Debug)]
pub struct Planted {
    of: Stored,
    folder: TempDir,
}

/// What is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    /// So many attachments of so many bytes, with the ids from 1 on.
    Content(u64, u64),
    /// So many attachments of a few bytes, with the ids of [`plant`].
    Records(u64),
}

impl Read {
    fn stored(self) -> Stored {
        match self {
            Read::Bulk { downloads, size } => Stored::Content(downloads as u64, size),
            Read::Small { size, .. } => Stored::Content(SPREAD, size),
            Read::Ranges { size, .. } | Read::Slow { size, .. } => Stored::Content(1, size),
            Read::Pages { attachments, .. } => Stored::Records(attachments),
        }
    }

    /// The attachment that a connection reads at its turn.
    pub fn id(self, connection: usize, turn: u64) -> u64 {
        match self {
            Read::Bulk { .. } => connection as u64 + 1,
            Read::Small { connections, .. } => (connection as u64 + turn * connections as u64) % SPREAD + 1,
            Read::Ranges { .. } | Read::Slow { .. } | Read::Pages { .. } => 1,
        }
    }
}

impl Planted {
    /// Plants what a load reads, unless `before` has it.
    pub fn new(read: Read, folder: &Path, before: Option<Planted>) -> Result<Planted> {
        let of = read.stored();
        if let Some(before) = before.filter(|before| before.of == of) {
            return Ok(before);
        }
        let planted = Planted { of, folder: tempfile::Builder::new().prefix("reads-").tempdir_in(folder)? };
        fs::create_dir_all(planted.plain())?;
        match of {
            Stored::Content(count, size) => planted.content(count, size)?,
            Stored::Records(count) => plant::attachments(&planted.root(), count)?,
        }
        Ok(planted)
    }

    /// attachd's storage root.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The same content in files that have the ids as their names.
    pub fn plain(&self) -> PathBuf {
        self.folder.path().join("plain")
    }

    fn content(&self, count: u64, size: u64) -> Result {
        let bytes = noise(size as usize);
        let sha256 = plant::hex(digest(&SHA256, &bytes).as_ref());
        let client = self.root().join(format!("clients/{}", plant::CLIENT));
        let records = client.join("records");
        fs::create_dir_all(&records)?;
        fs::write(self.root().join("attachd.json"), plant::LAYOUT)?;
        for id in 1..=count {
            let upload = Uuid::now_v7().to_string();
            let plain = self.plain().join(id.to_string());
            fs::write(&plain, &bytes)?;
            let mut segments = Vec::new();
            let mut inline = &bytes[..];
            if size > INLINE {
                segments.push(json!({"number": 0, "size": size, "sha256": sha256}));
                inline = &[];
                let content = client.join(format!("content/{id:019}"));
                fs::create_dir_all(&content)?;
                // The same bytes in the same place, so that all read from the same pages of the cache.
                fs::hard_link(&plain, content.join(format!("{upload}.0")))?;
            }
            let record = plant::record(id, &upload, size, &sha256, &segments);
            fs::write(records.join(format!("{id:019}")), [format!("{record}\n").as_bytes(), inline].concat())?;
        }
        Ok(())
    }
}
