//! What an uploader says of content: the name of the file, and its media type.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest file name and the longest media type, in bytes.
pub const NAME_BYTES: usize = 255;

/// The media type of content whose uploader named none (RFC 9110 §8.3).
pub const DEFAULT_MEDIA_TYPE: &str = "application/octet-stream";

/// A file's name, for people: at most 255 bytes of UTF-8 without control characters. Never a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filename(String);

impl Filename {
    /// Takes a name as a caller sent it. Of a path the last component is kept: some browsers send the whole path, and no later
    /// reader should be tempted by it (RFC 7578 §4.2). Slash and backslash both separate components, and are dropped at the
    /// end. `""`, `.` and `..` become the empty name.
    pub fn new(sent: &str) -> Result<Filename> {
        if sent.chars().any(char::is_control) {
            return Err(Error::invalid_field("filename", "must not hold control characters"));
        }
        let separators = ['/', '\\'];
        let name = sent.trim_end_matches(separators).rsplit(separators).next().unwrap_or_default();
        if name.len() > NAME_BYTES {
            return Err(Error::invalid_field("filename", format!("must be at most {NAME_BYTES} bytes")));
        }
        Ok(Filename(if matches!(name, "." | "..") { String::new() } else { name.to_owned() }))
    }

    /// The name. Empty where the uploader gave none.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A media type as the uploader declared it: at most 255 bytes of visible ASCII and spaces, with a slash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MediaType(String);

impl MediaType {
    /// Takes a declared type; empty means [`DEFAULT_MEDIA_TYPE`].
    pub fn new(sent: &str) -> Result<MediaType> {
        let sent = sent.trim_matches([' ', '\t']);
        if sent.is_empty() {
            return Ok(MediaType(DEFAULT_MEDIA_TYPE.to_owned()));
        }
        if sent.len() > NAME_BYTES {
            return Err(Error::invalid_field("content_type", format!("must be at most {NAME_BYTES} bytes")));
        }
        let visible = sent.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ' || byte == b'\t');
        if !visible || !sent.contains('/') {
            return Err(Error::invalid_field("content_type", "must be a media type such as text/plain"));
        }
        Ok(MediaType(sent.to_owned()))
    }

    /// The type as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_is_never_a_path() {
        for (sent, kept) in [
            ("a.txt", "a.txt"),
            ("../../etc/passwd", "passwd"),
            (r"C:\dir\x.doc", "x.doc"),
            ("..", ""),
            ("a/", "a"),
            (r"trailing\", "trailing"),
            (r"C:\dir\", "dir"),
            (r"a\/\", "a"),
            ("../", ""),
            ("/", ""),
            ("", ""),
            ("résumé 📎.pdf", "résumé 📎.pdf"),
            ("a\u{202e}fdp.exe", "a\u{202e}fdp.exe"),
        ] {
            assert_eq!(Filename::new(sent).unwrap().as_str(), kept, "{sent:?}");
        }
        assert!(Filename::new("a\0b").is_err());
        assert!(Filename::new("a\r\nb").is_err());
        assert!(Filename::new(&"a".repeat(NAME_BYTES - 1)).is_ok());
        assert!(Filename::new(&"a".repeat(NAME_BYTES)).is_ok());
        assert!(Filename::new(&"a".repeat(NAME_BYTES + 1)).is_err());
    }

    #[test]
    fn a_media_type_is_visible_ascii_with_a_slash_and_has_a_default() {
        assert_eq!(MediaType::new("").unwrap().as_str(), DEFAULT_MEDIA_TYPE);
        assert_eq!(MediaType::new("text/plain; charset=utf-8").unwrap().as_str(), "text/plain; charset=utf-8");
        for bad in ["text", "text/plain\r\nx: y", "text/plaïn"] {
            assert!(MediaType::new(bad).is_err(), "{bad:?}");
        }
        let long = |length: usize| format!("a/{}", "b".repeat(length - 2));
        assert!(MediaType::new(&long(NAME_BYTES - 1)).is_ok());
        assert!(MediaType::new(&long(NAME_BYTES)).is_ok());
        assert!(MediaType::new(&long(NAME_BYTES + 1)).is_err());
    }
}
