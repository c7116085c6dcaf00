//! The body of a transcoded request: JSON of a bounded size. It must not know what the JSON says.

use axum::body::{Body, Bytes};
use bytes::BytesMut;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body::Body as HttpBody;
use http_body_util::BodyExt;

use crate::error::{Error, Kind, Result};
use crate::rest::headers::{single, unencoded};
use crate::rpc::Attachments;

/// The largest JSON body, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// Reads a JSON body. An empty one may come without a content type.
///
/// # Errors
/// [`Kind::UnsupportedMediaType`], [`Kind::TooLarge`], [`Kind::Invalid`] for a compressed body, [`Kind::Incomplete`],
/// [`Kind::ClientTooSlow`].
pub async fn json(attachments: &Attachments, headers: &HeaderMap, body: Body) -> Result<Bytes> {
    unencoded(headers)?;
    let content_type = single(headers, &CONTENT_TYPE)?;
    match content_type {
        None if body.is_end_stream() => {}
        None => return Err(not_json("there is no content-type")),
        Some(value) if is_json(value) => {}
        Some(_) => return Err(not_json("the content-type is another")),
    }
    read(attachments, body, MAX_BODY)
        .await?
        .ok_or_else(|| Error::new(Kind::TooLarge).detail(format!("a JSON body may have {MAX_BODY} bytes at most")))
}

/// Looks that there is no body. One that is announced and empty is none.
///
/// # Errors
/// [`Kind::Invalid`] for a body, [`Kind::Incomplete`], [`Kind::ClientTooSlow`].
pub async fn none(attachments: &Attachments, body: Body) -> Result<()> {
    let read = read(attachments, body, 0).await?;
    read.map(|_| ())
        .ok_or_else(|| Error::invalid("this request takes no body, send its fields in the path and the query"))
}

/// Reads a body. None if it has more than `most` bytes, which is known before it is read if its length is.
async fn read(attachments: &Attachments, mut body: Body, most: usize) -> Result<Option<Bytes>> {
    if body.size_hint().lower() > most as u64 {
        return Ok(None);
    }
    let mut read = BytesMut::new();
    while let Some(frame) = attachments.uploads().in_time(body.frame()).await? {
        let frame =
            frame.map_err(|error| Error::new(Kind::Incomplete).detail("the body was cut short").because(error))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > most {
                return Ok(None);
            }
            read.extend_from_slice(data);
        }
    }
    Ok(Some(read.freeze()))
}

fn not_json(why: &str) -> Error {
    Error::new(Kind::UnsupportedMediaType).detail(format!("{why}; send the body as application/json"))
}

/// Whether a content type is that of JSON in UTF-8, which has no other encoding (RFC 8259 s8.1).
fn is_json(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"))
        && parts.filter(|part| !part.is_empty()).all(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            !name.eq_ignore_ascii_case("charset") || value.trim_matches('"').eq_ignore_ascii_case("utf-8")
        })
}
