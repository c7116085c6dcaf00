//! Room on the file system of a storage root: how much of it uploads may still use, and whether it is used up. The file system is
//! asked a few times a second at most. In between, the bytes that were written since are subtracted, and so are the bytes that
//! were promised to uploads of a known size. This module must not know what an upload is.

use std::io;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::directory::Directory;
use super::threads::{Abandoned, on_thread};
use super::{io_failure, lock};
use crate::attachment::Id;
use crate::error::{Error, Kind, Result};
use crate::fair::Tally;
use crate::telemetry::{Limit, Metrics};

/// How old a reading of the file system may be.
const READ_EVERY: Duration = Duration::from_millis(250);

/// How many inodes are kept free. A first upload of a client takes up to 8: its file, its record and their directories. A deletion
/// takes one.
pub const FEWEST_INODES: u64 = 16;

/// How long a shortage that the file system does not show by itself is taken to last after a write has failed.
const SHORTAGE: Duration = Duration::from_secs(30);

/// How many seconds a refused caller is asked to wait. Space rarely returns sooner.
const RETRY: RangeInclusive<u64> = 30..=60;

/// How many times as many bytes as are left may be promised to a client of which more than one upload is under way.
const OF_LEFT: u64 = 3;

/// What is free on a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Free {
    /// Bytes that this process may use.
    pub bytes: u64,
    /// Inodes that this process may use. Absent if the file system has no fixed number of them.
    pub inodes: Option<u64>,
}

/// What is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    /// Less is free than is to be kept free, or a write was refused for lack of space.
    Space,
    /// Fewer inodes are free than are to be kept free.
    Inodes,
    /// The user of this process may use no more.
    Quota,
    /// Uploads were refused that would have used too much. Smaller ones are accepted.
    Fit,
    /// Uploads of one client were refused, to which most of what is left is promised.
    Share,
}

impl Lack {
    /// What is wrong, in words that anybody may read.
    fn words(self) -> &'static str {
        match self {
            Lack::Space => "too little space is left",
            Lack::Inodes => "no inodes are left",
            Lack::Quota => "the disk quota is used up",
            Lack::Fit => "an upload was larger than the space that is left for uploads",
            Lack::Share => "most of the space that is left is set aside for other uploads of the client",
        }
    }
}

/// Room on one file system.
#[derive(Debug)]
pub struct Space {
    directory: Arc<Directory>,
    /// Bytes that uploads leave free. With 0 the file system alone decides.
    min_free: u64,
    state: Mutex<State>,
    /// Held while the file system is asked.
    turn: tokio::sync::Mutex<()>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    read: Option<Instant>,
    free: Free,
    /// Bytes that were handed over to be written since the reading.
    written: u64,
    /// Bytes that uploads of a known size may still write.
    promised: Tally,
    /// When a shortage was last met that `free` does not show.
    met: Option<(Instant, Lack)>,
    /// What the log says is used up.
    told: Option<Lack>,
}

/// Room that one upload has been given. What it did not use is free again when it is dropped.
#[derive(Debug, Default)]
pub struct Room {
    /// Where it is, and whose upload it is.
    given: Option<(Arc<Space>, Id)>,
    promised: u64,
}

impl State {
    /// What the last reading shows.
    fn shown(&self, min_free: u64) -> Option<Lack> {
        if min_free == 0 || self.read.is_none() {
            None
        } else if self.free.inodes.is_some_and(|inodes| inodes < FEWEST_INODES) {
            Some(Lack::Inodes)
        } else {
            (self.free.bytes < min_free).then_some(Lack::Space)
        }
    }

    /// What is used up, as far as it is known.
    fn lack(&self, min_free: u64) -> Option<Lack> {
        let met = self.met.filter(|(at, _)| at.elapsed() < SHORTAGE).map(|(_, lack)| lack);
        self.shown(min_free).or(met)
    }

    /// Writes to the log what has changed.
    fn tell(&mut self, min_free: u64) {
        let lack = self.lack(min_free);
        if self.told == lack {
            return;
        }
        let Free { bytes, inodes } = self.free;
        match lack {
            Some(lack) => {
                let why = lack.words();
                tracing::warn!(
                    why,
                    free_bytes = bytes,
                    free_inodes = inodes,
                    min_free_bytes = min_free,
                    "uploads are refused for lack of room in the storage"
                );
            }
            None => {
                tracing::info!(free_bytes = bytes, free_inodes = inodes, "the storage has room for uploads again");
            }
        }
        self.told = lack;
    }
}

