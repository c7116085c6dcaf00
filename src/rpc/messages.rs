//! How the wire's words become the domain's and back: what each message asks for, and what a reply says. It must not know
//! what an operation does.

use std::ops::Range;

use prost_types::Timestamp;
use time::OffsetDateTime;

use super::framing::{MAX_CHUNK, chunk_too_large};
use crate::attachment::{Digest, Filename, Id, Key, MediaType, Record, Tags, Target};
use crate::audit::Asked;
use crate::error::{Error, Kind, Result};
use crate::pb::upload_attachment_request::Message;
use crate::pb::{
    Attachment, AttachmentView, ListAttachmentsRequest, ListAttachmentsResponse, UploadAttachmentRequest, UploadFinish,
    UploadHeader,
};
use crate::reads::{Page, Query};
use crate::upload::{Conditions, Declared, Header, Piece};

/// The order of messages after the header.
pub(super) fn piece(message: UploadAttachmentRequest) -> Result<Piece> {
    match message.message {
        Some(Message::Chunk(bytes)) if bytes.len() > MAX_CHUNK => Err(chunk_too_large()),
        Some(Message::Chunk(bytes)) => Ok(Piece::Chunk(bytes)),
        Some(Message::Finish(UploadFinish { size, sha256 })) => Ok(Piece::Finish(declared(size, sha256.as_deref())?)),
        Some(Message::Header(_)) => Err(Error::invalid("the header must come once")),
        None => Err(empty_message()),
    }
}

pub(super) fn empty_message() -> Error {
    Error::invalid("a message must hold a header, a chunk or a finish")
}

pub(super) fn target(asked: Asked) -> Result<Target> {
    Ok(Target {
        key: Key {
            client: Id::new("client_id", asked.client)?,
            attachment: Id::new("attachment_id", asked.attachment.unwrap_or_default())?,
        },
        project: asked.project.map(|id| Id::new("project_id", id)).transpose()?,
        portfolio: asked.portfolio.map(|id| Id::new("portfolio_id", id)).transpose()?,
    })
}

pub(super) fn conditions(header: &UploadHeader) -> Result<Conditions> {
    let if_none_match = tags("if_none_match", header.if_none_match.as_deref())?;
    Ok(Conditions {
        if_match: tags("if_match", header.if_match.as_deref())?,
        // Create-only is the stricter of the two.
        if_none_match: if header.if_absent { Some(Tags::Any) } else { if_none_match },
    })
}

/// Reads the value of a precondition.
pub(super) fn tags(field: &'static str, text: Option<&str>) -> Result<Option<Tags>> {
    text.map(|text| Tags::parse(field, text)).transpose()
}

fn declared(size: Option<i64>, sha256: Option<&[u8]>) -> Result<Declared> {
    let size = size.map(u64::try_from).transpose().map_err(|_| Error::invalid_field("size", "must not be negative"))?;
    Ok(Declared { size, sha256: sha256.map(|bytes| Digest::new("sha256", bytes)).transpose()? })
}

pub(super) fn attachment(record: &Record) -> Attachment {
    let content = record.content();
    Attachment {
        client_id: record.key.client.get(),
        attachment_id: record.key.attachment.get(),
        project_id: record.project_id.map(Id::get),
        portfolio_id: record.portfolio_id.map(Id::get),
        filename: content.map(|content| content.filename.as_str().to_owned()).unwrap_or_default(),
        content_type: content.map(|content| content.content_type.as_str().to_owned()).unwrap_or_default(),
        size: content.map(|content| content.size.cast_signed()),
        sha256: content.map(|content| content.sha256.as_bytes().to_vec().into()),
        created_at: Some(timestamp(content.map_or(record.registered_at, |content| content.created_at))),
        uploaded_by: content.map_or(&record.registered_by, |content| &content.uploaded_by).clone(),
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: time.unix_timestamp(), nanos: time.nanosecond().cast_signed() }
}

/// What comes with the content beside the ids and the preconditions, which decide whether the rest is looked at.
pub(super) fn described(header: &UploadHeader) -> Result<Header> {
    Ok(Header {
        filename: Filename::new(&header.filename)?,
        content_type: MediaType::new(&header.content_type)?,
        declared: declared(header.size, header.sha256.as_deref())?,
    })
}

/// What a listing asks for.
pub(super) fn query(message: &ListAttachmentsRequest) -> Result<Query> {
    let optional = |field, id: Option<i64>| id.map(|id| Id::new(field, id)).transpose();
    let full = match AttachmentView::try_from(message.view) {
        Ok(AttachmentView::Full) => true,
        Ok(AttachmentView::Basic | AttachmentView::Unspecified) => false,
        Err(_) => return Err(Error::invalid_field("view", "must be ATTACHMENT_VIEW_BASIC or ATTACHMENT_VIEW_FULL")),
    };
    Ok(Query {
        client: Id::new("client_id", message.client_id)?,
        project: optional("project_id", message.project_id)?,
        portfolio: optional("portfolio_id", message.portfolio_id)?,
        page_size: message.page_size,
        page_token: message.page_token.clone(),
        full,
    })
}

/// A page of a listing.
pub(super) fn page(page: Page, full: bool) -> ListAttachmentsResponse {
    let shown = |record: &Record| {
        let attachment = attachment(record);
        if full { attachment } else { Attachment { sha256: None, uploaded_by: String::new(), ..attachment } }
    };
    ListAttachmentsResponse {
        attachments: page.records.iter().map(shown).collect(),
        next_page_token: page.next.unwrap_or_default(),
        unreadable_count: i32::try_from(page.unreadable).unwrap_or(i32::MAX),
    }
}

/// The bytes that a download asks for, of content of so many.
pub(super) fn range(offset: i64, length: Option<i64>, size: u64) -> Result<Range<u64>> {
    let offset = u64::try_from(offset).map_err(|_| Error::invalid_field("offset", "must not be negative"))?;
    let length = match length.map(u64::try_from) {
        None => u64::MAX,
        Some(Ok(length)) if length > 0 => length,
        Some(_) => return Err(Error::invalid_field("length", "must be at least 1")),
    };
    // All of empty content is a range of it.
    if offset > 0 && offset >= size {
        return Err(Error::new(Kind::RangeNotSatisfiable)
            .detail(format!("the content has {size} bytes"))
            .of_size(size));
    }
    Ok(offset..offset.saturating_add(length).min(size))
}
