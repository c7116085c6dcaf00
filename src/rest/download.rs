//! Downloads over HTTP: the preconditions (RFC 9110 s13), the range (s14) and the headers that keep a browser from running what it gets.
//! What is read, and what of it a caller may see, is decided elsewhere.

use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, IF_MATCH, IF_MODIFIED_SINCE, IF_RANGE, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    LOCATION, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::conditions::tags;
use super::dictionary::{self, Item};
use super::disposition::{self, Disposition};
use super::range::{self, Asked};
use super::target::{asked, target};
use crate::attachment::{Content, Key, Record, Tags};
use crate::envelope::{self, Streamed};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::request::{self, RequestContext};
use crate::rpc::{Attachments, Conditions, Plan, Presented, Sent};

mod config;
mod inline;

pub use config::Config;

/// RFC 9530.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
/// RFC 9530.
const WANT_CONTENT_DIGEST: HeaderName = HeaderName::from_static("want-content-digest");
/// Fetch standard, "Cross-Origin-Resource-Policy header".
const CORP: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// How long a cache may keep content: it must ask again each time.
const ASK_AGAIN: &str = "private, no-cache";

/// What is sent with every reply that has content or stands for it.
const ALWAYS: [(HeaderName, HeaderValue); 5] = [
    (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
    (CACHE_CONTROL, HeaderValue::from_static(ASK_AGAIN)),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    (CORP, HeaderValue::from_static("same-site")),
];

/// Answers `GET` and `HEAD`.
pub(super) async fn download(
    (attachments, config): (Attachments, Arc<Config>),
    key: Result<Key>,
    mut request: Request,
) -> Response {
    let context: RequestContext = match request::take(request.extensions_mut()) {
        Ok(context) => context,
        Err(error) => return envelope::refusal(&error),
    };
    context.asks_for(Rpc::DownloadAttachment);
    let audit = context.audit.clone();
    let (parts, _) = request.into_parts();
    serve(&attachments, &config, context, key, parts).await.unwrap_or_else(|error| {
        audit.refused(&error);
        envelope::refusal(&error)
    })
}

async fn serve(
    attachments: &Attachments,
    config: &Config,
    context: RequestContext,
    key: Result<Key>,
    parts: Parts,
) -> Result<Response> {
    let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    // Read before the token is checked, so that the audit log has it. The caller learns of errors in it after that.
    let target = key.and_then(|key| target(key, parts.uri.query().unwrap_or_default()));
    if let Ok(target) = &target {
        context.audit.asked(asked(target));
    }
    let call = attachments.authenticate(authorization, context).await?;
    let target = target?;
    let asks = Asks::read(&parts)?;
    let (record, answer, sent) =
        attachments.download(&call, target, |content| asks.plan(config, target.key, content)).await?;
    reply(config, &record, &answer, sent, &asks)
}

/// What a request asks for.
struct Asks {
    is_head: bool,
    /// Whether it has a condition that the storage would judge by other tags and dates, if the client took it there.
    is_ours: bool,
    conditions: Conditions,
    unmodified_since: Option<SystemTime>,
    modified_since: Option<SystemTime>,
    range: Option<String>,
    if_range: Option<String>,
    wants_digest: bool,
}

/// How a request is answered.
#[derive(Clone, Debug)]
enum Answer {
    /// The client has it already.
    NotModified,
    /// With all of it.
    All,
    /// With these bytes of it.
    Part(Range<u64>),
    /// With an address where the storage sends it.
    Elsewhere,
}

impl Asks {
    fn read(parts: &Parts) -> Result<Asks> {
        let headers = &parts.headers;
        let conditions =
            Conditions { if_match: tags("If-Match", headers)?, if_none_match: tags("If-None-Match", headers)? };
        // A header that has a stronger one beside it, or that is no date, is ignored (RFC 9110 s13.1.3, s13.1.4).
        let date = |name: &HeaderName| text(headers, name).and_then(|text| httpdate::parse_http_date(text).ok());
        let unmodified_since = date(&IF_UNMODIFIED_SINCE).filter(|_| conditions.if_match.is_none());
        let modified_since = date(&IF_MODIFIED_SINCE).filter(|_| conditions.if_none_match.is_none());
        let (range, if_range) = (text(headers, &RANGE), text(headers, &IF_RANGE));
        Ok(Asks {
            is_head: parts.method == Method::HEAD,
            is_ours: [IF_MATCH, IF_MODIFIED_SINCE, IF_RANGE, IF_UNMODIFIED_SINCE]
                .iter()
                .any(|name| headers.contains_key(name)),
            conditions,
            unmodified_since,
            modified_since,
            range: range.filter(|_| parts.method == Method::GET).map(str::to_owned),
            if_range: if_range.map(str::to_owned),
            wants_digest: wants_digest(headers),
        })
    }

    /// What is sent of the content that stands, in the order of RFC 9110 s13.2.2.
    fn plan(&self, config: &Config, key: Key, content: &Content) -> Result<Plan<Answer>> {
        let (digest, modified) = (Some(content.sha256), modified(content));
        let Conditions { if_match, if_none_match } = &self.conditions;
        Conditions { if_match: if_match.clone(), if_none_match: None }.judge(digest)?;
        if self.unmodified_since.is_some_and(|since| modified > since) {
            let why = "the content was stored after the time in If-Unmodified-Since";
            return Err(Error::new(Kind::PreconditionFailed).detail(why).stored(content.sha256.version()));
        }
        let has_it = if_none_match.as_ref().is_some_and(|tags| tags.match_weakly(digest))
            || self.modified_since.is_some_and(|since| modified <= since);
        if has_it {
            return Ok(Plan { range: None, redirect: None, reply: Answer::NotModified });
        }
        let range = match self.range.as_deref().filter(|_| self.is_still(content)) {
            Some(range) => range::read(range, content.size),
            None => Asked::All,
        };
        let (range, reply) = match range {
            Asked::All => (0..content.size, Answer::All),
            Asked::Part(range) => (range.clone(), Answer::Part(range)),
            Asked::Nothing => {
                let why = format!("the content has {} bytes", content.size);
                return Err(Error::new(Kind::RangeNotSatisfiable).detail(why).of_size(content.size));
            }
        };
        // What is signed is a GET, and a client takes its Range along.
        if config.redirects(content) && !self.is_head && !self.is_ours {
            let redirect = Some(presented(config, key, content));
            return Ok(Plan { range: None, redirect, reply: Answer::Elsewhere });
        }
        Ok(Plan { range: Some(range).filter(|_| !self.is_head), redirect: None, reply })
    }

    /// Whether `If-Range` names the content that stands. If it does not, the client gets all of it (RFC 9110 s13.1.5).
    fn is_still(&self, content: &Content) -> bool {
        let Some(named) = self.if_range.as_deref() else { return true };
        match httpdate::parse_http_date(named) {
            Ok(date) => date == modified(content),
            Err(_) => {
                matches!(Tags::parse("If-Range", named), Ok(tags @ Tags::Listed(_)) if tags.match_strongly(Some(content.sha256)))
            }
        }
    }
}

fn reply(config: &Config, record: &Record, answer: &Answer, sent: Sent, asks: &Asks) -> Result<Response> {
    let mut response = Response::new(Body::empty());
    let Some(content) = record.content() else { return Ok(response) };
    let headers = response.headers_mut();
    headers.extend(ALWAYS);
    let version = content.sha256.version();
    envelope::name_version(headers, &version);
    let mut set = |name: HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set(LAST_MODIFIED, httpdate::fmt_http_date(modified(content)));
    let (status, range) = match answer {
        Answer::NotModified => (StatusCode::NOT_MODIFIED, None),
        Answer::All => (StatusCode::OK, Some(0..content.size)),
        Answer::Part(range) => {
            set(CONTENT_RANGE, format!("bytes {}-{}/{}", range.start, range.end - 1, content.size));
            (StatusCode::PARTIAL_CONTENT, Some(range.clone()))
        }
        Answer::Elsewhere => (StatusCode::TEMPORARY_REDIRECT, None),
    };
    if let Some(range) = range {
        set(CONTENT_TYPE, content.content_type.as_str().to_owned());
        set(CONTENT_LENGTH, (range.end - range.start).to_string());
        if asks.wants_digest && range == (0..content.size) {
            set(CONTENT_DIGEST, version.repr_digest);
        }
        headers.insert(CONTENT_DISPOSITION, disposition(config, record.key, content));
    }
    if let Sent::Elsewhere(address) = &sent {
        let mut location = HeaderValue::try_from(address.reveal()).map_err(Error::internal)?;
        location.set_sensitive(true);
        headers.insert(LOCATION, location);
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    }
    *response.status_mut() = status;
    if let Some(download) = sent.here() {
        response.extensions_mut().insert(Streamed { length: download.length() });
        *response.body_mut() = Body::from_stream(download.into_stream());
    }
    Ok(response)
}

/// The headers with which the storage is to send the content.
fn presented(config: &Config, key: Key, content: &Content) -> Presented {
    Presented {
        content_type: content.content_type.as_str().to_owned(),
        disposition: disposition(config, key, content).to_str().unwrap_or("attachment").to_owned(),
        cache_control: ASK_AGAIN.to_owned(),
        expiry: config.redirect_expiry,
    }
}

/// What a browser is to do with the content, and under which name.
fn disposition(config: &Config, key: Key, content: &Content) -> HeaderValue {
    let id = key.attachment.to_string();
    let name = Some(content.filename.as_str()).filter(|name| !name.is_empty()).unwrap_or(&id);
    let is_inline = config.is_inline(&content.content_type);
    disposition::of(if is_inline { Disposition::Inline } else { Disposition::Attachment }, name)
}

/// When the content was stored, to the second, as HTTP writes it.
fn modified(content: &Content) -> SystemTime {
    SystemTime::from(content.created_at.replace_nanosecond(0).unwrap_or(content.created_at))
}

/// The value of a header that is one text. One that is given twice says nothing.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether the client would have the digest of what is sent (RFC 9530 s4): any preference for SHA-256 above 0.
fn wants_digest(headers: &HeaderMap) -> bool {
    let wanted = text(headers, &WANT_CONTENT_DIGEST).unwrap_or_default();
    let wanted = dictionary::parse(wanted).unwrap_or_default();
    wanted.iter().any(|(key, item)| *key == "sha-256" && matches!(item, Item::Integer(weight) if *weight > 0))
}
