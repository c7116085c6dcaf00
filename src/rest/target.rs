//! The ids of an upload, from the path and the query of its request. This module reads names and numbers; whether the
//! attachment exists and who may upload to it is decided elsewhere.

use super::near_miss::UPLOAD;
use super::query::{decoded, quoted, separated};
use super::transcode::Capture;
use crate::attachment::{Id, Key, Target};
use crate::audit::Asked;
use crate::error::{Error, Result};
use crate::operation::UPLOAD_ATTACHMENT_FIELDS;

/// Reads the ids of the path.
pub(super) fn key(captures: &[Capture<'_>]) -> Result<Key> {
    let bound = |field: &'static str| {
        // The field may be one of a message in the request.
        let found = captures.iter().find(|capture| capture.field.rsplit('.').next() == Some(field));
        let capture = found.ok_or_else(|| Error::internal("an unbound path"))?;
        let text = capture.decoded().ok_or_else(|| Error::invalid("the path is not UTF-8"))?;
        Id::parse(field, &text)
    };
    let [client, attachment] = UPLOAD_ATTACHMENT_FIELDS.map(bound);
    Ok(Key { client: client?, attachment: attachment? })
}

/// Adds the ids of the query. In the query an unknown key is ignored, and a near miss of a known one is refused. `client_id` and
/// `attachment_id` are unknown there: the path has them, and API gateways use `client_id` for an id of their own.
pub(super) fn target(key: Key, query: &str) -> Result<Target> {
    let mut target = Target { key, project: None, portfolio: None };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let key = decoded(key);
        if let Some(field) = UPLOAD.near_miss(&key) {
            if key != field {
                return Err(Error::invalid_field(field, format!("write the query key {} as {field}", quoted(&key))));
            }
            let given = match field {
                "project_id" => &mut target.project,
                _ => &mut target.portfolio,
            };
            if given.is_some() {
                return Err(Error::invalid_field(field, "must be given once"));
            }
            separated(&UPLOAD, value)?;
            *given = Some(Id::parse(field, &decoded(value))?);
        } else {
            separated(&UPLOAD, value)?;
        }
    }
    Ok(target)
}

/// What a request asks for, for the audit trail.
pub(super) fn asked(target: &Target) -> Asked {
    let (client, attachment) = (target.key.client.get(), target.key.attachment.get());
    Asked::of(client, attachment, target.project.map(Id::get), target.portfolio.map(Id::get))
}
