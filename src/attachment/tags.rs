//! Entity tags in a precondition (RFC 9110 s13.1): `*`, or a list of quoted tags. The entity tag of content is its SHA-256
//! digest, so a tag of any other form is valid and matches nothing.

use super::digest::Digest;
use crate::error::{Error, Result};

/// The value of `If-Match` or `If-None-Match`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tags {
    /// `*`: any content.
    Any,
    /// The listed tags that content can have.
    Listed(Vec<Tag>),
}

/// One listed tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    weak: bool,
    digest: Digest,
}

impl Tags {
    /// Reads a value. `field` names it in the error.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::error::Kind::Invalid) if it is neither `*` nor a list of one or more quoted tags.
    pub fn parse(field: &'static str, text: &str) -> Result<Tags> {
        const OWS: [char; 2] = [' ', '\t'];
        let malformed = || Error::invalid_field(field, "must be * or a list of entity tags in double quotes");
        if text.trim_matches(OWS) == "*" {
            return Ok(Tags::Any);
        }
        let (mut tags, mut rest, mut separated, mut empty) = (Vec::new(), text.trim_matches(OWS), true, true);
        while !rest.is_empty() {
            // Empty elements of a list are permitted (RFC 9110 s5.6.1).
            if let Some(after) = rest.strip_prefix(',') {
                (rest, separated) = (after.trim_start_matches(OWS), true);
                continue;
            }
            let (weak, opaque) = rest.strip_prefix("W/").map_or((false, rest), |opaque| (true, opaque));
            let quoted = opaque.strip_prefix('"').and_then(|opaque| opaque.split_once('"'));
            let (opaque, after) = quoted.filter(|_| separated).ok_or_else(malformed)?;
            if opaque.chars().any(|char| char.is_ascii() && !char.is_ascii_graphic()) {
                return Err(malformed());
            }
            tags.extend(Digest::try_from(opaque.to_owned()).ok().map(|digest| Tag { weak, digest }));
            (rest, separated, empty) = (after.trim_start_matches(OWS), false, false);
        }
        if empty { Err(malformed()) } else { Ok(Tags::Listed(tags)) }
    }

    /// Whether content matches, if weak tags match nothing (RFC 9110 s8.8.3.2, the strong comparison).
    pub fn match_strongly(&self, content: Option<Digest>) -> bool {
        self.matches(content, |tag| !tag.weak)
    }

    /// Whether content matches, if a weak tag matches like any other (the weak comparison).
    pub fn match_weakly(&self, content: Option<Digest>) -> bool {
        self.matches(content, |_| true)
    }

    fn matches(&self, content: Option<Digest>, counts: impl Fn(&Tag) -> bool) -> bool {
        match self {
            Tags::Any => content.is_some(),
            Tags::Listed(tags) => tags.iter().any(|tag| counts(tag) && Some(tag.digest) == content),
        }
    }
}
