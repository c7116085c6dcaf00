//! The boundary of a form, as the content type declares it. It must not know what is done with it.

use bytes::{Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::params::Params;

/// The longest boundary, in characters (RFC 2046 s5.1.1).
pub(crate) const MAX_BOUNDARY: usize = 70;

/// The boundary of a form: 1 to 70 characters as RFC 2046 s5.1.1 permits them. Kept as the delimiter it makes.
#[derive(Clone, Debug)]
pub struct Boundary(pub(crate) Bytes);

impl Boundary {
    /// Reads the boundary from the value of a `Content-Type` header, `None` being no such header. Other parameters
    /// (`charset`) are ignored.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the type is missing or not `multipart/form-data`, if a parameter
    /// is malformed, if there is not exactly one boundary, or if RFC 2046 does not permit it.
    pub fn from_content_type(value: Option<&[u8]>) -> Result<Self> {
        let value =
            value.ok_or_else(|| Error::invalid("the content type is missing, multipart/form-data is needed"))?;
        let (media_type, mut params) = Params::split(value);
        if !media_type.eq_ignore_ascii_case(b"multipart/form-data") {
            return Err(Error::invalid("the content type is not multipart/form-data"));
        }
        let mut boundary = None;
        let malformed = |_| Error::invalid("a parameter of the content type is malformed");
        while let Some((name, value)) = params.next().map_err(malformed)? {
            if name.eq_ignore_ascii_case(b"boundary") && boundary.replace(value).is_some() {
                return Err(Error::invalid("the content type has more than one boundary"));
            }
        }
        match &boundary {
            None => Err(Error::invalid("the content type has no boundary")),
            Some(value) => Self::new(value.bytes()),
        }
    }

    /// The boundary `text`, without the dashes that precede it in a body.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if it is not 1 to 70 characters that RFC 2046 permits.
    pub fn new(text: &[u8]) -> Result<Self> {
        let permitted = |byte: &u8| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(byte);
        if !(1..=MAX_BOUNDARY).contains(&text.len()) || !text.iter().all(permitted) || text.ends_with(b" ") {
            return Err(Error::invalid("the boundary is not 1 to 70 characters that RFC 2046 permits"));
        }
        let mut delimiter = BytesMut::from(&b"\r\n--"[..]);
        delimiter.extend_from_slice(text);
        Ok(Boundary(delimiter.freeze()))
    }
}
