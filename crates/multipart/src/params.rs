//! The parameters of a header value: RFC 9110 s5.6.6, as strict as clients permit.
//! It works on whole values whose length others have bounded, and must not know what a parameter is for.

use memchr::memchr;

/// The parameters of a header value: `*( OWS ";" OWS [ name "=" value ] )`.
pub(crate) struct Params<'a>(&'a [u8]);

/// A parameter that cannot be read.
pub(crate) struct Malformed<'a> {
    /// Its name. Empty if it has none.
    pub(crate) name: &'a [u8],
    /// What is wrong with it.
    pub(crate) fault: Fault,
}

/// What is wrong with a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is not of the form `name=value`.
    Form,
    /// Its value begins with a quote and has no closing one.
    Unclosed,
    /// Its value is followed by something other than a semicolon.
    Trailing,
}

impl<'a> Params<'a> {
    /// Splits a header value into what stands before the first semicolon, and the parameters.
    pub(crate) fn split(value: &'a [u8]) -> (&'a [u8], Self) {
        let (first, rest) = value.split_at(memchr(b';', value).unwrap_or(value.len()));
        (first.trim_ascii(), Params(rest))
    }

    /// The next parameter. Reads each byte at most twice; a semicolon within quotes is part of the value.
    pub(crate) fn next(&mut self) -> Result<Option<(&'a [u8], Value<'a>)>, Malformed<'a>> {
        while matches!(self.0, [b';' | b' ' | b'\t', ..]) {
            self.0 = &self.0[1..];
        }
        if self.0.is_empty() {
            return Ok(None);
        }
        let end = self.0.iter().position(|&byte| !is_token(&[byte])).unwrap_or(self.0.len());
        let (name, rest) = self.0.split_at(end);
        let malformed = |fault| Malformed { name, fault };
        let input = match rest {
            [b'=', input @ ..] if !name.is_empty() => input,
            _ => return Err(malformed(Fault::Form)),
        };
        let (value, rest) = match input {
            [b'"', inner @ ..] => match Value::quoted(inner) {
                Some(read) => read,
                // Chromium and Firefox do not escape a backslash, so a name that ends in one hides its closing quote.
                None if name.eq_ignore_ascii_case(b"filename") && inner.ends_with(b"\\\"") => {
                    (Value::unclosed(inner), &[][..])
                }
                None if name.ends_with(b"*") => Value::encoded(input),
                None => return Err(malformed(Fault::Unclosed)),
            },
            _ if name.ends_with(b"*") => Value::encoded(input),
            _ => Value::bare(input),
        };
        let after = rest.trim_ascii_start();
        let ends = matches!(after, [] | [b';', ..]);
        if !ends && !name.ends_with(b"*") {
            return Err(malformed(Fault::Trailing));
        }
        let (value, after) = if ends { (value, after) } else { Value::encoded(input) };
        self.0 = after;
        Ok(Some((name, value)))
    }
}

/// The value of a parameter.
pub(crate) enum Value<'a> {
    /// As it is in the header. Whoever takes it says what it may contain.
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

    /// All up to the next semicolon: in the encoding of RFC 8187 there is none within the value.
    fn encoded(input: &'a [u8]) -> (Self, &'a [u8]) {
        let (value, rest) = input.split_at(memchr(b';', input).unwrap_or(input.len()));
        (Value::Bare(value.trim_ascii()), rest)
    }

    /// Reads on from an opening quote; `None` if there is no closing one.
    fn quoted(mut input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut value = Vec::new();
        loop {
            match input {
                [b'"', rest @ ..] => return Some((Value::Quoted(value), rest)),
                _ => input = unescape(input, &mut value)?,
            }
        }
    }

    /// A value whose last backslash hides its closing quote: all before that backslash.
    fn unclosed(input: &'a [u8]) -> Self {
        let mut value = Vec::new();
        let mut rest = &input[..input.len() - b"\\\"".len()];
        while let Some(after) = unescape(rest, &mut value) {
            rest = after;
        }
        Value::Quoted(value)
    }

    /// The bytes of the value.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Value::Bare(value) => value,
            Value::Quoted(value) => value,
        }
    }
}

/// Moves one byte of a quoted value to `value` and returns what follows it. A backslash escapes a quote and a backslash;
/// before anything else it is itself, for clients send `filename="C:\x"` and mean it.
fn unescape<'a>(input: &'a [u8], value: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (byte, rest) = match input {
        [b'\\', byte @ (b'"' | b'\\'), rest @ ..] | [byte, rest @ ..] => (*byte, rest),
        [] => return None,
    };
    value.push(byte);
    Some(rest)
}

/// Whether it is a token, RFC 9110 s5.6.2.
pub(crate) fn is_token(bytes: &[u8]) -> bool {
    let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !bytes.is_empty() && bytes.iter().all(permitted)
}
