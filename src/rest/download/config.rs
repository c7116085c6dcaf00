//! How downloads over REST are answered.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::inline::InlineType;
use crate::attachment::MediaType;

/// How downloads over REST are answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The media types that browsers may show, such as `image/png`, in any case and without parameters. Content that was
    /// declared to have one of them is sent with `Content-Disposition: inline`. A type that a browser would run is refused:
    /// HTML, XML, SVG, JavaScript, `application/pdf`, `multipart/*` and `message/*`. Default none.
    pub inline_types: Vec<InlineType>,
}

impl Config {
    /// Whether a browser may show content that was declared so.
    pub(super) fn is_inline(&self, declared: &MediaType) -> bool {
        self.inline_types.iter().any(|inline| inline.is_of(declared))
    }
}
