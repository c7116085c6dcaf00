//! The record of a deleted attachment once its deletion can no longer be undone. It names content until it is given up, so it is
//! given up before that content is deleted.
//!
//! On a local file system the record is removed under the lock of the attachment. No service compares before it deletes an
//! object: another replica may have made the attachment anew just before. So there the record stays, and only what it keeps is
//! given up, by a put that names the version.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;

use crate::attachment::{Key, Record};
use crate::error::Result;
use crate::store::backend::Backend;
use crate::store::local::Abandoned;
use crate::store::{Settled, Store};

/// When the record of a deleted attachment is no longer needed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expiry {
    pub now: OffsetDateTime,
    /// For how long a deletion is known at least.
    pub grace: Duration,
}

impl Expiry {
    /// How long ago something was, zero for what is to come.
    pub fn age(self, past: OffsetDateTime) -> Duration {
        (self.now - past).try_into().unwrap_or_default()
    }

    /// Whether the attachment was deleted longer ago than the grace, and this can no longer be undone.
    pub fn is_over(self, record: &Record) -> bool {
        record.deletion().is_some_and(|deletion| {
            let is_final = deletion.undeletable_until.is_none_or(|until| until < self.now);
            is_final && self.now - deletion.deleted_at > self.grace
        })
    }
}

impl Store {
    /// Whether the record of a deleted attachment has something that can be given up.
    pub(super) fn can_forget(&self, record: &Record) -> bool {
        match self.backend {
            Backend::Local(_) => record.is_deleted(),
            Backend::Objects(_) => record.is_deleted() && record.kept_content().is_some(),
        }
    }

    /// Gives up what is kept of a deleted attachment, if it is over when nobody else can change it. Returns whether it did.
    pub(super) async fn forget(&self, key: Key, expiry: Expiry) -> Result<bool> {
        match &self.backend {
            Backend::Local(local) => {
                let removed = Arc::clone(local).remove(key, move |stands| expiry.is_over(stands), Abandoned::default());
                self.patience.wait(removed).await?
            }
            Backend::Objects(_) => {
                let decide = move |stands: Option<&Record>| {
                    let over = stands.filter(|stands| expiry.is_over(stands));
                    Ok(over.and_then(|stands| stands.given_up(expiry.now)))
                };
                let updated = self.update(key, decide, Settled::unheard()).await?;
                // Otherwise the attachment was made anew. Another sweep may have been faster, too.
                Ok(updated.record.is_some_and(|record| record.is_deleted() && record.kept_content().is_none()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{Id, Target};
    use crate::store::{Access, Config, Sizing};
    use crate::telemetry::Metrics;

    #[test]
    fn a_deletion_is_over_after_the_grace_and_after_the_time_to_undo_it() {
        const SECOND: Duration = Duration::from_secs(1);
        let id = |number| Id::new("x", number).unwrap();
        let target = Target { key: Key { client: id(1), attachment: id(2) }, project: None, portfolio: None };
        let registered = Record::registered(target, "someone");
        for (window, grace, over_after) in [
            (Duration::ZERO, 60 * SECOND, 60 * SECOND),
            (90 * SECOND, 60 * SECOND, 90 * SECOND),
            (SECOND, SECOND, SECOND),
        ] {
            let deleted = registered.deleted("someone", window);
            let end = deleted.deletion().unwrap().deleted_at + over_after;
            let tick = Duration::from_nanos(1);
            let is_over = [end - tick, end, end + tick].map(|now| Expiry { now, grace }.is_over(&deleted));
            assert_eq!(is_over, [false, false, true], "{window:?} {grace:?}");
        }
        assert!(!Expiry { now: OffsetDateTime::now_utc() + 1000 * SECOND, grace: SECOND }.is_over(&registered));
    }

    #[tokio::test]
    async fn an_attachment_that_was_made_anew_is_not_given_up() {
        let id = |number| Id::new("x", number).unwrap();
        let target = Target { key: Key { client: id(1), attachment: id(2) }, project: None, portfolio: None };
        let folder = tempfile::tempdir().unwrap();
        let root = [("root".to_owned(), folder.path().to_str().unwrap().to_owned())].into();
        for (service, options) in [("memory", std::collections::BTreeMap::new()), ("fs", root)] {
            let sizing = Sizing { largest: 1 << 20, memory: 0 };
            let store =
                Store::open(&Config::new(service, options), Access::Write, sizing, &Metrics::default()).unwrap();
            let made = Record::registered(target, "someone");
            let (makes, key) = (made.clone(), target.key);
            store.update(key, move |_| Ok(Some(makes.clone())), Settled::unheard()).await.unwrap();
            let later = OffsetDateTime::now_utc() + Duration::from_secs(1000);
            let expiry = Expiry { now: later, grace: Duration::ZERO };
            assert!(!store.forget(key, expiry).await.unwrap(), "{service}");
            assert_eq!(store.record(key).await.unwrap().record(), Some(&made), "{service}");
        }
    }
}
