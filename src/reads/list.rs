//! The list of a client's attachments, page by page in the order of their ids. A page costs what it looks at: names are listed
//! from the last one on, and their records are read some at a time. A caller sees only what it holds.

use futures_util::future;

use super::look_up::Reads;
use super::page_token;
use super::query::{Page, Query};
use crate::attachment::{Id, Key, Record};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::request::Call;
use crate::rights::{self, Stands};
use crate::store::Standing;

/// How many records are read at once.
const AT_ONCE: usize = 32;

/// What a record counts for among what clients have asked for, in bytes.
const RECORD: usize = 16 << 10;

/// How many attachments are looked at for one page. A page may be shorter for that, or empty, and still not be the last.
const LOOKED_AT: usize = 1000;

impl Reads {
    /// Lists one page.
    ///
    /// # Errors
    /// [`Kind::Forbidden`], [`Kind::RateLimited`], [`Kind::Invalid`] for a page size or token that is none, and what storage raises.
    pub async fn list(&self, call: &Call, query: &Query) -> Result<Page> {
        let any = Id::try_from(1).map_err(Error::internal)?;
        self.permit(call, Rpc::ListAttachments, query.target(any))?;
        let size = query.size()?;
        let mut after = match query.page_token.as_str() {
            "" => None,
            token => Some(page_token::read(query, token)?),
        };
        let mut page = Page { records: Vec::new(), next: None, unreadable: 0 };
        // One more than are looked at tells whether there is a next page.
        let mut ids = self.store.attachments_after(query.client, after, LOOKED_AT + 1).await?;
        let mut looked_at = 0;
        loop {
            let most = AT_ONCE.min(size - page.records.len()).min(LOOKED_AT - looked_at);
            let mut batch = Vec::with_capacity(most);
            while batch.len() < most
                && let Some(id) = ids.next().await?
            {
                batch.push(id);
            }
            if most == 0 {
                page.next = ids.next().await?.and(after).map(|last| page_token::write(query, last));
                break;
            }
            if batch.is_empty() {
                break;
            }
            let read = |id| async move { (id, self.store.record(Key { client: query.client, attachment: id }).await) };
            let turn = self.turns.take(query.client, batch.len() * RECORD).await;
            let standings = future::join_all(batch.into_iter().map(read)).await;
            drop(turn);
            for (id, standing) in standings {
                looked_at += 1;
                after = Some(id);
                page.add(call, query, id, standing)?;
            }
        }
        call.request.audit.done();
        Ok(page)
    }
}

impl Page {
    /// Adds an attachment, if the caller may see it.
    fn add(&mut self, call: &Call, query: &Query, id: Id, standing: Result<Standing>) -> Result<()> {
        match standing {
            Ok(standing) => {
                let record = standing.record().filter(|record| !record.is_deleted());
                let scope = Rpc::ListAttachments.row().scope;
                let is_shown = |record: &&Record| {
                    rights::decide(&call.caller, scope, query.target(id), Stands::Found(record)).is_ok()
                };
                self.records.extend(record.filter(is_shown).cloned());
            }
            // The others are shown all the same.
            Err(error) if error.kind() == Kind::Internal => {
                let (client_id, attachment_id) = (query.client.get(), id.get());
                tracing::error!(%error, client_id, attachment_id, "a listing leaves out a record that cannot be read");
                self.unreadable += 1;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
