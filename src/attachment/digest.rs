//! The digest of content, and how it is written: in hex, in base64, as a version.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, Version};

/// Base64 as RFC 9651 s4.2.7 has it read: padding may be missing, and the bits that it hides are not looked at.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A SHA-256 digest. Written as lower-case hex in records.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Takes the 32 bytes of a digest. `field` names it in the error.
    pub fn new(field: &'static str, bytes: &[u8]) -> Result<Digest> {
        bytes
            .try_into()
            .map(Digest)
            .map_err(|_| Error::invalid_field(field, "must be the 32 bytes of a SHA-256 digest"))
    }

    /// The digest of what was hashed.
    pub fn of(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The version of the content that has the digest.
    pub fn version(&self) -> Version {
        Version {
            etag: format!("\"{self}\""),
            sha256: self.to_string(),
            repr_digest: format!("sha-256=:{}:", BASE64.encode(self.0)),
        }
    }

    /// Reads a digest in base64, as RFC 9530 writes it.
    pub fn from_base64(field: &'static str, text: &str) -> Result<Digest> {
        let bytes =
            BASE64.decode(text).map_err(|_| Error::invalid_field(field, "must be a SHA-256 digest in base64"))?;
        Digest::new(field, &bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut hex = [0; 64];
        for (pair, byte) in hex.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]]);
        }
        f.write_str(std::str::from_utf8(&hex).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl TryFrom<String> for Digest {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Digest, &'static str> {
        const WRONG: &str = "a SHA-256 digest is 64 lower-case hex digits";
        if hex.len() != 64 || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(WRONG);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            *byte = std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()).ok_or(WRONG)?;
        }
        Ok(Digest(digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_in_hex_is_sixty_four_lower_case_digits() {
        for bad in ["", "ab", &"g".repeat(64), &"A".repeat(64), &"é".repeat(32)] {
            assert!(Digest::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }
}
