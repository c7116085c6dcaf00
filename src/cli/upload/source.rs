//! What is uploaded: a file, a pipe or standard input, as the messages of an upload. It knows how far it was read, and
//! whether it can be read again.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest;
use bytes::Bytes;
use futures_util::{Stream, stream};
use indicatif::ProgressBar;

use super::super::failure::Failure;
use crate::pb::upload_attachment_request::Message;
use crate::pb::{UploadAttachmentRequest, UploadFinish, UploadHeader};

/// The size of the chunks that are sent, in bytes.
const CHUNK: usize = 1 << 20;

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Something that can be uploaded.
#[derive(Debug)]
pub struct Source {
    file: Arc<File>,
    /// Where the content begins; `None` if it can be read once only, as that of a pipe.
    begin: Option<u64>,
    /// The size of the content in bytes, if it can be trusted.
    pub size: Option<u64>,
    /// Whether reading it has begun.
    begun: bool,
}

/// How far the reading of a source has come. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Reading(Arc<Mutex<Progress>>);

#[derive(Debug, Default)]
struct Progress {
    bytes: u64,
    /// Why the content could not be read to its end.
    unreadable: Option<String>,
    /// Its digest, once the finish is on its way.
    digest: Option<Bytes>,
}

/// Content that was sent to its end, so that a server may have stored it.
#[derive(Debug)]
pub struct Sent {
    /// Its SHA-256 digest.
    pub digest: Bytes,
    /// Its size.
    pub bytes: u64,
}

impl Source {
    /// Opens what is at a path, `-` for standard input.
    pub fn open(path: &Path) -> Result<Source, Failure> {
        let opened = match is_standard_input(path) {
            true => io::stdin().as_fd().try_clone_to_owned().map(File::from),
            false => File::open(path),
        };
        opened.and_then(Source::new).map_err(|error| {
            let why = match error.kind() {
                ErrorKind::IsADirectory => "is a directory; name the files in it".to_owned(),
                _ => error.to_string(),
            };
            Failure::running(format!("{}: {why}", path.display()))
        })
    }

    fn new(mut file: File) -> io::Result<Source> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        if !metadata.is_file() {
            return Ok(Source { file: Arc::new(file), begin: None, size: None, begun: false });
        }
        let begin = file.stream_position()?;
        // The files of /proc and /sys are made when they are read, whatever size they show; none of them takes room on a disk.
        let size = metadata.len().checked_sub(begin).filter(|size| *size > 0 && metadata.blocks() > 0);
        Ok(Source { file: Arc::new(file), begin: Some(begin), size, begun: false })
    }

    /// Whether the content can be sent once more from its beginning. A read of a pipe that has begun may take bytes of it
    /// even after its upload has failed.
    pub fn can_be_read_again(&self) -> bool {
        self.begin.is_some() || !self.begun
    }

    /// The messages of one upload from the beginning: the header, the content in chunks, the finish with its digest. Content
    /// that cannot be read to its end ends the stream without a finish, so that nothing of it is stored.
    pub fn messages(
        &mut self,
        header: UploadHeader,
        progress: ProgressBar,
        reading: Reading,
    ) -> impl Stream<Item = UploadAttachmentRequest> + use<> {
        self.begun = true;
        let sending = Sending {
            file: Arc::clone(&self.file),
            begin: self.begin,
            size: self.size,
            hash: digest::Context::new(&digest::SHA256),
            progress,
            reading,
            next: Next::Header(header),
        };
        stream::unfold(sending, Sending::step)
    }
}

/// Whether a path stands for standard input.
pub fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == STANDARD_INPUT
}

impl Reading {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the content could not be read to its end.
    pub fn unreadable(&self) -> Option<String> {
        self.progress().unreadable.clone()
    }

    /// How many bytes were handed to the connection.
    pub fn bytes(&self) -> u64 {
        self.progress().bytes
    }

    /// The content, if all of it was handed to the connection.
    pub fn sent(&self) -> Option<Sent> {
        let progress = self.progress();
        progress.digest.clone().map(|digest| Sent { digest, bytes: progress.bytes })
    }
}

/// What is sent next.
enum Next {
    Header(UploadHeader),
    Chunk,
    Nothing,
}

struct Sending {
    file: Arc<File>,
    begin: Option<u64>,
    size: Option<u64>,
    hash: digest::Context,
    progress: ProgressBar,
    reading: Reading,
    next: Next,
}

impl Sending {
    async fn step(mut self) -> Option<(UploadAttachmentRequest, Sending)> {
        let message = match std::mem::replace(&mut self.next, Next::Nothing) {
            Next::Nothing => return None,
            Next::Header(header) => {
                self.next = Next::Chunk;
                Message::Header(header)
            }
            Next::Chunk => match self.chunk().await {
                Ok(chunk) if chunk.is_empty() => {
                    let sha256 = Bytes::copy_from_slice(self.hash.clone().finish().as_ref());
                    self.reading.progress().digest = Some(sha256.clone());
                    Message::Finish(UploadFinish { size: None, sha256: Some(sha256) })
                }
                Ok(chunk) => {
                    self.hash.update(&chunk);
                    self.progress.inc(chunk.len() as u64);
                    self.next = Next::Chunk;
                    Message::Chunk(chunk)
                }
                Err(why) => {
                    self.reading.progress().unreadable = Some(why);
                    return None;
                }
            },
        };
        Some((UploadAttachmentRequest { message: Some(message) }, self))
    }

    /// The next bytes of the content; none at its end. Content of another size than it had at first is a mixture of two
    /// versions, and is refused.
    async fn chunk(&mut self) -> Result<Bytes, String> {
        let before = self.reading.bytes();
        let (file, at) = (Arc::clone(&self.file), self.begin.map(|begin| begin + before));
        let read = tokio::task::spawn_blocking(move || read(&file, at)).await.map_err(io::Error::other).flatten();
        let chunk = read.map_err(|error| format!("cannot be read to its end: {error}"))?;
        let bytes = before + chunk.len() as u64;
        self.reading.progress().bytes = bytes;
        match self.size {
            Some(size) if bytes > size => {
                Err(format!("the file grew while it was read: it had {size} bytes; upload a copy that does not change"))
            }
            Some(size) if chunk.is_empty() && bytes < size => {
                Err(format!("the file shrank while it was read: {bytes} of {size} bytes"))
            }
            _ => Ok(chunk),
        }
    }
}

/// The next chunk: from a position, or from where reading has come to.
fn read(mut file: &File, at: Option<u64>) -> io::Result<Bytes> {
    let mut chunk = vec![0; CHUNK];
    let mut filled = 0;
    while filled < CHUNK {
        let room = &mut chunk[filled..];
        let read = match at {
            Some(at) => file.read_at(room, at + filled as u64),
            None => file.read(room),
        };
        match read {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk.into())
}
