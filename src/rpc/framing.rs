//! What stands before each message of a call: whether it is compressed, and its length. It must not know what messages say.

use bytes::{Buf, BytesMut};

use crate::error::{Error, Kind, Result};

/// How many bytes stand before each message: a flag and a length.
pub(super) const PREFIX: usize = 5;

/// The largest chunk, in bytes. A larger one is refused.
pub const MAX_CHUNK: usize = 4 << 20;

/// The largest gRPC message, in bytes. What it has over [`MAX_CHUNK`] is room for the framing of a chunk.
pub const MAX_MESSAGE: usize = MAX_CHUNK + (64 << 10);

/// The largest gRPC message, in bytes, that is more or other than one chunk: it is put together in memory that no budget counts.
/// A header with the longest name and media type has less than 1 KiB.
pub const MAX_WHOLE_MESSAGE: usize = 64 << 10;

/// The compression that a call names in `grpc-encoding`. Only messages whose flag is set are compressed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// None.
    Identity,
    /// One that is not supported.
    Unsupported,
}

impl Encoding {
    /// What the value of `grpc-encoding` names.
    pub fn named(value: Option<&[u8]>) -> Encoding {
        match value {
            None | Some(b"identity") => Encoding::Identity,
            Some(_) => Encoding::Unsupported,
        }
    }
}

/// Takes the prefix of a message off `arrived`, which has at least [`PREFIX`] bytes, and returns how many bytes the message has.
///
/// # Errors
/// [`Kind::Invalid`] where the message has more than `most` bytes, or a flag that means nothing;
/// [`Kind::UnsupportedCompression`].
pub(super) fn length(arrived: &mut BytesMut, encoding: Encoding, most: usize) -> Result<usize> {
    let flag = arrived.get_u8();
    let length = usize::try_from(arrived.get_u32()).unwrap_or(usize::MAX);
    match (flag, encoding) {
        (0, _) => {}
        (1, Encoding::Unsupported) => {
            return Err(Error::new(Kind::UnsupportedCompression).detail("send messages without compression"));
        }
        // compression.md of gRPC asks for INTERNAL, which is what a defect of the server looks like.
        (1, Encoding::Identity) => {
            return Err(Error::invalid("a message is marked as compressed, but grpc-encoding names no compression"));
        }
        _ => return Err(Error::invalid(format!("the flag before a message must be 0 or 1, not {flag}"))),
    }
    if length > most {
        return Err(Error::invalid(format!("a message must be at most {most} bytes")));
    }
    Ok(length)
}

/// A stream that ended within a message.
pub(super) fn cut_short() -> Error {
    Error::new(Kind::Incomplete).detail("the stream was cut short")
}

/// A chunk of more than [`MAX_CHUNK`] bytes.
pub(super) fn chunk_too_large() -> Error {
    Error::invalid_field("chunk", format!("must be at most {MAX_CHUNK} bytes"))
}
