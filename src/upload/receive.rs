//! How content comes in: pieces are taken from whoever sends them, within the limits on size and time, and gathered into batches,
//! which are handed to the storage, the last one with the commit. Memory is taken for a batch before it is read. This module does not
//! know where the pieces come from.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Instant;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;
use tracing::field::Empty;

use super::alarm::Alarm;
use super::batch::{Batch, COPIED};
use super::{Admitted, Commit, Config, Declared, Header, Piece, Uploads, size_mismatch};
use crate::attachment::{Id, Record};
use crate::budget::{Claim, Rank, Reservation};
use crate::error::{Error, Kind, Result};
use crate::fair::Turn;
use crate::pace::Pace;
use crate::places::Place;
use crate::rate::Bucket;
use crate::store::{ContentWriter, Receipt, Sealed, Standing, Step, WRITE};
use crate::telemetry::{SPANS, Trail};
use crate::throttle::Meter;

/// By how much the last piece of a batch may be expected to pass its size, in bytes. Where one passes it by more, the memory for that
/// is taken when it is there.
const PIECE: usize = 64 << 10;

/// How long gathered bytes wait for more before they are written: a slow upload shall not sit on memory that others need.
const LINGER: Duration = Duration::from_millis(100);

/// How long they do while memory is scarce.
const HURRY: Duration = Duration::from_millis(5);

/// What a piece costs, in bytes: one of so many pays for itself. A chunk over gRPC comes in two.
const GRAIN: u64 = 32;

/// How many pieces a millisecond are free, and how many of them may come at once.
const FREE: u64 = 2;
const AT_ONCE: u64 = 20_000;

impl Uploads {
    /// Takes the content and stores it: all of it, verified and durable, or nothing.
    ///
    /// # Errors
    /// [`Kind::Incomplete`] where `pieces` ends without a finish, what `pieces` raises, [`Kind::TooLarge`],
    /// [`Kind::SizeMismatch`], [`Kind::DigestMismatch`], [`Kind::Overloaded`], [`Kind::ClientTooSlow`], [`Kind::Draining`], and what storage raises.
    pub async fn receive<S>(&self, mut admitted: Admitted, header: Header, pieces: S) -> Result<Receipt>
    where
        S: Stream<Item = Result<Piece>>,
    {
        self.fits(header.declared.size)?;
        let known = admitted.at_most;
        if known.is_some_and(|known| known > COPIED as u64) {
            admitted.turn = None;
        }
        let claim = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            claim = self.claim(admitted.target.key.client, known) => claim?,
        };
        let mut upload = Upload::begin(self, &mut admitted, header.declared, claim);
        let pieces = pin!(pieces);
        let receiving = tracing::info_span!(target: SPANS, "receive", size_bytes = Empty);
        let pumped = tokio::select! {
            biased;
            () = self.ended.cancelled() => Err(Error::new(Kind::Draining)),
            pumped = upload.pump(pieces).instrument(receiving.clone()) => pumped,
        };
        receiving.record("size_bytes", upload.size);
        drop(receiving);
        match pumped {
            Ok(declared) => {
                let Admitted { call, target, conditions, standing, place, .. } = admitted;
                let commit = Commit { config: self.config, call, target, conditions, header, declared };
                upload.finish(commit, *standing, place).await
            }
            // In a box, since this future would have room for it as long as content arrives.
            Err(error) => Err(Box::pin(upload.abort(error)).await),
        }
    }

    /// What an upload of at most `known` bytes keeps to its end, where the storage keeps something. Where it is not known how much
    /// that is, it holds nothing yet.
    async fn claim(&self, client: Id, known: Option<u64>) -> Result<Option<Arc<Claim>>> {
        match (self.store.kept_by_upload(known), known) {
            (0, _) => Ok(None),
            (bytes, Some(_)) => Ok(Some(Arc::new(self.budget.keep(client, bytes).await?))),
            (_, None) => Ok(Some(Arc::new(self.budget.claim(client)))),
        }
    }

    pub(super) fn fits(&self, size: Option<u64>) -> Result<()> {
        match size {
            Some(size) if size > self.config.max_upload_size => Err(Error::new(Kind::TooLarge)
                .detail(format!("at most {} bytes are permitted", self.config.max_upload_size))),
            _ => Ok(()),
        }
    }
}

