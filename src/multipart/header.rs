//! The header fields of a part and the parameters in them, strictly: RFC 7578 s4.2, RFC 9110 s5.6 and RFC 8187.
//! It works on whole lines whose length others have bounded, and must not know how they arrived.

use memchr::memchr;

use crate::error::{Error, Result};

/// What the header of a part says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHead {
    /// The name of the form field: UTF-8 without control characters, possibly empty.
    pub name: String,
    /// The name of the file as the client gave it: UTF-8 without control characters, possibly empty, and otherwise
    /// untrusted. Where `filename` and `filename*` are both given, in whatever order, it is `filename`, for RFC 7578
    /// s4.2 forbids the other.
    pub filename: Option<String>,
    /// The part's `Content-Type`: printable ASCII, not looked into.
    pub content_type: Option<String>,
}

/// The fields of one part so far, as far as they matter.
#[derive(Default)]
pub(super) struct Fields {
    disposition: Option<Disposition>,
    content_type: Option<String>,
}

struct Disposition {
    name: String,
    filename: Option<String>,
}

impl Fields {
    /// Adds a header line, its line end included.
    pub(super) fn add(&mut self, line: &[u8]) -> Result<()> {
        let line =
            line.strip_suffix(b"\r\n").ok_or_else(|| Error::invalid("a header line of a part ends in a bare LF"))?;
        if line.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(Error::invalid("a part has a control character in its headers"));
        }
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err(Error::invalid("a part has a folded header line"));
        }
        let colon = memchr(b':', line).ok_or_else(|| Error::invalid("a header line of a part has no colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if !is_token(name) {
            return Err(Error::invalid("a part has a header with a malformed name"));
        }
        if name.eq_ignore_ascii_case(b"content-disposition") {
            if self.disposition.replace(Disposition::parse(value)?).is_some() {
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
        }
        Ok(())
    }

    /// The header block is complete.
    pub(super) fn into_head(self) -> Result<PartHead> {
        let Disposition { name, filename } =
            self.disposition.ok_or_else(|| Error::invalid("a part has no content-disposition"))?;
        Ok(PartHead { name, filename, content_type: self.content_type })
    }
}

impl Disposition {
    fn parse(value: &[u8]) -> Result<Self> {
        let (kind, mut params) = Params::split(value);
        if !kind.eq_ignore_ascii_case(b"form-data") {
            return Err(Error::invalid("the content-disposition of a part is not form-data"));
        }
        let (mut name, mut plain, mut extended) = (None, None, None);
        while let Some((param, value)) = params.next()? {
            let (slot, text) = if param.eq_ignore_ascii_case(b"name") {
                (&mut name, value.text()?)
            } else if param.eq_ignore_ascii_case(b"filename") {
                (&mut plain, value.text()?)
            } else if param.eq_ignore_ascii_case(b"filename*") {
                (&mut extended, value.extended_text()?)
            } else {
                continue;
            };
            if slot.replace(text).is_some() {
                return Err(Error::invalid("a part has a name or filename more than once"));
            }
        }
        let name = name.ok_or_else(|| Error::invalid("a part has no name"))?;
        Ok(Disposition { name, filename: plain.or(extended) })
    }
}

/// The parameters of a header value: `*( OWS ";" OWS [ name "=" value ] )`, RFC 9110 s5.6.6.
pub(super) struct Params<'a>(&'a [u8]);

impl<'a> Params<'a> {
    /// Splits a header value into what stands before the first semicolon, and the parameters.
    pub(super) fn split(value: &'a [u8]) -> (&'a [u8], Self) {
        let (first, rest) = value.split_at(memchr(b';', value).unwrap_or(value.len()));
        (first.trim_ascii(), Params(rest))
    }

