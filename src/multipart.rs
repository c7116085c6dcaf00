//! A `multipart/form-data` body as a stream of events: bounded, strict, linear, and without a copy of the data.
//! It is fed frames and asked for events; it must not know where frames come from, nor which parts matter, nor why.
//!
//! A delimiter is CRLF, two dashes and the boundary, so a CR can only be its first byte. That carries the whole design:
//! where a frame ends inside what may become a delimiter, a *count* of its bytes is all there is to remember, and where
//! it turns out to be data, those bytes are a slice of the delimiter itself. Everything else is a slice of its frame.

mod header;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

use crate::error::{Error, Kind, Result};
pub use header::PartHead;
use header::{Fields, Params, Value};

/// The most spaces and tabs that may stand between a boundary and the end of its line (RFC 2046 s5.1.1 calls it
/// transport padding and sets no limit), in bytes.
const MAX_PADDING: usize = 64;
/// The longest rest of a delimiter's line: two dashes, padding, CRLF.
const MAX_TAIL: usize = 2 + MAX_PADDING + 2;
/// How long the line break is that begins a delimiter. The end of a header block and the start of the body are one too.
const LINE_BREAK: usize = 2;

/// The boundary of a form: 1 to 70 characters as RFC 2046 s5.1.1 permits them. Kept as the delimiter it makes.
#[derive(Clone, Debug)]
pub struct Boundary(Bytes);

impl Boundary {
    /// Reads the boundary from the value of a `Content-Type` header, `None` being no such header. Other parameters
    /// (`charset`) are ignored.
    ///
    /// # Errors
    /// `Invalid` where the type is missing or not `multipart/form-data`, where a parameter is malformed, where there is
    /// not exactly one boundary, and where RFC 2046 does not permit it.
    pub fn from_content_type(value: Option<&[u8]>) -> Result<Self> {
        let value =
            value.ok_or_else(|| Error::invalid("the content type is missing, multipart/form-data is needed"))?;
        let (media_type, mut params) = Params::split(value);
        if !media_type.eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(Error::invalid("the content type is not multipart/form-data"));
        }
        let mut boundary = None;
        while let Some((name, value)) = params.next()? {
            if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value).is_some() {
                return Err(Error::invalid("the content type has more than one boundary"));
            }
        }
        match &boundary {
            None => Err(Error::invalid("the content type has no boundary")),
            Some(Value::Bare(text)) => Self::new(text),
            Some(Value::Quoted(text)) => Self::new(text),
        }
    }

    fn new(text: &[u8]) -> Result<Self> {
        let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
        if !(1..=70).contains(&text.len()) || !text.iter().all(permitted) || text.ends_with(b" ") {
            return Err(Error::invalid("the boundary is not 1 to 70 characters that RFC 2046 permits"));
        }
        let mut delimiter = BytesMut::from(&b"\r\n--"[..]);
        delimiter.extend_from_slice(text);
        Ok(Boundary(delimiter.freeze()))
    }
}

/// What a form may cost beside the data of the parts that are taken. Each limit is inclusive.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most bytes before the first delimiter. They are discarded.
    pub preamble_bytes: usize,
    /// The most bytes in the header block of one part, line ends and the blank line included.
    pub header_bytes: usize,
    /// The most header fields in one part.
    pub headers: usize,
    /// The most bytes, in the whole form, of parts that are skipped (delimiter lines, headers and data) and of the
    /// epilogue, which is what follows the line of the closing delimiter.
    pub overhead_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { preamble_bytes: 1 << 10, header_bytes: 8 << 10, headers: 32, overhead_bytes: 64 << 10 }
    }
}

/// What [`Parser::next`] finds. A form is `(Part Data* PartEnd)* Closed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A part begins.
    Part(PartHead),
    /// More of the part's data, never empty: a slice of the pushed frame, or of what was held back of an earlier one.
    Data(Bytes),
    /// The part is complete: the delimiter after it was seen. Reported for skipped parts too.
    PartEnd,
    /// The closing delimiter was seen: the form is complete.
    Closed,
}

/// Where in the form the next byte lies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Section {
    Preamble,
    Head,
    Taken,
    Skipped,
    Epilogue,
}

/// What the bytes after a boundary make of it.
#[derive(Clone, Copy)]
enum Line {
    /// Too few to tell.
    Open,
    /// A part begins after so many bytes.
    Part(usize),
    /// The form is closed; the epilogue begins after so many bytes.
    Close(usize),
    /// It was no delimiter.
    Data,
}

impl Line {
    fn of(tail: &[u8]) -> Self {
        let (closing, rest) = match tail {
            [b'-'] => return Line::Open,
            [b'-', b'-', rest @ ..] => (true, rest),
            _ => (false, tail),
        };
        let padding = rest.iter().take(MAX_PADDING).take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        match &rest[padding..] {
            [] | [b'\r'] => Line::Open,
            [b'\r', b'\n', after @ ..] if closing => Line::Close(tail.len() - after.len()),
            [b'\r', b'\n', after @ ..] => Line::Part(tail.len() - after.len()),
            _ => Line::Data,
        }
    }
}

