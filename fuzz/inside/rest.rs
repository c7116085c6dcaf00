//! Targets that try what the REST port reads from headers, and what it writes into one.

#![allow(clippy::panic, clippy::unwrap_used, reason = "a fuzz target ends where it fails")]

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::dictionary::{self, Item};
use super::digests::Digests;
use super::disposition::{self, Disposition};
use super::range::{self, Asked};
pub use super::transcode::fuzzing as transcode;
use crate::attachment::{Digest, Filename, Tags};

/// A `Range` means what RFC 9110 s14.1.1 says, and a range that was read has one spelling that reads as the same.
pub fn range(value: &str, size: u64) {
    let asked = range::read(value, size);
    assert_eq!(asked, range_by_hand(value, size));
    if let Asked::Part(part) = &asked {
        assert!(part.start < part.end && part.end <= size);
        assert_eq!(range::read(&format!("bytes={}-{}", part.start, part.end - 1), size), asked);
    }
}

/// The same by a grammar that is written differently: character by character, and in numbers that cannot overflow.
fn range_by_hand(value: &str, size: u64) -> Asked {
    let is_space = |c: char| c == ' ' || c == '\t';
    let Some(equals) = value.find('=') else { return Asked::All };
    if !value[..equals].trim_matches(is_space).eq_ignore_ascii_case("bytes") {
        return Asked::All;
    }
    let specs: Vec<&str> = value[equals + 1..].split(',').map(|spec| spec.trim_matches(is_space)).collect();
    let specs: Vec<&str> = specs.into_iter().filter(|spec| !spec.is_empty()).collect();
    let [spec] = specs[..] else { return Asked::All };
    let mut numbers = [None, None];
    let mut at = 0;
    for c in spec.chars() {
        match c.to_digit(10) {
            // No content is as large as the largest number that is told apart.
            Some(digit) => {
                let number = numbers[at].unwrap_or(0u128) * 10 + u128::from(digit);
                numbers[at] = Some(number.min(u64::MAX.into()));
            }
            None if c == '-' && at == 0 => at = 1,
            None => return Asked::All,
        }
    }
    let size = u128::from(size);
    let (start, end) = match (at, numbers) {
        (1, [Some(first), Some(last)]) if first <= last => (first, (last + 1).min(size)),
        (1, [Some(first), None]) => (first, size),
        (1, [None, Some(suffix)]) => (size - suffix.min(size), size),
        _ => return Asked::All,
    };
    if start >= end {
        return Asked::Nothing;
    }
    Asked::Part(u64::try_from(start).unwrap()..u64::try_from(end).unwrap())
}

/// A dictionary over several lines is that of the lines joined (RFC 9651 s4.2), and its members can be written again.
pub fn dictionary(first: &str, second: &str) {
    let (one, two) = (dictionary::parse(first), dictionary::parse(second));
    if let (Some(one), Some(two)) = (&one, &two)
        && !one.is_empty()
        && !two.is_empty()
    {
        assert_eq!(dictionary::parse(&format!("{first}, {second}")), Some([&one[..], two].concat()));
    }
    let Some(members) = one else { return };
    for (key, _) in &members {
        assert!(key.starts_with(|c: char| c.is_ascii_lowercase() || c == '*'), "{key:?}");
    }
    let written = members.iter().map(|(key, value)| match value {
        Item::Bytes(base64) => format!("{key}=:{base64}:"),
        Item::Integer(number) => format!("{key}={number}"),
        Item::Other => (*key).to_owned(),
    });
    assert_eq!(dictionary::parse(&written.collect::<Vec<_>>().join(",")), Some(members));
}

/// A digest that was read is in the header, and reads the same as it is written; a body has the digest that was declared, or is
/// refused.
pub fn digests(lines: &[&[u8]], body: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in lines.iter().filter_map(|line| HeaderValue::from_bytes(line).ok()) {
        headers.append("repr-digest", line);
    }
    let values = headers.get_all("repr-digest");
    if let Ok(read) = Digests::read(&headers) {
        assert_eq!(read.file().is_some(), !headers.is_empty());
        if let Some(file) = read.file() {
            // The last digit also has bits that are not looked at.
            let base64 = STANDARD_NO_PAD.encode(file.as_bytes());
            let is_there = |line: &HeaderValue| line.to_str().unwrap().contains(&base64[..42]);
            assert!(values.iter().any(is_there), "{file:?}");
            let again = HeaderValue::try_from(file.version().repr_digest).unwrap();
            let again = HeaderMap::from_iter([(HeaderName::from_static("repr-digest"), again)]);
            assert_eq!(Digests::read(&again).unwrap().file(), Some(file));
        }
    }
    // The same lines as the digest of the body, which none of them is unless it was computed, and one that was.
    let of = |name, value: &HeaderValue| HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]);
    let right = Digest::new("body", digest(&SHA256, body).as_ref()).unwrap();
    let computed = HeaderValue::try_from(right.version().repr_digest).unwrap();
    for value in values.iter().chain([&computed]) {
        let Ok(mut declared) = Digests::read(&of("content-digest", value)) else {
            assert_ne!(value, computed);
            continue;
        };
        let is_right = Digests::read(&of("repr-digest", value)).unwrap().file() == Some(right);
        body.chunks(7).for_each(|piece| declared.data(piece));
        assert_eq!(declared.finish().is_ok(), is_right, "{value:?}");
    }
}

/// Tags over several lines are those of the lines joined, and content matches if its tag is there.
pub fn conditions(first: &str, second: &str) {
    let (one, two) = (Tags::parse("x", first), Tags::parse("x", second));
    if let (Ok(Tags::Listed(one)), Ok(Tags::Listed(two))) = (&one, &two) {
        let joined = Tags::parse("x", &format!("{first}, {second}")).unwrap();
        assert_eq!(joined, Tags::Listed([&one[..], two].concat()));
    }
    let digests = first.split('"').filter_map(|hex| Digest::try_from(hex.to_owned()).ok());
    let Ok(tags) = one else { return };
    for digest in digests.chain([Digest::of([0; 32])]) {
        let tag = format!("\"{digest}\"");
        let any = tags == Tags::Any;
        assert_eq!(tags.match_weakly(Some(digest)), any || first.contains(&tag), "{digest}");
        let strong = first.match_indices(&tag).any(|(at, _)| !first[..at].ends_with("W/"));
        assert_eq!(tags.match_strongly(Some(digest)), any || strong, "{digest}");
        assert!(!tags.match_weakly(None) || any);
    }
}

/// What is written of a name that an attachment can have reads as the name.
pub fn disposition(name: &str) {
    let Ok(name) = Filename::new(name) else { return };
    for (kind, word) in [(Disposition::Attachment, "attachment"), (Disposition::Inline, "inline")] {
        let written = disposition::of(kind, name.as_str());
        let parameters = written.to_str().unwrap().strip_prefix(word).unwrap();
        let form = format!("--b\r\nContent-Disposition: form-data; name=x{parameters}\r\n\r\n\r\n--b--");
        let boundary = attachd_multipart::Boundary::new(b"b").unwrap();
        let mut parser = attachd_multipart::Parser::new(&boundary, attachd_multipart::Limits::default());
        parser.push(form.into());
        let Some(attachd_multipart::Event::Part(head)) = parser.next().unwrap() else {
            panic!("{written:?} is no part");
        };
        assert_eq!(head.filename.as_deref(), Some(name.as_str()), "{written:?}");
    }
}
