//! The header fields of a part, strictly: RFC 7578 s4.2 and s4.8. It works on whole lines whose length others have
//! bounded, and must not know how they arrived.

use memchr::memchr;

use crate::disposition::Disposition;
use crate::error::{Error, Result};
use crate::params::is_token;

/// What the header of a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The name of the form field: UTF-8 without control characters, possibly empty.
    pub name: String,
    /// The name of the file as the client gave it: UTF-8 without control characters, possibly empty, and otherwise
    /// untrusted. `None` if the part has no parameter for it. A valid `filename*` wins over `filename`, in whatever order; in
    /// `filename`, `%22` is a quote.
    pub filename: Option<String>,
    /// The part's `Content-Type`: printable ASCII, not looked into.
    pub content_type: Option<String>,
}

/// The fields of one part so far, as far as they matter.
#[derive(Default)]
pub(crate) struct Fields {
    /// Read when the block is complete: until then, the next line may be a folded rest of it.
    disposition: Option<Vec<u8>>,
    content_type: Option<String>,
}

impl Fields {
    /// Adds a header line, its line end included.
    pub(crate) fn add(&mut self, line: &[u8]) -> Result<()> {
        let line = line
            .strip_suffix(b"\r\n")
            .ok_or_else(|| Error::invalid("a header line of a part ends in LF; lines must end in CRLF"))?;
        if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Error::invalid("a part has a control character in its headers"));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Error::invalid(
                "a part has a folded header line; folding is not supported, write each header on one line",
            ));
        }
        let colon = memchr(b':', line).ok_or_else(|| Error::invalid("a header line of a part has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(Error::invalid("a part has a header with a malformed name"));
        }
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if self.disposition.replace(value.to_vec()).is_some() {
                return Err(Error::invalid("a part has more than one content-disposition"));
            }
        } else if name.eq_ignore_ascii_case(b"content-type") {
            let text = String::from_utf8(value.to_vec()).ok().filter(|text| text.is_ascii());
            let text = text.ok_or_else(|| Error::invalid("the content type of a part is not ascii"))?;
            if self.content_type.replace(text).is_some() {
                return Err(Error::invalid("a part has more than one content type"));
            }
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let plain: [&[u8]; 3] = [b"7bit", b"8bit", b"binary"];
            if !plain.iter().any(|known| value.eq_ignore_ascii_case(known)) {
                return Err(Error::invalid("a part has a transfer encoding, send its bytes as they are"));
            }
        } else if name.eq_ignore_ascii_case(b"content-range") {
            return Err(Error::invalid(
                "a part has a content-range: it is one chunk of a larger file; send the whole file in one request",
            ));
        }
        Ok(())
    }

    /// The header block of a part is complete. `number` is the part's, counted from 1, for the error texts.
    pub(crate) fn into_head(self, number: usize) -> Result<PartHead> {
        let disposition = self.disposition.ok_or_else(|| {
            Error::invalid(format!(
                "part {number} of the form has no content-disposition; it must be form-data with a name"
            ))
        })?;
        let Disposition { name, filename } = Disposition::parse(&disposition)?;
        let name = name.ok_or_else(|| {
            Error::invalid(format!("part {number} of the form has no name; its content-disposition must have one"))
        })?;
        Ok(PartHead { name, filename, content_type: self.content_type })
    }
}
