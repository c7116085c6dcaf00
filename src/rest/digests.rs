//! The digests that a client declares (RFC 9530): `Repr-Digest` of the file and `Content-Digest` of the body as it is sent, in
//! the head or in the trailer. A digest that is declared is verified, or the request is refused.

use aws_lc_rs::digest::{Context, SHA256};
use http::header::TRAILER;
use http::{HeaderMap, HeaderValue};

use super::dictionary;
use crate::attachment::Digest;
use crate::error::{Error, Kind, Result};

/// The digest of the file.
const REPR_DIGEST: &str = "Repr-Digest";

/// The digest of the body.
const CONTENT_DIGEST: &str = "Content-Digest";

/// Digests that cannot be verified: MD5, and a field of which senders disagree whether it is over the file or over the body.
const UNSUPPORTED: [&str; 2] = ["Content-MD5", "Digest"];

/// What was declared, and the digest of the body so far if it is needed.
pub(super) struct Digests {
    file: Option<Digest>,
    /// The digest of the file that the trailer declares.
    late: Option<Digest>,
    body: Vec<Digest>,
    running: Option<Context>,
    /// The fields that the trailer must still bring.
    awaited: Vec<&'static str>,
}

impl Digests {
    /// Reads the head of a request.
    pub(super) fn read(headers: &HeaderMap) -> Result<Digests> {
        refuse_unsupported(headers)?;
        let announced = announced(headers);
        let announces = |name: &&str| announced.iter().any(|announced| announced.eq_ignore_ascii_case(name));
        if let Some(name) = UNSUPPORTED.iter().find(|name| announces(name)) {
            return Err(unsupported(name));
        }
        let awaited: Vec<_> = [REPR_DIGEST, CONTENT_DIGEST].into_iter().filter(announces).collect();
        let (file, body) = (declared(REPR_DIGEST, headers)?, declared(CONTENT_DIGEST, headers)?);
        let hashes = body.is_some() || awaited.contains(&CONTENT_DIGEST);
        Ok(Digests {
            file,
            late: None,
            body: Vec::from_iter(body),
            running: hashes.then(|| Context::new(&SHA256)),
            awaited,
        })
    }

    /// The digest of the file that the head declares.
    pub(super) fn file(&self) -> Option<Digest> {
        self.file
    }

    /// Takes the next bytes of the body into account.
    pub(super) fn data(&mut self, bytes: &[u8]) {
        if let Some(running) = &mut self.running {
            running.update(bytes);
        }
    }

    /// Reads the trailer.
    pub(super) fn trailer(&mut self, trailer: &HeaderMap) -> Result<()> {
        refuse_unsupported(trailer)?;
        self.late = declared(REPR_DIGEST, trailer)?;
        let body = declared(CONTENT_DIGEST, trailer)?;
        if body.is_some() && self.running.is_none() {
            let mend = "in the trailer must be announced by the header Trailer";
            return Err(Error::invalid_field(CONTENT_DIGEST, mend));
        }
        self.body.extend(body);
        self.awaited.retain(|name| !trailer.contains_key(*name));
        Ok(())
    }

    /// Verifies the body, which has ended, and returns the digest of the file that the trailer declares.
    pub(super) fn finish(&mut self) -> Result<Option<Digest>> {
        if let Some(name) = self.awaited.first() {
            return Err(Error::invalid_field(*name, "was announced by the header Trailer and is not in the trailer"));
        }
        let Some(running) = self.running.take() else {
            return Ok(self.late);
        };
        let digest = Digest::new(CONTENT_DIGEST, running.finish().as_ref())?;
        match self.body.iter().find(|declared| **declared != digest) {
            Some(_) => Err(Error::new(Kind::DigestMismatch)
                .detail(format!("the body does not have the digest that {CONTENT_DIGEST} declares"))),
            None => Ok(self.late),
        }
    }
}

/// The names in the header `Trailer`.
fn announced(headers: &HeaderMap) -> Vec<&str> {
    let lines = headers.get_all(TRAILER).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|name| name.trim_matches([' ', '\t'])).collect()
}

fn refuse_unsupported(headers: &HeaderMap) -> Result<()> {
    match UNSUPPORTED.iter().find(|name| headers.contains_key(**name)) {
        Some(name) => Err(unsupported(name)),
        None => Ok(()),
    }
}

fn unsupported(name: &'static str) -> Error {
    let mend =
        format!("is not supported, send sha-256 in {REPR_DIGEST} for the file or in {CONTENT_DIGEST} for the body");
    Error::invalid_field(name, mend)
}

/// The SHA-256 digest in a field. Other algorithms beside it are ignored. Alone they are refused, since the client asks for a
/// check that is not made.
fn declared(field: &'static str, headers: &HeaderMap) -> Result<Option<Digest>> {
    let malformed = || Error::invalid_field(field, "must be like sha-256=:<base64>:");
    if !headers.contains_key(field) {
        return Ok(None);
    }
    let lines = headers.get_all(field).iter().map(HeaderValue::to_str).collect::<Result<Vec<_>, _>>();
    let mut lines = lines.map_err(|_| malformed())?;
    lines.retain(|line| !line.trim().is_empty());
    let mut found = None;
    for (algorithm, value) in dictionary::parse(&lines.join(", ")).ok_or_else(malformed)? {
        if algorithm != "sha-256" {
            continue;
        }
        let digest = Digest::from_base64(field, value.bytes().ok_or_else(malformed)?)?;
        if found.replace(digest).is_some_and(|other| other != digest) {
            return Err(Error::invalid_field(field, "must not have two different sha-256 digests"));
        }
    }
    found.map(Some).ok_or_else(|| Error::invalid_field(field, "must have a sha-256 digest"))
}