/// An upload whose content is arriving. Dropping it takes back what was written.
struct Upload<'a> {
    uploads: &'a Uploads,
    /// Whose turn it takes.
    client: Id,
    /// When it gets memory, among the uploads of the client.
    rank: Rank,
    writer: ContentWriter,
    /// What the writer keeps to the end, where it keeps something.
    claim: Option<Arc<Claim>>,
    declared: Declared,
    /// The most that can arrive, in bytes, where that is known.
    known: Option<u64>,
    trail: Trail,
    meter: Meter,
    size: u64,
    batch: Batch,
    /// Held while a batch is gathered, and not while a slow client, memory or the storage is waited for.
    turn: Option<Turn>,
    flow: Flow,
    /// Since when the batch has memory.
    since: Instant,
    pace: Pace,
    /// What pieces that are too small to pay for themselves may still cost.
    grain: Bucket,
    alarm: Alarm,
    /// Counts the upload as in flight. It goes last.
    begun: TaskTrackerToken,
}

/// What is likely to come next, by what came before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    /// A whole batch: the last one was whole, or the length of all says so.
    Whole,
    /// Nobody knows.
    Unknown,
    /// Little: the last batch ended at a pause.
    Little,
}

/// The next piece. The turn ends if the piece has not arrived yet, unless it is to be kept.
fn arriving<S: Stream>(
    mut pieces: Pin<&mut S>,
    turn: &mut Option<Turn>,
    keeps_turn: bool,
) -> impl Future<Output = Option<S::Item>> {
    poll_fn(move |context| {
        let piece = pieces.as_mut().poll_next(context);
        if piece.is_pending() && !keeps_turn {
            *turn = None;
        }
        piece
    })
}

/// What a caller is told that sends the finish and then waits for the reply without ending its stream.
fn left_open(error: Error) -> Error {
    if error.kind() != Kind::ClientTooSlow {
        return error;
    }
    Error::new(Kind::ClientTooSlow)
        .detail("the finish has arrived, but the stream is still open; half-close the stream after the finish")
        .because(error)
}

impl<'a> Upload<'a> {
    /// An upload that was admitted. `claim` is to the memory that it keeps to its end.
    fn begin(uploads: &'a Uploads, admitted: &mut Admitted, declared: Declared, claim: Option<Arc<Claim>>) -> Self {
        let Admitted { call, target, turn, room, at_most: known, .. } = admitted;
        let (turn, room, known) = (turn.take(), std::mem::take(room), *known);
        let trail = call.request.trail.clone();
        let writer = uploads.store.begin(target.key, room, claim.clone());
        trail.writes(writer.id());
        let now = Instant::now();
        Upload {
            uploads,
            client: target.key.client,
            rank: uploads.budget.rank(),
            writer,
            claim,
            declared,
            known,
            trail,
            meter: uploads.throttle.meter(target.key.client),
            size: 0,
            batch: Batch::default(),
            turn,
            flow: if known.is_some_and(|size| size > COPIED as u64) { Flow::Whole } else { Flow::Unknown },
            since: now,
            pace: Pace::default(),
            grain: Bucket::full(FREE * GRAIN, AT_ONCE * GRAIN, now.into_std()),
            alarm: Alarm::default(),
            begun: uploads.tasks.token(),
        }
    }

    /// Takes pieces until the finish, and looks that nothing comes after it.
    async fn pump<S>(&mut self, mut pieces: Pin<&mut S>) -> Result<Declared>
    where
        S: Stream<Item = Result<Piece>>,
    {
        let deadline = Instant::now() + self.uploads.config.max_upload_time;
        loop {
            self.reserve().await?;
            match self.next(pieces.as_mut(), deadline).await? {
                Some(Piece::Chunk(bytes)) => self.chunk(bytes).await?,
                Some(Piece::Finish(declared)) => {
                    return match self.next(pieces, deadline).await.map_err(left_open)? {
                        None => Ok(declared),
                        Some(_) => Err(Error::invalid("a message came after the finish")),
                    };
                }
                None => return Err(Error::new(Kind::Incomplete).detail("the upload ended before it was finished")),
            }
        }
    }

