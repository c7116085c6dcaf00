//! The Content-Disposition of a part: its name, and the name of the file as clients write it. RFC 7578 s4.2, RFC 8187 and
//! RFC 2231 s3. It must not know how the header arrived.

use crate::error::{Error, Result};
use crate::params::{Fault, Malformed, Params, Value, is_token};

/// The parameter that names the file, in error texts.
const FILENAME: &str = "filename";

const TWICE: &str = "must be given once for a part";

/// A Content-Disposition.
pub(crate) struct Disposition {
    /// The name of the form field. `None` if there is no such parameter.
    pub(crate) name: Option<String>,
    /// The name of the file. `None` if there is no such parameter.
    pub(crate) filename: Option<String>,
}

impl Disposition {
    pub(crate) fn parse(value: &[u8]) -> Result<Self> {
        let (kind, mut params) = Params::split(value);
        if !kind.eq_ignore_ascii_case(b"form-data") {
            return Err(Error::invalid("the content-disposition of a part is not form-data"));
        }
        let (mut name, mut names) = (None, Names::default());
        while let Some((param, value)) = params.next().map_err(|malformed| names.blame(&malformed))? {
            if param.eq_ignore_ascii_case(b"name") {
                if name.replace(text("name", &value)?).is_some() {
                    return Err(Error::of_parameter("name", TWICE));
                }
            } else if let Some((stem, suffix)) = param.split_at_checked(FILENAME.len())
                && stem.eq_ignore_ascii_case(FILENAME.as_bytes())
            {
                names.add(suffix, value)?;
            }
        }
        Ok(Disposition { name, filename: names.choose()? })
    }
}

/// The forms in which a disposition names the file.
#[derive(Default)]
struct Names<'a> {
    /// `filename=`.
    plain: Option<Value<'a>>,
    /// `filename*=`, RFC 8187.
    extended: Option<Value<'a>>,
    /// `filename*0=`, `filename*1*=`, …, RFC 2231: the number, whether it is percent-encoded, the value.
    pieces: Vec<(u16, bool, Value<'a>)>,
}

impl<'a> Names<'a> {
    /// Takes the value of a parameter whose name is `filename` and `suffix`. Other parameters that begin so are ignored.
    fn add(&mut self, suffix: &[u8], value: Value<'a>) -> Result<()> {
        let slot = match suffix {
            [] => &mut self.plain,
            b"*" => &mut self.extended,
            [b'*', number @ ..] => {
                let (digits, encoded) = number.strip_suffix(b"*").map_or((number, false), |digits| (digits, true));
                if let Some(number) = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()) {
                    if self.pieces.iter().any(|piece| piece.0 == number) {
                        return Err(Error::of_parameter(FILENAME, TWICE));
                    }
                    self.pieces.push((number, encoded, value));
                }
                return Ok(());
            }
            _ => return Ok(()),
        };
        if slot.replace(value).is_some() {
            return Err(Error::of_parameter(FILENAME, TWICE));
        }
        Ok(())
    }

    /// What a parameter that cannot be read means for the client that sent it.
    fn blame(&self, malformed: &Malformed<'_>) -> Error {
        const QUOTES: &str = "must be one quoted text; write a quote within it as %22";
        let names_the_file = malformed.name.eq_ignore_ascii_case(FILENAME.as_bytes());
        match malformed.fault {
            Fault::Unclosed if names_the_file => Error::of_parameter(FILENAME, "has no closing quote"),
            Fault::Trailing if names_the_file => Error::of_parameter(FILENAME, QUOTES),
            // What follows the first quote within the name looks like another parameter.
            _ if matches!(self.plain, Some(Value::Quoted(_))) => Error::of_parameter(FILENAME, QUOTES),
            Fault::Form => Error::invalid("a parameter of a content-disposition is not of the form name=value"),
            Fault::Unclosed => Error::invalid("a parameter of a content-disposition has no closing quote"),
            Fault::Trailing => Error::invalid("a parameter of a content-disposition is not followed by a semicolon"),
        }
    }

    /// The name that counts: `filename*` in whatever form if it is valid, else `filename`. If there is only an invalid
    /// `filename*`, what can be read of it, so that no name is lost without a word. An empty name counts if there is no
    /// other.
    fn choose(mut self) -> Result<Option<String>> {
        self.pieces.sort_by_key(|piece| piece.0);
        let extended = self.extended.as_ref();
        let valid = [
            extended.filter(|value| matches!(value, Value::Bare(_))).and_then(|value| utf_8(value.bytes())),
            self.joined().and_then(|(latin, bytes)| if latin { None } else { printable(bytes) }),
        ];
        if let Some(name) = valid.into_iter().flatten().find(|name| !name.is_empty()) {
            return Ok(Some(name));
        }
        let plain = self.plain.as_ref().map(|value| text(FILENAME, value)).transpose()?;
        match plain.filter(|name| !name.is_empty()) {
            // Browsers escape a quote so (WHATWG HTML, "multipart/form-data encoding algorithm").
            Some(name) => Ok(Some(name.replace("%22", "\""))),
            None => Ok(self.salvage()),
        }
    }

    /// The pieces of RFC 2231 as one value, decoded: whether it is in ISO-8859-1, and its bytes. `None` if a piece is
    /// missing or malformed.
    fn joined(&self) -> Option<(bool, Vec<u8>)> {
        let (mut latin, mut bytes) = (false, Vec::new());
        for (expected, (number, encoded, value)) in self.pieces.iter().enumerate() {
            if usize::from(*number) != expected {
                return None;
            }
            let mut value = value.bytes();
            if *encoded && expected == 0 {
                (latin, value) = charset(value)?;
            }
            match encoded {
                true => bytes.extend(percent_decoded(value)?),
                false => bytes.extend_from_slice(value),
            }
        }
        (!self.pieces.is_empty()).then_some((latin, bytes))
    }

    /// What can be read of an invalid `filename*`: the text of a quoted one, the text of one in ISO-8859-1, else the value as
    /// it is. `Some("")` if there is a parameter that names the file, and no text in any.
    fn salvage(&self) -> Option<String> {
        let extended = self.extended.as_ref().map(Value::bytes);
        let joined = match self.joined() {
            Some((true, bytes)) => Some(latin(&bytes)),
            Some((false, bytes)) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            None => None,
        };
        let as_it_is = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let read = |bytes: &[u8]| {
            let in_latin = charset(bytes).filter(|(latin, _)| *latin).and_then(|(_, text)| percent_decoded(text));
            utf_8(bytes).or_else(|| in_latin.map(|bytes| latin(&bytes))).unwrap_or_else(|| as_it_is(bytes))
        };
        let pieces = || self.pieces.iter().map(|(.., value)| as_it_is(value.bytes())).collect();
        let texts = [extended.map(read), joined.or_else(|| (!self.pieces.is_empty()).then(pieces))];
        let texts = texts.into_iter().flatten().map(|text| text.replace(char::is_control, ""));
        let empty = self.plain.is_some().then(String::new);
        texts.reduce(|first, second| if first.is_empty() { second } else { first }).or(empty)
    }
}

