//! The body of an upload over REST: the events of its multipart form become the name, the type and the pieces of the content.
//! Which part is the content, and what the parts beside it may be, is decided here.

use attachd_multipart::{self as multipart, ErrorKind, Event, Limits, Parser, PartHead};
use axum::body::Body;
use futures_util::{Stream, stream};
use http_body::Frame;
use http_body_util::BodyExt;

use super::chunks::{Chunks, VALUE_BYTES};
use super::digests::Digests;
use super::near_miss;
use crate::error::{Error, Kind, Result};
use crate::rpc::{Declared, Piece};

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

/// A multipart body that is being read.
pub struct Reading {
    body: Body,
    parser: Parser,
    chunks: Chunks,
    digests: Digests,
    /// Whether the file part has been seen.
    has_file: bool,
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

/// What comes next in a form.
enum Next {
    /// The file begins.
    File(PartHead),
    /// Its bytes, or its end.
    Piece(Piece),
}

impl Reading {
    /// Begins to read a form.
    pub fn new(body: Body, form: Form) -> Box<Reading> {
        // In a box, since the stream and each of its steps would have room for it.
        let Form { parser, chunks, digests } = form;
        let (part, others) = (Part::None, Vec::new());
        Box::new(Reading { body, parser, chunks, digests, has_file: false, part, others })
    }

    /// Reads until the file begins, and returns what the head of its part says. A form without a file is refused at its end.
    pub async fn file(&mut self) -> Result<PartHead> {
        loop {
            if let Next::File(head) = self.next().await? {
                return Ok(head);
            }
        }
    }

    /// The bytes of the file, and the finish when the closing boundary was seen and the body has ended well.
    pub fn pieces(self: Box<Self>) -> impl Stream<Item = Result<Piece>> {
        stream::try_unfold(Some(self), async |state| {
            let Some(mut state) = state else {
                return Ok(None);
            };
            loop {
                if let Next::Piece(piece) = state.next().await? {
                    let next = (!matches!(piece, Piece::Finish(_))).then_some(state);
                    return Ok(Some((piece, next)));
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Next> {
        loop {
            match self.parser.next().map_err(|error| self.blamed(form_error(error)))? {
                Some(Event::Part(part)) if part.name == FILE => return self.begin_file(part).map(Next::File),
                Some(Event::Part(part)) => self.other(&part.name)?,
                Some(Event::Data(bytes)) => {
                    if let Some(bytes) = self.data(bytes) {
                        return Ok(Next::Piece(Piece::Chunk(bytes)));
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
                        self.parser.finish().map_err(form_error)?;
                        // A closing delimiter without a line end is proved by the end of the body.
                        while let Some(event) = self.parser.next().map_err(form_error)? {
                            if event == Event::PartEnd {
                                self.end_part()?;
                            }
                        }
                        return self.finish().map(Next::Piece);
                    }
                },
            }
        }
    }

    fn begin_file(&mut self, part: PartHead) -> Result<PartHead> {
        if std::mem::replace(&mut self.has_file, true) {
            return Err(Error::invalid_field(FILE, "must be given once"));
        }
        self.part = Part::File { nameless: part.filename.as_deref() == Some(""), empty: true };
        Ok(part)
    }

    /// A part beside the file.
    fn other(&mut self, name: &str) -> Result<()> {
        if let Some(id) = near_miss::UPLOAD.near_miss(name) {
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
    fn finish(&mut self) -> Result<Piece> {
        if self.has_file {
            self.chunks.end()?;
            let sha256 = self.digests.finish()?;
            return Ok(Piece::Finish(Declared { size: None, sha256 }));
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

/// The refusal of a body or a content type by the parser, whose texts are written for the client.
pub fn form_error(error: multipart::Error) -> Error {
    match (error.kind(), error.parameter()) {
        (ErrorKind::Invalid, None) => Error::invalid(error.into_reason()),
        (ErrorKind::Invalid, Some(parameter)) => Error::invalid_field(parameter, error.into_reason()),
        (ErrorKind::Incomplete, _) => Error::new(Kind::Incomplete).detail(error.into_reason()),
        (ErrorKind::Misuse, _) => Error::internal(error),
    }
}

/// The name of a part in quotes, with whatever is not printable escaped, and cut if it is long.
fn quoted(name: &str) -> String {
    match name.char_indices().nth(NAME_CHARS) {
        Some((end, _)) => format!("{:?}…", &name[..end]),
        None => format!("{name:?}"),
    }
}
