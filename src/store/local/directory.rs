//! The root of a local file system storage: opened once, with a temporary directory of this process, and the locks that all
//! processes on the root share.
//!
//! Each process keeps its temporary files in a directory of its own and holds a lock on it. The operating system releases the
//! lock when the process ends, however it ends, so a directory without a lock belongs to no process and is swept.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, fstat};
use uuid::Uuid;

use super::super::{Access, OpenError};
use super::beneath;
use super::entries::{Inode, sync};

/// The directory below the root that holds the temporary directories of all processes.
const TEMPORARY: &str = ".attachd-tmp";

/// The directory below the root that holds the locks of commits. They are in the root, wherever the temporary files are:
/// the root is what processes share.
const LOCKS: &str = ".attachd-locks";

/// The name of the lock files.
const LOCK: &str = "lock";

/// The configuration keys.
const ROOT_KEY: &str = "options.root";
const TEMPORARY_KEY: &str = "options.atomic_write_dir";

/// A storage root on a local file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    place: Arc<Place>,
}

/// A directory that is the storage root.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    identity: Inode,
    /// None where nothing is written.
    temporary: Option<Temporary>,
}

/// The temporary directory of this process.
#[derive(Debug)]
struct Temporary {
    /// The directory that it is in.
    shared: OwnedFd,
    name: String,
    folder: OwnedFd,
    /// Held as long as this process may have temporary files.
    lock: Option<File>,
}

impl Place {
    /// The root.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The temporary directory of this process.
    pub fn temporary(&self) -> io::Result<&OwnedFd> {
        let temporary = self.temporary.as_ref().map(|temporary| &temporary.folder);
        temporary.ok_or_else(|| io::Error::other("the storage was opened to be looked at"))
    }
}

impl Directory {
    /// Opens the root. To write there it creates what is missing, sweeps the temporary files of ended processes, and takes a
    /// temporary directory of its own.
    pub fn open(options: &BTreeMap<String, String>, access: Access) -> Result<Directory, OpenError> {
        let at = |key: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| OpenError::new(key, format!("{path}: {error}"))
        };
        let path = Path::new(options.get("root").map(String::as_str).unwrap_or_default());
        let at_root = || at(ROOT_KEY, path);
        if access == Access::Write {
            create_durably(path).map_err(at_root())?;
        }
        let path = std::path::absolute(path).map_err(at_root())?;
        let root = beneath::root(&path).map_err(at_root())?;
        let identity = identity(&root).map_err(at_root())?;
        if access == Access::Inspect {
            return Ok(Directory { path, place: Arc::new(Place { root, identity, temporary: None }) });
        }
        beneath::make_in(&root, LOCKS).map_err(at_root())?;

        let (key, shared_path, shared) = match options.get("atomic_write_dir").map(std::path::absolute) {
            None => (ROOT_KEY, path.join(TEMPORARY), beneath::make_in(&root, TEMPORARY).map(|(shared, _)| shared)),
            Some(shared) => {
                let shared = shared.map_err(at(TEMPORARY_KEY, &path))?;
                let opened = open_shared(&root, &path, &shared);
                (TEMPORARY_KEY, shared, opened)
            }
        };
        let shared = shared.map_err(at(key, &shared_path))?;
        if fstat(&shared).map_err(io::Error::from).map_err(at(key, &shared_path))?.st_dev != identity.0 {
            let why = format!(
                "{} is not on the file system of the root, so a rename cannot be atomic",
                shared_path.display()
            );
            return Err(OpenError::new(key, why));
        }
        let temporary = Some(Temporary::take(shared).map_err(at(key, &shared_path))?);
        Ok(Directory { path, place: Arc::new(Place { root, identity, temporary }) })
    }

    /// The root, if the directory at its path still is the one that was opened.
    pub fn place(&self) -> io::Result<&Arc<Place>> {
        use std::os::unix::fs::MetadataExt;
        let found = fs::metadata(&self.path)?;
        if (found.dev(), found.ino()) != self.place.identity {
            return Err(io::Error::new(
                io::ErrorKind::StaleNetworkFileHandle,
                format!("{} is not the directory that it was", self.path.display()),
            ));
        }
        Ok(&self.place)
    }

    /// Whether the root is still there, and in it the temporary directory of this process: without that it is another directory.
    pub fn present(&self) -> io::Result<()> {
        match &self.place()?.temporary {
            // A directory that was deleted has no links.
            Some(temporary) if fstat(&temporary.folder)?.st_nlink == 0 => {
                Err(io::Error::new(io::ErrorKind::NotFound, "the temporary directory of this process is gone"))
            }
            _ => Ok(()),
        }
    }

    /// Takes a lock that all processes on this root share, waiting for it. The system releases it when its process ends.
    pub fn lock(&self, stripe: usize) -> io::Result<File> {
        let locks = beneath::folder(self.place()?.root(), LOCKS)?;
        let file = beneath::lock_file(&locks, &format!("{stripe:02x}"))?;
        file.lock()?;
        Ok(file)
    }

    /// The symbolic links among what attachd keeps beside the clients, as seen from the root.
    pub fn links(&self) -> io::Result<Vec<String>> {
        let root = self.place()?.root();
        let mut links = Vec::new();
        for folder in ["", TEMPORARY, LOCKS] {
            let opened = match beneath::folder(root, folder) {
                // It is found where it is an entry.
                Err(error) if [io::ErrorKind::NotFound, io::ErrorKind::NotADirectory].contains(&error.kind()) => {
                    continue;
                }
                opened => opened?,
            };
            for name in names(&opened)? {
                if beneath::stat_in(&opened, &name).is_ok_and(|found| beneath::is_link(&found)) {
                    links.push([folder, &name].join("/").trim_start_matches('/').to_owned());
                }
            }
        }
        Ok(links)
    }
}

