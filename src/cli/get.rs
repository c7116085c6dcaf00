//! `attachd get`: prints what is known of attachments.

use clap::Args;

use super::failure::Failure;
use super::remote::{self, Outcomes, Remote};
use super::shown;
use crate::pb::{Attachment, GetAttachmentRequest};

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    attachments: remote::Attachments,
}

pub async fn run(Arguments { attachments }: Arguments) -> Result<(), Failure> {
    let mut remote = attachments.remote()?;
    let mut outcomes = Outcomes::default();
    for attachment_id in &attachments.attachment {
        let found = look_up(&mut remote, &attachments, *attachment_id).await;
        outcomes.add(found.map(|attachment| Some(shown::as_json(&attachment))))?;
    }
    outcomes.conclude()
}

/// Looks up one of these attachments.
pub async fn look_up(
    remote: &mut Remote,
    attachments: &remote::Attachments,
    attachment_id: i64,
) -> Result<Attachment, Failure> {
    let message = GetAttachmentRequest {
        client_id: attachments.client,
        attachment_id,
        project_id: attachments.project,
        portfolio_id: attachments.portfolio,
    };
    let name = format!("attachment {attachment_id}");
    let reply = remote.ask(&name, &message, async |mut client, request| client.get_attachment(request).await).await?;
    remote::named_by(&name, reply.attachment)
}
