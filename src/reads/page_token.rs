//! The token of a page: where the next page begins, and a digest that binds it to the listing that it comes from. It is
//! not secret and grants nothing: the rights of the caller are checked again.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::query::Query;
use crate::attachment::Id;
use crate::error::{Error, Result};

/// The form of the token, which is its first byte.
const FORM: u8 = 1;

/// How much of the digest is kept, in bytes: enough to tell a changed token, which harms nobody but its sender.
const CHECK: usize = 8;

/// How long a token is before it is base64, in bytes.
const LENGTH: usize = 1 + 8 + CHECK;

/// The token of the page of `query` that begins after `last`.
pub(super) fn write(query: &Query, last: Id) -> String {
    let after = last.get();
    let mut token = vec![FORM];
    token.extend(after.to_be_bytes());
    token.extend(check(query, after));
    URL_SAFE_NO_PAD.encode(token)
}

/// Reads a token of `query`: the last attachment of the page before.
///
/// # Errors
/// [`crate::error::Kind::Invalid`] if it is none of this query.
pub(super) fn read(query: &Query, token: &str) -> Result<Id> {
    let refused = || {
        let why = "is not a next_page_token of this listing: send it as it was received, with the same client, project, \
                   portfolio and view, or leave it out to begin again";
        Error::invalid_field("page_token", why)
    };
    let token = URL_SAFE_NO_PAD.decode(token).map_err(|_| refused())?;
    let token: [u8; LENGTH] = token.try_into().map_err(|_| refused())?;
    let (form, rest) = token.split_at(1);
    let (after, sent) = rest.split_at(8);
    let after = i64::from_be_bytes(after.try_into().map_err(|_| refused())?);
    if form != [FORM] || sent != check(query, after) {
        return Err(refused());
    }
    Id::new("page_token", after).map_err(|_| refused())
}

fn check(query: &Query, after: i64) -> [u8; CHECK] {
    let Query { client, project, portfolio, full, .. } = query;
    let optional = |id: &Option<Id>| id.map_or(0, Id::get);
    let mut context = digest::Context::new(&digest::SHA256);
    for number in [i64::from(FORM), after, client.get(), optional(project), optional(portfolio), i64::from(*full)] {
        context.update(&number.to_be_bytes());
    }
    let mut check = [0; CHECK];
    check.copy_from_slice(&context.finish().as_ref()[..CHECK]);
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: i64) -> Id {
        Id::new("x", number).unwrap()
    }

    fn query() -> Query {
        let (project, portfolio, full) = (Some(id(3)), None, false);
        Query { client: id(1), project, portfolio, page_size: 100, page_token: String::new(), full }
    }

    #[test]
    fn a_token_reads_back_for_its_own_query_whatever_the_size_of_the_page() {
        let token = write(&query(), id(42));
        assert_eq!(read(&query(), &token).unwrap(), id(42));
        assert_eq!(read(&Query { page_size: 7, ..query() }, &token).unwrap(), id(42));
    }

    #[test]
    fn a_token_of_another_query_or_that_was_changed_is_refused() {
        let token = write(&query(), id(42));
        for other in [
            Query { client: id(2), ..query() },
            Query { project: None, ..query() },
            Query { project: None, portfolio: Some(id(3)), ..query() },
            Query { portfolio: Some(id(3)), ..query() },
            Query { full: true, ..query() },
        ] {
            assert!(read(&other, &token).is_err(), "{other:?}");
        }
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                assert!(read(&query(), &URL_SAFE_NO_PAD.encode(changed)).is_err(), "bit {bit} of byte {at}");
            }
        }
        for bad in ["", "a", "=", "AAAA", &token[1..], &format!("{token}A"), "\u{1f4ce}"] {
            let error = read(&query(), bad).unwrap_err();
            assert_eq!(error.field(), Some("page_token"), "{bad:?}");
        }
    }
}