/// The parser. It holds one frame, one header line, and at most 68 bytes of a delimiter's line; it looks at
/// each byte a fixed number of times, however the body is cut into frames.
///
/// [`push`](Self::push) a frame, take events from [`next`](Self::next) until it returns `None`, and so on;
/// [`finish`](Self::finish) when the body has ended. After an error every call fails with the same kind of error.
pub struct Parser {
    delimiter: Bytes,
    finder: Finder<'static>,
    limits: Limits,
    section: Section,
    /// What is still to be read of the last frame.
    input: Bytes,
    /// Events found and not yet taken: five at most.
    ready: VecDeque<Event>,
    /// How many bytes of the delimiter the bytes before `input` matched.
    matched: usize,
    /// How many of those are not data even if it is no delimiter: [`LINE_BREAK`] or none.
    assumed: usize,
    /// What followed a fully matched delimiter, while it may still be one.
    tail: Vec<u8>,
    /// The header line being read.
    line: Vec<u8>,
    fields: Fields,
    header_bytes: usize,
    headers: usize,
    /// What the current part is charged if it is skipped, its data aside.
    part_overhead: usize,
    preamble: usize,
    overhead: usize,
    failed: Option<Kind>,
}

impl Parser {
    /// A parser at the start of a body.
    pub fn new(boundary: &Boundary, limits: Limits) -> Self {
        Parser {
            delimiter: boundary.0.clone(),
            finder: Finder::new(&boundary.0).into_owned(),
            limits,
            section: Section::Preamble,
            input: Bytes::new(),
            ready: VecDeque::new(),
            matched: LINE_BREAK,
            assumed: LINE_BREAK,
            tail: Vec::new(),
            line: Vec::new(),
            fields: Fields::default(),
            header_bytes: 0,
            headers: 0,
            part_overhead: 0,
            preamble: 0,
            overhead: 0,
            failed: None,
        }
    }

    /// Hands over the next frame of the body, of any size. To be called only once [`next`](Self::next) has returned
    /// `None`: a frame pushed on top of another fails the parser as `Internal`, for bytes would be lost.
    pub fn push(&mut self, frame: Bytes) {
        if self.input.is_empty() {
            self.input = frame;
        } else if self.check().is_ok() {
            self.failed = Some(Kind::Internal);
        }
    }

