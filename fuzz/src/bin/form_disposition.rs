//! `Content-Disposition` of a part: the value of the header. As a name it is written as browsers and libraries write it.
#![no_main]

use attachd_multipart::{Boundary, Error, Event, Limits, Parser, PartHead};

fn read(value: &[u8], size: usize) -> Result<PartHead, Error> {
    let body = [b"--b\r\nContent-Disposition:", value, b"\r\n\r\n\r\n--b--"].concat();
    let boundary = Boundary::new(b"b").expect("a boundary");
    let limits = Limits { header_bytes: usize::MAX, ..Limits::default() };
    let mut parser = Parser::new(&boundary, limits);
    for piece in body.chunks(size) {
        parser.push(bytes::Bytes::copy_from_slice(piece));
        if let Some(event) = parser.next()? {
            let Event::Part(head) = event else { panic!("{event:?} is no part") };
            return Ok(head);
        }
    }
    panic!("the part has no header");
}

/// Reads a value in its plain form, `form-data` and parameters `name` and `filename` in quotes or as tokens, each once.
fn by_hand(value: &str) -> Option<(String, Option<String>)> {
    let mut rest = value.strip_prefix(" form-data")?;
    let (mut name, mut filename) = (None, None);
    while !rest.is_empty() {
        rest = rest.strip_prefix("; ")?;
        let (key, value) = rest.split_once('=')?;
        let text;
        if let Some(quoted) = value.strip_prefix('"') {
            (text, rest) = quoted.split_once('"')?;
            if text.contains(|c: char| c == '\\' || c.is_control()) {
                return None;
            }
        } else {
            (text, rest) = value.split_at(value.find(';').unwrap_or(value.len()));
            if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric()) {
                return None;
            }
        }
        let slot = match key {
            "name" => &mut name,
            "filename" => &mut filename,
            _ => return None,
        };
        if slot.replace(text.to_owned()).is_some() {
            return None;
        }
    }
    Some((name?, filename.map(|filename| filename.replace("%22", "\""))))
}

libfuzzer_sys::fuzz_target!(|value: &[u8]| {
    // A line end would end the header.
    if value.contains(&b'\n') || value.contains(&b'\r') {
        return;
    }
    let read_at_once = read(value, usize::MAX);
    if let Ok(head) = &read_at_once {
        let is_text = |text: &str| !text.contains(char::is_control);
        assert!(is_text(&head.name) && head.filename.as_deref().is_none_or(is_text));
        assert_eq!(read(value, 1).as_ref().ok(), Some(head));
    } else {
        assert!(read(value, 1).is_err());
    }
    let Ok(text) = std::str::from_utf8(value) else { return };
    if let Some((name, filename)) = by_hand(text) {
        let head = read_at_once.unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((head.name, head.filename), (name, filename));
    }
    if text.is_empty() || text.contains(char::is_control) {
        return;
    }
    let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
    // In the plain form a quote is escaped as browsers do it, or with a backslash.
    let plain = text.replace("%22", "\"");
    for (filename, expected) in [
        (format!("filename*=UTF-8''{encoded}"), text),
        (format!("filename=\"_\"; filename*=utf-8'en'{encoded}"), text),
        (format!("filename*0*=UTF-8''{encoded}"), text),
        (format!("filename=\"{}\"", text.replace('\\', "\\\\").replace('"', "%22")), &plain),
        (format!("filename=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")), &plain),
    ] {
        let head = read(format!(" form-data; name=x; {filename}").as_bytes(), usize::MAX);
        let head = head.unwrap_or_else(|error| panic!("{filename}: {error}"));
        assert_eq!(head.filename.as_deref(), Some(expected), "{filename}");
    }
});
