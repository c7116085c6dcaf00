//! `attachd undelete`: undoes the deletion of attachments.

use clap::Args;

use super::failure::Failure;
use super::remote::{self, Outcomes};
use super::shown;
use crate::pb::UndeleteAttachmentRequest;

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
        let message = UndeleteAttachmentRequest {
            client_id: attachments.client,
            attachment_id: *attachment_id,
            project_id: attachments.project,
            portfolio_id: attachments.portfolio,
        };
        let name = format!("attachment {attachment_id}");
        let reply =
            remote.ask(&name, &message, async |mut client, request| client.undelete_attachment(request).await).await;
        let attachment = reply.and_then(|reply| remote::named_by(&name, reply.attachment));
        outcomes.add(attachment.map(|attachment| Some(shown::as_json(&attachment))))?;
    }
    outcomes.conclude()
}
