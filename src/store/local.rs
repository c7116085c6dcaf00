//! What a local file system needs beyond OpenDAL's `fs`: durable directory entries, and a temporary directory that is swept
//! when its process has ended, however it ended.
//!
//! OpenDAL writes to a temporary file, fsyncs it and renames it into place; the rename itself is durable only once the
//! directory is fsynced too. Each process keeps its temporary files in a directory of its own and holds a lock on it; the
//! operating system lets go of the lock when the process ends, so what is not locked belongs to no one.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use opendal::{Buffer, Operator, Writer};
use uuid::Uuid;

use super::steps::{Step, Steps};
use super::{OpenError, failure, io_failure};
use crate::error::{Error, Kind, Result};

/// The directory below the root that holds the temporary directories of all processes.
const TEMPORARY: &str = ".attachd-tmp";

/// The directory below the root that holds the locks of commits. They stand in the root, wherever the temporary files are:
/// the root is what processes share.
const LOCKS: &str = ".attachd-locks";

/// The name of the lock files.
const LOCK: &str = "lock";

/// A storage root, and how files are written in it.
#[derive(Debug)]
pub struct Local {
    /// The root.
    pub directory: Directory,
    /// OpenDAL's `fs`, with the temporary directory of this process.
    operator: Operator,
}

/// Takes the bytes of one file.
pub struct Sink(Writer);

impl Local {
    /// Writes in `directory` by `operator`.
    pub fn new(directory: Directory, operator: Operator) -> Local {
        Local { directory, operator }
    }

    /// Begins a file. Nothing is there before the first write.
    pub async fn create(&self, path: &str) -> Result<Sink> {
        self.operator.writer(path).await.map(Sink).map_err(failure)
    }

    /// Puts a small file in one step, and takes back what a failure leaves. Must be driven to its end.
    pub async fn put(&self, path: &str, bytes: Vec<u8>, steps: &Steps) -> Result<()> {
        let mut writer = self.operator.writer(path).await.map_err(failure)?;
        let put = match writer.write(bytes).await {
            Ok(()) => {
                steps.passed(Step::RecordWritten);
                writer.close().await.map(drop)
            }
            Err(error) => Err(error),
        };
        if put.is_err()
            && let Err(error) = writer.abort().await
        {
            tracing::warn!(%error, "a put could not be aborted cleanly");
        }
        put.map_err(failure)
    }
}

impl Sink {
    /// Writes the next bytes.
    pub async fn write(&mut self, batch: Vec<Bytes>) -> Result<()> {
        self.0.write(Buffer::from(batch)).await.map_err(failure)
    }

    /// Makes the file visible.
    pub async fn close(&mut self) -> Result<()> {
        self.0.close().await.map(drop).map_err(failure)
    }

    /// Takes back what was written.
    pub async fn abort(&mut self) -> Result<()> {
        self.0.abort().await.map_err(failure)
    }
}

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

    /// The temporary directory of this process.
    pub fn temporary(&self) -> Result<String, OpenError> {
        let text = self.temporary.to_str().map(str::to_owned);
        text.ok_or_else(|| OpenError::new("options.root", "the path must be UTF-8"))
    }

    /// Whether the root is still there, and in it what this process made: without that it is another directory.
    pub async fn present(&self) -> Result<()> {
        for directory in [&self.root, &self.temporary] {
            let there = tokio::fs::metadata(directory).await;
            // Whatever it is that keeps it from view, a file system that is mounted late or again brings it back.
            there.map_err(|error| Error::new(Kind::StorageUnavailable).because(error))?;
        }
        Ok(())
    }

    /// Takes a lock that all processes on this root share, and makes with it what goes along with it. Its wait is a
    /// thread's, which a dropped future does not end, so whatever keeps others from waiting for the same lock is to be
    /// moved into `with`. The system lets go of a lock when its process ends.
    pub async fn lock<T, W>(&self, stripe: usize, with: W) -> Result<T>
    where
        T: Send + 'static,
        W: FnOnce(File) -> T + Send + 'static,
    {
        let path = self.root.join(LOCKS).join(format!("{stripe:02x}"));
        let taken = tokio::task::spawn_blocking(move || {
            let file = File::options().create(true).truncate(false).write(true).open(path)?;
            file.lock()?;
            Ok(with(file))
        });
        taken.await.map_err(Error::internal)?.map_err(io_failure)
    }

    /// Makes the entries of all directories from the one of `path` up to the root durable, so that a file which was
    /// fsynced and renamed there is found after a power cut.
    pub async fn sync_above(&self, path: &str) -> Result<()> {
        let root = self.root.clone();
        let file = root.join(path);
        let synced = tokio::task::spawn_blocking(move || {
            file.ancestors().skip(1).take_while(|above| above.starts_with(&root)).try_for_each(sync)
        });
        synced.await.map_err(Error::internal)?.map_err(io_failure)
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

fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
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
        let mine = Path::new(&living.temporary().unwrap()).join("half");
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
    fn a_root_that_is_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Directory::open(&options(file.path())).unwrap_err().to_string();
        assert!(error.contains("storage.options.root") && error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
