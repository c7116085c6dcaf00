//! The directories below a storage root: made where they are missing, and durable when an upload says so. A file that was
//! fsynced and renamed is found after a power cut only if the entries that lead to it were synced too. All of this blocks.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use rustix::fs::{fstat, fsync};
use rustix::io::retry_on_intr;

use super::directory::Place;
use super::{beneath, lock};

/// How many directories are remembered as durable, at most. Past it all are forgotten, and synced again when they are met.
const KNOWN: usize = 1 << 16;

/// The directories below a root.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Directories whose way down from the root this process has made durable. attachd deletes no directory.
    known: Mutex<HashSet<Known>>,
    /// Directories that are being synced for all who ask.
    shared: Mutex<HashMap<Inode, Arc<Shared>>>,
}

/// What the system knows a directory by: its device, and its number there.
pub(super) type Inode = (u64, u64);

/// A directory of one place, by its number.
type Known = (u64, Inode);

/// A directory that is open, so that nobody can put another in its place meanwhile.
#[derive(Debug)]
pub(super) struct Folder {
    place: Arc<Place>,
    /// Its path below the root.
    path: String,
    own: OwnedFd,
    inode: Inode,
}

impl Folder {
    /// The directory itself.
    pub fn own(&self) -> &OwnedFd {
        &self.own
    }
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
    /// How many wait for the end of the one that runs.
    waiting: usize,
}

impl Entries {
    /// Opens the directory at `path`, which is written with slashes, down from the root, and makes what is missing of it. A
    /// symbolic link on the way could lead out of the root and is refused.
    pub fn open(&self, place: &Arc<Place>, path: &str) -> io::Result<Folder> {
        let path = path.trim_end_matches('/');
        let (own, made) = beneath::make(place.root(), path)?;
        let inode = inode(&own)?;
        if made {
            // It may have the number of one that is gone.
            lock(&self.known).remove(&(place.number(), inode));
        }
        Ok(Folder { place: Arc::clone(place), path: path.to_owned(), own, inode })
    }

    /// Makes the entries of a directory durable, and those of all directories from it up to the root.
    pub fn sync(&self, folder: &Folder) -> io::Result<()> {
        self.sync_together(&folder.own, folder.inode)?;
        let known_as = (folder.place.number(), folder.inode);
        if lock(&self.known).contains(&known_as) {
            return Ok(());
        }
        let root = folder.place.root();
        let above = folder.path.rsplit_once('/').map_or("", |(above, _)| above);
        for directory in beneath::all_on_the_way(root, above)?.iter().rev().chain([root]) {
            self.sync_together(directory, inode(directory)?)?;
        }
        let mut known = lock(&self.known);
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(known_as);
        Ok(())
    }

    /// Syncs a directory, once for all who ask while a sync before theirs is under way.
    fn sync_together(&self, directory: &OwnedFd, inode: Inode) -> io::Result<()> {
        let shared = Arc::clone(lock(&self.shared).entry(inode).or_default());
        let synced = shared.sync(|| sync_open(directory));
        let mut all = lock(&self.shared);
        // Ours, and the one in the map: nobody else asks, and nobody can begin to while this is locked.
        if Arc::strong_count(&shared) == 2 {
            all.remove(&inode);
        }
        synced
    }
}

fn inode(directory: &OwnedFd) -> io::Result<Inode> {
    let found = fstat(directory)?;
    Ok((found.st_dev, found.st_ino))
}

impl Shared {
    fn sync(&self, sync: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut rounds = lock(&self.rounds);
        // One that has begun already may have missed our entry.
        let ours = rounds.begun + 1;
        while rounds.ended < ours {
            if rounds.running {
                rounds.waiting += 1;
                rounds = self.ended.wait(rounds).unwrap_or_else(PoisonError::into_inner);
                rounds.waiting -= 1;
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
            // To wake nobody is a call of the system all the same.
            if rounds.waiting > 0 {
                self.ended.notify_all();
            }
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

/// Makes the entries of a directory durable that is open.
fn sync_open(directory: &OwnedFd) -> io::Result<()> {
    // A signal does not break it off on a local disk, and may on others.
    Ok(retry_on_intr(|| fsync(directory))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn directories_are_made_down_to_the_folder_and_known_once_they_are_durable() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let options = [("root".to_owned(), root.to_str().unwrap().to_owned())].into();
        let directory = super::super::directory::Directory::open(&options, crate::store::Access::Write).unwrap();
        let (place, entries) = (&directory.place().unwrap(), Entries::default());
        entries.open(place, "a/b/c").unwrap();
        let opened = entries.open(place, "a/b/c").unwrap();
        fs::write(root.join("a/b/c/file"), "1").unwrap();
        assert_eq!(beneath::read(opened.own(), "file").unwrap(), b"1");
        assert!(!lock(&entries.known).contains(&(0, opened.inode)));
        entries.sync(&opened).unwrap();
        assert!(lock(&entries.known).contains(&(0, opened.inode)));
        assert!(lock(&entries.shared).is_empty());
        // As if the next directory that is made had the number of one that was known and is gone.
        fs::remove_dir_all(root.join("a/b/c")).unwrap();
        let remade = entries.open(place, "a/b/c").unwrap();
        assert!(!lock(&entries.known).contains(&(0, remade.inode)), "what was made anew is not durable yet");
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
