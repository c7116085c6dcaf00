//! What is found after faults: the storage failing at every operation, the process ending at every step, a full disk, and
//! only what was synced surviving. The program is built with the feature `faults` for these.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test panics where it fails")]

#[path = "../it/harness/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the harness serves the whole suite")]
mod harness;

mod crash;
mod cut;
mod disk;
mod durable;
mod kills;
mod late;
mod load;
mod mounts;
mod operations;
mod space;

/// The names of the files below a folder, other than locks.
fn files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    let below = paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    below.filter(|path| path.file_name().is_none_or(|name| name != "lock")).collect()
}
