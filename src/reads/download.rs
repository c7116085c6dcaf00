//! A download: a range of the content on its way to a caller, verified as it is read. It holds memory for what the caller has
//! not taken yet, two pieces at most, so that a slow caller holds little. A large piece is handed on in parts, and the next piece
//! is read while the last part is sent. A caller that is too slow is cut off.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::ahead::Pieces;
use super::look_up::{Config, Reads, may_see};
use crate::attachment::{Content, Record, Target};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::pace::Pace;
use crate::places::Place;
use crate::request::{Call, RequestContext};
use crate::store::{Address, Presented, Vanished};
use crate::throttle::Meter;

/// How many parts a caller may have that it has not taken yet.
const PARTS: u32 = 2;

/// How long a slow caller makes a download wait for a part at least.
const SLOW: Duration = Duration::from_millis(100);

/// The largest part, in bytes. Two of them are no more than hyper buffers for one connection of HTTP/1.1, so a caller that reads
/// nothing is noticed.
const PART: usize = 128 << 10;

/// How often a download begins anew since the content was replaced before its first byte was read.
const TRIES: usize = 8;

/// What is to be sent of the content that stands.
#[derive(Clone, Debug)]
pub struct Plan<T> {
    /// The bytes. `None` to read nothing.
    pub range: Option<Range<u64>>,
    /// How the storage is to send the content by itself, in place of a range. Only for content in one object of its own.
    pub redirect: Option<Presented>,
    /// What else the caller is to be told.
    pub reply: T,
}

/// What a caller is sent.
pub enum Sent {
    /// No content.
    Nothing,
    /// The range, from here.
    Here(Box<Download>),
    /// The address at which the storage sends the content.
    Elsewhere(Address),
}

impl Sent {
    /// What is sent from here, if anything is.
    pub fn here(self) -> Option<Download> {
        match self {
            Sent::Here(download) => Some(*download),
            Sent::Nothing | Sent::Elsewhere(_) => None,
        }
    }
}

/// Content that is about to be sent.
pub struct Download {
    request: RequestContext,
    meter: Meter,
    config: Config,
    ended: CancellationToken,
    pieces: Pieces,
    length: u64,
    /// What is left of a piece. The first one was read before anything was promised to the caller.
    piece: Bytes,
    /// It goes last, when the file is closed.
    _place: Place,
}