    /// The next piece, from a caller that keeps up. Only the time in which it is waited for counts: what the storage or the
    /// budget takes is not the caller's.
    async fn next<S>(&mut self, pieces: Pin<&mut S>, deadline: Instant) -> Result<Option<Piece>>
    where
        S: Stream<Item = Result<Piece>>,
    {
        let asked = Instant::now();
        self.grain.refill(asked.into_std());
        let (piece, waited) = self.arrival(pieces, deadline).await?;
        let waited = waited.saturating_sub(self.uploads.presence.missed(asked));
        let bytes = if let Some(Piece::Chunk(bytes)) = &piece { bytes.len() as u64 } else { 0 };
        let Config { min_rate, min_rate_window, .. } = self.uploads.config;
        if !self.pace.keeps_up(waited, bytes, min_rate, min_rate_window) {
            return Err(
                Error::new(Kind::ClientTooSlow).detail(format!("at least {min_rate} bytes a second must arrive"))
            );
        }
        Ok(piece)
    }

    /// The next piece, and how long the caller was waited for.
    async fn arrival<S>(&mut self, mut pieces: Pin<&mut S>, deadline: Instant) -> Result<(Option<Piece>, Duration)>
    where
        S: Stream<Item = Result<Piece>>,
    {
        let asked = Instant::now();
        // A timer is looked at only while nothing arrives, and a little could arrive for ever.
        if asked >= deadline {
            return Err(self.uploads.config.late());
        }
        let mut lingered = Duration::ZERO;
        if self.batch.memory() > 0 {
            let linger = if self.uploads.budget.is_scarce() { HURRY } else { LINGER };
            // After a pause, the next piece is not expected within this turn.
            let keeps_turn = self.flow != Flow::Little;
            let next = arriving(pieces.as_mut(), &mut self.turn, keeps_turn);
            if let Some(piece) = self.alarm.until(asked + linger, next).await {
                return Ok((piece.transpose()?, asked.elapsed()));
            }
            lingered = asked.elapsed();
            self.flow = Flow::Little;
            self.flush().await?;
        }
        let asked = Instant::now();
        let mut idle = asked + self.uploads.config.idle_timeout;
        loop {
            let next = arriving(pieces.as_mut(), &mut self.turn, false);
            match self.alarm.until(idle.min(deadline), next).await {
                Some(piece) => return Ok((piece.transpose()?, lingered + asked.elapsed())),
                None if deadline < idle => return Err(self.uploads.config.late()),
                None => idle = self.uploads.still_idle(asked, idle)?,
            }
        }
    }

