//! The range that a client asks for in the header `Range` (RFC 9110 s14). A header that cannot be read is ignored, as the RFC
//! has it. Of several ranges none is taken: the client gets all.

use std::ops::Range;

/// What a `Range` header comes to for content of a known size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All of the content.
    All,
    /// These bytes.
    Part(Range<u64>),
    /// Bytes that the content does not have.
    Nothing,
}

/// Reads the value of the header.
pub(super) fn read(value: &str, size: u64) -> Asked {
    let Some((unit, set)) = value.split_once('=') else { return Asked::All };
    let mut specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else { return Asked::All };
    if !unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes") {
        return Asked::All;
    }
    match one(spec, size) {
        Some(range) if range.is_empty() => Asked::Nothing,
        Some(range) => Asked::Part(range),
        None => Asked::All,
    }
}

/// One range, which is empty if the content has none of it. `None` if it is malformed.
fn one(spec: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = spec.split_once('-')?;
    match (first, last) {
        ("", suffix) => Some(size.saturating_sub(number(suffix)?)..size),
        (first, "") => Some(number(first)?.min(size)..size),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(size)..last.saturating_add(1).min(size))
        }
    }
}

/// A number of any length. What is too large for any content is as good as the largest.
fn number(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_cut_to_the_content() {
        for (value, size, part) in [
            ("bytes=0-0", 10, 0..1),
            ("bytes=0-9", 10, 0..10),
            ("bytes=0-10", 10, 0..10),
            ("bytes=9-", 10, 9..10),
            ("bytes=3-5", 10, 3..6),
            ("bytes=-1", 10, 9..10),
            ("bytes=-10", 10, 0..10),
            ("bytes=-11", 10, 0..10),
            ("bytes=-99999999999999999999999", 10, 0..10),
            ("bytes=2-99999999999999999999999", 10, 2..10),
            ("BYTES = 0-1", 10, 0..2),
            ("bytes=, 1-2 ,", 10, 1..3),
            ("bytes=007-8", 10, 7..9),
        ] {
            assert_eq!(read(value, size), Asked::Part(part), "{value:?}");
        }
    }

    #[test]
    fn a_range_past_the_content_is_nothing() {
        for (value, size) in [
            ("bytes=10-", 10),
            ("bytes=10-20", 10),
            ("bytes=11-", 10),
            ("bytes=99999999999999999999999-", 10),
            ("bytes=-0", 10),
            ("bytes=0-", 0),
            ("bytes=0-0", 0),
            ("bytes=-5", 0),
        ] {
            assert_eq!(read(value, size), Asked::Nothing, "{value:?} of {size}");
        }
    }

    #[test]
    fn a_header_that_cannot_be_read_and_several_ranges_are_all_of_the_content() {
        for value in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=5-3",
            "bytes=+1-2",
            "bytes=1-2x",
            "bytes=1 - 2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-0,-1",
            "bytes 0-1",
            "bytes=--1",
            "bytes=1-2-3",
            "=0-1",
        ] {
            assert_eq!(read(value, 10), Asked::All, "{value:?}");
        }
    }
}