impl Space {
    /// Room on the file system of a root, of which uploads leave `min_free` bytes free.
    pub(super) fn new(directory: Arc<Directory>, min_free: u64, metrics: Metrics) -> Space {
        Space { directory, min_free, state: Mutex::default(), turn: tokio::sync::Mutex::default(), metrics }
    }

    /// Says that no upload can ever be accepted, if that is so.
    pub fn warning(&self) -> Option<String> {
        let (size, min_free) = (self.directory.size().ok()?, self.min_free);
        (size < min_free).then(|| {
            format!(
                "uploads are to leave {min_free} bytes free, and the file system of the storage has {size}: all uploads are refused; \
                 write a smaller number, or take a larger volume"
            )
        })
    }

    /// What was free when the file system was last asked.
    pub fn free(&self) -> Option<Free> {
        let state = lock(&self.state);
        state.read.map(|_| state.free)
    }

    /// Why uploads are refused, if all are: asks the file system.
    ///
    /// # Errors
    /// What the file system raises.
    pub async fn shortage(&self) -> Result<Option<&'static str>> {
        self.refresh(Duration::ZERO).await?;
        let lack = lock(&self.state).lack(self.min_free);
        Ok(lack.filter(|lack| *lack != Lack::Fit).map(Lack::words))
    }

    /// Gives room to an upload of a client of at most `size` bytes, where that is known. A client with more than one upload leaves
    /// some to others: it may declare much and send little.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] if there is too little.
    pub async fn room(self: &Arc<Self>, client: Id, size: Option<u64>) -> Result<Room> {
        if self.min_free == 0 {
            return Ok(Room::default());
        }
        self.refresh(READ_EVERY).await?;
        let promised = size.unwrap_or_default();
        let mut state = lock(&self.state);
        if let Some(lack) = state.shown(self.min_free) {
            return Err(self.refuse(&mut state, lack));
        }
        let used = state.written.saturating_add(state.promised.all()).saturating_add(promised);
        let Some(left) = state.free.bytes.saturating_sub(used).checked_sub(self.min_free) else {
            return Err(self.refuse(&mut state, Lack::Fit));
        };
        let own = state.promised.of(client);
        if promised > 0 && own > 0 && own.saturating_add(promised) > left.saturating_mul(OF_LEFT) {
            self.metrics.limited(Limit::MinFree, Some(client));
            return Err(self.error(state.free, Lack::Share));
        }
        state.promised.add(client, promised);
        drop(state);
        Ok(Room { given: Some((Arc::clone(self), client)), promised })
    }

    /// Refuses an upload.
    fn refuse(&self, state: &mut State, lack: Lack) -> Error {
        self.metrics.limited(Limit::MinFree, None);
        if lack == Lack::Fit {
            state.met = Some((Instant::now(), lack));
            state.tell(self.min_free);
        }
        self.error(state.free, lack)
    }

    fn error(&self, free: Free, lack: Lack) -> Error {
        let inodes = free.inodes.map_or_else(String::new, |inodes| format!(" and {inodes} inodes"));
        let why =
            format!("{}: {} bytes{inodes} are free, storage.min_free is {}", lack.words(), free.bytes, self.min_free);
        Error::new(Kind::StorageUnavailable).because(why).at_limit().retry_within(RETRY)
    }

    /// What the failure of a write means for which the file system has no room. It blocks.
    pub fn failed(&self, error: &io::Error) -> Error {
        let free = self.directory.free();
        let mut state = lock(&self.state);
        if let Ok(free) = free {
            state.take_in(free);
        }
        let lack = match error.kind() {
            io::ErrorKind::QuotaExceeded => Lack::Quota,
            _ if state.free.inodes.is_some_and(|inodes| inodes < FEWEST_INODES) => Lack::Inodes,
            _ => Lack::Space,
        };
        state.met = Some((Instant::now(), lack));
        state.tell(self.min_free);
        self.error(state.free, lack)
    }

    fn is_read(&self, within: Duration) -> bool {
        lock(&self.state).read.is_some_and(|read| read.elapsed() < within)
    }

    /// Asks the file system, unless that was done `within` the given time.
    async fn refresh(&self, within: Duration) -> Result<()> {
        if self.is_read(within) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        if self.is_read(within) {
            return Ok(());
        }
        let directory = Arc::clone(&self.directory);
        let free = on_thread(Abandoned::default(), move |_| directory.free()).await?.map_err(io_failure)?;
        let mut state = lock(&self.state);
        state.take_in(free);
        state.tell(self.min_free);
        Ok(())
    }
}

impl State {
    fn take_in(&mut self, free: Free) {
        (self.free, self.written, self.read) = (free, 0, Some(Instant::now()));
    }
}

