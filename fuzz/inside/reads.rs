//! The target that tries the tokens of pages.

#![allow(clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use super::page_token;
use super::query::Query;
use crate::attachment::Id;

/// A token that is accepted is the one that is written, and one that was written is accepted.
pub fn page_token(numbers: [i64; 4], full: bool, text: &str) {
    let id = |number: i64| Id::new("x", number).ok();
    let [client, project, portfolio, last] = numbers.map(id);
    let (Some(client), Some(last)) = (client, last) else { return };
    let query = Query { client, project, portfolio, page_size: 0, page_token: String::new(), full };
    let written = page_token::write(&query, last);
    assert_eq!(page_token::read(&query, &written).unwrap(), last);
    // A text, and the token with the text in place of some of it.
    let kept = written.len() - text.len().min(written.len());
    for text in
        [text.to_owned(), format!("{}{text}", &written[..kept]), format!("{text}{}", &written[written.len() - kept..])]
    {
        if let Ok(last) = page_token::read(&query, &text) {
            assert_eq!(page_token::write(&query, last), text);
        }
    }
    let other = Query { full: !full, ..query };
    page_token::read(&other, &written).unwrap_err();
}
