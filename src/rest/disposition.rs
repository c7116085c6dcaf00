//! The header `Content-Disposition` of a download (RFC 6266). The name of the file is in it in ASCII for old clients, and if that is
//! not all of it, in UTF-8 (RFC 8187).

use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What is escaped in the UTF-8 form: all but `attr-char` of RFC 8187.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// What a browser does with content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disposition {
    /// It saves it.
    Attachment,
    /// It may show it.
    Inline,
}

impl Disposition {
    fn word(self) -> &'static str {
        match self {
            Disposition::Attachment => "attachment",
            Disposition::Inline => "inline",
        }
    }
}

/// The header for a file of this name.
pub(super) fn of(disposition: Disposition, name: &str) -> HeaderValue {
    // Quotes and backslashes are read in different ways, and so is a percent sign.
    let is_plain = |c: char| (c.is_ascii_graphic() || c == ' ') && !matches!(c, '"' | '\\' | '%');
    let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
    let mut text = format!("{}; filename=\"{plain}\"", disposition.word());
    if plain != name {
        text += &format!("; filename*=UTF-8''{}", utf8_percent_encode(name, &ESCAPED));
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(disposition.word()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_and_what_is_not_plain_is_in_the_utf_8_form_as_well() {
        for (name, header) in [
            ("a.txt", "attachment; filename=\"a.txt\""),
            ("a b;c=d.txt", "attachment; filename=\"a b;c=d.txt\""),
            ("€ rates.pdf", "attachment; filename=\"_ rates.pdf\"; filename*=UTF-8''%E2%82%AC%20rates.pdf"),
            ("a\"b.txt", "attachment; filename=\"a_b.txt\"; filename*=UTF-8''a%22b.txt"),
            ("50%.txt", "attachment; filename=\"50_.txt\"; filename*=UTF-8''50%25.txt"),
            ("a\u{202e}fdp.exe", "attachment; filename=\"a_fdp.exe\"; filename*=UTF-8''a%E2%80%AEfdp.exe"),
            ("it's*(1)'.txt", "attachment; filename=\"it's*(1)'.txt\""),
            ("é'*().txt", "attachment; filename=\"_'*().txt\"; filename*=UTF-8''%C3%A9%27%2A%28%29.txt"),
        ] {
            assert_eq!(of(Disposition::Attachment, name).to_str().unwrap(), header);
            let inline = header.replacen("attachment", "inline", 1);
            assert_eq!(of(Disposition::Inline, name).to_str().unwrap(), inline);
        }
    }
}
