//! What a walk over the storage comes by, in words for an operator. It must not know who finds it or who is told.

use std::fmt;
use std::time::Duration;

use bytesize::ByteSize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

/// One thing that a walk over the storage comes by. Paths are as seen from the storage's root.
#[derive(Debug)]
pub enum Finding {
    /// A record was looked at.
    Attachment {
        /// How many bytes of its content were read back.
        bytes: u64,
    },
    /// A folder of content was looked at.
    Content {
        /// How many objects of attachd's lie in it.
        objects: u64,
    },
    /// Content that no record names.
    Orphan {
        /// Where it lies.
        path: String,
        /// In bytes, where it is known.
        size: Option<u64>,
        /// How long ago its upload began.
        age: Duration,
        /// What becomes of it.
        fate: Fate,
    },
    /// The record of a deleted attachment.
    Deleted {
        /// Where it lies.
        path: String,
        /// How long ago the attachment was deleted.
        age: Duration,
        /// What becomes of it, or, where the record stays, of the content that it keeps.
        fate: Fate,
    },
    /// Something that attachd did not put there. It is left alone.
    Foreign {
        /// Where it lies.
        path: String,
    },
    /// A symbolic link. It is neither followed nor deleted.
    Link {
        /// Where it lies.
        path: String,
    },
    /// A record that cannot be read, or says what no record may say.
    Unreadable {
        /// Where it lies.
        path: String,
        /// Why.
        error: Error,
    },
    /// Content that a record names and that is not there.
    Missing {
        /// Where it should lie.
        path: String,
    },
    /// Content that is not what its record says.
    Damaged {
        /// Where it lies.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A storage operation that failed, so that something was not looked at, or not deleted.
    Failed {
        /// What it was about.
        path: String,
        /// Why.
        error: Error,
    },
}

/// What becomes of content that no record names, and of the record of a deleted attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is within the grace: its upload may be running, or its deletion may be undone.
    Young,
    /// It is past the grace, and was left, since nobody asked for more than a look.
    Garbage,
    /// It was deleted.
    Deleted,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::Attachment { bytes } => write!(f, "attachment: {bytes} bytes"),
            Finding::Content { objects } => write!(f, "content: {objects} objects"),
            Finding::Orphan { path, size, age, fate } => {
                write!(f, "{fate}: {path}")?;
                if let Some(size) = size {
                    write!(f, ", {}", ByteSize::b(*size))?;
                }
                write!(f, ", {} old", whole_seconds(*age))
            }
            Finding::Deleted { path, age, fate } => {
                write!(f, "{fate}: {path}, whose attachment was deleted {} ago", whole_seconds(*age))
            }
            Finding::Foreign { path } => write!(f, "foreign: {path:?} was not put there by attachd, it is left alone"),
            Finding::Link { path } => {
                write!(f, "link: {path:?} is a symbolic link, which attachd does not follow; it is left alone")
            }
            Finding::Unreadable { path, error } => write!(f, "unreadable: {path}: {}", cause(error)),
            Finding::Missing { path } => write!(f, "missing: {path}"),
            Finding::Damaged { path, why } => write!(f, "damaged: {path}: {why}"),
            Finding::Failed { path, error } => write!(f, "failed: {path}: {}", cause(error)),
        }
    }
}

fn whole_seconds(time: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(time.as_secs()))
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fate::Young => "young",
            Fate::Garbage => "garbage",
            Fate::Deleted => "deleted",
        })
    }
}

/// The words of an error that are for operators, on one line: OpenDAL's own run over many.
fn cause(error: &Error) -> String {
    let text = error.log_source().unwrap_or_else(|| error.to_string());
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Where a walk sends what it comes by. When nobody listens any more, the walk is stopped.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    pub listener: mpsc::Sender<Finding>,
    pub stop: CancellationToken,
}

impl Findings {
    pub async fn send(&self, finding: Finding) {
        if self.listener.send(finding).await.is_err() {
            self.stop.cancel();
        }
    }
}
