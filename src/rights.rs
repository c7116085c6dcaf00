//! Who may do what: one function, asked before an operation reads or writes anything, and again at its commit. It knows a
//! caller, a request and a record, and does nothing but decide.

use crate::attachment::{Id, Record, Target};
use crate::auth::{Principal, Scope};
use crate::error::{Error, Kind, Result};

/// What is known of the attachment that a request names.
#[derive(Clone, Copy, Debug)]
pub enum Stands<'a> {
    /// Nothing yet: the record is not read for a caller who would be refused anyway, so that neither the answer nor the
    /// time that it takes says whether there is one.
    Unread,
    /// There is no record, and the request may make one.
    Absent,
    /// There is no record, and the request may not make one.
    Missing,
    /// This record.
    Found(&'a Record),
}

/// What a request names that a token must cover.
#[derive(Clone, Copy, Debug)]
pub struct Named {
    /// The client.
    pub client: Id,
    /// The project, if one is named.
    pub project: Option<Id>,
    /// The portfolio, if one is named.
    pub portfolio: Option<Id>,
}

/// Decides whether `caller` may use `scope` on `target`.
///
/// The caller needs the scope, the client, and the project and portfolio that the request names. The attachment must belong
/// to the project and portfolio that the request names, and the caller needs the ones that it belongs to, whether or not the
/// request names them: what a request leaves out is no way around a token. What a token does not grant is denied.
///
/// # Errors
/// [`Kind::Forbidden`] by the token and the request alone, whatever the record. [`Kind::NotFound`] where there is no record,
/// and where there is one that this caller shall not know of.
pub fn decide(caller: &Principal, scope: Scope, target: Target, stands: Stands<'_>) -> Result<()> {
    let named = Named { client: target.key.client, project: target.project, portfolio: target.portfolio };
    by_token(caller, scope, Some(named))?;
    let holds_project = |project: Id| caller.holds_project(project.get());
    let holds_portfolio = |portfolio: Id| caller.holds_portfolio(portfolio.get());
    let reachable = match stands {
        Stands::Unread | Stands::Absent => true,
        Stands::Missing => false,
        Stands::Found(record) => {
            let is_of = |named: Option<Id>, stands: Option<Id>| named.is_none_or(|named| stands == Some(named));
            is_of(target.project, record.project_id)
                && is_of(target.portfolio, record.portfolio_id)
                && record.project_id.is_none_or(holds_project)
                && record.portfolio_id.is_none_or(holds_portfolio)
        }
    };
    if reachable { Ok(()) } else { Err(Error::new(Kind::NotFound)) }
}

/// Decides by the token alone whether `caller` may use `scope`, on what the request names if it names a client.
///
/// # Errors
/// [`Kind::Forbidden`].
pub fn by_token(caller: &Principal, scope: Scope, named: Option<Named>) -> Result<()> {
    let denied = |what: String| {
        let who = format!("{} of {}", caller.subject(), caller.issuer());
        Err(Error::new(Kind::Forbidden).detail(what).because(who))
    };
    if !caller.allows(scope) {
        return denied(format!("the token lacks the scope {scope}"));
    }
    let Some(Named { client, project, portfolio }) = named else {
        return Ok(());
    };
    if !caller.holds_client(client.get()) {
        return denied("the token does not cover this client".to_owned());
    }
    if !project.is_none_or(|project| caller.holds_project(project.get())) {
        return denied("the token does not cover this project".to_owned());
    }
    if !portfolio.is_none_or(|portfolio| caller.holds_portfolio(portfolio.get())) {
        return denied("the token does not cover this portfolio".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
