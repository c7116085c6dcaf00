//! A parser of `multipart/form-data` bodies (RFC 7578) that does no I/O: frames in, events out.
//!
//! - **Bounded.** [`Limits`] holds the size of everything that is not content. The parser itself keeps one frame, one header
//!   line, a short preamble and the beginning of one delimiter line.
//! - **Strict.** A body that another parser could read differently is refused: a broken delimiter line, a folded header, a
//!   repeated parameter. What real clients send is accepted, such as `filename*`, `%22` in a file name and RFC 2231 pieces.
//! - **Without a copy.** [`Event::Data`] is a slice of the frame that was pushed.
//! - **Linear.** Each byte is read a fixed number of times, however the body is cut into frames. Where it is cut changes how
//!   the data is divided into events, and nothing else, except the text of an error if the body breaks two rules.
//! - **In words.** The text of an [`Error`] is written for the client that sent the body.
//!
//! # Reading a form
//! [`Parser::push`] takes a frame of any size, [`Parser::next`] returns events until it needs another frame, and
//! [`Parser::finish`] says that the body has ended.
//!
//! ```
//! use attachd_multipart::{Boundary, Error, Event, Limits, Parser};
//! use bytes::Bytes;
//!
//! /// The names of the parts, and how many bytes of data they have in all.
//! fn read(content_type: &[u8], frames: Vec<Bytes>) -> Result<(Vec<String>, usize), Error> {
//!     let boundary = Boundary::from_content_type(Some(content_type))?;
//!     let mut parser = Parser::new(&boundary, Limits::default());
//!     let (mut names, mut bytes) = (Vec::new(), 0);
//!     let mut frames = frames.into_iter();
//!     loop {
//!         match parser.next()? {
//!             Some(Event::Part(head)) => names.push(head.name),
//!             Some(Event::Data(data)) => bytes += data.len(),
//!             Some(Event::PartEnd) => {}
//!             Some(Event::Closed) => return Ok((names, bytes)),
//!             None => match frames.next() {
//!                 Some(frame) => parser.push(frame),
//!                 None => parser.finish()?,
//!             },
//!         }
//!     }
//! }
//!
//! let body = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nhello\r\n--x--\r\n";
//! // The frames are cut in the middle of a header and of a delimiter.
//! let frames = [&body[..20], &body[20..75], &body[75..]].map(|frame| Bytes::copy_from_slice(frame.as_bytes()));
//! assert_eq!(read(b"multipart/form-data; boundary=x", frames.to_vec())?, (vec!["file".to_owned()], 5));
//! # Ok::<(), Error>(())
//! ```
//!
//! A server that must know that a body is whole reads on after [`Event::Closed`], because bytes after the closing delimiter
//! count against [`Limits::overhead_bytes`].
//!
//! # Skipping a part
//! A part is reported as it arrives. [`Parser::skip_part`] discards the data of the part that has just begun, and charges all
//! of it to [`Limits::overhead_bytes`]:
//!
//! ```
//! use attachd_multipart::{Boundary, Error, ErrorKind, Event, Limits, Parser};
//! use bytes::Bytes;
//!
//! let limits = Limits { overhead_bytes: 100, ..Limits::default() };
//! let mut parser = Parser::new(&Boundary::new(b"x")?, limits);
//! parser.push(Bytes::from_static(b"--x\r\nContent-Disposition: form-data; name=note\r\n\r\n"));
//! assert!(matches!(parser.next()?, Some(Event::Part(head)) if head.name == "note"));
//! parser.skip_part();
//! assert_eq!(parser.next()?, None);
//! parser.push(Bytes::from(vec![b'.'; 100]));
//! let error = parser.next().unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Invalid);
//! assert!(error.to_string().starts_with("more than 100 bytes are in parts that are skipped"));
//! # Ok::<(), Error>(())
//! ```
//!
//! # Design
//! A delimiter is CRLF, two dashes and the boundary, so a CR can only be its first byte. If a frame ends inside a possible
//! delimiter, the parser therefore remembers only the number of bytes that matched. If they turn out to be data, they are
//! delivered as a slice of the delimiter itself. Everything else is a slice of its frame.
//!
//! The bytes after a boundary make it a delimiter line or a longer token. A longer token is data. A delimiter line that breaks
//! a rule is refused, because another parser between the client and the storage might accept it.

