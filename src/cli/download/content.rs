//! The content that a download is about: one version of it, known by its digest.

use super::super::failure::Failure;
use crate::attachment::Digest;
use crate::pb::Attachment;

/// One version of the content of an attachment.
#[derive(Clone, Copy, Debug)]
pub struct Content {
    /// The attachment that it belongs to.
    pub attachment_id: i64,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-256 digest.
    pub sha256: Digest,
}

impl Content {
    /// The content of an attachment that was looked up.
    pub fn of(attachment: &Attachment) -> Result<Content, Failure> {
        let attachment_id = attachment.attachment_id;
        let wrong = |why| Failure::running(format!("attachment {attachment_id}: {why}"));
        let (Some(size), Some(sha256)) = (attachment.size, &attachment.sha256) else {
            return Err(wrong("the attachment is registered and has no content"));
        };
        match (u64::try_from(size), Digest::new("sha256", sha256)) {
            (Ok(size), Ok(sha256)) => Ok(Content { attachment_id, size, sha256 }),
            _ => Err(wrong("the reply has an invalid size or digest")),
        }
    }

    /// Its entity tag.
    pub fn tag(&self) -> String {
        format!("\"{}\"", self.sha256)
    }
}