impl Temporary {
    /// Sweeps what ended processes left, and makes a directory of this process.
    fn take(shared: OwnedFd) -> io::Result<Temporary> {
        // Between the creation of a directory and the taking of its lock it would look like that of an ended process, so
        // both, and the sweep, happen under one lock that all processes share.
        let gate = beneath::lock_file(&shared, LOCK)?;
        gate.lock()?;
        sweep(&shared)?;
        let name = Uuid::now_v7().to_string();
        let (folder, _) = beneath::make_in(&shared, &name)?;
        let lock = beneath::lock_file(&folder, LOCK)?;
        lock.lock()?;
        Ok(Temporary { shared, name, folder, lock: Some(lock) })
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Some network file systems keep a file that is deleted while it is open.
        drop(self.lock.take());
        // What is left, the next process to start sweeps.
        if let Err(error) = beneath::remove_folder(&self.shared, &self.name)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "the temporary directory was not removed; the next start tries again");
        }
    }
}

fn identity(directory: &OwnedFd) -> io::Result<Inode> {
    let found = fstat(directory)?;
    Ok((found.st_dev, found.st_ino))
}

/// Opens the directory that the operator has chosen for temporary files. Only the path to it that is not below the root may
/// be one of links.
fn open_shared(root: &OwnedFd, root_path: &Path, shared: &Path) -> io::Result<OwnedFd> {
    if let Ok(below) = shared.strip_prefix(root_path)
        && let Some(below) = below.to_str()
    {
        return beneath::make(root, below).map(|(opened, _)| opened);
    }
    fs::create_dir_all(shared)?;
    beneath::root(shared)
}

/// Creates a directory and those above it, and makes the entries of those that it created durable.
fn create_durably(directory: &Path) -> io::Result<()> {
    let directory = std::path::absolute(directory)?;
    let missing: Vec<&Path> = directory.ancestors().take_while(|above| !above.exists()).collect();
    fs::create_dir_all(&directory)?;
    missing.iter().filter_map(|created| created.parent()).try_for_each(sync)
}

/// The names in a directory that can be written as text. All of attachd's own can.
fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && ![".", ".."].contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

fn sweep(shared: &OwnedFd) -> io::Result<()> {
    for name in names(shared)? {
        // A process that ends removes its own directory without a lock, so it may be gone at any moment.
        let is_folder = beneath::stat_in(shared, &name).is_ok_and(|found| beneath::kind(&found) == FileType::Directory);
        if !is_folder {
            continue;
        }
        match sweep_one(shared, &name) {
            Ok(true) => tracing::info!("swept the temporary files of an ended process"),
            Ok(false) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                %error,
                directory = name,
                "the temporary files of an ended process could not be deleted; the next start tries again"
            ),
        }
    }
    Ok(())
}

/// Deletes a temporary directory, unless its process lives.
fn sweep_one(shared: &OwnedFd, name: &str) -> io::Result<bool> {
    let lock = beneath::lock_file(&beneath::folder(shared, name)?, LOCK)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(false),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Nobody else takes it meanwhile: whoever sweeps holds the lock that all share.
    drop(lock);
    beneath::remove_folder(shared, name).map(|()| true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: &Path) -> BTreeMap<String, String> {
        BTreeMap::from([("root".to_owned(), root.to_str().unwrap().to_owned())])
    }

    /// Leaves a file that is half written, and says where.
    fn half(directory: &Directory) -> PathBuf {
        let path = directory.path.join(TEMPORARY).join(&directory.place.temporary.as_ref().unwrap().name).join("half");
        fs::write(&path, "half").unwrap();
        path
    }

    #[test]
    fn the_files_of_an_ended_process_are_swept_and_those_of_a_living_one_are_not() {
        let root = tempfile::tempdir().unwrap();
        let living = Directory::open(&options(root.path()), Access::Write).unwrap();
        let mine = half(&living);
        let ended = root.path().join(TEMPORARY).join("ended");
        fs::create_dir(&ended).unwrap();
        fs::write(ended.join("half"), "half").unwrap();

        let next = Directory::open(&options(root.path()), Access::Write).unwrap();
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
                        let directory = Directory::open(&options(root.path()), Access::Write).unwrap();
                        let mine = half(&directory);
                        std::thread::yield_now();
                        directory.present().unwrap();
                        assert!(mine.exists());
                    }
                });
            }
        });
    }

    #[test]
    fn a_root_that_is_a_file_is_refused_with_its_path() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Directory::open(&options(file.path()), Access::Write).unwrap_err().to_string();
        assert!(error.contains("storage.options.root") && error.contains(file.path().to_str().unwrap()), "{error}");
    }
}
