//! What a listing asks for, and what a page of it is.

use crate::attachment::{Id, Key, Record, Target};
use crate::error::{Error, Result};

/// How many attachments a page has at most, if the caller says nothing.
const DEFAULT_SIZE: usize = 100;

/// How many it has at most, whatever the caller says.
const LARGEST: usize = 1000;

/// What to list.
#[derive(Clone, Debug)]
pub struct Query {
    /// Whose attachments.
    pub client: Id,
    /// Only those of this project.
    pub project: Option<Id>,
    /// Only those of this portfolio.
    pub portfolio: Option<Id>,
    /// How many at most; 0 for the default.
    pub page_size: i32,
    /// The token that the page before ended with. Empty for the first page.
    pub page_token: String,
    /// Whether all is shown of each attachment.
    pub full: bool,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// The attachments, in the order of their ids.
    pub records: Vec<Record>,
    /// The token of the next page, if there may be one.
    pub next: Option<String>,
    /// How many attachments were left out since their records cannot be read.
    pub unreadable: usize,
}

impl Query {
    /// How many attachments a page has at most.
    pub(super) fn size(&self) -> Result<usize> {
        match usize::try_from(self.page_size) {
            Ok(0) => Ok(DEFAULT_SIZE),
            Ok(size) => Ok(size.min(LARGEST)),
            Err(_) => Err(Error::invalid_field("page_size", format!("must be from 1 to {LARGEST}"))),
        }
    }

    /// What the query says of one of the attachments.
    pub(super) fn target(&self, attachment: Id) -> Target {
        Target { key: Key { client: self.client, attachment }, project: self.project, portfolio: self.portfolio }
    }
}
