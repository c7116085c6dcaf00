//! The words of the domain: ids, names, digests, the record of an attachment. Every type here holds only values that were
//! found to be good, so whoever is handed one need not ask again. This module knows neither HTTP nor gRPC nor storage.

mod digest;
mod id;
mod name;
mod record;
mod tags;

pub use digest::Digest;
pub use id::{Id, Key, Target, UploadId};
pub use name::{Filename, MediaType};
pub use record::{Content, Record, Segment, SegmentId, State};
pub use tags::Tags;
