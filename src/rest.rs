//! The REST door: transcodes the documented route onto the RPC. Path, query and headers become the upload's header; the
//! arriving multipart body becomes the same stream of messages that a gRPC client sends, its bytes moved, not copied; the
//! reply becomes the documented envelope. What an upload means is decided in `rpc` and `upload`, not here.

use axum::Router;
use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{RawPathParams, Request, State};
use axum::response::Response;
use axum::routing::post;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::attachment::Digest;
use crate::audit::{Action, Entry};
use crate::envelope;
use crate::error::{Error, Kind, Result};
use crate::multipart::{Boundary, Limits, Parser};
use crate::pb::{Attachment, UPLOAD_ROUTE, UploadHeader};
use crate::rpc::{self, Admitted, Attachments};
use crate::telemetry::{Door, Method, RequestId, Trail};

mod body;
mod chunks;
mod conditions;
mod dictionary;
mod digests;
mod near_miss;
pub mod openapi;
mod target;

use body::Form;
use chunks::Chunks;
use digests::Digests;
use target::target;

/// What a multipart body may have beyond the content, in bytes: enough for all that the parser's limits permit. A declared
/// length past the largest upload and this is refused before the body is read.
const ENVELOPE_BYTES: u64 = 128 << 10;

/// How long the path of an upload is expected to be, in bytes.
const LOCATION_BYTES: usize = 96;

/// The routes of the REST port.
pub fn routes(attachments: Attachments) -> Router {
    Router::new()
        .route(UPLOAD_ROUTE, post(upload))
        .method_not_allowed_fallback(async || envelope::refusal(&Error::new(Kind::MethodNotAllowed)))
        .fallback(async || envelope::refusal(&Error::new(Kind::NotFound)))
        .with_state(attachments)
}

/// What a port that speaks TLS serves to whoever does not: the same refusal of everything.
pub fn speaks_tls() -> Router {
    Router::new().fallback(async || envelope::refusal(&Error::invalid("this port speaks TLS")))
}

async fn upload(
    State(attachments): State<Attachments>,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Response {
    let id = request.extensions().get::<RequestId>().cloned();
    let id = id.unwrap_or_else(|| RequestId::accept_or_make(None));
    let entry = rpc::entry(Action::Upload, Door::Rest, id, request.extensions());
    match serve(&attachments, &entry, path, request).await {
        Ok(attachment) => created(&attachment),
        Err(error) => {
            entry.refused(&error);
            envelope::refusal(&error)
        }
    }
}

async fn serve(
    attachments: &Attachments,
    entry: &Entry,
    path: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Attachment> {
    let (parts, body) = request.into_parts();
    // The headers are slices of the buffer that they were read into, which is free for the body once they are gone.
    let (admitted, form, header) = admit(attachments, entry, path, parts).await?;
    let admitted = admitted.at_most(http_body::Body::size_hint(&body).upper());
    // In a box, since every future that it is handed down through would have room for all of it, twice.
    let messages = Box::pin(body::transcode(body, form, header));
    let stored = attachments.upload(admitted, messages).await?;
    stored.attachment.ok_or_else(|| Error::internal("an upload was stored without an attachment"))
}

/// Reads the head of an upload. The order of these checks is part of the contract: whoever may not know, learns nothing from the
/// checks after.
async fn admit(
    attachments: &Attachments,
    entry: &Entry,
    path: Result<RawPathParams, RawPathParamsRejection>,
    mut parts: Parts,
) -> Result<(Admitted, Form, UploadHeader)> {
    let trail = parts.extensions.remove::<Trail>().ok_or_else(|| Error::internal("a request without a trail"))?;
    trail.asks_for(Method::Upload);
    let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    // Read before the token is looked at, so that the audit trail says what a stranger was after; told after.
    let header = target(path, parts.uri.query().unwrap_or_default());
    if let Ok(header) = &header {
        entry.asked(rpc::asked(header));
    }
    let caller = attachments.caller(authorization, &parts.extensions).await?;
    entry.called(&caller);
    let mut header = header?;
    conditions::read(&parts.headers, &mut header)?;
    let admitted = attachments.admit(caller, &header, trail, entry).await?;

    let boundary = Boundary::from_content_type(single(&parts.headers, &CONTENT_TYPE)?)?;
    let digests = Digests::read(&parts.headers)?;
    header.sha256 = digests.file().map(digests::bytes);
    unencoded(&parts.headers)?;
    fits(&parts.headers, attachments.uploads().config().max_upload_size)?;
    let chunks = Chunks::announced(&parts.headers, parts.uri.query().unwrap_or_default())?;
    Ok((admitted, Form { parser: Parser::new(&boundary, Limits::default()), chunks, digests }, header))
}

fn created(attachment: &Attachment) -> Response {
    let mut response = envelope::created();
    let headers = response.headers_mut();
    let location = UPLOAD_ROUTE.split('/').skip(1).fold(String::with_capacity(LOCATION_BYTES), |location, segment| {
        let id = match segment {
            "{client_id}" => Some(attachment.client_id),
            "{attachment_id}" => Some(attachment.attachment_id),
            _ => None,
        };
        match id {
            Some(id) => location + "/" + &id.to_string(),
            None => location + "/" + segment,
        }
    });
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    if let Ok(digest) = Digest::new("sha256", attachment.sha256.as_deref().unwrap_or_default()) {
        envelope::name_version(headers, &digest.version());
    }
    response
}

/// The value of a header that may come once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Error::invalid(format!("the header {name} must be given once"))),
    }
}

fn unencoded(headers: &HeaderMap) -> Result<()> {
    match single(headers, &CONTENT_ENCODING)? {
        Some(coding) if !coding.eq_ignore_ascii_case(b"identity") => {
            Err(Error::invalid("Content-Encoding is not supported, send the body as it is"))
        }
        _ => Ok(()),
    }
}

fn fits(headers: &HeaderMap, max_upload_size: u64) -> Result<()> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()).and_then(|text| text.parse().ok());
    match length {
        Some(length) if max_upload_size.saturating_add(ENVELOPE_BYTES) < length => {
            Err(Error::new(Kind::TooLarge).detail(format!("at most {max_upload_size} bytes are permitted")))
        }
        _ => Ok(()),
    }
}