    /// The next parameter. Reads each byte once; a semicolon within quotes is part of the value.
    pub(super) fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>> {
        while matches!(self.0, [b';' | b' ' | b'\t', ..]) {
            self.0 = &self.0[1..];
        }
        if self.0.is_empty() {
            return Ok(None);
        }
        let end = self.0.iter().position(|&byte| !is_token(&[byte])).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        let (value, rest) = match rest {
            [b'=', b'"', rest @ ..] if !name.is_empty() => Value::quoted(rest)?,
            [b'=', rest @ ..] if !name.is_empty() => Value::bare(rest),
            _ => return Err(Error::invalid("a header parameter is not of the form name=value")),
        };
        let after = rest.trim_ascii_start();
        if !matches!(after, [] | [b';', ..]) {
            return Err(Error::invalid("a header parameter is not followed by a semicolon"));
        }
        self.0 = after;
        Ok(Some((name, value)))
    }
}

/// The value of a parameter.
pub(super) enum Value<'a> {
    /// As it stood there: no semicolon, no white space. Whoever takes it says what else it may hold.
    Bare(&'a [u8]),
    /// Without its quotes and escapes.
    Quoted(Vec<u8>),
}

impl<'a> Value<'a> {
    fn bare(input: &'a [u8]) -> (Self, &'a [u8]) {
        let end = input.iter().position(|byte| matches!(byte, b';' | b' ' | b'\t')).unwrap_or(input.len());
        let (value, rest) = input.split_at(end);
        (Value::Bare(value), rest)
    }

    /// Reads on from an opening quote. A backslash escapes a quote and a backslash; before anything else it is itself,
    /// for clients send `filename="C:\x"` and mean it.
    fn quoted(mut input: &'a [u8]) -> Result<(Self, &'a [u8])> {
        let mut value = Vec::new();
        loop {
            let (byte, rest) = match input {
                [b'"', rest @ ..] => return Ok((Value::Quoted(value), rest)),
                [b'\\', byte @ (b'"' | b'\\'), rest @ ..] | [byte, rest @ ..] => (*byte, rest),
                [] => return Err(Error::invalid("a header parameter has no closing quote")),
            };
            value.push(byte);
            input = rest;
        }
    }

    /// The value as text: a token, or quoted UTF-8 without control characters. Percent signs mean nothing.
    fn text(self) -> Result<String> {
        match self {
            Value::Bare(value) if is_token(value) => Ok(String::from_utf8_lossy(value).into_owned()),
            Value::Bare(_) => Err(Error::invalid("a name or filename needs quotes")),
            Value::Quoted(value) => printable(value),
        }
    }

    /// The value in the encoding of RFC 8187 s3.2: `UTF-8'language'text`, percent-encoded, never quoted.
    fn extended_text(self) -> Result<String> {
        let malformed = || Error::invalid("a filename* is not utf-8 in the encoding of rfc 8187");
        let Value::Bare(value) = self else { return Err(malformed()) };
        let mut parts = value.splitn(3, |&byte| byte == b'\'');
        let (Some(charset), Some(language), Some(mut text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let plain_language = language.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !charset.eq_ignore_ascii_case(b"utf-8") || !plain_language {
            return Err(malformed());
        }
        let mut decoded = Vec::with_capacity(text.len());
        loop {
            let (byte, rest) = match text {
                [] => return printable(decoded),
                [b'%', high, low, rest @ ..] => (hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low), rest),
                [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(byte) => {
                    (Some(*byte), rest)
                }
                _ => (None, text),
            };
            decoded.push(byte.ok_or_else(malformed)?);
            text = rest;
        }
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn printable(bytes: Vec<u8>) -> Result<String> {
    let text = String::from_utf8(bytes).map_err(|_| Error::invalid("a name or filename is not utf-8"))?;
    if text.chars().any(char::is_control) {
        return Err(Error::invalid("a name or filename has a control character"));
    }
    Ok(text)
}

/// Whether it is a token, RFC 9110 s5.6.2.
fn is_token(bytes: &[u8]) -> bool {
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(permitted)
}
