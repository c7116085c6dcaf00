//! What a caller demands of the stored content before its upload may replace it (RFC 9110 s13.1).

use crate::attachment::{Digest, Tags};
use crate::error::{Error, Kind, Result};

/// The preconditions of one upload.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// Replace only content with one of these tags.
    pub if_match: Option<Tags>,
    /// Store only where the content has none of these tags.
    pub if_none_match: Option<Tags>,
}

impl Conditions {
    /// Judges the conditions against the digest of the stored content, if there is any. A refusal carries the content's
    /// version, so that a caller whose reply was lost can tell whether its own upload is stored.
    ///
    /// # Errors
    /// [`Kind::AlreadyExists`] for content where none was to be, else [`Kind::PreconditionFailed`].
    pub fn judge(&self, stored: Option<Digest>) -> Result<()> {
        let refusal = match (&self.if_match, &self.if_none_match) {
            (Some(tags), _) if !tags.match_strongly(stored) => {
                Error::new(Kind::PreconditionFailed).detail(if stored.is_some() {
                    "the stored content has none of the expected entity tags"
                } else {
                    "the attachment has no content"
                })
            }
            (_, Some(Tags::Any)) if stored.is_some() => {
                Error::new(Kind::AlreadyExists).detail("the attachment already has content")
            }
            (_, Some(tags)) if tags.match_weakly(stored) => {
                Error::new(Kind::PreconditionFailed).detail("the stored content has one of the excluded entity tags")
            }
            _ => return Ok(()),
        };
        Err(match stored {
            Some(digest) => refusal.stored(digest.version()),
            None => refusal,
        })
    }
}
