//! The REST port: transcodes the documented route onto the operation that the RPC has. Path, query and headers become the
//! upload's header; the arriving multipart body becomes the pieces of the content, its bytes moved, not copied; the reply becomes
//! the documented envelope. What an upload means is decided in `rpc` and `upload`, not here.

use std::sync::Arc;

use attachd_multipart::{Boundary, Limits, Parser};
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::ready;
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use prost_reflect::DescriptorPool;

use crate::attachment::{Digest, Filename, Key, MediaType};
use crate::envelope;
use crate::error::{Error, Kind, Result};
use crate::operation::{Rpc, UPLOAD_ATTACHMENT};
use crate::pb::attachment_service_server::{AttachmentServiceServer, SERVICE_NAME};
use crate::pb::{self, Attachment};
use crate::request::{self, RequestContext};
use crate::rpc::{Admitted, Attachments, Declared, Header};

mod body;
mod chunks;
mod conditions;
mod dictionary;
mod digests;
mod disposition;
mod download;
mod headers;
mod near_miss;
pub mod openapi;
mod page;
mod query;
mod range;
mod target;
mod transcode;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/rest.rs"]
pub mod fuzzing;

use body::{Form, Reading};
use chunks::Chunks;
use digests::Digests;
pub use download::Config as DownloadConfig;
use headers::{single, unencoded};
use target::{asked, key, target};
use transcode::{Adapter, Adapters, Server, Template, Transcoder};

/// What a multipart body may have beyond the content, in bytes: enough for all that the parser's limits permit. A declared
/// length past the largest upload and this is refused before the body is read.
const ENVELOPE_BYTES: u64 = 128 << 10;

/// How long the path of an upload is expected to be, in bytes.
const LOCATION_BYTES: usize = 96;

/// Where the description of the port is.
const DESCRIPTION: &str = "/openapi.json";

/// What the REST port serves beside the operations, to anybody.
#[derive(Clone, Copy, Debug)]
pub struct Beside {
    /// The description of all routes.
    pub description: bool,
    /// The page for people.
    pub page: bool,
}

/// The routes of the REST port. `downloads` says how downloads are answered.
///
/// # Errors
/// What of the proto cannot be served over REST.
pub fn routes(attachments: Attachments, downloads: DownloadConfig, beside: Beside) -> Result<Router, String> {
    let descriptors = DescriptorPool::decode(pb::DESCRIPTORS).map_err(|error| error.to_string())?;
    let streams = vec![
        (Rpc::UploadAttachment.row().path, adapter(attachments.clone(), upload)),
        (Rpc::DownloadAttachment.row().path, adapter((attachments.clone(), Arc::new(downloads)), download::download)),
    ];
    let mut adapters = Adapters { streams, beside: Vec::new() };
    if beside.page {
        adapters.beside.push(page::route()?);
    }
    if beside.description {
        let document = Bytes::from(openapi::document()?.to_string());
        let described = move || ([(CONTENT_TYPE, "application/json")], document.clone()).into_response();
        adapters.beside.push((
            Method::GET,
            Template::parse(DESCRIPTION)?,
            Box::new(move |_, _| Box::pin(ready(described()))),
        ));
    }
    let service = Server::new(AttachmentServiceServer::new(attachments.clone()));
    Ok(Transcoder::new(&descriptors, SERVICE_NAME, service, attachments, adapters)?.into_router())
}

/// The adapter of a route that names an attachment.
fn adapter<S, F>(state: S, serve: fn(S, Result<Key>, Request) -> F) -> Adapter
where
    S: Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    Box::new(move |captures, request| Box::pin(serve(state.clone(), key(captures), request)))
}

/// What a port that speaks TLS serves to whoever does not: the same refusal of everything.
pub fn speaks_tls() -> Router {
    Router::new().fallback(async || envelope::refusal(&Error::invalid("this port speaks TLS")))
}

