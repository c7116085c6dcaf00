//! The media types whose content a browser may show instead of saving it. A type that a browser would run is never one of them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::attachment::MediaType;

/// A media type without parameters, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InlineType(String);

impl InlineType {
    /// Whether content that was declared so has this type, whatever its parameters.
    pub(super) fn is_of(&self, declared: &MediaType) -> bool {
        let declared = declared.as_str();
        let essence = declared.split(';').next().unwrap_or_default().trim_end_matches([' ', '\t']);
        // Of several types between commas, browsers take the last one (Fetch standard, "extract a MIME type").
        !declared.contains(',') && essence.eq_ignore_ascii_case(&self.0)
    }
}

/// Why a browser may not show a type, if it may not.
fn danger(kind: &str, subtype: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| subtype.contains(word));
    let is_xml = ["xml", "xsl"].contains(&subtype) || subtype.ends_with("+xml") || subtype.starts_with("xml-");
    if has(&["html"]) {
        return Some("browsers run the scripts in it");
    }
    if is_xml {
        return Some("browsers run the scripts in XML, SVG among it");
    }
    if has(&["javascript", "ecmascript", "jscript", "livescript"]) {
        return Some("browsers run it");
    }
    if (kind, subtype) == ("application", "pdf") {
        // PDF viewers run scripts, and Chrome shows no PDF with the `sandbox` that is sent with every download.
        return Some("a PDF can have scripts, and browsers do not show it in the sandbox of a download");
    }
    if kind == "multipart" || kind == "message" {
        return Some("its parts can have types that browsers run");
    }
    None
}

/// Whether a text is a name of RFC 6838 s4.2.
fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte))
}

impl TryFrom<String> for InlineType {
    type Error = String;

    fn try_from(text: String) -> Result<InlineType, String> {
        if let Some((essence, _)) = text.split_once(';') {
            return Err(format!("`{text}` has parameters, which are not compared; write `{}`", essence.trim()));
        }
        let essence = text.to_ascii_lowercase();
        let Some((kind, subtype)) = essence.split_once('/').filter(|(kind, subtype)| is_name(kind) && is_name(subtype))
        else {
            return Err(format!("`{text}` is not a media type; write each type in full, such as `image/png`"));
        };
        match danger(kind, subtype) {
            Some(why) => Err(format!("`{text}` cannot be sent inline: {why}; remove it from the list")),
            None => Ok(InlineType(essence)),
        }
    }
}

impl From<InlineType> for String {
    fn from(InlineType(text): InlineType) -> String {
        text
    }
}

impl JsonSchema for InlineType {
    fn schema_name() -> Cow<'static, str> {
        "InlineType".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "media types, such as `image/png`" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inline(text: &str) -> Result<InlineType, String> {
        InlineType::try_from(text.to_owned())
    }

    #[test]
    fn a_type_is_compared_without_parameters_and_case_and_in_full() {
        let png = inline("Image/PNG").unwrap();
        assert_eq!(String::from(png.clone()), "image/png");
        for declared in ["image/png", "IMAGE/png", "image/png; x=y", "image/png ;x=\"y\"", "image/png\t", "image/png;"]
        {
            assert!(png.is_of(&MediaType::new(declared).unwrap()), "{declared}");
        }
        for declared in [
            "image/png2",
            "image/pn",
            "image/png+xml",
            "image/x-png",
            "ximage/png",
            "image /png",
            "image/png x",
            "image/png, text/html",
            "image/png;x=y,text/html",
            "text/html;a=image/png",
            "",
        ] {
            assert!(!png.is_of(&MediaType::new(declared).unwrap()), "{declared}");
        }
    }

    #[test]
    fn a_type_that_a_browser_would_run_is_refused_by_name() {
        for text in [
            "text/html",
            "TEXT/Html",
            "application/xhtml+xml",
            "application/vnd.wap.xhtml+xml",
            "image/svg+xml",
            "text/xml",
            "application/xml",
            "application/xml-dtd",
            "text/xsl",
            "application/rss+xml",
            "application/x-anything+xml",
            "text/javascript",
            "application/javascript",
            "application/x-javascript",
            "text/javascript1.5",
            "application/ecmascript",
            "text/x-ecmascript",
            "text/jscript",
            "text/livescript",
            "application/pdf",
            "multipart/related",
            "multipart/x-mixed-replace",
            "message/rfc822",
        ] {
            let why = inline(text).unwrap_err();
            let named = format!("`{text}` cannot be sent inline: ");
            assert!(why.starts_with(&named) && why.ends_with("remove it from the list"), "{why}");
        }
        for text in ["image/png", "text/plain", "video/mp4", "application/json", "font/woff2", "text/csv"] {
            assert!(inline(text).is_ok(), "{text}");
        }
        // Of Office documents no browser reads the XML.
        assert!(inline("application/vnd.openxmlformats-officedocument.wordprocessingml.document").is_ok());
    }

    #[test]
    fn what_is_no_single_type_is_refused_with_what_to_write() {
        let why = inline("image/png; x=y").unwrap_err();
        assert!(why.ends_with("write `image/png`"), "{why}");
        for text in
            ["", "image", "image/", "/png", "image/*", "*/*", "image/png/x", " image/png", "image/png,image/gif"]
        {
            let why = inline(text).unwrap_err();
            assert!(why.ends_with("such as `image/png`"), "{text}: {why}");
        }
    }
}