    async fn chunk(&mut self, bytes: Bytes) -> Result<()> {
        // Each costs the server much the same, whatever it has.
        self.grain.earn(bytes.len() as u64);
        if !self.grain.pay(GRAIN) {
            return Err(Error::invalid("too many chunks have less than 64 bytes; send larger chunks"));
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.size += bytes.len() as u64;
        self.trail.received(bytes.len());
        self.meter.passed(bytes.len());
        self.uploads.fits(Some(self.size))?;
        if let Some(declared) = self.declared.size.filter(|declared| self.size > *declared) {
            return Err(size_mismatch(declared, "more"));
        }
        self.take_turn(bytes.len()).await;
        self.make_room(bytes.len()).await?;
        self.batch.push(bytes);
        if self.batch.is_full(WRITE) {
            self.flush().await?;
            self.flow = Flow::Whole;
        } else if self.since.elapsed() > LINGER && self.uploads.budget.is_scarce() {
            // Who sends a little all the time never pauses.
            self.flow = Flow::Little;
            self.flush().await?;
        }
        Ok(())
    }

    /// Waits for the memory of a whole batch before any of it is read, where a batch is likely to come: until then it stays with
    /// the system or with the caller.
    async fn reserve(&mut self) -> Result<()> {
        let bytes = self.likely(WRITE + PIECE);
        if self.flow != Flow::Whole || bytes <= COPIED {
            return Ok(());
        }
        self.flow = Flow::Unknown;
        // Whoever would have to wait for what is kept looks first at what comes: it may be the finish, which needs none.
        if !self.try_grow(self.likely(WRITE)) {
            return Ok(());
        }
        self.turn = None;
        let memory = {
            let mut memory = pin!(self.uploads.budget.take(self.client, &mut self.rank, bytes));
            tokio::select! {
                biased;
                // What was handed on may fail or outlive its time meanwhile.
                written = self.writer.ready() => {
                    written?;
                    memory.await
                }
                memory = &mut memory => memory,
            }
        };
        self.grant(memory?);
        Ok(())
    }

    fn grant(&mut self, memory: Reservation) {
        if self.batch.memory() == 0 {
            self.since = Instant::now();
        }
        self.batch.extend(memory);
    }

    /// Sees to it that there is memory for a piece that has arrived, and for what is likely to follow at once.
    async fn make_room(&mut self, length: usize) -> Result<()> {
        let Uploads { budget, store, .. } = self.uploads;
        let (kept, short) = (self.try_grow(0), self.batch.short(length));
        if kept && short == 0 {
            return Ok(());
        }
        // A large piece is rarely the last that there is to read, unless it was so before; and many pieces mean more of them.
        let gathered = self.batch.size();
        let most = (WRITE + PIECE).saturating_sub(gathered + length);
        let whole = length > COPIED && self.flow != Flow::Little;
        let ahead = self.likely(if whole { most } else { gathered.min(most) });
        if kept && let Some(taken) = budget.try_take(short + ahead).or_else(|| budget.try_take(short)) {
            self.grant(taken);
            return Ok(());
        }
        // Nobody may wait for memory while holding some, or all could wait for each other.
        self.turn = None;
        self.flush().await?;
        self.writer.ready().await?;
        if let Some(claim) = &self.claim {
            // In a box, since all uploads would have room for it.
            Box::pin(budget.grow(claim, store.kept_by_upload(Some(self.size)))).await?;
        }
        let memory = budget.take(self.client, &mut self.rank, length + ahead).await?;
        self.grant(memory);
        Ok(())
    }

    /// Whether there is what is to be kept of all that has come and of `ahead` bytes more, after it was taken if it is free now.
    fn try_grow(&self, ahead: usize) -> bool {
        let Uploads { budget, store, .. } = self.uploads;
        let grow = |claim: &Arc<Claim>| budget.try_grow(claim, store.kept_by_upload(Some(self.size + ahead as u64)));
        self.claim.as_ref().is_none_or(grow)
    }

    /// Waits for a turn for a piece, which is for the rest of a batch at most.
    async fn take_turn(&mut self, length: usize) {
        if self.size == length as u64 && length > COPIED {
            self.turn = None;
        }
        if self.turn.is_none() {
            let bytes = self.likely(WRITE.saturating_sub(self.batch.size())).max(length);
            self.turn = Some(self.uploads.turns.take(self.client, bytes).await);
        }
    }

    /// How many of `bytes` there can be at most among those that are to arrive.
    fn likely(&self, bytes: usize) -> usize {
        let left = self.known.map_or(u64::MAX, |known| known.saturating_sub(self.size));
        bytes.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Has what was gathered written, and gives back what memory there is beside it.
    async fn flush(&mut self) -> Result<()> {
        let (bytes, memory) = self.batch.take();
        if bytes.is_empty() {
            return Ok(());
        }
        self.turn = None;
        self.writer.write(bytes, memory).await
    }

    /// Commits what was received.
    async fn finish(mut self, commit: Commit, standing: Standing, place: Place) -> Result<Receipt> {
        let (bytes, memory) = self.batch.take();
        if let Some(claim) = self.claim.take() {
            claim.settle(self.uploads.store.kept_by_upload(Some(self.size)));
        }
        let Upload { uploads, writer, begun, turn, .. } = self;
        let (store, tasks) = (Arc::clone(&uploads.store), uploads.tasks.clone());
        let request = commit.call.request.clone();
        let commit = Arc::new(commit);
        let verifies = Arc::clone(&commit);
        let verify = move |size, sha256| verifies.verify(size, sha256);
        let decide = move |stands: Option<&Record>, sealed: &Sealed| commit.record(stands, sealed);
        let span = tracing::info_span!(target: SPANS, "commit");
        let metrics = request.trail.metrics().clone();
        let commit = |settled| async move {
            let _place = place;
            let began = Instant::now();
            let committed = writer.commit(standing, bytes, memory, verify, decide, settled).await;
            metrics.committed(committed.as_ref().err().map(Error::kind), began.elapsed());
            let mut receipt = committed?;
            store.passed(Step::Replying);
            let replaced = receipt.take_replaced();
            if !replaced.is_empty() {
                // The caller does not wait for the tidying.
                tasks.spawn(async move { store.retire(replaced).await });
            }
            Ok(receipt)
        };
        let committed = uploads.change(&request, |settled| commit(settled).instrument(span));
        // It counts itself from here on, and waits for its turn at the storage.
        drop((begun, turn));
        committed.await
    }

    /// Takes back what was written, and returns the error that it is for once that is done.
    async fn abort(self, error: Error) -> Error {
        self.writer.abort().await;
        error
    }
}
