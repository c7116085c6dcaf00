//! The bytes of a download so far: where they are written, how many there are, and their digest.

use std::io::{self, ErrorKind, Write};

use aws_lc_rs::digest::{Context, SHA256};

use super::super::failure::Failure;
use super::super::out;
use super::super::remote::Failed;
use super::content::Content;
use super::part::Part;
use crate::pb::download_attachment_response::Message;

/// Why receiving stopped.
#[derive(Debug)]
pub enum Stopped {
    /// The request failed.
    Failed(Failed),
    /// Something failed on this side.
    Here(Failure),
}

impl From<Failed> for Stopped {
    fn from(failed: Failed) -> Stopped {
        Stopped::Failed(failed)
    }
}

/// The bytes so far.
pub struct Received {
    to: To,
    bytes: u64,
    hash: Context,
    /// Whether some of the bytes are from an earlier run.
    continued: bool,
}

enum To {
    Part(Part),
    StandardOutput,
}

impl Received {
    /// Nothing yet, on the way to standard output.
    pub fn on_standard_output() -> Received {
        Received { to: To::StandardOutput, bytes: 0, hash: Context::new(&SHA256), continued: false }
    }

    /// What an interrupted run has left of the same content, hashed again.
    pub fn in_part(mut part: Part, content: &Content) -> Result<Received, Failure> {
        let mut hash = Context::new(&SHA256);
        let bytes = part.resume(content, |bytes| hash.update(bytes))?;
        Ok(Received { to: To::Part(part), bytes, hash, continued: bytes > 0 })
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the next message of a download. Returns how many bytes it had.
    pub fn take(&mut self, content: &Content, message: Option<Message>) -> Result<u64, Stopped> {
        let unexpected = |what: &str| Err(Failed::here(format!("the server sent {what}")).into());
        let chunk = match message {
            Some(Message::Chunk(chunk)) => chunk,
            Some(Message::Header(header)) => {
                let sha256 = header.attachment.and_then(|attachment| attachment.sha256);
                let is_expected = sha256.as_deref() == Some(&content.sha256.as_bytes()[..])
                    && u64::try_from(header.offset) == Ok(self.bytes);
                return if is_expected { Ok(0) } else { unexpected("another range or content than was asked for") };
            }
            None => return unexpected("a message without content"),
        };
        let length = chunk.len() as u64;
        if self.bytes + length > content.size {
            return unexpected("more bytes than the content has");
        }
        match &mut self.to {
            To::Part(part) => part.append(&chunk).map_err(Stopped::Here)?,
            To::StandardOutput => write(&chunk).map_err(Stopped::Here)?,
        }
        self.hash.update(&chunk);
        self.bytes += length;
        Ok(length)
    }

    /// Compares all of the content with its digest. Bytes of an earlier run that are wrong are given up, and may be received
    /// anew.
    pub fn verify(&mut self, content: &Content) -> Result<(), Stopped> {
        let digest = self.hash.clone().finish();
        if digest.as_ref() == content.sha256.as_bytes() {
            return Ok(());
        }
        let failed = Failed::here(format!("the digest of the received content is not {}", content.sha256));
        let To::Part(part) = &mut self.to else {
            return Err(failed.into());
        };
        part.restart(content).map_err(Stopped::Here)?;
        (self.bytes, self.hash) = (0, Context::new(&SHA256));
        let continued = std::mem::take(&mut self.continued);
        Err(if continued { failed.passing().and("; an interrupted run left wrong bytes") } else { failed }.into())
    }

    /// Ends a download whose content is verified.
    pub fn finish(self) -> Result<(), Failure> {
        match self.to {
            To::Part(part) => part.publish(),
            To::StandardOutput => Ok(()),
        }
    }

    /// Ends a download that failed. Returns what is left of it, in words. `is_useful` says whether the same command can
    /// continue.
    pub fn abandon(self, content: &Content, is_useful: bool) -> Result<String, Failure> {
        let (bytes, size) = (self.bytes, content.size);
        match self.to {
            To::StandardOutput if bytes == 0 => Ok(String::new()),
            To::StandardOutput => Ok(format!("; {bytes} of {size} bytes were written")),
            To::Part(part) if is_useful && bytes > 0 => {
                Ok(format!("; {bytes} of {size} bytes are in {}, and the same command continues there", part.shown()))
            }
            To::Part(part) => part.discard().map(|()| String::new()),
        }
    }
}

/// Writes to standard output. Without a reader there is no reason to go on.
fn write(chunk: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(chunk).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::unread(),
        _ => out::unwritable(&error),
    })
}
