//! Targets that try the messages of gRPC.

#![allow(clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use bytes::Bytes;
use futures_util::{FutureExt, TryStreamExt, stream};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use tonic::body::Body;

use super::frames::{self, Unread};
use super::framing::{Encoding, MAX_CHUNK, MAX_MESSAGE, MAX_WHOLE_MESSAGE, PREFIX};
use super::messages;
use crate::attachment::Id;
use crate::error::Kind;
use crate::pb::upload_attachment_request::Message;
use crate::pb::{ListAttachmentsRequest, UploadAttachmentRequest, UploadHeader};

/// What was read of a call: its messages, where chunks that follow each other are one, and how it ended.
#[derive(Debug, Default, PartialEq)]
struct Read {
    messages: Vec<Option<Message>>,
    ended: Option<Kind>,
}

impl Read {
    fn take(&mut self, message: Option<Message>) {
        if let (Some(Some(Message::Chunk(chunk))), Some(Message::Chunk(more))) = (self.messages.last_mut(), &message) {
            *chunk = [&chunk[..], more].concat().into();
        } else {
            self.messages.push(message);
        }
    }
}

/// The messages of an upload are the same however the body is cut, and those of a reading of the whole.
pub fn frames(pieces: &[&[u8]], is_compressed: bool) {
    let encoding = if is_compressed { Encoding::Unsupported } else { Encoding::Identity };
    let whole = pieces.concat();
    let expected = by_hand(&whole, encoding);
    assert_eq!(read(pieces, encoding), expected);
    assert_eq!(read(&[&whole], encoding), expected);
    assert_eq!(read(&whole.chunks(1).collect::<Vec<_>>(), encoding), expected);
}

fn read(pieces: &[&[u8]], encoding: Encoding) -> Read {
    let pieces: Vec<_> =
        pieces.iter().map(|piece| Ok::<_, std::io::Error>(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    let body = Body::new(StreamBody::new(stream::iter(pieces)));
    let mut read = Read::default();
    let all = frames::messages(Some(Unread::new(body, encoding))).unwrap().try_for_each(|request| {
        read.take(request.message);
        std::future::ready(Ok(()))
    });
    let ended = all.now_or_never().unwrap();
    read.ended = ended.err().map(|error| error.kind());
    read
}

/// Takes one message after another from the whole, and decodes each with prost.
fn by_hand(mut body: &[u8], encoding: Encoding) -> Read {
    let mut read = Read::default();
    while !body.is_empty() {
        let Some((prefix, rest)) = body.split_at_checked(PREFIX) else {
            read.ended = Some(Kind::Incomplete);
            break;
        };
        let length = usize::try_from(u32::from_be_bytes(prefix[1..].try_into().unwrap())).unwrap();
        let is_invalid = prefix[0] > 1 || length > MAX_MESSAGE;
        if prefix[0] == 1 && encoding == Encoding::Unsupported {
            read.ended = Some(Kind::UnsupportedCompression);
            break;
        }
        if prefix[0] == 1 || is_invalid {
            read.ended = Some(Kind::Invalid);
            break;
        }
        let message = &rest[..length.min(rest.len())];
        let chunk = chunk(message, length);
        if chunk.is_none() && length > MAX_WHOLE_MESSAGE && message.len() >= length.min(6) {
            read.ended = Some(Kind::Invalid);
            break;
        }
        if let Some(begun) = chunk {
            if length - (message.len() - begun.len()) > MAX_CHUNK {
                read.ended = Some(Kind::Invalid);
                break;
            }
            read.take(Some(Message::Chunk(Bytes::copy_from_slice(begun))));
        }
        if message.len() < length {
            read.ended = Some(Kind::Incomplete);
            break;
        }
        if chunk.is_none() {
            match UploadAttachmentRequest::decode(message) {
                Ok(request) => read.take(request.message),
                Err(_) => {
                    read.ended = Some(Kind::Invalid);
                    break;
                }
            }
        }
        body = &rest[length..];
    }
    read
}

/// What has come of the content of a message of `length` bytes that is one chunk.
fn chunk(message: &[u8], length: usize) -> Option<&[u8]> {
    let mut rest = message.strip_prefix(&[0x12])?;
    let content = prost::decode_length_delimiter(&mut rest).ok()?;
    let head = message.len() - rest.len();
    (head <= 6 && head.checked_add(content) == Some(length)).then_some(rest)
}

/// What is taken of a message is what the types of the domain permit.
pub fn messages(bytes: &[u8]) {
    if let Ok(header) = UploadHeader::decode(bytes) {
        if let Ok(described) = messages::described(&header) {
            let name = described.filename.as_str();
            assert!(name.len() <= 255 && !name.contains(|c: char| c.is_control() || c == '/' || c == '\\'));
            assert!(described.content_type.as_str().contains('/'));
            assert_eq!(described.declared.size.map(u64::cast_signed), header.size);
            let sha256 = described.declared.sha256.map(|digest| digest.as_bytes().to_vec());
            assert_eq!(sha256.as_deref(), header.sha256.as_deref());
        }
        if let Ok(conditions) = messages::conditions(&header) {
            assert_eq!(conditions.if_match.is_some(), header.if_match.is_some());
            assert_eq!(conditions.if_none_match.is_some(), header.if_absent || header.if_none_match.is_some());
        }
    }
    if let Ok(request) = ListAttachmentsRequest::decode(bytes)
        && let Ok(query) = messages::query(&request)
    {
        assert!(query.client.get() == request.client_id && request.client_id >= 1);
        assert_eq!(query.project.map(Id::get), request.project_id);
        assert_eq!(query.portfolio.map(Id::get), request.portfolio_id);
    }
    let (words, _) = bytes.as_chunks::<8>();
    if let [offset, length, size, ..] = words {
        let [offset, length] = [offset, length].map(|word| i64::from_be_bytes(*word));
        let size = u64::from_be_bytes(*size);
        for length in [None, Some(length)] {
            let Ok(range) = messages::range(offset, length, size) else { continue };
            assert_eq!(range.start.cast_signed(), offset);
            assert!(range.end <= size && (range.start < range.end || size == 0));
            let whole = i128::from(size) - i128::from(offset);
            let expected = length.map_or(whole, |length| whole.min(length.into()));
            assert_eq!(i128::from(range.end) - i128::from(range.start), expected);
        }
    }
}
