//! The root of a local file system storage: opened once, with a temporary directory that is swept when its process has
//! ended, however it ended, and the locks that all processes on it share.
//!
//! Each process keeps its temporary files in a directory of its own and holds a lock on it; the operating system lets go of
//! the lock when the process ends, so what is not locked belongs to no one.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::super::OpenError;
use super::entries::sync;

/// The directory below the root that holds the temporary directories of all processes.
const TEMPORARY: &str = ".attachd-tmp";

/// The directory below the root that holds the locks of commits. They stand in the root, wherever the temporary files are:
/// the root is what processes share.
const LOCKS: &str = ".attachd-locks";

/// The name of the lock files.
const LOCK: &str = "lock";

/// A storage root on a local file system.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    temporary: PathBuf,
    /// Held as long as this process may have temporary files.
    _lock: File,
}

impl Directory {
    /// Creates what is missing, sweeps the temporary files of ended processes, and takes a temporary directory of its own.
    pub fn open(options: &BTreeMap<String, String>) -> Result<Directory, OpenError> {
        let at = |key: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| OpenError::new(key, format!("{path}: {error}"))
        };
        let root = PathBuf::from(options.get("root").map(String::as_str).unwrap_or_default());
        create_durably(&root).map_err(at("options.root", &root))?;
        let root = root.canonicalize().map_err(at("options.root", &root))?;

        let locks = root.join(LOCKS);
        fs::create_dir_all(&locks).map_err(at("options.root", &locks))?;

        const KEY: &str = "options.atomic_write_dir";
        let shared = options.get("atomic_write_dir").map_or_else(|| root.join(TEMPORARY), PathBuf::from);
        fs::create_dir_all(&shared).map_err(at(KEY, &shared))?;
        let shared = shared.canonicalize().map_err(at(KEY, &shared))?;
        let device = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        if device(&shared).map_err(at(KEY, &shared))? != device(&root).map_err(at("options.root", &root))? {
            let why =
                format!("{} is not on the file system of the root, so a rename cannot be atomic", shared.display());
            return Err(OpenError::new(KEY, why));
        }

        // Between the making of a directory and the taking of its lock it would look like that of an ended process, so
        // both, and the sweep, happen under one lock that all processes share.
        let gate = lock_file(&shared).map_err(at(KEY, &shared))?;
        gate.lock().map_err(at(KEY, &shared))?;
        sweep(&shared).map_err(at(KEY, &shared))?;
        let temporary = shared.join(Uuid::now_v7().to_string());
        fs::create_dir(&temporary).map_err(at(KEY, &temporary))?;
        let lock = lock_file(&temporary).map_err(at(KEY, &temporary))?;
        lock.lock().map_err(at(KEY, &temporary))?;
        Ok(Directory { root, temporary, _lock: lock })
    }

    /// The root, as the system names it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The temporary directory of this process.
    pub fn temporary(&self) -> &Path {
        &self.temporary
    }

    /// Whether the root is still there, and in it what this process made: without that it is another directory.
    pub fn present(&self) -> io::Result<()> {
        if !self.temporary.starts_with(&self.root) {
            fs::metadata(&self.root)?;
        }
        fs::metadata(&self.temporary).map(drop)
    }

    /// Takes a lock that all processes on this root share, waiting for it. The system lets go of it when its process ends.
    pub fn lock(&self, stripe: usize) -> io::Result<File> {
        let path = self.root.join(LOCKS).join(format!("{stripe:02x}"));
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What is left, the next process to start sweeps.
        if let Err(error) = fs::remove_dir_all(&self.temporary) {
            tracing::debug!(%error, "the temporary directory was not removed");
        }
    }
}

/// Creates a directory and those above it, and makes the entries of those that it created durable.
fn create_durably(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(&directory)?;
    missing.iter().filter_map(|created| created.parent()).try_for_each(sync)
}

fn lock_file(directory: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).open(directory.join(LOCK))
}

fn sweep(shared: &Path) -> io::Result<()> {
    for entry in fs::read_dir(shared)? {
        let directory = entry?.path();
        if !directory.is_dir() {
            continue;
        }
        // A process that ends removes its own directory without a word, so it may go at any moment.
        let swept = lock_file(&directory).and_then(|lock| match lock.try_lock() {
            Ok(()) => fs::remove_dir_all(&directory).map(|()| true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match swept {
            Ok(true) => tracing::info!("swept the temporary files of an ended process"),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: &Path) -> BTreeMap<String, String> {
        BTreeMap::from([("root".to_owned(), root.to_str().unwrap().to_owned())])
    }

    #[test]
    fn the_files_of_an_ended_process_are_swept_and_those_of_a_living_one_are_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Directory::open(&options(root.path())).unwrap();
        let mine = living.temporary().join("half");
        fs::write(&mine, "half").unwrap();
        let ended = root.path().join(TEMPORARY).join("ended");
        fs::create_dir(&ended).unwrap();
        fs::write(ended.join("half"), "half").unwrap();

        let next = Directory::open(&options(root.path())).unwrap();
        assert!(mine.exists());
        assert!(!ended.exists());
        drop(living);
        assert!(!mine.exists());
        drop(next);
    }

    #[test]
    fn processes_that_start_and_end_at_once_neither_fail_nor_sweep_each_other() {
        let root = tempfile::tempdir().unwrap();
        // A lock belongs to who opened its file, so threads are to each other as processes are.
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let directory = Directory::open(&options(root.path())).unwrap();
                        fs::write(directory.temporary().join("half"), "half").unwrap();
                        std::thread::yield_now();
                        directory.present().unwrap();
                        assert!(directory.temporary().join("half").exists());
                    }
                });
            }
        });
    }

    #[test]
    fn a_root_that_is_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Directory::open(&options(file.path())).unwrap_err().to_string();
        assert!(error.contains("storage.options.root") && error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
