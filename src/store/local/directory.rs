//! The root of a local file system storage, with a temporary directory of this process, and the locks that all processes on
//! the root share. A root is never created here. One that is replaced while the process runs is opened anew.
//!
//! Each process keeps its temporary files in a directory of its own and holds a lock on it. The operating system releases the
//! lock when the process ends, however it ends, so a directory without a lock belongs to no process and is swept.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use rustix::fs::{FileType, fstat, fstatvfs, fsync};
use uuid::Uuid;

use super::super::{Access, OpenError, layout};
use super::entries::Inode;
use super::root::{LOCKS, TEMPORARY, Volume, is_new, names, one_machine, stranger, volume};
use super::space::Free;
use super::{beneath, lock};

/// What every text begins with that says what is wrong with the root. None names its path: readiness is for anybody.
pub const TROUBLE: &str = "the storage folder";

/// The name of the lock files.
const LOCK: &str = "lock";

/// The configuration keys.
const ROOT_KEY: &str = "options.root";
const TEMPORARY_KEY: &str = "options.atomic_write_dir";

/// A storage root on a local file system.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The directory that the operator has chosen for temporary files.
    shared: Option<PathBuf>,
    access: Access,
    /// The volumes on which the directories above the root are: where the root is on one of them, but was on a volume of its
    /// own, that is not mounted any more.
    above: Vec<Volume>,
    place: ArcSwap<Place>,
    /// Held while another place is opened.
    reopening: Mutex<()>,
}

/// A directory that is the storage root.
#[derive(Debug)]
pub(super) struct Place {
    root: OwnedFd,
    identity: Inode,
    volume: Volume,
    /// Tells the places of one process apart.
    number: u64,
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
    fn open(path: &Path, shared: Option<&Path>, access: Access, number: u64) -> Result<Place, OpenError> {
        let at = |key: &'static str, path: &Path| {
            let path = path.display().to_string();
            move |error: io::Error| OpenError::new(key, format!("{path}: {error}"))
        };
        let at_root = || at(ROOT_KEY, path);
        let root = beneath::root(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => OpenError::new(
                ROOT_KEY,
                format!(
                    "{} does not exist; mount the volume that should be there, or make the folder for a new storage",
                    path.display()
                ),
            ),
            io::ErrorKind::NotADirectory => OpenError::new(ROOT_KEY, format!("{} is not a folder", path.display())),
            _ => at_root()(error),
        })?;
        let identity = identity(&root).map_err(at_root())?;
        let volume = volume(path).map_err(at_root())?;
        let is_marked = is_marked(&root, path)?;
        if access == Access::Inspect {
            return Ok(Place { root, identity, volume, number, temporary: None });
        }
        beneath::make_in(&root, LOCKS).map_err(at_root())?;
        let (key, shared_path, shared) = match shared {
            None => (ROOT_KEY, path.join(TEMPORARY), beneath::make_in(&root, TEMPORARY).map(|(shared, _)| shared)),
            Some(shared) => (TEMPORARY_KEY, shared.to_owned(), open_shared(&root, path, shared)),
        };
        let shared = shared.map_err(at(key, &shared_path))?;
        if fstat(&shared).map_err(io::Error::from).map_err(at(key, &shared_path))?.st_dev != identity.0 {
            let why = format!(
                "{} is not on the file system of the root, so a rename cannot be atomic",
                shared_path.display()
            );
            return Err(OpenError::new(key, why));
        }
        let temporary = Temporary::take(shared).map_err(at(key, &shared_path))?;
        if !is_marked {
            temporary.mark(&root).map_err(at_root())?;
        }
        Ok(Place { root, identity, volume, number, temporary: Some(temporary) })
    }

    /// The root.
    pub fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The number of the place.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The temporary directory of this process.
    pub fn temporary(&self) -> io::Result<&OwnedFd> {
        let temporary = self.temporary.as_ref().map(|temporary| &temporary.folder);
        temporary.ok_or_else(|| io::Error::other("the storage was opened to be looked at"))
    }

    /// What a failure to find something in the temporary directory means, which no one else deletes from.
    pub fn lost(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::NotFound && self.is_deleted() {
            return stale(format!("{TROUBLE} was replaced while the upload was under way"));
        }
        error
    }

    /// Whether the temporary directory is gone, or the root, which it is in.
    fn is_deleted(&self) -> bool {
        // A directory that was deleted has no links.
        let is_gone = |folder: &OwnedFd| fstat(folder).is_ok_and(|found| found.st_nlink == 0);
        is_gone(&self.root) || self.temporary.as_ref().is_some_and(|temporary| is_gone(&temporary.folder))
    }
}

