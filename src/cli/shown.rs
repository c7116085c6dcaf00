//! How attachments are printed: as JSON, or as the rows of a table.

use std::iter;

use serde_json::{Value, json};

use crate::attachment::Digest;
use crate::pb::Attachment;

/// The columns of a table. The name is the last one, since it may have any width.
const COLUMNS: [&str; 7] = ["ATTACHMENT", "PROJECT", "PORTFOLIO", "SIZE", "CREATED", "TYPE", "NAME"];

/// An attachment as JSON.
pub fn as_json(attachment: &Attachment) -> Value {
    let sha256 = attachment.sha256.as_deref().and_then(|bytes| Digest::new("sha256", bytes).ok());
    json!({
        "client_id": attachment.client_id,
        "attachment_id": attachment.attachment_id,
        "project_id": attachment.project_id,
        "portfolio_id": attachment.portfolio_id,
        "filename": attachment.filename,
        "content_type": attachment.content_type,
        "size": attachment.size,
        "sha256": sha256.map(|digest| digest.to_string()),
        "created_at": attachment.created_at.map(|time| time.to_string()),
        "uploaded_by": attachment.uploaded_by,
    })
}

/// A table that is printed page by page. Its columns grow with the pages, and are never narrower than before.
#[derive(Debug, Default)]
pub struct Table {
    widths: [usize; COLUMNS.len()],
    has_head: bool,
}

impl Table {
    /// The rows of a page, after the head of the table if it is the first one.
    pub fn page(&mut self, attachments: &[Attachment]) -> String {
        let head = (!self.has_head).then(|| COLUMNS.map(str::to_owned));
        self.has_head = true;
        let rows: Vec<_> = head.into_iter().chain(attachments.iter().map(row)).collect();
        for row in &rows {
            for (width, cell) in iter::zip(&mut self.widths, row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, row: &[String; COLUMNS.len()]) -> String {
        let cells = iter::zip(row, self.widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    }
}

fn row(attachment: &Attachment) -> [String; COLUMNS.len()] {
    let optional = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    let created = attachment.created_at.map(|time| prost_types::Timestamp { nanos: 0, ..time }.to_string());
    let text = |text: &str| text.replace(char::is_control, "\u{fffd}");
    [
        attachment.attachment_id.to_string(),
        optional(attachment.project_id),
        optional(attachment.portfolio_id),
        optional(attachment.size),
        created.unwrap_or_default(),
        text(&attachment.content_type),
        text(&attachment.filename),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attachment(attachment_id: i64, filename: &str) -> Attachment {
        let created_at = Some(prost_types::Timestamp { seconds: 1, nanos: 5 });
        Attachment {
            attachment_id,
            filename: filename.to_owned(),
            content_type: "text/plain".to_owned(),
            size: Some(3),
            created_at,
            ..Attachment::default()
        }
    }

    #[test]
    fn columns_are_aligned_and_control_characters_of_a_name_do_not_reach_the_terminal() {
        let mut table = Table::default();
        let first = table.page(&[attachment(7, "a\u{1b}[2J\u{9b}b")]);
        let expected = "ATTACHMENT  PROJECT  PORTFOLIO  SIZE  CREATED               TYPE        NAME\n\
                        7           -        -          3     1970-01-01T00:00:01Z  text/plain  a\u{fffd}[2J\u{fffd}b\n";
        assert_eq!(first, expected);
        let second = table.page(&[attachment(1_234_567_890_123, "")]);
        assert_eq!(second, "1234567890123  -        -          3     1970-01-01T00:00:01Z  text/plain\n");
        assert_eq!(table.page(&[]), "");
    }
}
