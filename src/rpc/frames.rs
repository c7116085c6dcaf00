//! The messages of an upload over gRPC, taken from the body as it arrives: a message that is a chunk is handed on in slices of
//! what arrived, without being put together first, so that it costs neither a copy nor its size in memory. All others are
//! small, and decoded whole. It must not know which message may follow which.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use http_body_util::BodyExt;
use prost::Message as _;
use tonic::body::Body;

use super::framing::{Encoding, MAX_CHUNK, MAX_MESSAGE, MAX_WHOLE_MESSAGE, PREFIX, chunk_too_large, cut_short, length};
use crate::error::{Error, Result};
use crate::pb::UploadAttachmentRequest;
use crate::pb::upload_attachment_request::Message;

/// The key of a chunk in a message: field 2, with a length.
const CHUNK: u8 = 0x12;

/// The most bytes before the content of a chunk: the key, and a length of 32 bits.
const CHUNK_HEAD: usize = 6;

/// The body of a call, which tonic is not to read, and the compression that the call names. It goes along with the request until
/// it is taken.
#[derive(Clone)]
pub struct Unread(Arc<Mutex<Option<Body>>>, Encoding);

impl fmt::Debug for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unread")
    }
}

impl Unread {
    /// Keeps a body.
    pub fn new(body: Body, encoding: Encoding) -> Unread {
        Unread(Arc::new(Mutex::new(Some(body))), encoding)
    }

    /// Takes the body out, once.
    fn take(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The messages of a body that was kept.
pub(super) fn messages(unread: Option<Unread>) -> Result<impl Stream<Item = Result<UploadAttachmentRequest>> + use<>> {
    let kept = unread.and_then(|unread| Some((unread.take()?, Frames::new(unread.1))));
    let begun = kept.ok_or_else(|| Error::internal("the body of a call was not kept"))?;
    Ok(stream::try_unfold(begun, async |(mut body, mut frames)| {
        loop {
            if let Some(message) = frames.next()? {
                return Ok(Some((UploadAttachmentRequest { message }, (body, frames))));
            }
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        frames.push(data);
                    }
                }
                Some(Err(status)) => return Err(cut_short().because(status)),
                None if frames.is_between() => return Ok(None),
                None => return Err(cut_short()),
            }
        }
    }))
}

/// Takes frames apart. It is given what arrives, and asked for messages until it has none.
struct Frames {
    encoding: Encoding,
    arrived: Bytes,
    at: At,
}

/// Where in the framing the next byte lies.
enum At {
    /// In the prefix of a message.
    Prefix(BytesMut),
    /// In a message of which so many bytes are missing.
    Message(BytesMut, usize),
    /// In the content of a chunk of which so many bytes are missing.
    Chunk(usize),
}

impl Default for At {
    fn default() -> At {
        At::Prefix(BytesMut::new())
    }
}

impl Frames {
    /// The frames of a call that names this compression.
    fn new(encoding: Encoding) -> Frames {
        Frames { encoding, arrived: Bytes::new(), at: At::default() }
    }

    /// Hands over what has arrived. To be called only once [`next`](Self::next) has returned `None`.
    fn push(&mut self, arrived: Bytes) {
        self.arrived = arrived;
    }

    /// Whether what was handed over ends with a message.
    fn is_between(&self) -> bool {
        matches!(&self.at, At::Prefix(begun) if begun.is_empty())
    }