/// The value of a parameter as text: a token, or quoted UTF-8 without control characters. Percent signs mean nothing.
fn text(field: &'static str, value: &Value<'_>) -> Result<String> {
    match value {
        Value::Bare(value) if is_token(value) => Ok(String::from_utf8_lossy(value).into_owned()),
        Value::Bare(_) => Err(Error::of_parameter(field, "must be in quotes")),
        Value::Quoted(value) => match std::str::from_utf8(value) {
            Err(_) => Err(Error::of_parameter(field, "must be UTF-8")),
            Ok(text) if text.chars().any(char::is_control) => {
                Err(Error::of_parameter(field, "must not hold control characters"))
            }
            Ok(text) => Ok(text.to_owned()),
        },
    }
}

/// The text of a value in the encoding of RFC 8187 s3.2, `UTF-8'language'text`, percent-encoded. `None` if it is malformed, in
/// another charset, or has control characters.
fn utf_8(value: &[u8]) -> Option<String> {
    let (_, text) = charset(value).filter(|(latin, _)| !latin)?;
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~%".contains(byte);
    if !text.iter().all(permitted) {
        return None;
    }
    percent_decoded(text).and_then(printable)
}

/// Splits `charset'language'text` into whether the charset is ISO-8859-1, and the text. `None` if it is neither that nor
/// UTF-8, or if an apostrophe is missing.
fn charset(value: &[u8]) -> Option<(bool, &[u8])> {
    let mut parts = value.splitn(3, |&byte| byte == b'\'');
    let (charset, language, text) = (parts.next()?, parts.next()?, parts.next()?);
    let latin = charset.eq_ignore_ascii_case(b"iso-8859-1");
    let known = latin || charset.eq_ignore_ascii_case(b"utf-8");
    let plain_language = language.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (known && plain_language).then_some((latin, text))
}

/// `None` if a percent sign is not followed by two hex digits.
fn percent_decoded(mut text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let mut decoded = Vec::with_capacity(text.len());
    loop {
        let (byte, rest) = match text {
            [] => return Some(decoded),
            [b'%', high, low, rest @ ..] => (digit(*high)? << 4 | digit(*low)?, rest),
            [b'%', ..] => return None,
            [byte, rest @ ..] => (*byte, rest),
        };
        decoded.push(byte);
        text = rest;
    }
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn printable(bytes: Vec<u8>) -> Option<String> {
    String::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control))
}
