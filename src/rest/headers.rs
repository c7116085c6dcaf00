//! Headers that every body of the REST port is judged by.

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::{Error, Result};

/// The value of a header that may come once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Error::invalid(format!("the header {name} must be given once"))),
    }
}

/// Refuses a body that is compressed.
pub(super) fn unencoded(headers: &HeaderMap) -> Result<()> {
    match single(headers, &CONTENT_ENCODING)? {
        Some(coding) if !coding.eq_ignore_ascii_case(b"identity") => {
            Err(Error::invalid("Content-Encoding is not supported, send the body as it is"))
        }
        _ => Ok(()),
    }
}
