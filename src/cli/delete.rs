//! `attachd delete`: deletes attachments with their content.

use clap::Args;

use super::failure::Failure;
use super::remote::{self, Outcomes};
use crate::pb::DeleteAttachmentRequest;

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    attachments: remote::Attachments,
    /// Delete only if the content has this entity tag: its SHA-256 digest, as `get` prints it, or a value of If-Match
    #[arg(long, value_name = "TAG")]
    if_match: Option<String>,
}

pub async fn run(Arguments { attachments, if_match }: Arguments) -> Result<(), Failure> {
    if if_match.is_some() && attachments.attachment.len() > 1 {
        return Err(Failure::usage("--if-match is for one attachment; delete the others by themselves"));
    }
    let mut remote = attachments.remote()?;
    let mut outcomes = Outcomes::default();
    for attachment_id in &attachments.attachment {
        let message = DeleteAttachmentRequest {
            client_id: attachments.client,
            attachment_id: *attachment_id,
            project_id: attachments.project,
            portfolio_id: attachments.portfolio,
            if_match: if_match.as_deref().map(quoted),
        };
        let name = format!("attachment {attachment_id}");
        // To delete an attachment again changes nothing.
        let reply =
            remote.ask(&name, &message, async |mut client, request| client.delete_attachment(request).await).await;
        outcomes.add(reply.map(|_| None))?;
    }
    outcomes.conclude()
}

/// A digest as an entity tag. Anything else is a value of If-Match already.
fn quoted(tag: &str) -> String {
    let is_digest = tag.len() == 64 && tag.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { format!("\"{}\"", tag.to_ascii_lowercase()) } else { tag.to_owned() }
}