    /// The next message, or the next part of a chunk as if it were one.
    fn next(&mut self) -> Result<Option<Option<Message>>> {
        loop {
            match &mut self.at {
                At::Prefix(begun) => {
                    fill(begun, &mut self.arrived, PREFIX);
                    if begun.len() < PREFIX {
                        return Ok(None);
                    }
                    let length = length(begun, self.encoding, MAX_MESSAGE)?;
                    self.at = At::Message(BytesMut::new(), length);
                }
                At::Message(begun, missing) => {
                    let length = begun.len() + *missing;
                    // What it is can be told by its first bytes.
                    if begun.len() < CHUNK_HEAD {
                        *missing -= fill(begun, &mut self.arrived, length.min(CHUNK_HEAD));
                        if let Some((head, content)) = chunk(begun, length) {
                            if content > MAX_CHUNK {
                                return Err(chunk_too_large());
                            }
                            let first = begun.split_off(head).freeze();
                            self.at = At::Chunk(content - first.len());
                            return Ok(Some(Some(Message::Chunk(first))));
                        }
                        if begun.len() < length.min(CHUNK_HEAD) {
                            return Ok(None);
                        }
                    }
                    if length > MAX_WHOLE_MESSAGE {
                        let what = "a message that is not one chunk and nothing else";
                        return Err(Error::invalid(format!("{what} must be at most {MAX_WHOLE_MESSAGE} bytes")));
                    }
                    *missing -= fill(begun, &mut self.arrived, length);
                    if *missing > 0 {
                        return Ok(None);
                    }
                    let whole = std::mem::take(begun).freeze();
                    self.at = At::default();
                    let decoded = UploadAttachmentRequest::decode(whole);
                    return decoded.map(|request| Some(request.message)).map_err(|error| undecodable().because(error));
                }
                At::Chunk(0) => self.at = At::default(),
                At::Chunk(missing) => {
                    if self.arrived.is_empty() {
                        return Ok(None);
                    }
                    let slice = self.arrived.split_to(self.arrived.len().min(*missing));
                    *missing -= slice.len();
                    return Ok(Some(Some(Message::Chunk(slice))));
                }
            }
        }
    }
}

/// Moves bytes until there are `most`, and says how many were moved.
fn fill(begun: &mut BytesMut, arrived: &mut Bytes, most: usize) -> usize {
    let moved = arrived.split_to(most.saturating_sub(begun.len()).min(arrived.len()));
    begun.extend_from_slice(&moved);
    moved.len()
}

/// Whether a message of `length` bytes is one chunk and nothing else: how many bytes stand before the content, and how many
/// the content has.
fn chunk(begun: &[u8], length: usize) -> Option<(usize, usize)> {
    let (&CHUNK, digits) = begun.split_first()? else { return None };
    let last = digits.iter().position(|digit| digit & 0x80 == 0)?;
    let content = digits[..=last]
        .iter()
        .rev()
        .try_fold(0usize, |sum, digit| sum.checked_mul(128)?.checked_add((digit & 0x7f).into()))?;
    let head = last + 2;
    (head + content == length).then_some((head, content))
}