async fn upload(attachments: Attachments, key: Result<Key>, mut request: Request) -> Response {
    let context: RequestContext = match request::take(request.extensions_mut()) {
        Ok(context) => context,
        Err(error) => return envelope::refusal(&error),
    };
    context.asks_for(Rpc::UploadAttachment);
    let audit = context.audit.clone();
    match serve(&attachments, context, key, request).await {
        Ok(attachment) => created(&attachment),
        Err(error) => {
            audit.refused(&error);
            envelope::refusal(&error)
        }
    }
}

async fn serve(
    attachments: &Attachments,
    context: RequestContext,
    key: Result<Key>,
    request: Request,
) -> Result<Attachment> {
    let (parts, body) = request.into_parts();
    // The headers are slices of the buffer that they were read into, which is free for the body once they are gone.
    let (admitted, form) = read_head(attachments, context, key, parts).await?;
    let length = http_body::Body::size_hint(&body).upper();
    let admitted = attachments.uploads().make_room(admitted, None, length).await?;
    let declared = Declared { size: None, sha256: form.digests.file() };
    let mut reading = Reading::new(body, form);
    let file = attachments.uploads().in_time(reading.file()).await??;
    let header = Header {
        filename: Filename::new(&file.filename.unwrap_or_default())?,
        content_type: MediaType::new(&file.content_type.unwrap_or_default())?,
        declared,
    };
    // In a box, since every future that it is handed down through would have room for all of it, twice.
    let stored = attachments.upload(admitted, header, Box::pin(reading.pieces())).await?;
    stored.attachment.ok_or_else(|| Error::internal("an upload was stored without an attachment"))
}

/// Reads the head of an upload. The order of these checks is part of the contract: whoever may not know, learns nothing from the
/// checks after.
async fn read_head(
    attachments: &Attachments,
    context: RequestContext,
    key: Result<Key>,
    parts: Parts,
) -> Result<(Admitted, Form)> {
    let authorization = parts.headers.get_all(AUTHORIZATION).iter().map(HeaderValue::as_bytes);
    // Read before the token is looked at, so that the audit trail says what a stranger was after; told after.
    let target = key.and_then(|key| target(key, parts.uri.query().unwrap_or_default()));
    if let Ok(target) = &target {
        context.audit.asked(asked(target));
    }
    let call = attachments.authenticate(authorization, context).await?;
    let target = target?;
    let conditions = conditions::read(&parts.headers)?;
    let admitted = attachments.admit(call, target, conditions).await?;

    let boundary = Boundary::from_content_type(single(&parts.headers, &CONTENT_TYPE)?).map_err(body::form_error)?;
    let digests = Digests::read(&parts.headers)?;
    unencoded(&parts.headers)?;
    fits(&parts.headers, attachments.uploads().config().max_upload_size)?;
    let chunks = Chunks::announced(&parts.headers, parts.uri.query().unwrap_or_default())?;
    Ok((admitted, Form { parser: Parser::new(&boundary, Limits::default()), chunks, digests }))
}

fn created(attachment: &Attachment) -> Response {
    let mut response = envelope::created();
    let headers = response.headers_mut();
    let location = UPLOAD_ATTACHMENT.template.split('/').skip(1).fold(
        String::with_capacity(LOCATION_BYTES),
        |location, segment| {
            let id = match segment {
                "{client_id}" => Some(attachment.client_id),
                "{attachment_id}" => Some(attachment.attachment_id),
                _ => None,
            };
            match id {
                Some(id) => location + "/" + &id.to_string(),
                None => location + "/" + segment,
            }
        },
    );
    if let Ok(location) = HeaderValue::try_from(location) {
        headers.insert(LOCATION, location);
    }
    if let Ok(digest) = Digest::new("sha256", attachment.sha256.as_deref().unwrap_or_default()) {
        envelope::name_version(headers, &digest.version());
    }
    response
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
