//! Forms with the boundary `b-b`: [`attachd_fuzz::pieces`]. A parser that has all of the body at once says what is in it.
#![no_main]

use attachd_multipart::{Boundary, Error, ErrorKind, Event, Limits, Parser, PartHead};
use bytes::Bytes;

use reading::{Form, read};

#[path = "../../../crates/multipart/tests/reading/mod.rs"]
mod reading;

/// No limit is in the way of the comparison. The others are as small as they can be for a limit to be met.
const WIDE: Limits =
    Limits { preamble_bytes: 1 << 20, header_bytes: 1 << 20, headers: 1 << 20, overhead_bytes: 1 << 20 };
const NARROW: Limits = Limits { preamble_bytes: 16, header_bytes: 100, headers: 2, overhead_bytes: 150 };

const DELIMITER: &[u8] = b"\r\n--b-b";
const PADDING: usize = 64;

/// What is expected of a body.
enum Expected {
    /// All of these parts.
    Closed(Vec<(PartHead, Vec<u8>)>),
    /// A refusal after these parts, of which the last may not be complete.
    Refused(Vec<(PartHead, Vec<u8>)>),
    /// The body ends too early, after these parts and the beginning of the last.
    Unclosed(Vec<(PartHead, Vec<u8>)>),
}

/// What follows a delimiter.
enum Line {
    /// A part, whose header begins after so many bytes.
    Part(usize),
    Close,
    Broken,
    Open,
    Content,
}

fn line(after: &[u8]) -> Line {
    let dashes = after.iter().take(2).take_while(|byte| **byte == b'-').count();
    let closes = dashes == 2;
    if !closes && (after.is_empty() || after == b"-") {
        return Line::Open;
    }
    if !closes && !b"\r\n \t".contains(&after[0]) {
        return Line::Content;
    }
    let rest = if closes { &after[2..] } else { after };
    let padding = rest.iter().take_while(|byte| **byte == b' ' || **byte == b'\t').count();
    match &rest[padding..] {
        _ if padding > PADDING => Line::Broken,
        [] | b"\r" if closes => Line::Close,
        [] | b"\r" => Line::Open,
        [b'\r', b'\n', ..] if closes => Line::Close,
        [b'\r', b'\n', ..] => Line::Part(padding + 2),
        _ => Line::Broken,
    }
}

/// The header of a part, from a form that has nothing else.
fn head(lines: &[u8]) -> Result<PartHead, Error> {
    let boundary = Boundary::new(b"only").expect("a boundary");
    let mut parser = Parser::new(&boundary, WIDE);
    parser.push(Bytes::from([b"--only\r\n", lines, b"--only--"].concat()));
    match parser.next()? {
        Some(Event::Part(head)) => Ok(head),
        other => panic!("{other:?} is no part"),
    }
}

/// Reads a whole body.
fn by_hand(body: &[u8]) -> Expected {
    // The beginning of the body, and the blank line after a header, count as the line break before a delimiter.
    let text = [b"\r\n", body].concat();
    let mut parts = Vec::new();
    let mut from = 0;
    loop {
        // `text[from..]` begins with a line break that is not content.
        let content = from + 2;
        let mut search = from;
        let (start, found) = loop {
            let Some(at) = text[search..].windows(DELIMITER.len()).position(|window| window == DELIMITER) else {
                if let Some((_, data)) = parts.last_mut() {
                    *data = text[content.min(text.len())..].to_vec();
                }
                return Expected::Unclosed(parts);
            };
            let start = search + at;
            match line(&text[start + DELIMITER.len()..]) {
                Line::Content => search = start + DELIMITER.len(),
                found => break (start, found),
            }
        };
        let data = text.get(content..start).unwrap_or_default();
        let is_preamble = parts.is_empty();
        if let Some((_, all)) = parts.last_mut() {
            *all = data.to_vec();
        }
        let after = start + DELIMITER.len();
        match found {
            Line::Open => return Expected::Unclosed(parts),
            Line::Broken => return Expected::Refused(parts),
            // A delimiter within a line of the preamble would be discarded.
            _ if is_preamble && misplaced(data) => return Expected::Refused(parts),
            Line::Close if is_preamble && !data.is_empty() => return Expected::Refused(parts),
            Line::Close => return Expected::Closed(parts),
            Line::Part(length) => {
                let begin = after + length;
                let mut end = begin;
                loop {
                    let Some(length) = text[end..].iter().position(|byte| *byte == b'\n') else {
                        return Expected::Unclosed(parts);
                    };
                    let is_blank = &text[end..=end + length] == b"\r\n";
                    end += length + 1;
                    if is_blank {
                        break;
                    }
                }
                match head(&text[begin..end]) {
                    Ok(head) => parts.push((head, Vec::new())),
                    Err(_) => return Expected::Refused(parts),
                }
                from = end - 2;
            }
            Line::Content => unreachable!("content is searched on"),
        }
    }
}

/// Whether a line of the preamble has the boundary, and ends as a delimiter line does.
fn misplaced(preamble: &[u8]) -> bool {
    let opening = &DELIMITER[2..];
    let mut ends = preamble.windows(opening.len()).enumerate().filter(|(_, window)| *window == opening);
    ends.any(|(at, _)| {
        let tail = &preamble[at + opening.len()..];
        tail != b"-" && !matches!(line(tail), Line::Content)
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let pieces = attachd_fuzz::pieces(input);
    let body = pieces.concat();
    let whole = read([&body[..]], WIDE);
    // A part that is skipped has no data, and is there all the same.
    let is_same = |(head, data): &(PartHead, Vec<u8>), (expected, all): &(PartHead, Vec<u8>), is_last: bool| {
        head == expected && (head.name == "skip" || data == all || (is_last && all.starts_with(data)))
    };
    let (expected, ends) = match by_hand(&body) {
        Expected::Closed(parts) => (parts, whole.1.is_ok()),
        Expected::Refused(parts) => (parts, whole.1.as_ref().is_err_and(|error| error.kind() == ErrorKind::Invalid)),
        Expected::Unclosed(parts) => (parts, whole.1.is_err()),
    };
    assert!(ends, "{:?}, where {expected:?} was expected", whole.1);
    assert_eq!(whole.0.len(), expected.len(), "{:?}, where {expected:?} was expected", whole.0);
    for (at, (part, expected)) in whole.0.iter().zip(&expected).enumerate() {
        let is_last = whole.1.is_err() && at + 1 == whole.0.len();
        assert!(is_same(part, expected, is_last), "{part:?}, where {expected:?} was expected");
    }

    for limits in [WIDE, NARROW] {
        let whole = read([&body[..]], limits);
        for form in [read(pieces.iter().copied(), limits), read(body.chunks(1), limits)] {
            let kind = |form: &Form| form.1.as_ref().err().map(Error::kind);
            assert_eq!(kind(&form), kind(&whole), "{:?}, where {:?} was expected", form.1, whole.1);
            // Of a form that is refused, more may have been read before.
            assert!(form.1.is_err() || form.0 == whole.0);
        }
    }
});
