//! Which pages may call the REST port from a browser, and read what it replies (the CORS protocol of the Fetch standard). A
//! preflight of a page that may is answered here, before anybody asks for a token, because browsers send none with it. Nothing
//! that a page asks for is repeated to it: methods and headers are lists of attachd's own. This module knows the methods
//! of the routes, and no path.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::sync::LazyLock;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::operation::Rpc;
use crate::units;

/// The methods that the routes have, of the whole port: what a path has not is 405 to a page as to anybody.
static METHODS: LazyLock<String> = LazyLock::new(|| {
    let methods: BTreeSet<_> =
        Rpc::ALL.into_iter().filter_map(|rpc| rpc.row().route).map(|route| route.method).collect();
    methods.into_iter().collect::<Vec<_>>().join(", ")
});

/// The request headers that the routes read, beyond those that a page may send unasked.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Content-Digest, Content-MD5, Digest, If-Match, If-Modified-Since, If-None-Match, If-Range, \
     If-Unmodified-Since, Range, Repr-Digest, Traceparent, Tracestate, Want-Content-Digest, X-Request-Id",
);

/// The headers of replies that a page may read, beyond those that it may read anyway.
const REPLY_HEADERS: HeaderValue = HeaderValue::from_static(
    "Accept, Accept-Ranges, Allow, Content-Digest, Content-Disposition, Content-Range, ETag, Link, Location, Repr-Digest, \
     Retry-After, WWW-Authenticate, X-Request-Id",
);

/// Which pages may call the REST port from a browser.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The origins of pages that may call the REST port from a browser and read its replies: `https://app.example.com`, or
    /// `https://*.example.com` for every host below `example.com`. Credentials of the browser, such as cookies, are never
    /// asked for. Default none.
    pub origins: Vec<Origin>,
    /// How long a browser may remember the answer to a preflight request. Browsers have upper limits of their own.
    /// Default 10 min.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub max_age: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { origins: Vec::new(), max_age: Duration::from_secs(600) }
    }
}

impl Config {
    /// The answer to a preflight request of a page that may call, if that is what the request is.
    pub(super) fn preflight(&self, request: &Request) -> Option<Response> {
        let asks = request.method() == Method::OPTIONS && request.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed(request.headers()).is_none() {
            return None;
        }
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        if let Ok(methods) = HeaderValue::from_str(&METHODS) {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, methods);
        }
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.as_secs().into());
        Some(response)
    }

    /// The origin of the page that sent the request, if it may call.
    pub(super) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut sent = headers.get_all(ORIGIN).iter();
        let (Some(origin), None) = (sent.next(), sent.next()) else {
            return None;
        };
        let text = origin.to_str().ok()?;
        self.origins.iter().any(|known| known.holds(text)).then(|| origin.clone())
    }

    /// Lets the page of an allowed origin read a reply, whatever it says.
    pub(super) fn open(&self, origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if self.origins.is_empty() {
            return;
        }
        // Said to everybody: a cache must not keep the reply to one page for another.
        headers.append(VARY, HeaderValue::from_static("Origin"));
        if let Some(origin) = origin {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, REPLY_HEADERS);
        }
    }
}

/// An origin as browsers send it, or all origins of the hosts below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin {
    /// As it is configured.
    text: String,
    /// What stands before and after `*`, if it is a pattern.
    around: Option<(String, String)>,
}

impl Origin {
    /// Whether the origin that a browser sent is this one, or one of these.
    fn holds(&self, sent: &str) -> bool {
        let Some((scheme, domain)) = &self.around else {
            return sent == self.text;
        };
        let below = sent.strip_prefix(scheme.as_str()).and_then(|rest| rest.strip_suffix(domain.as_str()));
        below.is_some_and(is_name)
    }
}

/// Whether a text is one or more labels of a host name.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    text.split('.').all(is_label)
}

impl TryFrom<String> for Origin {
    type Error = String;