fn undecodable() -> Error {
    Error::invalid("a message could not be decoded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{UploadFinish, UploadHeader};

    fn framed(message: Message) -> Vec<u8> {
        let bytes = UploadAttachmentRequest { message: Some(message) }.encode_to_vec();
        let length = u32::try_from(bytes.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), &bytes].concat()
    }

    /// What comes of frames, with the parts of a chunk put together.
    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Result<(Vec<Message>, bool)> {
        let mut frames = Frames::new(Encoding::Identity);
        let mut messages: Vec<Message> = Vec::new();
        let mut inside = false;
        for piece in pieces {
            frames.push(Bytes::copy_from_slice(piece));
            while let Some(message) = frames.next()? {
                match (message.expect("no message is empty"), messages.last_mut()) {
                    (Message::Chunk(more), Some(Message::Chunk(chunk))) if inside => {
                        *chunk = [&chunk[..], &more].concat().into();
                    }
                    (message, _) => messages.push(message),
                }
                inside = matches!(frames.at, At::Chunk(missing) if missing > 0);
            }
        }
        Ok((messages, frames.is_between()))
    }

    fn conversation() -> (Vec<Message>, Vec<u8>) {
        let header = UploadHeader { client_id: 1, attachment_id: 300, filename: "x".to_owned(), ..Default::default() };
        let chunk = |length: usize| Message::Chunk(vec![0x12; length].into());
        let messages = vec![
            Message::Header(header),
            chunk(1),
            chunk(0),
            chunk(127),
            chunk(300),
            Message::Finish(UploadFinish { size: Some(428), sha256: None }),
            Message::Finish(UploadFinish::default()),
        ];
        let bytes = messages.iter().cloned().flat_map(framed).collect();
        (messages, bytes)
    }

    #[test]
    fn a_stream_means_the_same_wherever_it_is_cut() {
        let (messages, bytes) = conversation();
        for at in 0..=bytes.len() {
            let (before, after) = bytes.split_at(at);
            assert_eq!(read([before, after]).unwrap(), (messages.clone(), true), "cut at {at}");
        }
        assert_eq!(read(bytes.chunks(1)).unwrap(), (messages.clone(), true));
        assert_eq!(read(bytes.chunks(7)).unwrap(), (messages, true));
    }

    #[test]
    fn a_stream_that_ends_within_a_message_is_not_between_messages() {
        let (_, bytes) = conversation();
        let mut ends = 0;
        for at in 0..=bytes.len() {
            ends += usize::from(read([&bytes[..at]]).unwrap().1);
        }
        assert_eq!(ends, 8, "the beginning, and the end of each of seven messages");
    }

    #[test]
    fn a_chunk_is_not_put_together() {
        let bytes = framed(Message::Chunk(vec![7; MAX_CHUNK].into()));
        let mut frames = Frames::new(Encoding::Identity);
        for piece in bytes.chunks(16 << 10) {
            let piece = Bytes::copy_from_slice(piece);
            let place = piece.as_ptr_range();
            frames.push(piece);
            while let Some(Some(Message::Chunk(slice))) = frames.next().unwrap() {
                assert!(slice.len() <= CHUNK_HEAD || place.contains(&slice.as_ptr()), "it was copied");
            }
        }
        assert!(frames.next().unwrap().is_none() && frames.is_between());
    }

    #[test]
    fn a_chunk_beside_another_field_is_decoded_as_any_message_is() {
        let chunk = UploadAttachmentRequest { message: Some(Message::Chunk(vec![1; 200].into())) }.encode_to_vec();
        let other = UploadAttachmentRequest { message: Some(Message::Chunk(vec![2; 9].into())) }.encode_to_vec();
        // A field given twice: the last one counts. And one that is not known: it is passed over.
        for rest in [other, vec![0xa0, 0x06, 0x01]] {
            let bytes = [&chunk[..], &rest].concat();
            let expected = UploadAttachmentRequest::decode(&bytes[..]).unwrap().message.unwrap();
            let framed = [&[0][..], &u32::try_from(bytes.len()).unwrap().to_be_bytes(), &bytes].concat();
            assert_eq!(read(framed.chunks(3)).unwrap(), (vec![expected], true));
        }
    }

    #[test]
    fn a_message_that_is_more_than_a_chunk_is_put_together_up_to_64_kib_and_refused_before_it_has_come() {
        // A field that is not known: its key, its length, its bytes.
        let unknown = |length: usize| {
            let mut field = vec![0xa2, 0x06];
            prost::encode_length_delimiter(length, &mut field).unwrap();
            [field, vec![0; length]].concat()
        };
        let header = UploadHeader { client_id: 1, ..Default::default() };
        let header = UploadAttachmentRequest { message: Some(Message::Header(header)) }.encode_to_vec();
        let chunk = UploadAttachmentRequest { message: Some(Message::Chunk(vec![1; 200].into())) }.encode_to_vec();
        for begun in [header, chunk] {
            for (length, fits) in [(65_535, true), (65_536, true), (65_537, false)] {
                let bytes = [&begun[..], &unknown(length - begun.len() - 5)].concat();
                assert_eq!(bytes.len(), length);
                let framed = [&[0][..], &u32::try_from(length).unwrap().to_be_bytes(), &bytes].concat();
                let sent = if fits { &framed[..] } else { &framed[..PREFIX + CHUNK_HEAD] };
                match read([sent]) {
                    Ok((messages, true)) => assert!(fits && messages.len() == 1, "{length}"),
                    Ok((_, false)) => panic!("{length}: more of it is waited for"),
                    Err(error) => assert!(!fits && error.to_string().contains("65536"), "{length}: {error}"),
                }
            }
        }
    }

    #[test]
    fn what_is_too_large_compressed_or_no_message_is_refused() {
        let refusal = |bytes: &[u8]| read([bytes]).unwrap_err().to_string();
        let length = |length: usize| u32::try_from(length).unwrap().to_be_bytes();
        assert!(read([&[&[0][..], &length(MAX_MESSAGE)].concat()[..]]).is_ok());
        let too_large = refusal(&[&[0][..], &length(MAX_MESSAGE + 1)].concat());
        assert!(too_large.contains("a message must be at most"), "{too_large}");
        assert!(refusal(&[1, 0, 0, 0, 0]).contains("marked as compressed"));
        assert!(refusal(&[2, 0, 0, 0, 0]).contains("must be 0 or 1, not 2"));
        assert!(refusal(&[0, 0, 0, 0, 2, 0x0a, 0xff]).contains("could not be decoded"));
        let most = framed(Message::Chunk(vec![0; MAX_CHUNK].into()));
        assert!(read([&most[..20]]).is_ok());
        let more = framed(Message::Chunk(vec![0; MAX_CHUNK + 1].into()));
        assert!(refusal(&more[..20]).contains("chunk"));
    }
}
