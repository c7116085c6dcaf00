//! A download: a range of the content on its way to a caller, verified as it is read. It holds memory for what the caller has
//! not taken yet, two pieces at most, so that a slow caller holds little. A caller that is too slow is cut off.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::look_up::{Config, Reads, may_see};
use crate::attachment::{Content, Record, Target};
use crate::budget::{Reading, Reservation};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::pace::Pace;
use crate::request::{Call, RequestContext};
use crate::rights::{self, Stands};
use crate::store::{Address, ContentReader, Presented, Vanished};

/// How many pieces a caller may have that it has not taken yet.
const PIECES: usize = 2;

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
    config: Config,
    ended: CancellationToken,
    reader: ContentReader,
    memory: Reading,
    length: u64,
    /// The first piece, which was read before anything was promised to the caller.
    first: Option<(Bytes, Reservation)>,
}

/// A piece that the caller has not taken yet.
struct Piece {
    bytes: Bytes,
    _memory: Reservation,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Reads {
    /// Begins a download of what `plan` makes of the content that stands. The first piece of it is read, unless the caller is sent
    /// to the storage. Returns what the plan was, and what the caller is sent.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::NotFound`], what `plan` raises, [`Kind::Overloaded`], [`Kind::Draining`], and what storage
    /// raises.
    pub async fn download<T>(
        &self,
        call: &Call,
        target: Target,
        plan: impl Fn(&Content) -> Result<Plan<T>>,
    ) -> Result<(Record, T, Sent)> {
        let scope = Rpc::DownloadAttachment.row().scope;
        rights::decide(&call.caller, scope, target, Stands::Unread)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let readable = self.store.readable(target.key).await?;
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
            let mut download = Download {
                request: call.request.clone(),
                config: self.config,
                ended: self.ended.clone(),
                length: range.end - range.start,
                reader: self.store.read_content(readable, range)?,
                memory: self.memory.begin(),
                first: None,
            };
            match download.read().await {
                Ok(first) => {
                    download.first = first;
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

    /// The bytes, piece by piece. The request ends when the stream does.
    pub fn into_stream(self) -> impl Stream<Item = Result<Bytes>> + Send {
        let sending = Sending {
            download: self,
            pieces: Arc::new(Semaphore::new(PIECES)),
            pace: Pace::default(),
            handed: None,
            is_over: false,
        };
        stream::unfold(sending, async |mut sending| {
            if sending.is_over {
                return None;
            }
            let next = sending.next().await;
            let is_done = sending.download.reader.is_done();
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

    /// Reads the next piece, with memory for it.
    async fn read(&mut self) -> Result<Option<(Bytes, Reservation)>> {
        let piece = self.memory.piece();
        let memory = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            memory = self.memory.take(piece) => memory?,
        };
        let bytes = tokio::select! {
            biased;
            () = self.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            bytes = self.reader.next(piece) => bytes?,
        };
        Ok(bytes.map(|bytes| (bytes, memory)))
    }
}

/// A download that is being sent.
struct Sending {
    download: Download,
    /// One permit for each piece that the caller may have.
    pieces: Arc<Semaphore>,
    pace: Pace,
    /// When the last piece was handed on, and how many bytes it had.
    handed: Option<(Instant, u64)>,
    is_over: bool,
}

impl Sending {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let permit = self.taken().await?;
        let next = match self.download.first.take() {
            Some(first) => Some(first),
            None => self.download.read().await?,
        };
        let Some((bytes, mut memory)) = next else { return Ok(None) };
        memory.shrink(bytes.len());
        self.download.request.trail.sent(bytes.len());
        self.handed = Some((Instant::now(), bytes.len() as u64));
        Ok(Some(Bytes::from_owner(Piece { bytes, _memory: memory, _permit: permit })))
    }

    /// Waits until the caller has taken all but one of its pieces. Only this time counts against it.
    async fn taken(&mut self) -> Result<OwnedSemaphorePermit> {
        let Config { idle_timeout, min_rate, min_rate_window } = self.download.config;
        let too_slow = |why| Err(Error::new(Kind::ClientTooSlow).detail(why));
        let permit = tokio::select! {
            biased;
            () = self.download.ended.cancelled() => return Err(Error::new(Kind::Draining)),
            permit = timeout(idle_timeout, Arc::clone(&self.pieces).acquire_owned()) => permit,
        };
        let Ok(permit) = permit else {
            return too_slow(format!("nothing was read for {} s", idle_timeout.as_secs_f32()));
        };
        if let Some((handed, bytes)) = self.handed
            && !self.pace.keeps_up(handed.elapsed(), bytes, min_rate, min_rate_window)
        {
            return too_slow(format!("at least {min_rate} bytes a second must be read"));
        }
        permit.map_err(Error::internal)
    }
}
