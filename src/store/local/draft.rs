//! A file on its way to its name: written under a temporary one, made durable, renamed. Until then no reader finds it, and
//! dropping it removes it. All of this blocks. It must not know what the bytes are.

use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::directory::Place;
use super::{beneath, lock};

/// After how many bytes the system is asked to begin to put a file on the disk, so that little is left to wait for at its
/// end. Below it a file is put there at once.
const EARLY: u64 = 8 << 20;

/// What tells the temporary files of one process apart.
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A file that has no name yet that a reader would look for.
#[derive(Debug)]
pub(super) struct Draft {
    file: Arc<File>,
    place: Arc<Place>,
    /// In the directory of temporary files.
    name: String,
    named: bool,
    written: u64,
    early: Early,
}

/// What was put on the disk before the end.
#[derive(Debug, Default)]
struct Early {
    begun_at: u64,
    running: Arc<AtomicBool>,
    /// The first failure. The system reports each once, to whoever asks first.
    failure: Arc<Mutex<Option<io::Error>>>,
}

impl Draft {
    /// Begins a file in the directory of temporary ones. `name` is for people who look there.
    pub fn create(place: &Arc<Place>, name: &str) -> io::Result<Draft> {
        let name = format!("{:x}.{name}", NEXT.fetch_add(1, Ordering::Relaxed));
        let file = beneath::create_in(place.temporary()?, &name).map_err(|error| place.lost(error))?;
        let file = Arc::new(file);
        Ok(Draft { file, place: Arc::clone(place), name, named: false, written: 0, early: Early::default() })
    }

    /// Adds bytes.
    pub fn write(&mut self, batch: &[Bytes]) -> io::Result<()> {
        let mut file = &*self.file;
        match batch {
            [bytes] => file.write_all(bytes)?,
            _ => {
                let mut slices: Vec<IoSlice<'_>> =
                    batch.iter().filter(|bytes| !bytes.is_empty()).map(|bytes| IoSlice::new(bytes)).collect();
                let mut left = &mut slices[..];
                while !left.is_empty() {
                    match file.write_vectored(left) {
                        Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                        Ok(length) => IoSlice::advance_slices(&mut left, length),
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        self.written += batch.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
        self.sync_early();
        Ok(())
    }

    /// Has what was written put on the disk beside what is still to be written.
    fn sync_early(&mut self) {
        let Early { begun_at, running, failure } = &mut self.early;
        if self.written - *begun_at < EARLY || running.swap(true, Ordering::Acquire) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        *begun_at = self.written;
        let (file, running, failure) = (Arc::clone(&self.file), Arc::clone(running), Arc::clone(failure));
        runtime.spawn_blocking(move || {
            let mut failure = lock(&failure);
            if let Err(error) = file.sync_data() {
                failure.get_or_insert(error);
            }
            running.store(false, Ordering::Release);
        });
    }

    /// Makes the bytes durable.
    pub fn sync(&self) -> io::Result<()> {
        // Whoever syncs early holds the lock until it knows whether that went well.
        let failure = lock(&self.early.failure).take();
        self.file.sync_all()?;
        failure.map_or(Ok(()), Err)
    }

    /// Gives the file its name in a directory, in place of the one that had it. The entry is not durable yet.
    pub fn rename(mut self, directory: &OwnedFd, name: &str) -> io::Result<()> {
        let renamed = beneath::rename(self.place.temporary()?, &self.name, directory, name);
        renamed.map_err(|error| self.place.lost(error))?;
        self.named = true;
        Ok(())
    }

    /// Removes the file.
    pub fn discard(mut self) -> io::Result<()> {
        self.named = true;
        beneath::remove_in(self.place.temporary()?, &self.name)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.named {
            return;
        }
        let (place, name) = (Arc::clone(&self.place), std::mem::take(&mut self.name));
        let remove = move || {
            let removed = place.temporary().and_then(|temporary| beneath::remove_in(temporary, &name));
            if let Err(error) = removed {
                tracing::warn!(%error, "a temporary file was not removed; the next start sweeps it");
            }
        };
        // The removal of a large file takes its time, and this may be where nobody may block.
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::*;
    use crate::store::Access;

    fn directory(root: &tempfile::TempDir) -> Directory {
        Directory::open(&[("root".to_owned(), root.path().to_str().unwrap().to_owned())].into(), Access::Write).unwrap()
    }

    /// The names of the temporary files.
    fn drafts(place: &Place) -> usize {
        // The directory itself, the one above it, and the lock.
        rustix::fs::Dir::read_from(place.temporary().unwrap()).unwrap().count() - 3
    }

    #[test]
    fn a_draft_has_its_bytes_under_its_name_once_it_is_renamed_and_is_gone_if_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder);
        let place = &directory.place().unwrap();
        let mut draft = Draft::create(place, "x").unwrap();
        draft.write(&[Bytes::from_static(b"a"), Bytes::new(), Bytes::from_static(b"bc")]).unwrap();
        draft.write(&[Bytes::from_static(b"d")]).unwrap();
        draft.sync().unwrap();
        assert_eq!(drafts(place), 1);
        draft.rename(place.root(), "target").unwrap();
        assert_eq!(std::fs::read(folder.path().join("target")).unwrap(), b"abcd");
        drop(Draft::create(place, "x").unwrap());
        Draft::create(place, "x").unwrap().discard().unwrap();
        assert_eq!(drafts(place), 0);
    }

    #[tokio::test]
    async fn what_is_put_on_the_disk_early_is_waited_for_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let directory = directory(&folder);
        let mut draft = Draft::create(&directory.place().unwrap(), "x").unwrap();
        let piece = Bytes::from(vec![7; 1 << 20]);
        for _ in 0..20 {
            draft.write(&[piece.clone(), piece.clone()]).unwrap();
        }
        assert!(draft.early.begun_at >= EARLY);
        *draft.early.failure.lock().unwrap() = Some(io::Error::other("reported once"));
        assert_eq!(draft.sync().unwrap_err().to_string(), "reported once");
    }
}
