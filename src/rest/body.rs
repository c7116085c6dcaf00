//! The body of an upload over REST: the events of its multipart form become the messages that a gRPC client sends. Which part
//! is the content, and what the parts beside it may be, is decided here.

use axum::body::Body;
use futures_util::{Stream, stream};
use http_body::Frame;
use http_body_util::BodyExt;

use super::chunks::{Chunks, VALUE_BYTES};
use super::digests::{Digests, bytes};
use super::near_miss::near_miss;
use crate::error::{Error, Kind, Result};
use crate::multipart::{Event, Limits, Parser, PartHead};
use crate::pb::upload_attachment_request::Message;
use crate::pb::{UploadAttachmentRequest, UploadFinish, UploadHeader};

/// The name of the part that holds the content.
const FILE: &str = "file";

/// How many parts are named in an error text, and how many characters of each name.
const NAMED: usize = 4;
const NAME_CHARS: usize = 64;

/// What is needed to read the form of a request.
pub struct Form {
    /// At the start of the body.
    pub parser: Parser,
    /// What the head of the request has said of chunks.
    pub chunks: Chunks,
    /// The digests that the head of the request declares.
    pub digests: Digests,
}

/// A multipart body on its way to becoming messages.
struct Transcoding {
    body: Body,
    parser: Parser,
    chunks: Chunks,
    digests: Digests,
    /// Until the file part has been seen, and then nothing.
    header: Option<UploadHeader>,
    part: Part,
    /// The names of the first parts beside the file, in quotes.
    others: Vec<String>,
}

/// The part that is being read.
enum Part {
    /// None: the form has just begun, or is closed.
    None,
    /// The file.
    File {
        /// Whether its file name was sent, and is empty: a browser's way to say that no file was chosen.
        nameless: bool,
        empty: bool,
    },
    /// A field whose value matters: its name, and its value so far.
    Field(String, Vec<u8>),
    /// A part that is skipped: its name, in quotes.
    Skipped(String),
}

/// The messages of the upload that a multipart body is: the header when its `file` part begins, its bytes, and the finish
/// when the closing boundary was seen and the body has ended well.
pub fn transcode(body: Body, form: Form, header: UploadHeader) -> impl Stream<Item = Result<UploadAttachmentRequest>> {
    // In a box, since the stream and each of its steps would have room for it.
    let Form { parser, chunks, digests } = form;
    let (part, others) = (Part::None, Vec::new());
    let begun = Box::new(Transcoding { body, parser, chunks, digests, header: Some(header), part, others });
    stream::try_unfold(Some(begun), async |state| {
        let Some(mut state) = state else {
            return Ok(None);
        };
        let message = state.next().await?;
        let next = (!matches!(message, Message::Finish(_))).then_some(state);
        Ok(Some((UploadAttachmentRequest { message: Some(message) }, next)))
    })
}

impl Transcoding {
    async fn next(&mut self) -> Result<Message> {
        loop {
            match self.parser.next().map_err(|error| self.blamed(error))? {
                Some(Event::Part(part)) if part.name == FILE => return self.file(part).map(Message::Header),
                Some(Event::Part(part)) => self.other(&part.name)?,
                Some(Event::Data(bytes)) => {
                    if let Some(bytes) = self.data(bytes) {
                        return Ok(Message::Chunk(bytes));
                    }
                }
                Some(Event::PartEnd) => self.end_part()?,
                Some(Event::Closed) => {}
                None => match self.body.frame().await {
                    Some(Ok(frame)) => match frame.into_data().map_err(Frame::into_trailers) {
                        Ok(bytes) => {
                            self.digests.data(&bytes);
                            self.parser.push(bytes);
                        }
                        Err(Ok(trailer)) => self.digests.trailer(&trailer)?,
                        Err(Err(_)) => {}
                    },
                    Some(Err(error)) => {
                        return Err(Error::new(Kind::Incomplete).detail("the body was cut short").because(error));
                    }
                    None => {
                        self.parser.finish()?;
                        // A closing delimiter without a line end is proved by the end of the body.
                        while let Some(event) = self.parser.next()? {
                            if event == Event::PartEnd {
                                self.end_part()?;
                            }
                        }
                        return self.finish();
                    }
                },
            }
        }
    }

    fn file(&mut self, part: PartHead) -> Result<UploadHeader> {
        let mut header = self.header.take().ok_or_else(|| Error::invalid_field(FILE, "must be given once"))?;
        self.part = Part::File { nameless: part.filename.as_deref() == Some(""), empty: true };
        header.filename = part.filename.unwrap_or_default();
        header.content_type = part.content_type.unwrap_or_default();
        Ok(header)
    }

    /// A part beside the file.
    fn other(&mut self, name: &str) -> Result<()> {
        if let Some(id) = near_miss(name) {
            return Err(Error::invalid(format!(
                "the form field {} is not read; {id} must be in the query of the request",
                quoted(name)
            )));
        }
        if self.others.len() < NAMED {
            self.others.push(quoted(name));
        }
        if Chunks::names(name) {
            self.parser.charge_part();
            self.part = Part::Field(name.to_owned(), Vec::new());
        } else {
            self.parser.skip_part();
            self.part = Part::Skipped(quoted(name));
        }
        Ok(())
    }

    /// More of a part: what is content is returned.
    fn data(&mut self, bytes: bytes::Bytes) -> Option<bytes::Bytes> {
        match &mut self.part {
            Part::File { empty, .. } => {
                *empty = false;
                Some(bytes)
            }
            Part::Field(_, value) => {
                value.extend_from_slice(&bytes[..bytes.len().min(VALUE_BYTES - value.len())]);
                None
            }
            Part::None | Part::Skipped(_) => None,
        }
    }

    fn end_part(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.part, Part::None) {
            Part::File { nameless: true, empty: true } => {
                Err(Error::invalid_field(FILE, "no file was chosen: its file name is empty and it has no bytes"))
            }
            Part::Field(name, value) => self.chunks.field(&name, &value),
            Part::File { .. } | Part::Skipped(_) | Part::None => Ok(()),
        }
    }

    /// The refusal of a form by the parser, which does not know which parts are expected.
    fn blamed(&self, error: Error) -> Error {
        let most = Limits::default().overhead_bytes;
        let name = match &self.part {
            Part::Field(name, _) => &quoted(name),
            Part::Skipped(name) => name,
            Part::File { .. } | Part::None => return error,
        };
        if !self.parser.is_overrun() {
            return error;
        }
        Error::invalid(format!(
            "the part {name} is not expected, and parts other than \"{FILE}\" may have {most} bytes in all; the content must be in a part named \"{FILE}\""
        ))
    }

    /// The body has ended well, and the parser has seen its closing boundary.
    fn finish(&mut self) -> Result<Message> {
        if self.header.is_none() {
            self.chunks.end()?;
            let sha256 = self.digests.finish()?.map(bytes);
            return Ok(Message::Finish(UploadFinish { size: None, sha256 }));
        }
        Err(Error::invalid_field(
            FILE,
            match self.others.as_slice() {
                [] => "the form has no part of this name".to_owned(),
                names => format!("the form has no part of this name; it has {}", names.join(", ")),
            },
        ))
    }
}

/// The name of a part in quotes, with whatever is not printable escaped, and cut if it is long.
fn quoted(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}