/// A part that the caller has not taken yet.
struct Part {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Part {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Reads {
    /// Begins a download of what `plan` makes of the content that stands. The first piece of it is read, unless the caller is sent
    /// to the storage. Returns what the plan was, and what the caller is sent.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::NotFound`], what `plan` raises, [`Kind::Overloaded`], [`Kind::Draining`], and what storage
    /// raises.
    pub async fn download<T>(
        &self,
        call: &Call,
        target: Target,
        plan: impl Fn(&Content) -> Result<Plan<T>>,
    ) -> Result<(Record, T, Sent)> {
        let scope = Rpc::DownloadAttachment.row().scope;
        self.permit(call, Rpc::DownloadAttachment, target)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let turn = self.turns.take(target.key.client, 0).await;
            let readable = self.store.readable(target.key).await?;
            drop(turn);
            let record = may_see(call, scope, target, readable.as_ref().map(|readable| readable.record()))?.clone();
            let none = || Error::new(Kind::NotFound).detail("the attachment has no content");
            let Plan { range, redirect, reply } = plan(record.content().ok_or_else(none)?)?;
            if let Some(presented) = redirect {
                let address = self.store.address(&record, &presented).await?;
                call.request.audit.redirected();
                return Ok((record, reply, Sent::Elsewhere(address)));
            }
            let (Some(range), Some(readable)) = (range.filter(|range| !range.is_empty()), &readable) else {
                call.request.audit.done();
                return Ok((record, reply, Sent::Nothing));
            };
            // What is answered without content needs none.
            let place = self.places.take(target.key.client, call.request.trail.metrics(), |_| Ok(()))?;
            let (request, ended, length) = (call.request.clone(), self.ended.clone(), range.end - range.start);
            let reader = self.store.read_content(readable, range)?;
            let mut pieces = Pieces::new(reader, self.memory.begin(target.key.client), ended.clone());
            match pieces.next().await {
                Ok(first) => {
                    let (config, piece) = (self.config, first.unwrap_or_default());
                    let meter = self.throttle.meter(target.key.client);
                    let download = Download { request, meter, config, ended, pieces, length, piece, _place: place };
                    return Ok((record, reply, Sent::Here(Box::new(download))));
                }
                // It was replaced or deleted after its record was read.
                Err(error) if error.source_as::<Vanished>().is_some() && tries < TRIES => {
                    let stands = self.store.record(target.key).await?;
                    if stands.record() == Some(&record) {
                        return Err(self.store.lost(error));
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Download {
    /// How many bytes are sent.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Whether all of it was handed on.
    fn is_done(&self) -> bool {
        self.piece.is_empty() && self.pieces.is_done()
    }

    /// The bytes, piece by piece. The request ends when the stream does.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        let sending = Sending {
            download: self,
            parts: Arc::new(Semaphore::new(PARTS as usize)),
            pace: Pace::default(),
            handed: None,
            is_over: false,
        };
        stream::unfold(sending, async |mut sending| {
            if sending.is_over {
                return None;
            }
            let next = sending.next().await;
            let is_done = sending.download.is_done();
            let audit = &sending.download.request.audit;
            match &next {
                // Nobody may ask for what comes after the last byte.
                Ok(_) if is_done => audit.done(),
                Ok(_) => {}
                Err(error) => audit.refused(error),
            }
            sending.is_over = is_done || next.is_err();
            next.transpose().map(|next| (next, sending))
        })
    }
}

/// A download that is being sent.
struct Sending {
    download: Download,
    /// One permit for each part that the caller may have.
    parts: Arc<Semaphore>,
    pace: Pace,
    /// When the last part was handed on, and how many bytes it had.
    handed: Option<(Instant, u64)>,
    is_over: bool,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let permit = self.taken().await?;
        let download = &mut self.download;
        if download.piece.is_empty() {
            match download.pieces.next().await? {
                Some(piece) => download.piece = piece,
                None => return Ok(None),
            }
        }
        let is_whole = download.piece.len() <= PART;
        let bytes = download.piece.split_to(download.piece.len().min(PART));
        // Not beside a piece that is one part: the caller may have two of them.
        if !is_whole && download.piece.is_empty() && !download.is_done() {
            download.pieces.begin().await;
        }
        download.request.trail.sent(bytes.len());
        download.meter.passed(bytes.len());
        self.handed = Some((Instant::now(), bytes.len() as u64));
        Ok(Some(Bytes::from_owner(Part { bytes, _permit: permit })))
    }

    /// Waits until the caller has taken all but one of its parts, or all of them if it is slow or many downloads are active. Only
    /// this time counts against it.
    async fn taken(&mut self) -> Result<OwnedSemaphorePermit> {
        let Config { idle_timeout, min_rate, min_rate_window, .. } = self.download.config;
        let parts = if self.download.pieces.is_one_at_a_time() { PARTS } else { 1 };
        let asked = Instant::now();
        let too_slow = |why| Err(Error::new(Kind::ClientTooSlow).detail(why));
        let permit = tokio::select! {
            biased;
            () = self.download.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            permit = timeout(idle_timeout, Arc::clone(&self.parts).acquire_many_owned(parts)) => permit,
        };
        let Ok(permit) = permit else {
            return too_slow(format!("nothing was read for {} s", idle_timeout.as_secs_f32()));
        };
        self.download.pieces.is_slow = asked.elapsed() >= SLOW;
        if let Some((handed, bytes)) = self.handed
            && !self.pace.keeps_up(handed.elapsed(), bytes, min_rate, min_rate_window)
        {
            return too_slow(format!("at least {min_rate} bytes a second must be read"));
        }
        permit.map_err(Error::internal)
    }
}
