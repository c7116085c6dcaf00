//! A pool of memory, and what is taken from it. It must not know what the memory is for.

use std::sync::Arc;

use crate::attachment::Id;
use crate::error::{Error, Result};
use crate::fair::{Permit, Semaphore};
use bytesize::ByteSize;

/// The unit in which memory is handed out, in bytes.
pub(super) const UNIT: usize = 1024;

/// How many quarters there are.
pub(super) const QUARTERS: usize = 4;

/// How many units so much memory has.
pub(super) fn units(memory: ByteSize) -> usize {
    let bytes = usize::try_from(memory.as_u64()).unwrap_or(usize::MAX);
    bytes / UNIT
}

/// Memory that is for one use.
#[derive(Debug)]
pub(super) struct Pool {
    free: Arc<Semaphore>,
    units: usize,
}

impl Pool {
    pub(super) fn new(units: usize) -> Pool {
        Pool { free: Semaphore::new(units), units }
    }

    pub(super) fn try_take(&self, bytes: usize) -> Option<Reservation> {
        self.free.try_acquire(self.units_of(bytes)).map(|permit| Reservation(Some(permit)))
    }

    /// Whether there could ever be so many bytes.
    pub(super) fn has(&self, bytes: usize) -> bool {
        bytes.div_ceil(UNIT) <= self.units
    }

    /// Takes `bytes` if they are free now, and not less where there are never as many.
    pub(super) fn try_take_all(&self, bytes: usize) -> Option<Reservation> {
        self.has(bytes).then(|| self.try_take(bytes)).flatten()
    }

    /// How many wait for some of it.
    pub(super) fn waiting(&self) -> usize {
        self.free.waiting()
    }

    pub(super) fn used_bytes(&self) -> usize {
        (self.units - self.free.free()) * UNIT
    }

    /// Takes `bytes` for a client, waiting for its turn, and for those of the client with a lower rank.
    pub(super) async fn take(&self, client: Id, rank: u64, bytes: usize) -> Result<Reservation> {
        let permit = self.free.acquire(client, rank, bytes, self.units_of(bytes)).await;
        permit.map(|permit| Reservation(Some(permit))).map_err(Error::internal)
    }

    /// Whether less than half of it is free.
    pub(super) fn is_scarce(&self) -> bool {
        self.free.free() < self.units / 2
    }

    /// Bytes that there are.
    pub(super) fn total_bytes(&self) -> usize {
        self.units * UNIT
    }

    /// A request for more than there is would wait for ever, so it is cut to the whole pool.
    fn units_of(&self, bytes: usize) -> usize {
        bytes.div_ceil(UNIT).min(self.units)
    }
}

/// Memory that was taken from the budget, by default none; dropping it gives it back.
#[derive(Debug, Default)]
pub struct Reservation(Option<Permit>);

impl Reservation {
    /// Joins another reservation to this one.
    pub fn merge(&mut self, other: Reservation) {
        match (&mut self.0, other.0) {
            (Some(mine), Some(theirs)) => mine.merge(theirs),
            (mine @ None, theirs) => *mine = theirs,
            (Some(_), None) => {}
        }
    }

    /// How many bytes it is of, rounded up to whole units.
    pub fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |permit| permit.permits() * UNIT)
    }

    /// Gives back all but `bytes`, rounded up.
    pub fn shrink(&mut self, bytes: usize) {
        if let Some(permit) = &mut self.0 {
            permit.shrink(bytes.div_ceil(UNIT));
        }
    }
}
