//! Signs that a request is one chunk of a larger file: what chunking and resumable uploaders say in headers, in the query and
//! in form fields. Each chunk would replace the file by a part of it, so such a request is refused.

use std::borrow::Cow;

use http::HeaderMap;

use crate::error::{Error, Result};

/// The longest value of a form field that is looked into, in bytes.
pub const VALUE_BYTES: usize = 1 << 10;

/// The longest name that is looked at, in bytes: error texts quote it.
const NAME_BYTES: usize = 64;

/// What a request has said of chunks so far.
#[derive(Debug, Default)]
pub struct Chunks {
    /// Whether a number of chunks was given, and it is one at most.
    whole: bool,
    /// What gave the number of a chunk that may be the first or the only one.
    numbered: Option<String>,
}

/// What a value is, by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// How many chunks there are.
    Total,
    /// Which one this is, counted from 0 or from 1.
    Number,
    /// Where in the file it begins, in bytes.
    Offset,
    /// A JSON object with some of these.
    Object,
}

impl Chunks {
    /// Reads the headers and the query of a request.
    ///
    /// # Errors
    /// `Invalid` if one of them says that the request is a chunk.
    pub fn announced(headers: &HeaderMap, query: &str) -> Result<Chunks> {
        let mut chunks = Chunks::default();
        let is = |name: &str, flag: &[u8]| headers.get(name).is_some_and(|value| boolean(value.as_bytes()) == flag);
        let whole = is("upload-complete", b"?1") || is("upload-incomplete", b"?0");
        for (name, value) in headers {
            let (name, value) = (name.as_str(), value.as_bytes());
            let chunk = match name {
                "content-range" | "x-content-range" | "oc-chunked" => true,
                // tus 1.0.
                "tus-resumable" | "upload-metadata" | "upload-concat" | "upload-defer-length" => true,
                // Resumable Uploads for HTTP, draft-ietf-httpbis-resumable-upload; a whole file may be sent in its words.
                "upload-offset" => true,
                "upload-complete" => boolean(value) != b"?1",
                "upload-incomplete" => boolean(value) != b"?0",
                "upload-length" | "upload-draft-interop-version" => !whole,
                _ => false,
            };
            let what = || format!("the header {name}");
            if chunk {
                return Err(refusal(&what()));
            }
            if name.contains("chunk")
                && let Some(role) = role(name)
            {
                chunks.note(&what, role, value)?;
            }
        }
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let key: Cow<'_, [u8]> = percent_encoding::percent_decode_str(key).into();
            let key = String::from_utf8_lossy(&key);
            if let Some(role) = role(&key) {
                let value: Cow<'_, [u8]> = percent_encoding::percent_decode_str(value).into();
                chunks.note(&|| format!("the query key {key:?}"), role, &value)?;
            }
        }
        Ok(chunks)
    }

    /// Whether a form field of this name may say that the request is a chunk.
    pub fn names(field: &str) -> bool {
        role(field).is_some()
    }

    /// Takes the value of a form field.
    ///
    /// # Errors
    /// `Invalid` if it says that the request is a chunk.
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<()> {
        match role(name) {
            Some(role) => self.note(&|| format!("the form field {name:?}"), role, value),
            None => Ok(()),
        }
    }

    /// The form is complete.
    ///
    /// # Errors
    /// `Invalid` if the request is the first chunk of so many that nobody has said how many.
    pub fn end(&self) -> Result<()> {
        match &self.numbered {
            Some(what) if !self.whole => Err(refusal(what)),
            _ => Ok(()),
        }
    }

    fn note(&mut self, what: &dyn Fn() -> String, role: Role, value: &[u8]) -> Result<()> {
        if role == Role::Object {
            return self.object(what, value);
        }
        match (role, number(value)) {
            (_, None) => {}
            (Role::Total | Role::Number, Some(2..)) | (Role::Offset, Some(1..)) => return Err(refusal(&what())),
            (Role::Total, Some(_)) => self.whole = true,
            (Role::Number, Some(_)) => {
                self.numbered.get_or_insert_with(what);
            }
            (Role::Offset | Role::Object, Some(_)) => {}
        }
        Ok(())
    }

    /// What a field has that is a JSON object, as Kendo UI (`metadata`) and DevExtreme (`chunkMetadata`) send it.
    fn object(&mut self, what: &dyn Fn() -> String, value: &[u8]) -> Result<()> {
        let Ok(serde_json::Value::Object(members)) = serde_json::from_slice(value) else {
            return Ok(());
        };
        let devextreme = members.contains_key("TotalCount");
        for (name, value) in &members {
            let role = match name.as_str() {
                "Index" if devextreme => Some(Role::Number),
                "TotalCount" => Some(Role::Total),
                // A field that is called so has no other object within.
                name => role(name).filter(|role| *role != Role::Object),
            };
            if let Some(role) = role {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                self.note(what, role, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

/// The role of a header, query key or form field of this name. Case and punctuation do not count, nor does what is put before
/// the unmistakable ones: `dztotalchunkcount`, `flowTotalChunks`, `total_chunks` and `X-Total-Chunks` are the same.
fn role(name: &str) -> Option<Role> {
    const TOTALS: [&str; 9] = [
        "totalchunks",
        "totalchunk",
        "totalchunkcount",
        "chunkcount",
        "chunkscount",
        "chunkstotal",
        "chunktotal",
        "numchunks",
        "numberofchunks",
    ];
    const NUMBERS: [&str; 5] = ["chunkindex", "chunknumber", "chunknum", "chunkno", "currentchunk"];
    const OFFSETS: [&str; 4] = ["chunkbyteoffset", "chunkoffset", "chunkstart", "partbyteoffset"];
    if name.len() > NAME_BYTES {
        return None;
    }
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    let ends_in = |names: &[&str]| names.iter().any(|known| plain.ends_with(known));
    match plain.as_str() {
        "chunk" | "xchunk" | "qqpartindex" => Some(Role::Number),
        "chunks" | "xchunks" | "xchunksnumber" | "qqtotalparts" => Some(Role::Total),
        "metadata" | "chunkmetadata" => Some(Role::Object),
        _ if ends_in(&TOTALS) => Some(Role::Total),
        _ if ends_in(&NUMBERS) => Some(Role::Number),
        _ if ends_in(&OFFSETS) => Some(Role::Offset),
        _ => None,
    }
}

/// A decimal number; the largest there is for larger ones.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    let text =
        std::str::from_utf8(digits).ok().filter(|_| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit))?;
    Some(text.parse().unwrap_or(u64::MAX))
}

/// A boolean of RFC 9651 without its parameters.
fn boolean(value: &[u8]) -> &[u8] {
    value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

fn refusal(what: &str) -> Error {
    Error::invalid(format!(
        "{what} says that the request is one chunk of a larger file; there is no resumable protocol, send the whole file in one request"
    ))
}
