//! How downloads over REST are answered.

use std::ops::RangeInclusive;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inline::InlineType;
use crate::attachment::{Content, MediaType};
use crate::units;

/// How long an address may be valid.
const EXPIRY: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

/// How downloads over REST are answered.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The media types that browsers may show, such as `image/png`, in any case and without parameters. Content that was
    /// declared to have one of them is sent with `Content-Disposition: inline`. A type that a browser would run is refused:
    /// HTML, XML, SVG, JavaScript, `application/pdf`, `multipart/*` and `message/*`. Default none.
    pub inline_types: Vec<InlineType>,
    /// Whether a `GET` of content in an object of its own is answered 307 with a signed address, at which the storage sends the
    /// content by itself. For the services `s3` and `gcs`. attachd then neither verifies nor counts the bytes, the content comes
    /// without the headers that keep browsers from guessing its type or running it, and anyone who has the address can read the
    /// content until it expires. Clients must reach the storage at its configured endpoint. Default `false`.
    pub redirect: bool,
    /// How long such an address is valid, from `1s` to `1h`. A fraction of a second is dropped. Default 5 min.
    #[serde(with = "units::time")]
    #[schemars(with = "units::Time")]
    pub redirect_expiry: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Config { inline_types: Vec::new(), redirect: false, redirect_expiry: Duration::from_secs(5 * 60) }
    }
}

impl Config {
    /// Checks the values by themselves.
    ///
    /// # Errors
    /// A key, and what is wrong with its value.
    pub fn validate(&self) -> Result<(), (&'static str, &'static str)> {
        match EXPIRY.contains(&self.redirect_expiry) {
            true => Ok(()),
            false => Err(("download.redirect_expiry", "must be from 1s to 1h")),
        }
    }

    /// Whether a browser may show content that was declared so.
    pub(super) fn is_inline(&self, declared: &MediaType) -> bool {
        self.inline_types.iter().any(|inline| inline.is_of(declared))
    }

    /// Whether the storage may send the content by itself.
    pub(super) fn redirects(&self, content: &Content) -> bool {
        self.redirect && content.size > 0 && content.segments.len() == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_content_in_one_object_of_its_own_is_redirected_and_only_if_that_is_wanted() {
        let digest = "0".repeat(64);
        let content = |segments: u64, size: u64| -> Content {
            let segment = |number| serde_json::json!({ "number": number, "size": size, "sha256": digest });
            let segments: Vec<_> = (0..segments).map(segment).collect();
            let content = serde_json::json!({
                "upload_id": "018f0000-0000-7000-8000-000000000000", "filename": "", "content_type": "text/plain", "size": size,
                "sha256": digest, "segments": segments, "created_at": "2026-01-31T12:00:00Z", "uploaded_by": "tester",
            });
            serde_json::from_value(content).unwrap()
        };
        let config = Config { redirect: true, ..Config::default() };
        let redirected =
            [(0, 1), (1, 1), (2, 1), (1, 0)].map(|(segments, size)| config.redirects(&content(segments, size)));
        assert_eq!(redirected, [false, true, false, false]);
        assert!(!Config::default().redirects(&content(1, 1)));
    }
}