    fn try_from(text: String) -> Result<Origin, String> {
        let wrong = |why: &str| format!("`{text}` {why}");
        match text.as_str() {
            "*" => {
                return Err(wrong(
                    "must be a list of origins, such as `https://app.example.com`: any page could call otherwise",
                ));
            }
            "null" => return Err(wrong("is the origin of any sandboxed page, and cannot be allowed")),
            _ => {}
        }
        if text.chars().any(char::is_uppercase) {
            return Err(wrong(&format!("must be in lower case, as browsers send it: `{}`", text.to_lowercase())));
        }
        let Some((scheme @ ("https" | "http"), rest)) = text.split_once("://") else {
            return Err(wrong("must begin with `https://` or `http://`"));
        };
        if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
            return Err(wrong(&format!("must end after the host or the port: `{scheme}://{authority}`")));
        }
        if rest.contains('@') {
            return Err(wrong("must not name a user"));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let usual = if scheme == "https" { 443 } else { 80 };
        match port.map(|port| port.parse::<u16>().ok().filter(|number| *number > 0 && number.to_string() == port)) {
            Some(None) => return Err(wrong("must have a port from 1 to 65535")),
            Some(Some(number)) if number == usual => {
                return Err(wrong(&format!(
                    "must not name the port {usual}, which browsers leave out: `{scheme}://{host}`"
                )));
            }
            _ => {}
        }
        let domain = host.strip_prefix("*.");
        let name = domain.unwrap_or(host);
        if name.contains('*') {
            return Err(wrong("may have `*` only in place of the first name, as in `https://*.example.com`"));
        }
        if domain.is_some_and(|domain| !domain.contains('.')) {
            return Err(wrong("must have at least two names after `*.`, as in `https://*.example.com`"));
        }
        let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if !is_name(name) && !address.is_some_and(|address| domain.is_none() && address.parse::<Ipv6Addr>().is_ok()) {
            return Err(wrong("must have a host of ASCII letters, digits, `-` and `.`, or an address"));
        }
        let around = domain.map(|_| {
            let (before, after) = text.split_once('*').unwrap_or_default();
            (before.to_owned(), after.to_owned())
        });
        Ok(Origin { text, around })
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> String {
        origin.text
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        "Origin".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "origins, such as `https://app.example.com`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Result<Origin, String> {
        Origin::try_from(text.to_owned())
    }

    #[test]
    fn an_origin_is_compared_as_browsers_send_it() {
        for (configured, sent, held) in [
            ("https://a.example.com", "https://a.example.com", true),
            ("https://a.example.com", "http://a.example.com", false),
            ("https://a.example.com", "https://a.example.com:444", false),
            ("https://a.example.com", "https://a.example.com.evil.example", false),
            ("https://a.example.com", "https://A.example.com", false),
            ("https://a.example.com", "null", false),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost:3000", "http://localhost:30000", false),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://evil.example/.example.com", false),
            ("https://*.example.com", "https://evil.example:1.example.com", false),
            ("https://*.example.com", "https://user@a.example.com", false),
            ("https://*.example.com", "https://a.example.com.evil.example", false),
            ("https://*.example.com", "http://a.example.com", false),
            ("https://*.example.com", "https://a.example.com:8443", false),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
        ] {
            assert_eq!(origin(configured).unwrap().holds(sent), held, "{sent} by {configured}");
        }
    }

    #[test]
    fn what_no_browser_sends_is_refused_and_the_text_says_what_to_write() {
        for (text, why) in [
            ("*", "must be a list of origins"),
            ("null", "cannot be allowed"),
            ("", "must begin with `https://`"),
            ("example.com", "must begin with `https://`"),
            ("//example.com", "must begin with `https://`"),
            ("ftp://example.com", "must begin with `https://`"),
            ("file:///index.html", "must begin with `https://`"),
            ("https://example.com/", "must end after the host or the port: `https://example.com`"),
            ("https://example.com/app", "must end after the host or the port: `https://example.com`"),
            ("https://example.com?x", "must end after the host or the port: `https://example.com`"),
            ("https://App.example.com", "must be in lower case, as browsers send it: `https://app.example.com`"),
            ("HTTPS://example.com", "must be in lower case"),
            ("https://user@example.com", "must not name a user"),
            ("https://example.com:443", "must not name the port 443, which browsers leave out: `https://example.com`"),
            ("http://example.com:80", "must not name the port 80"),
            ("https://example.com:0", "a port from 1 to 65535"),
            ("https://example.com:65536", "a port from 1 to 65535"),
            ("https://example.com:", "a port from 1 to 65535"),
            ("https://example.com:080", "a port from 1 to 65535"),
            ("https://a*.example.com", "only in place of the first name"),
            ("https://*", "only in place of the first name"),
            ("https://a.*.example.com", "only in place of the first name"),
            ("https://*.*.example.com", "only in place of the first name"),
            ("https://*.com", "at least two names after `*.`"),
            ("https://", "must have a host"),
            ("https://a..b", "must have a host"),
            ("https://a b", "must have a host"),
            ("https://b\u{fc}cher.example", "must have a host of ASCII letters"),
            ("https://[::1", "must have a host"),
            ("https://*.[::1]", "at least two names after `*.`"),
            ("https://a,https://b", "must end after the host or the port"),
        ] {
            let refused = origin(text).unwrap_err();
            assert!(refused.contains(why) && refused.starts_with(&format!("`{text}` ")), "{refused}");
        }
        for text in [
            "https://example.com",
            "http://localhost",
            "https://*.example.com",
            "https://a:8443",
            "http://[::1]",
            "http://10.0.0.1:8080",
        ] {
            assert_eq!(String::from(origin(text).unwrap()), text);
        }
    }
}