    /// The next event, or `None` where another frame is needed.
    ///
    /// # Errors
    /// `Invalid` where a limit is passed or a part's header breaks a rule.
    #[expect(
        clippy::should_implement_trait,
        reason = "it can fail, and there is more after None once a frame is pushed"
    )]
    pub fn next(&mut self) -> Result<Option<Event>> {
        loop {
            self.check()?;
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.input.is_empty() {
                // Even an empty slice keeps the buffer of its frame.
                self.input = Bytes::new();
                return Ok(None);
            }
            match self.section {
                Section::Head => self.read_head().inspect_err(|error| self.failed = Some(error.kind()))?,
                Section::Epilogue => self.overhead += mem::take(&mut self.input).len(),
                Section::Preamble | Section::Taken | Section::Skipped => self.read_data(),
            }
        }
    }

    /// Skips the part whose [`Event::Part`] was just returned: its data is not reported, and all of it is charged to
    /// [`Limits::overhead_bytes`]. Does nothing outside a part.
    pub fn skip_part(&mut self) {
        if self.section == Section::Taken {
            self.section = Section::Skipped;
            self.overhead += self.part_overhead;
        }
    }

    /// Says that the body has ended. After `Ok`, [`next`](Self::next) returns the events that only the end could prove:
    /// a form may end in `--boundary--` without a line end, which is data if anything else follows.
    ///
    /// # Errors
    /// `Incomplete` unless the closing delimiter, its two dashes included, has arrived; `Internal` where a pushed frame
    /// was not used up before.
    pub fn finish(&mut self) -> Result<()> {
        self.check()?;
        if self.section == Section::Epilogue {
            return Ok(());
        }
        if !self.input.is_empty() {
            self.failed = Some(Kind::Internal);
        } else if self.tail.starts_with(b"--") {
            self.end_section(Section::Epilogue);
        } else {
            self.failed = Some(Kind::Incomplete);
        }
        self.check()
    }

    /// Fails if the form has failed before or has passed a limit in what is discarded.
    fn check(&self) -> Result<()> {
        let Limits { preamble_bytes, overhead_bytes, .. } = self.limits;
        match self.failed {
            Some(Kind::Internal) => {
                return Err(Error::internal("a frame was not used up before the next one or the end"));
            }
            Some(Kind::Incomplete) => {
                return Err(Error::new(Kind::Incomplete).detail("the body ends before the closing boundary"));
            }
            Some(kind) => return Err(Error::new(kind).detail("the form was refused earlier")),
            None => {}
        }
        if self.preamble > preamble_bytes {
            return Err(Error::invalid(format!("more than {preamble_bytes} bytes before the first boundary")));
        }
        if self.overhead > overhead_bytes {
            return Err(Error::invalid(format!("more than {overhead_bytes} bytes outside the expected parts")));
        }
        Ok(())
    }

    /// Reads on to the next delimiter, or to the end of the frame.
    fn read_data(&mut self) {
        let frame = mem::take(&mut self.input);
        let mut from = 0;
        if self.matched > 0 {
            match self.resume(&frame) {
                Some(used) => from = used,
                None => return,
            }
        }
        // `frame[..from]` is known to be data, and yet to be delivered.
        loop {
            let Some(start) = self.finder.find(&frame[from..]).map(|at| from + at) else {
                let window = frame.len().saturating_sub(self.delimiter.len() - 1);
                let cr = memrchr(b'\r', &frame[window..]).map(|at| window + at);
                let end = cr.filter(|&at| self.delimiter.starts_with(&frame[at..])).unwrap_or(frame.len());
                self.matched = frame.len() - end;
                return self.deliver(frame.slice(..end));
            };
            let end = start + self.delimiter.len();
            let line = Line::of(&frame[end..]);
            if let Line::Data = line {
                from = end;
                continue;
            }
            self.deliver(frame.slice(..start));
            match line {
                Line::Part(length) => self.begin_head(frame.slice(end + length..), length),
                Line::Close(length) => {
                    self.end_section(Section::Epilogue);
                    self.input = frame.slice(end + length..);
                }
                Line::Open | Line::Data => {
                    self.matched = self.delimiter.len();
                    self.tail.extend_from_slice(&frame[end..]);
                }
            }
            return;
        }
    }

    /// Goes on with a delimiter that began before `frame`. If it was none, delivers what was held back, and returns how
    /// much of `frame` has been seen to be data.
    fn resume(&mut self, frame: &Bytes) -> Option<usize> {
        let missing = &self.delimiter[self.matched..];
        let used = missing.iter().zip(frame).take_while(|(a, b)| a == b).count();
        let held = self.tail.len();
        if used == missing.len() {
            let rest = &frame[used..];
            self.tail.extend_from_slice(&rest[..rest.len().min(MAX_TAIL - held)]);
            match Line::of(&self.tail) {
                Line::Data => self.tail.truncate(held),
                Line::Open => {
                    self.matched = self.delimiter.len();
                    return None;
                }
                Line::Part(length) => {
                    self.begin_head(frame.slice(used + length - held..), length);
                    return None;
                }
                Line::Close(length) => {
                    self.end_section(Section::Epilogue);
                    self.input = frame.slice(used + length - held..);
                    return None;
                }
            }
        } else if used == frame.len() {
            self.matched += used;
            return None;
        }
        let tail = Bytes::copy_from_slice(&self.tail);
        self.deliver(self.delimiter.slice(self.assumed..self.matched));
        self.deliver(tail);
        self.forget();
        Some(used)
    }

    /// Gives bytes that are no delimiter to where the section wants them.
    fn deliver(&mut self, data: Bytes) {
        match self.section {
            Section::Taken if !data.is_empty() => self.ready.push_back(Event::Data(data)),
            Section::Taken => {}
            Section::Preamble => self.preamble += data.len(),
            Section::Skipped | Section::Head | Section::Epilogue => self.overhead += data.len(),
        }
    }

    /// Holds nothing back any more.
    fn forget(&mut self) {
        self.matched = 0;
        self.assumed = 0;
        self.tail.clear();
    }

    /// A delimiter was seen, and `next` follows it.
    fn end_section(&mut self, next: Section) {
        if matches!(self.section, Section::Taken | Section::Skipped) {
            self.ready.push_back(Event::PartEnd);
        }
        if next == Section::Epilogue {
            self.ready.push_back(Event::Closed);
        }
        self.section = next;
        self.forget();
    }

    /// A delimiter was seen, with `tail` bytes after the boundary, and a part's header block begins with `input`.
    fn begin_head(&mut self, input: Bytes, tail: usize) {
        self.end_section(Section::Head);
        self.input = input;
        self.part_overhead = self.delimiter.len() + tail;
        self.header_bytes = 0;
        self.headers = 0;
    }

    /// Reads header lines up to the blank one, or to the end of the frame.
    fn read_head(&mut self) -> Result<()> {
        let Limits { header_bytes, headers, .. } = self.limits;
        while !self.input.is_empty() {
            let length = memchr(b'\n', &self.input).map_or(self.input.len(), |at| at + 1);
            self.header_bytes += length;
            if self.header_bytes > header_bytes {
                return Err(Error::invalid(format!("the headers of a part take more than {header_bytes} bytes")));
            }
            self.line.extend_from_slice(&self.input[..length]);
            self.input.advance(length);
            if self.line == b"\r\n" {
                self.line.clear();
                self.part_overhead += self.header_bytes;
                self.ready.push_back(Event::Part(mem::take(&mut self.fields).into_head()?));
                self.section = Section::Taken;
                self.matched = LINE_BREAK;
                self.assumed = LINE_BREAK;
                return Ok(());
            }
            if self.line.ends_with(b"\n") {
                self.headers += 1;
                if self.headers > headers {
                    return Err(Error::invalid(format!("a part has more than {headers} headers")));
                }
                self.fields.add(&self.line)?;
                self.line.clear();
            }
        }
        Ok(())
    }
}
