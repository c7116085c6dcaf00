//! The log on its way to standard error: a queue of bounded size, and one thread that writes what is in it. A reader of standard
//! error that stalls holds up that thread, and no request but one that changes the storage: such a request waits, before its
//! change, for room for its line of the audit trail. Any other line that does not fit is dropped and counted. It knows lines,
//! and not what they say.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::flood;
use super::labels::LogLine;
use super::metrics::Metrics;
use crate::error::{Error, Kind, Result};

/// For how many bytes of the queue one line of a change may wait beside it.
const BYTES_A_CHANGE: usize = 1024;

/// How long to wait before another try if standard error takes nothing at the moment.
const PAUSE: Duration = Duration::from_millis(10);

/// The queue of this process.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

thread_local! {
    /// The room that was kept for the line which this thread is about to write.
    static ROOM: RefCell<Option<Room>> = const { RefCell::new(None) };
}

/// Room for one line that is not dropped.
#[derive(Debug)]
pub struct Room {
    /// `None` if it is not counted.
    _permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// Waits for room for one line, as long as may be.
    ///
    /// # Errors
    /// [`Kind::Overloaded`] if there was none in this time.
    pub async fn wait() -> Result<Room> {
        let Some(queue) = QUEUE.get() else { return Ok(Room::beyond()) };
        if let Ok(permit) = Arc::clone(&queue.changes).try_acquire_owned() {
            return Ok(Room { _permit: Some(permit) });
        }
        match tokio::time::timeout(queue.patience, Arc::clone(&queue.changes).acquire_owned()).await {
            Ok(permit) => permit.map(|permit| Room { _permit: Some(permit) }).map_err(Error::internal),
            Err(_) => {
                queue.is_stuck.store(true, Ordering::Relaxed);
                Err(Error::new(Kind::Overloaded)
                    .because("nobody reads the log, and it has no room for the audit trail"))
            }
        }
    }

    /// Room without a bound, for the second line of a change.
    pub fn beyond() -> Room {
        Room { _permit: None }
    }

    /// Writes one line into this room.
    pub fn write(self, line: impl FnOnce()) {
        ROOM.set(Some(self));
        line();
        // If the filter left the line out, the room is free.
        drop(ROOM.take());
    }
}

/// Whether a change was refused since there was no room for its line, and nothing was written after that.
pub fn is_stuck() -> bool {
    QUEUE.get().is_some_and(|queue| queue.is_stuck.load(Ordering::Relaxed))
}

/// Waits until all lines are written, or a time has passed.
pub fn flush(time: Duration) {
    if let Some(queue) = QUEUE.get() {
        let waiting = queue.waiting();
        drop(queue.written.wait_timeout_while(waiting, time, |waiting| waiting.held > 0));
    }
}

/// Lines that wait, and the thread that writes them.
#[derive(Debug)]
struct Queue {
    /// How many bytes may wait, beside the lines of changes.
    size: usize,
    patience: Duration,
    waiting: Mutex<Waiting>,
    filled: Condvar,
    written: Condvar,
    changes: Arc<Semaphore>,
    is_stuck: AtomicBool,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines of each kind.
    counts: [u64; LogLine::ALL.len()],
    rooms: Vec<Room>,
    /// How many bytes wait or are being written.
    held: usize,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, kind: LogLine, line: &[u8], room: Option<Room>) {
        let mut waiting = self.waiting();
        if room.is_none() && waiting.held + line.len() > self.size {
            drop(waiting);
            self.metrics.log_dropped(kind, 1);
            return;
        }
        // The thread waits only for the first line.
        let is_first = waiting.lines.is_empty();
        waiting.lines.extend_from_slice(line);
        waiting.counts[kind as usize] += 1;
        waiting.held += line.len();
        self.metrics.logged(line.len());
        waiting.rooms.extend(room);
        drop(waiting);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Writes what is put, for ever.
    fn write(&self, to: &mut impl Write) {
        let mut told = Instant::now();
        let mut lines = Vec::new();
        loop {
            let (rooms, counts) = {
                let mut waiting = self.waiting();
                if waiting.lines.is_empty() {
                    let empty = |waiting: &mut Waiting| waiting.lines.is_empty();
                    let waited = self.filled.wait_timeout_while(waiting, flood::SUMMARY, empty);
                    waiting = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                lines.clear();
                std::mem::swap(&mut waiting.lines, &mut lines);
                (std::mem::take(&mut waiting.rooms), std::mem::take(&mut waiting.counts))
            };
            if !lines.is_empty() {
                // Nothing can be said of what cannot be written, since it would be said there too. It is counted.
                if write_all(to, &lines).is_err() {
                    LogLine::ALL
                        .into_iter()
                        .zip(counts)
                        .for_each(|(kind, count)| self.metrics.log_dropped(kind, count));
                }
                drop(rooms);
                self.is_stuck.store(false, Ordering::Relaxed);
                self.waiting().held -= lines.len();
                self.written.notify_all();
            }
            if told.elapsed() >= flood::SUMMARY {
                told = Instant::now();
                flood::tell();
                self.metrics.tell_refusals();
            }
        }
    }
}

/// Writes all bytes, also where standard error is set not to block.
fn write_all(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Begins the thread that writes to standard error, unless there is one.
///
/// # Errors
/// There can be no thread.
pub(super) fn start(size: usize, patience: Duration, metrics: &Metrics) -> io::Result<()> {
    let queue = Arc::new(Queue::new(size, patience, metrics));
    if QUEUE.set(Arc::clone(&queue)).is_ok() {
        std::thread::Builder::new().name("log".to_owned()).spawn(move || queue.write(&mut io::stderr()))?;
    }
    Ok(())
}

impl Queue {
    fn new(size: usize, patience: Duration, metrics: &Metrics) -> Queue {
        Queue {
            size,
            patience,
            waiting: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
            changes: Arc::new(Semaphore::new(size / BYTES_A_CHANGE)),
            is_stuck: AtomicBool::new(false),
            metrics: metrics.clone(),
        }
    }
}

/// Writes each line into the queue, or to standard error if there is none.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines;

/// Writes one line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line(LogLine);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(LogLine::Other)
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line(match metadata.target() {
            "attachd::audit" => LogLine::Audit,
            "attachd::telemetry::request" => LogLine::Request,
            _ => LogLine::Other,
        })
    }
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match QUEUE.get() {
            Some(queue) => queue.put(self.0, line, ROOM.take()),
            None => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_do_not_fit_are_dropped_and_those_of_changes_are_not() {
        let queue = Queue::new(10, Duration::ZERO, &Metrics::default());
        queue.put(LogLine::Other, b"123456789", None);
        queue.put(LogLine::Request, b"ab", None);
        queue.put(LogLine::Other, b"c", None);
        queue.put(LogLine::Other, b"d", None);
        queue.put(LogLine::Audit, b"a change", Some(Room::beyond()));
        let waiting = queue.waiting();
        assert_eq!((&waiting.lines[..], waiting.held), (&b"123456789ca change"[..], 18));
    }

    #[test]
    fn a_line_is_written_whole_whatever_the_writer_takes_at_once() {
        struct Reluctant(Vec<u8>, usize);
        impl Write for Reluctant {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 % 3 {
                    0 => Err(io::ErrorKind::WouldBlock.into()),
                    1 => Err(io::ErrorKind::Interrupted.into()),
                    _ => {
                        self.0.push(bytes[0]);
                        Ok(1)
                    }
                }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut writer = Reluctant(Vec::new(), 0);
        write_all(&mut writer, b"all of it").unwrap();
        assert_eq!(writer.0, b"all of it");
    }
}
