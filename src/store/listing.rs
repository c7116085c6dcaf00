//! The attachments of one client, in the order of their ids, from any of them on. It reads names alone, no record.

use std::collections::BTreeSet;
use std::pin::pin;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, future, stream};

use super::backend::Backend;
use super::patience::Patience;
use super::{Store, failure, layout};
use crate::attachment::{Id, Key};
use crate::error::Result;

/// The lowest ids of those that were offered, and no more than so many.
#[derive(Debug)]
pub(super) struct Lowest {
    most: usize,
    ids: BTreeSet<Id>,
}

impl Lowest {
    pub(super) fn new(most: usize) -> Lowest {
        Lowest { most, ids: BTreeSet::new() }
    }

    pub(super) fn offer(&mut self, id: Id) {
        self.ids.insert(id);
        if self.ids.len() > self.most {
            self.ids.pop_last();
        }
    }

    pub(super) fn into_ids(self) -> Vec<Id> {
        self.ids.into_iter().collect()
    }
}

/// The ids of a listing that is under way, in order.
pub struct Ids {
    ids: BoxStream<'static, Result<Id>>,
    patience: Patience,
}

impl Ids {
    /// The next id. None at the end.
    pub async fn next(&mut self) -> Result<Option<Id>> {
        self.patience.wait(self.ids.next()).await?.transpose()
    }
}

impl Store {
    /// The ids of a client's attachments that are higher than `after`, in order, `most` of them at most. Of a service that lists in
    /// order, as much is listed as is asked for, and where it lists from a name on, as S3 and GCS do, nothing before. Elsewhere
    /// all names of the client are gone through once.
    pub async fn attachments_after(&self, client: Id, after: Option<Id>, most: usize) -> Result<Ids> {
        let ids = match &self.backend {
            Backend::Local(local) => {
                let ids = self.patience.wait(local.attachments_after(client, after, most)).await??;
                stream::iter(ids.into_iter().map(Ok)).boxed()
            }
            Backend::Objects(objects) => {
                let ids = self.patience.wait(self.listed_after(client, after)).await?.map_err(failure)?;
                if objects.lists_in_order() { ids.take(most).boxed() } else { sorted(ids, most).await? }
            }
        };
        Ok(Ids { ids, patience: self.patience.clone() })
    }

    async fn listed_after(
        &self,
        client: Id,
        after: Option<Id>,
    ) -> opendal::Result<impl Stream<Item = Result<Id>> + Send + use<>> {
        let folder = layout::records(client);
        let starts = self.operator.info().capability().list_with_start_after;
        let after_name = after.filter(|_| starts).map(|after| layout::record(Key { client, attachment: after }));
        let names = match after_name {
            Some(name) => self.operator.lister_with(&folder).start_after(&name).await?,
            None => self.operator.lister_with(&folder).await?,
        };
        Ok(names.filter_map(move |entry| {
            let id = entry.map_err(failure).map(|entry| {
                let id = entry.path().strip_prefix(&folder).and_then(layout::attachment_of);
                id.filter(|id| after.is_none_or(|after| *id > after))
            });
            future::ready(id.transpose())
        }))
    }
}

async fn sorted(ids: impl Stream<Item = Result<Id>> + Send, most: usize) -> Result<BoxStream<'static, Result<Id>>> {
    let mut lowest = Lowest::new(most);
    let mut ids = pin!(ids);
    while let Some(id) = ids.next().await {
        lowest.offer(id?);
    }
    Ok(stream::iter(lowest.into_ids().into_iter().map(Ok)).boxed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_ids_are_kept_in_order_and_no_more_than_asked_for() {
        let id = |number| Id::new("x", number).unwrap();
        let mut lowest = Lowest::new(3);
        for number in [9, 2, 7, 2, 5, 8] {
            lowest.offer(id(number));
        }
        assert_eq!(lowest.into_ids(), [id(2), id(5), id(7)]);
    }
}