impl Directory {
    /// Opens the root, which must exist. To write there it sweeps the temporary files of ended processes, and takes a
    /// temporary directory of its own.
    pub fn open(options: &BTreeMap<String, String>, access: Access) -> Result<Directory, OpenError> {
        let absolute = |key: &'static str, path: &str| {
            std::path::absolute(path).map_err(|error| OpenError::new(key, format!("{path}: {error}")))
        };
        let path = absolute(ROOT_KEY, options.get("root").map(String::as_str).unwrap_or_default())?;
        let shared = options.get("atomic_write_dir").map(|shared| absolute(TEMPORARY_KEY, shared)).transpose()?;
        let place = Place::open(&path, shared.as_deref(), access, 0)?;
        let above = path.ancestors().skip(1).filter_map(|above| volume(above).ok()).collect();
        let place = ArcSwap::from_pointee(place);
        Ok(Directory { path, shared, access, above, place, reopening: Mutex::default() })
    }

    /// What an operator should know of the root, beside its configuration.
    pub fn warnings(&self) -> Vec<String> {
        let (place, path) = (self.place.load(), self.path.display());
        let mut warnings = Vec::new();
        if is_new(&place.root).unwrap_or_default() {
            warnings.push(format!(
                "{path} holds no attachments: the storage is new, or the volume that should be there is not mounted"
            ));
        }
        if let Some(kind) = one_machine(&place.root) {
            warnings.push(format!(
                "{path} is on {kind}, whose locks may not reach other machines: let one machine alone write there, \
                 unless you know that flock holds between all that share it"
            ));
        }
        warnings
    }

    /// The directory at the path of the root. If it is another one than before, that is opened, unless the volume that the root
    /// was on is not mounted.
    pub fn place(&self) -> io::Result<Arc<Place>> {
        let place = self.place.load_full();
        let found = fs::metadata(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => stale(format!("{TROUBLE} is gone")),
            _ => error,
        })?;
        // A mount over the root may show the same directory, and forbid what the one below it permits.
        let is_same = (found.dev(), found.ino()) == place.identity && volume(&self.path)? == place.volume;
        if is_same { Ok(place) } else { self.reopen() }
    }

    /// Whether the root is there, and in it the temporary directory of this process.
    pub fn present(&self) -> io::Result<()> {
        if self.place()?.is_deleted() { self.reopen().map(drop) } else { Ok(()) }
    }

    /// Opens what is at the path of the root now.
    fn reopen(&self) -> io::Result<Arc<Place>> {
        let _turn = lock(&self.reopening);
        let (old, path) = (self.place.load_full(), self.path.display());
        let root = beneath::root(&self.path)?;
        let volume = volume(&self.path)?;
        if identity(&root)? == old.identity && volume == old.volume && !old.is_deleted() {
            return Ok(old);
        }
        let empty = is_new(&root)?;
        if empty && volume != old.volume && self.above.contains(&volume) {
            return Err(stale(format!("{TROUBLE} is empty, and the volume that it was on is not mounted")));
        }
        let number = old.number + 1;
        let place = Place::open(&self.path, self.shared.as_deref(), self.access, number);
        let place = Arc::new(place.map_err(|error| {
            tracing::debug!(%error, "the storage root was replaced, and what is there now cannot be opened");
            stale(format!("{TROUBLE} was replaced, and what is there now cannot be served: `attachd check` says why"))
        })?);
        self.place.store(Arc::clone(&place));
        tracing::warn!(root = %path, empty, "the storage root was replaced; what is there now is served");
        Ok(place)
    }

    /// What is free on the file system of the root.
    pub fn free(&self) -> io::Result<Free> {
        let found = fstatvfs(self.place()?.root())?;
        let inodes = (found.f_files > 0).then_some(found.f_favail);
        Ok(Free { bytes: found.f_bavail.saturating_mul(found.f_frsize), inodes })
    }

    /// How many bytes the file system of the root has.
    pub fn size(&self) -> io::Result<u64> {
        let found = fstatvfs(self.place()?.root())?;
        Ok(found.f_blocks.saturating_mul(found.f_frsize))
    }

    /// Takes a lock that all processes on this root share, waiting for it. The system releases it when its process ends.
    pub fn lock(&self, stripe: usize) -> io::Result<File> {
        let place = self.place()?;
        // A storage that nobody has opened to write to since it was restored may not have the folder.
        let (locks, _) = beneath::make_in(place.root(), LOCKS)?;
        let file = beneath::lock_file(&locks, &format!("{stripe:02x}"))?;
        file.lock()?;
        Ok(file)
    }

    /// The symbolic links among what attachd keeps beside the clients, as seen from the root.
    pub fn links(&self) -> io::Result<Vec<String>> {
        let place = self.place()?;
        let mut links = Vec::new();
        for folder in ["", TEMPORARY, LOCKS] {
            let opened = match beneath::folder(place.root(), folder) {
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

/// Whether a root says that it has the layout of this version. If it does not, it must be empty.
fn is_marked(root: &OwnedFd, path: &Path) -> Result<bool, OpenError> {
    let at_root = |why: String| OpenError::new(ROOT_KEY, format!("{}: {why}", path.display()));
    let mut other: Option<String> = None;
    // Another process may have marked it between the first look and the listing.
    loop {
        match beneath::read(root, layout::MARKER) {
            Ok(marker) => return layout::check_marker(&marker).map(|()| true).map_err(at_root),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(at_root(format!("{}: {error}", layout::MARKER))),
        }
        if let Some(other) = &other {
            return Err(at_root(layout::not_a_storage(other)));
        }
        match stranger(root).map_err(|error| at_root(error.to_string()))? {
            Some(found) => other = Some(found),
            None => return Ok(false),
        }
    }
}

impl Temporary {
    /// Says in a root which layout it has. Several processes may do so at once.
    fn mark(&self, root: &OwnedFd) -> io::Result<()> {
        let mut file = beneath::create_in(&self.folder, layout::MARKER)?;
        file.write_all(&layout::marker())?;
        file.sync_all()?;
        beneath::rename(&self.folder, layout::MARKER, root, layout::MARKER)?;
        Ok(fsync(root)?)
    }

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
    // No other process can take it: a sweep holds the lock that all processes share.
    drop(lock);
    beneath::remove_folder(shared, name).map(|()| true)
}

fn stale(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::StaleNetworkFileHandle, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(root: &Path) -> BTreeMap<String, String> {
        BTreeMap::from([("root".to_owned(), root.to_str().unwrap().to_owned())])
    }

    /// Leaves a file that is half written, and says where.
    fn half(directory: &Directory) -> PathBuf {
        let path =
            directory.path.join(TEMPORARY).join(&directory.place.load().temporary.as_ref().unwrap().name).join("half");
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

    #[test]
    fn a_root_that_is_replaced_is_opened_anew_and_one_that_was_moved_back_is_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let (root, away) = (folder.path().join("root"), folder.path().join("away"));
        fs::create_dir(&root).unwrap();
        let directory = Directory::open(&options(&root), Access::Write).unwrap();
        let first = directory.place().unwrap();
        fs::rename(&root, &away).unwrap();
        let gone = directory.present().unwrap_err();
        assert_eq!(gone.to_string(), "the storage folder is gone");
        assert!(!root.exists());
        fs::rename(&away, &root).unwrap();
        assert_eq!(directory.place().unwrap().number(), first.number());
        for number in 1..=3 {
            fs::remove_dir_all(&root).unwrap();
            fs::create_dir(&root).unwrap();
            directory.present().unwrap();
            let place = directory.place().unwrap();
            assert_eq!(place.number(), number);
            beneath::create_in(place.temporary().unwrap(), "half").unwrap();
        }
        // Only what a process needs was deleted.
        fs::remove_dir_all(root.join(TEMPORARY)).unwrap();
        directory.present().unwrap();
        assert_eq!(directory.place().unwrap().number(), 4);
        assert!(root.join(TEMPORARY).is_dir());
    }

    #[test]
    fn a_folder_that_holds_other_things_and_no_attachments_is_no_storage() {
        let root = tempfile::tempdir().unwrap();
        for known in [TEMPORARY, LOCKS, "probe", "lost+found", ".snapshot"] {
            fs::create_dir_all(root.path().join(known)).unwrap();
        }
        drop(Directory::open(&options(root.path()), Access::Write).unwrap());
        assert_eq!(fs::read(root.path().join("attachd.json")).unwrap(), layout::marker());
        fs::remove_file(root.path().join("attachd.json")).unwrap();
        fs::write(root.path().join("thesis.txt"), "").unwrap();
        let refused = Directory::open(&options(root.path()), Access::Write).unwrap_err().to_string();
        assert!(refused.contains("holds no attachd.json, but \"thesis.txt\""), "{refused}");
        fs::create_dir(root.path().join("clients")).unwrap();
        let refused = Directory::open(&options(root.path()), Access::Write).unwrap_err().to_string();
        assert!(refused.contains("holds clients/ but no attachd.json"), "{refused}");
        fs::write(root.path().join("attachd.json"), "{\"layout\":3}").unwrap();
        for access in [Access::Write, Access::Inspect] {
            let refused = Directory::open(&options(root.path()), access).unwrap_err().to_string();
            assert!(refused.contains("says that the storage has layout 3"), "{refused}");
        }
        fs::write(root.path().join("attachd.json"), layout::marker()).unwrap();
        Directory::open(&options(root.path()), Access::Write).unwrap();
    }
}
