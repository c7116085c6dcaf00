//! A page for people: it uploads, lists, downloads and deletes with a token that its reader has. It is one file and fetches no
//! other. Its policy permits its own script and styles, and requests to this port alone (Content Security Policy Level 3), so that
//! nothing that is stored here can run in it. This module knows no operation: the page calls the routes as any client does.

use aws_lc_rs::digest::{SHA256, digest};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::ready;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Method};

use super::transcode::{Adapter, Template};

/// The page.
const PAGE: &str = include_str!("page.html");

/// Keeps pages of other origins from a reference to its window.
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The route of the page, which is the root.
///
/// # Errors
/// None that is expected: the page has one script and one style sheet.
pub(super) fn route() -> Result<(Method, Template, Adapter), String> {
    let policy = HeaderValue::try_from(policy()?).map_err(|error| error.to_string())?;
    let page = move || -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
            (CONTENT_SECURITY_POLICY, policy.clone()),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (OPENER_POLICY, HeaderValue::from_static("same-origin")),
        ];
        (headers, PAGE).into_response()
    };
    Ok((Method::GET, Template::root(), Box::new(move |_, _| Box::pin(ready(page())))))
}

fn policy() -> Result<String, String> {
    let (script, style) = (source("script")?, source("style")?);
    Ok(format!(
        "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ))
}

/// What the policy has for the one element of this name that the page has: the digest of its text.
fn source(element: &str) -> Result<String, String> {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    let text = PAGE.split_once(&open).and_then(|(_, rest)| rest.split_once(&close)).map(|(text, _)| text);
    let text = text.ok_or_else(|| format!("the page has no element {element}"))?;
    Ok(format!("'sha256-{}'", STANDARD.encode(digest(&SHA256, text.as_bytes()))))
}
