//! Subjects of certificates as text, in the form of RFC 4514: written from a certificate, and checked where the configuration
//! has one. One name has one form, so that texts can be compared. This file must not know what a subject may do.

use std::fmt::Write;

use x509_parser::x509::X509Name;

/// The types of RFC 4514 §3 and some more, as OpenSSL spells them, with their numbers. Any other is its number.
const KINDS: [(&str, &str); 11] = [
    ("CN", "2.5.4.3"),
    ("serialNumber", "2.5.4.5"),
    ("C", "2.5.4.6"),
    ("L", "2.5.4.7"),
    ("ST", "2.5.4.8"),
    ("street", "2.5.4.9"),
    ("O", "2.5.4.10"),
    ("OU", "2.5.4.11"),
    ("UID", "0.9.2342.19200300.100.1.1"),
    ("DC", "0.9.2342.19200300.100.1.25"),
    ("emailAddress", "1.2.840.113549.1.9.1"),
];

/// What other programs call some of them.
const OTHER_NAMES: [(&str, &str); 3] = [("E", "emailAddress"), ("EMAIL", "emailAddress"), ("S", "ST")];

/// A type and its value, several of which can be one part of a subject.
type Attribute = (String, String);

/// The subject of a certificate, the most specific part first. None if it has a part that is not text.
pub(super) fn of(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let attribute = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
            Some((kind(&attribute.attr_type().to_id_string())?, attribute.as_str().ok()?.to_owned()))
        };
        parts.push(relative.iter().map(attribute).collect::<Option<Vec<_>>>()?);
    }
    parts.reverse();
    Some(written(&parts))
}

/// Whether a certificate can have this subject.
///
/// # Errors
/// The form to write in its place, if that is clear.
pub(super) fn check(text: &str) -> Result<(), Option<String>> {
    let read = match text.strip_prefix('/') {
        Some(slashes) => by_slashes(slashes),
        None => parts(text),
    };
    match read.map(|parts| written(&parts)) {
        Some(form) if form == text => Ok(()),
        Some(form) => Err(Some(form)),
        // A common name alone is what many take for the subject.
        None if !text.contains(['=', ':', '/', '\\']) => {
            Err(Some(written(&[vec![("CN".to_owned(), text.to_owned())]])))
        }
        None => Err(None),
    }
}

/// Reads a subject with the liberties that people and programs take: spaces, other names of types, values in quotes.
fn parts(text: &str) -> Option<Vec<Vec<Attribute>>> {
    let attribute = |text: &str| {
        let (name, value) = text.split_once('=')?;
        Some((kind(name.trim_matches(' '))?, unescaped(value)?))
    };
    let part = |part: &str| split(part, '+').into_iter().map(attribute).collect::<Option<Vec<_>>>();
    split(text, ',').into_iter().map(part).collect()
}

/// Reads the form that OpenSSL once printed, the most general part first: `/O=Example/CN=archiver`.
fn by_slashes(text: &str) -> Option<Vec<Vec<Attribute>>> {
    let mut parts: Vec<Vec<Attribute>> = Vec::new();
    for piece in text.split('/') {
        match piece.split_once('=').and_then(|(name, value)| Some((kind(name)?, value.to_owned()))) {
            Some(attribute) => parts.push(vec![attribute]),
            // A slash within a value.
            None => {
                let (_, value) = parts.last_mut()?.last_mut()?;
                value.push('/');
                value.push_str(piece);
            }
        }
    }
    parts.reverse();
    Some(parts)
}

/// The text between separators that are neither escaped nor in quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut pieces, mut begin) = (Vec::new(), 0);
    let (mut escaped, mut quoted) = (false, false);
    for (index, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ if character == separator && !quoted => {
                pieces.push(&text[begin..index]);
                begin = index + 1;
            }
            _ => {}
        }
    }
    pieces.push(&text[begin..]);
    pieces
}

/// The type of this name or number, as it is written here.
fn kind(name: &str) -> Option<String> {
    let name = name.strip_prefix("OID.").unwrap_or(name);
    let name = OTHER_NAMES.iter().find(|(other, _)| name.eq_ignore_ascii_case(other)).map_or(name, |(_, ours)| ours);
    let known = |(kind, number): &&(&str, &str)| name.eq_ignore_ascii_case(kind) || name == *number;
    if let Some((kind, _)) = KINDS.iter().find(known) {
        return Some((*kind).to_owned());
    }
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    (name.contains('.') && name.split('.').all(is_number)).then(|| name.to_owned())
}

/// Parts of a subject as RFC 4514 §2 writes them.
fn written(parts: &[Vec<Attribute>]) -> String {
    let attribute = |(kind, value): &Attribute| format!("{kind}={}", escaped(value));
    let part = |part: &Vec<Attribute>| part.iter().map(attribute).collect::<Vec<_>>().join("+");
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

/// A value as RFC 4514 §2.4 writes it, so that no value can look like the end of itself.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let at_edge = (index == 0 && " #".contains(character)) || (index == last && character == ' ');
        if character.is_control() {
            for byte in character.to_string().bytes() {
                let _ = write!(text, "\\{byte:02X}");
            }
            continue;
        }
        if at_edge || ",+\"\\<>;".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

/// The value that is written like this (RFC 4514 §3), with the spaces around it that are not escaped left out. None if an
/// escape or a quote is not complete, or the value is not text.
fn unescaped(written: &str) -> Option<String> {
    let written = written.trim_start_matches(' ');
    let (written, quoted) = match written.strip_prefix('"') {
        Some(rest) => (rest.trim_end_matches(' ').strip_suffix('"')?, true),
        None => (written, false),
    };
    if written.starts_with('#') && !quoted {
        return None;
    }
    let (mut value, mut kept) = (Vec::new(), 0);
    let mut rest = written.chars();
    while let Some(character) = rest.next() {
        if character != '\\' {
            value.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            if character != ' ' || quoted {
                kept = value.len();
            }
            continue;
        }
        let digits = rest.as_str().get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                value.push(byte);
                rest = rest.as_str().get(2..)?.chars();
            }
            None => value.extend_from_slice(rest.next()?.encode_utf8(&mut [0; 4]).as_bytes()),
        }
        kept = value.len();
    }
    value.truncate(kept);
    String::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_subject_can_look_like_the_end_of_itself() {
        for (value, written) in [
            ("plain", "plain"),
            ("Zoë", "Zoë"),
            ("a,O=Example", "a\\,O=Example"),
            ("a+CN=b", "a\\+CN=b"),
            ("\"a\" <b>; \\", "\\\"a\\\" \\<b\\>\\; \\\\"),
            (" a ", "\\ a\\ "),
            (" ", "\\ "),
            ("#1", "\\#1"),
            ("1#", "1#"),
            ("a\nb", "a\\0Ab"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), written, "{value:?}");
            assert_eq!(unescaped(written).as_deref(), Some(value), "{written:?}");
            assert_eq!(check(&format!("CN={written},O=Example")), Ok(()), "{written:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_subject_that_can_be_written_is_accepted_as_it_is_written(values in proptest::collection::vec(".{0,12}", 1..4)) {
            let parts: Vec<_> = values.into_iter().map(|value| vec![("CN".to_owned(), value)]).collect();
            proptest::prop_assert_eq!(check(&written(&parts)), Ok(()));
        }

        #[test]
        fn what_is_proposed_in_place_of_a_text_is_accepted(text in "[a-zA-Z=,+/ \"\\\\.0-9#]{0,24}") {
            if let Err(Some(form)) = check(&text) {
                proptest::prop_assert_eq!(check(&form), Ok(()));
            }
        }
    }
}