impl Room {
    /// Takes room for bytes that are about to be written.
    ///
    /// # Errors
    /// [`Kind::StorageUnavailable`] if there is too little.
    pub async fn take(&mut self, bytes: u64) -> Result<()> {
        let Some((space, client)) = &self.given else { return Ok(()) };
        if bytes == 0 {
            return Ok(());
        }
        space.refresh(READ_EVERY).await?;
        let mut state = lock(&space.state);
        let kept = bytes.min(self.promised);
        // What was promised to others is theirs. What was promised to this upload is not taken from it for their sake.
        let others = if kept < bytes { state.promised.all() - kept } else { 0 };
        let used = state.written.saturating_add(bytes).saturating_add(others);
        if state.free.bytes.saturating_sub(used) < space.min_free {
            let lack = state.shown(space.min_free).unwrap_or(Lack::Fit);
            return Err(space.refuse(&mut state, lack));
        }
        state.promised.remove(*client, kept);
        self.promised -= kept;
        state.written += bytes;
        Ok(())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((space, client)) = &self.given {
            lock(&space.state).promised.remove(*client, self.promised);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Access;

    fn client(id: i64) -> Id {
        Id::try_from(id).unwrap()
    }

    fn open(min_free: u64) -> (tempfile::TempDir, Arc<Space>) {
        let folder = tempfile::tempdir().unwrap();
        let options = [("root".to_owned(), folder.path().display().to_string())].into();
        let directory = Arc::new(Directory::open(&options, Access::Write).unwrap());
        (folder, Arc::new(Space::new(directory, min_free, Metrics::default())))
    }

    #[tokio::test]
    async fn an_exceeded_quota_has_its_own_word_and_smaller_uploads_may_still_fit() {
        let (_folder, space) = open(1);
        let error = space.failed(&io::ErrorKind::QuotaExceeded.into());
        assert!(error.is_at_limit() && error.retry_after() >= Some(Duration::from_secs(30)), "{error}");
        assert!(error.log_source().unwrap().starts_with("the disk quota is used up: "), "{error}");
        assert_eq!(space.shortage().await.unwrap(), Some("the disk quota is used up"));
        space.room(client(1), Some(1)).await.unwrap();
        // Long ago: nothing has failed since.
        lock(&space.state).met = Instant::now().checked_sub(SHORTAGE).map(|at| (at, Lack::Quota));
        assert_eq!(space.shortage().await.unwrap(), None);
    }

    #[tokio::test]
    async fn what_was_written_since_a_reading_is_subtracted_and_what_is_left_is_given_back() {
        let (_folder, space) = open(100);
        let read = |bytes| lock(&space.state).take_in(Free { bytes, inodes: None });
        read(110);
        let mut sized = space.room(client(1), Some(4)).await.unwrap();
        let mut endless = space.room(client(1), None).await.unwrap();
        assert!(endless.take(7).await.is_err(), "four of ten are promised");
        endless.take(6).await.unwrap();
        assert!(endless.take(1).await.is_err());
        sized.take(4).await.unwrap();
        assert!(sized.take(1).await.is_err(), "it wrote more than it was to");
        read(110);
        let promised = space.room(client(1), Some(10)).await.unwrap();
        assert!(space.room(client(2), Some(1)).await.is_err());
        space.room(client(1), None).await.unwrap();
        drop(promised);
        space.room(client(1), Some(10)).await.unwrap();
    }

    #[tokio::test]
    async fn a_client_that_declares_much_leaves_space_to_others() {
        let (_folder, space) = open(100);
        lock(&space.state).take_in(Free { bytes: 1100, inodes: None });
        let declared = async |id, size, times| {
            let mut rooms = Vec::new();
            for _ in 0..times {
                rooms.extend(space.room(client(id), Some(size)).await);
            }
            rooms
        };
        let greedy = declared(1, 50, 100).await;
        assert_eq!(greedy.len(), 15);
        let refused = space.room(client(1), Some(50)).await.unwrap_err();
        assert!(refused.is_at_limit() && refused.log_source().unwrap().contains("of the client"), "{refused:?}");
        space.room(client(1), None).await.expect("nothing is promised to content of unknown size");
        // It is no shortage, and another finds some, also for one upload that takes all that is left.
        assert!(lock(&space.state).lack(100).is_none());
        assert_eq!(declared(2, 10, 100).await.len(), 18);
        drop(declared(3, 250, 1).await.pop().expect("one fits"));
        // What a client has written counts no more.
        drop(greedy);
        assert_eq!(declared(1, 750, 2).await.len(), 1);
    }
}