#![doc(test(attr(deny(warnings))))]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod boundary;
mod delimiter;
mod disposition;
mod error;
mod header;
mod params;
mod preamble;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::mem;

use bytes::{Buf, Bytes};
use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

pub use boundary::Boundary;
use boundary::MAX_BOUNDARY;
use delimiter::{Line, MAX_TAIL};
pub use error::{Error, ErrorKind, Result};
use header::Fields;
pub use header::PartHead;
use preamble::Preamble;

/// How long the line break is that begins a delimiter. The end of a header block and the start of the body are one too.
const LINE_BREAK: usize = 2;

/// As long as the longest closing delimiter line without padding: its line end, and the one before it.
const LAST_BYTES: usize = LINE_BREAK + 2 + MAX_BOUNDARY + 2 + LINE_BREAK;

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
    /// A part whose data is reported and charged.
    Charged,
    Skipped,
    Epilogue,
}

/// The parser. It holds one frame, one header line, the preamble within its limit, and at most 69 bytes of a delimiter
/// line; it looks at each byte a fixed number of times, however the body is cut into frames.
///
/// [`push`](Self::push) a frame, then take events from [`next`](Self::next) until it returns `None`, and repeat. When the body
/// has ended, call [`finish`](Self::finish) and take the events that are left. After an error every call fails with the same error.
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
    /// How many parts have begun.
    parts: usize,
    /// What the current part is charged if it is skipped, its data aside.
    part_overhead: usize,
    preamble: Preamble,
    /// The last bytes that were pushed: enough for a closing delimiter line.
    last: Vec<u8>,
    overhead: usize,
    failed: Option<Error>,
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
            parts: 0,
            part_overhead: 0,
            preamble: Preamble::default(),
            last: Vec::with_capacity(LAST_BYTES),
            overhead: 0,
            failed: None,
        }
    }

    /// Hands over the next frame of the body, of any size. To be called only once [`next`](Self::next) has returned
    /// `None`: a frame pushed on top of another fails the parser with [`ErrorKind::Misuse`], because bytes would be lost.
    pub fn push(&mut self, frame: Bytes) {
        if self.input.is_empty() {
            self.remember(&frame);
            self.input = frame;
        } else if self.check().is_ok() {
            self.failed = Some(Error::misuse());
        }
    }

    fn remember(&mut self, frame: &[u8]) {
        if let Some(last) = frame.last_chunk::<LAST_BYTES>() {
            self.last.clear();
            self.last.extend_from_slice(last);
        } else {
            let surplus = (self.last.len() + frame.len()).saturating_sub(LAST_BYTES);
            self.last.drain(..surplus);
            self.last.extend_from_slice(frame);
        }
    }

    /// The next event, or `None` where another frame is needed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a limit is exceeded, or if a delimiter line or a part's header breaks a rule.
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
            let read = match self.section {
                Section::Head => self.read_head(),
                Section::Epilogue => {
                    self.overhead += mem::take(&mut self.input).len();
                    Ok(())
                }
                Section::Preamble | Section::Taken | Section::Charged | Section::Skipped => self.read_data(),
            };
            read.inspect_err(|error| self.failed = Some(error.clone()))?;
        }
    }

    /// Skips the part whose [`Event::Part`] was just returned: its data is not reported, and all of it is charged to
    /// [`Limits::overhead_bytes`]. Does nothing outside a part.
    pub fn skip_part(&mut self) {
        self.charge(Section::Skipped);
    }

    /// Takes the part whose [`Event::Part`] was just returned, and charges it as [`skip_part`](Self::skip_part) does: its data
    /// is reported, and there cannot be much of it. Does nothing outside a part.
    pub fn charge_part(&mut self) {
        self.charge(Section::Charged);
    }

    fn charge(&mut self, to: Section) {
        if self.section == Section::Taken {
            self.section = to;
            self.overhead += self.part_overhead;
        }
    }

    /// Whether the form has failed for passing [`Limits::overhead_bytes`].
    pub fn is_overrun(&self) -> bool {
        self.overhead > self.limits.overhead_bytes
    }

    /// Says that the body has ended. After `Ok`, [`next`](Self::next) returns the events that only the end could prove:
    /// a form may end in `--boundary--` without a line end.
    ///
    /// # Errors
    /// [`ErrorKind::Incomplete`] unless the closing delimiter, its two dashes included, has arrived. [`ErrorKind::Invalid`] if
    /// no delimiter at all has arrived, or if CRLF does not precede the closing one. [`ErrorKind::Misuse`] if events of the
    /// last frame were not taken before.
    pub fn finish(&mut self) -> Result<()> {
        self.check()?;
        if self.section == Section::Epilogue {
            return Ok(());
        }
        if !self.input.is_empty() {
            self.failed = Some(Error::misuse());
            return self.check();
        }
        let ended =
            if self.tail.starts_with(b"--") { self.end_section(Section::Epilogue) } else { Err(self.unclosed()) };
        ended.inspect_err(|error| self.failed = Some(error.clone()))
    }

    /// What a body lacks that has ended before its closing delimiter.
    fn unclosed(&self) -> Error {
        // Two dashes and one character of the boundary: the end of a raw body does not look like this.
        let in_a_delimiter = self.matched > LINE_BREAK + 2;
        match self.section {
            Section::Preamble if !in_a_delimiter => self.preamble.refusal(self.opening(), "in the body"),
            Section::Taken | Section::Charged | Section::Skipped if self.ends_as_if_closed() => {
                Error::invalid("CRLF does not precede the closing delimiter line; lines must end in CRLF")
            }
            _ => Error::incomplete(),
        }
    }

    /// Whether the body ends in what would be the closing delimiter line, were it at the beginning of a line.
    fn ends_as_if_closed(&self) -> bool {
        let line = self.last.trim_ascii_end().strip_suffix(b"--");
        line.is_some_and(|line| line.ends_with(self.opening()))
    }

    /// Two dashes and the boundary.
    fn opening(&self) -> &[u8] {
        &self.delimiter[LINE_BREAK..]
    }

    /// Fails if the form has failed before or has passed a limit in what is discarded.
    fn check(&self) -> Result<()> {
        let overhead_bytes = self.limits.overhead_bytes;
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.overhead > overhead_bytes {
            return Err(Error::invalid(format!(
                "more than {overhead_bytes} bytes are in parts that are skipped and after the closing delimiter line"
            )));
        }
        self.check_preamble()
    }

    fn check_preamble(&self) -> Result<()> {
        let preamble_bytes = self.limits.preamble_bytes;
        if self.preamble.bytes > preamble_bytes {
            let place = format!("in the first {preamble_bytes} bytes of the body");
            return Err(self.preamble.refusal(self.opening(), &place));
        }
        Ok(())
    }

    /// Reads on to the next delimiter, or to the end of the frame.
    fn read_data(&mut self) -> Result<()> {
        let frame = mem::take(&mut self.input);
        let mut from = 0;
        if self.matched > 0 {
            match self.resume(&frame)? {
                Some(used) => from = used,
                None => return Ok(()),
            }
        }
        // `frame[..from]` is known to be data, and yet to be delivered.
        loop {
            let Some(start) = self.finder.find(&frame[from..]).map(|at| from + at) else {
                let window = frame.len().saturating_sub(self.delimiter.len() - 1);
                let cr = memrchr(b'\r', &frame[window..]).map(|at| window + at);
                let end = cr.filter(|&at| self.delimiter.starts_with(&frame[at..])).unwrap_or(frame.len());
                self.matched = frame.len() - end;
                self.deliver(frame.slice(..end));
                return Ok(());
            };
            let end = start + self.delimiter.len();
            let line = Line::of(&frame[end..]);
            if let Line::Data = line {
                from = end;
                continue;
            }
            self.deliver(frame.slice(..start));
            return match line {
                Line::Part(length) => self.begin_head(frame.slice(end + length..), length),
                Line::Close(length) => {
                    self.input = frame.slice(end + length..);
                    self.end_section(Section::Epilogue)
                }
                Line::Broken(flaw) => Err(flaw.refusal()),
                Line::Open | Line::Data => {
                    self.matched = self.delimiter.len();
                    self.tail.extend_from_slice(&frame[end..]);
                    Ok(())
                }
            };
        }
    }

    /// Goes on with a delimiter that began before `frame`. If it was none, delivers what was held back, and returns how
    /// much of `frame` has been seen to be data.
    fn resume(&mut self, frame: &Bytes) -> Result<Option<usize>> {
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
                    return Ok(None);
                }
                Line::Part(length) => {
                    self.begin_head(frame.slice(used + length - held..), length)?;
                    return Ok(None);
                }
                Line::Close(length) => {
                    self.input = frame.slice(used + length - held..);
                    self.end_section(Section::Epilogue)?;
                    return Ok(None);
                }
                Line::Broken(flaw) => return Err(flaw.refusal()),
            }
        } else if used == frame.len() {
            self.matched += used;
            return Ok(None);
        }
        let tail = Bytes::copy_from_slice(&self.tail);
        self.deliver(self.delimiter.slice(self.assumed..self.matched));
        self.deliver(tail);
        self.forget();
        Ok(Some(used))
    }

    /// Gives bytes that are no delimiter to where the section wants them.
    fn deliver(&mut self, data: Bytes) {
        match self.section {
            Section::Taken if !data.is_empty() => self.ready.push_back(Event::Data(data)),
            Section::Taken => {}
            Section::Charged => {
                self.overhead += data.len();
                if !data.is_empty() {
                    self.ready.push_back(Event::Data(data));
                }
            }
            // More than the limit, so that a delimiter that begins within it is seen whole.
            Section::Preamble => self.preamble.add(&data, self.limits.preamble_bytes + self.delimiter.len() + MAX_TAIL),
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
    fn end_section(&mut self, next: Section) -> Result<()> {
        match self.section {
            Section::Taken | Section::Charged | Section::Skipped => self.ready.push_back(Event::PartEnd),
            Section::Preamble if self.preamble.bytes > 0 => self.end_preamble(next)?,
            Section::Preamble | Section::Head | Section::Epilogue => {}
        }
        if next == Section::Epilogue {
            self.ready.push_back(Event::Closed);
        }
        self.section = next;
        self.forget();
        Ok(())
    }

    /// The first delimiter was seen after a preamble: looks that it is the first indeed.
    fn end_preamble(&mut self, next: Section) -> Result<()> {
        self.check_preamble()?;
        let preamble = mem::take(&mut self.preamble);
        match preamble.misplaced(self.opening()) {
            Some(error) => Err(error),
            None if next == Section::Epilogue => Err(preamble.refusal(self.opening(), "before the closing one")),
            None => Ok(()),
        }
    }

    /// A delimiter was seen, with `tail` bytes after the boundary, and a part's header block begins with `input`.
    fn begin_head(&mut self, input: Bytes, tail: usize) -> Result<()> {
        self.end_section(Section::Head)?;
        self.input = input;
        self.parts += 1;
        self.part_overhead = self.delimiter.len() + tail;
        self.header_bytes = 0;
        self.headers = 0;
        Ok(())
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
                self.ready.push_back(Event::Part(mem::take(&mut self.fields).into_head(self.parts)?));
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
