//! The directories below a storage root: made where they are missing, and durable when an upload says so. A file that was
//! fsynced and renamed is found after a power cut only if the entries that lead to it were synced too. All of this blocks.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How many directories are remembered as durable, at most. Past it all are forgotten, and synced again when they are met.
const KNOWN: usize = 1 << 16;

/// The directories of one root.
#[derive(Debug)]
pub(super) struct Entries {
    root: PathBuf,
    /// Directories whose way down from the root this process has made durable. attachd deletes no directory.
    known: Mutex<HashSet<PathBuf>>,
    /// Directories that are being synced for all who ask.
    shared: Mutex<HashMap<PathBuf, Arc<Shared>>>,
}

/// A directory that many files are put into, directly or below, at the same time.
#[derive(Debug, Default)]
struct Shared {
    rounds: Mutex<Rounds>,
    ended: Condvar,
}

/// Syncs of one directory, counted. One that began after an entry was made makes it durable.
#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    /// The last one that failed.
    failed: u64,
    running: bool,
}

impl Entries {
    pub fn new(root: PathBuf) -> Entries {
        Entries { root, known: Mutex::default(), shared: Mutex::default() }
    }

    /// Makes the directories that `file` is to lie in, down from the root, where they are missing. A symbolic link on the way
    /// to it could lead out of the root and is refused. Where the root itself is gone nothing is made: that would be another
    /// storage.
    pub fn make_above(&self, file: &Path) -> io::Result<()> {
        let mut above: Vec<&Path> = self.above(file).filter(|above| *above != self.root).collect();
        above.reverse();
        above.into_iter().try_for_each(|directory| match fs::symlink_metadata(directory) {
            Ok(found) if found.is_symlink() => {
                let why = format!("{} is a symbolic link", directory.display());
                Err(io::Error::new(io::ErrorKind::NotADirectory, why))
            }
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(directory),
            Err(error) => Err(error),
        })
    }

    fn make(&self, directory: &Path) -> io::Result<()> {
        match fs::create_dir(directory) {
            Ok(()) => {
                lock(&self.known).remove(directory);
                Ok(())
            }
            // Another upload was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Makes the entries of all directories from the one of `file` up to the root durable.
    pub fn sync_above(&self, file: &Path) -> io::Result<()> {
        let mut above = self.above(file);
        let Some(own) = above.next() else { return Ok(()) };
        sync(own)?;
        // The directory above holds the entries of many attachments, which are synced together.
        let Some(common) = above.next() else { return Ok(()) };
        self.sync_together(common)?;
        if lock(&self.known).contains(common) {
            return Ok(());
        }
        above.try_for_each(sync)?;
        let mut known = lock(&self.known);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(common.to_owned());
        Ok(())
    }

    fn above<'a>(&'a self, file: &'a Path) -> impl Iterator<Item = &'a Path> {
        file.ancestors().skip(1).take_while(|above| above.starts_with(&self.root))
    }

    /// Syncs a directory, once for all who ask while a sync before theirs is under way.
    fn sync_together(&self, directory: &Path) -> io::Result<()> {
        let shared = Arc::clone(lock(&self.shared).entry(directory.to_owned()).or_default());
        let synced = shared.sync(|| sync(directory));
        let mut all = lock(&self.shared);
        // Ours, and the one in the map: nobody else asks, and nobody can begin to while this is locked.
        if Arc::strong_count(&shared) == 2 {
            all.remove(directory);
        }
        synced
    }
}

impl Shared {
    fn sync(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut rounds = lock(&self.rounds);
        // One that has begun already may have missed our entry.
        let ours = rounds.begun + 1;
        while rounds.ended < ours {
            if rounds.running {
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            rounds.running = true;
            rounds.begun += 1;
            let round = rounds.begun;
            drop(rounds);
            let synced = sync();
            rounds = lock(&self.rounds);
            rounds.running = false;
            rounds.ended = round;
            if synced.is_err() {
                rounds.failed = round;
            }
            self.ended.notify_all();
            if round == ours || synced.is_err() {
                return synced;
            }
        }
        if rounds.failed >= ours {
            return Err(io::Error::other("the sync of a directory failed for another upload"));
        }
        Ok(())
    }
}

/// Makes the entries of a directory durable.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A panic in between leaves nothing half done that these guard.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn directories_are_made_down_to_the_file_and_a_root_that_is_gone_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let entries = Entries::new(root.clone());
        let file = root.join("a/b/c/d");
        assert_eq!(entries.make_above(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!root.exists());
        fs::create_dir(&root).unwrap();
        entries.make_above(&file).unwrap();
        entries.make_above(&file).unwrap();
        assert!(root.join("a/b/c").is_dir());
        assert!(!file.exists());
        entries.sync_above(&file).unwrap();
        assert!(lock(&entries.known).contains(&root.join("a/b")));
        assert!(lock(&entries.shared).is_empty());
        fs::remove_dir_all(root.join("a")).unwrap();
        entries.make_above(&file).unwrap();
        assert!(!lock(&entries.known).contains(&root.join("a/b")), "what was made anew is not durable yet");
    }

    #[test]
    fn who_comes_while_a_sync_is_under_way_waits_for_the_next_one_which_serves_all() {
        let shared = Shared::default();
        let syncs = AtomicUsize::new(0);
        let (go, wait) = mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let sync = || {
            if syncs.fetch_add(1, Ordering::Relaxed) == 0 {
                lock(&wait).recv().unwrap();
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            scope.spawn(|| shared.sync(sync).unwrap());
            while syncs.load(Ordering::Relaxed) == 0 {
                std::thread::yield_now();
            }
            let others: Vec<_> = (0..8).map(|_| scope.spawn(|| shared.sync(sync).unwrap())).collect();
            std::thread::sleep(std::time::Duration::from_millis(50));
            assert!(others.iter().all(|other| !other.is_finished()), "the sync under way does not serve them");
            go.send(()).unwrap();
        });
        assert_eq!(syncs.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn all_who_shared_a_sync_that_failed_are_told() {
        let shared = Shared::default();
        let (syncs, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let sync = || {
            syncs.fetch_add(1, Ordering::Relaxed);
            while waiting.load(Ordering::Relaxed) < 4 {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            Err(io::Error::other("no"))
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    waiting.fetch_add(1, Ordering::Relaxed);
                    assert!(shared.sync(sync).is_err());
                });
            }
        });
        assert!((1..=4).contains(&syncs.load(Ordering::Relaxed)));
    }
}
