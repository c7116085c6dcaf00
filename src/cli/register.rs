//! `attachd register`: makes attachments known, so that they may be uploaded to.

use clap::Args;

use super::failure::Failure;
use super::out;
use super::remote::{self, Failed, Remote};
use crate::pb::{Attachment, RegisterAttachmentRequest};

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    remote: remote::Arguments,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let arguments = arguments.remote;
    let mut remote = arguments.remote()?;
    let mut codes = Vec::new();
    for attachment_id in &arguments.attachment {
        let message = RegisterAttachmentRequest {
            client_id: arguments.client,
            attachment_id: *attachment_id,
            project_id: arguments.project,
            portfolio_id: arguments.portfolio,
        };
        match one(&mut remote, message).await {
            Ok(attachment) => {
                let text = serde_json::to_string_pretty(&remote::as_json(&attachment)).map_err(Failure::running)?;
                out::print(&format!("{text}\n"))?;
                codes.push(0);
            }
            Err(failed) => {
                out::complain(&format!("attachd: attachment {attachment_id}: {failed}"));
                codes.push(failed.code());
            }
        }
    }
    remote::conclude(&codes)
}

/// Registers one attachment, as often as it may be tried. To register it again changes nothing.
async fn one(remote: &mut Remote, message: RegisterAttachmentRequest) -> Result<Attachment, Failed> {
    let mut tries = remote.tries();
    loop {
        let failed = match attempt(remote, message).await {
            Ok(attachment) => return Ok(attachment),
            Err(failed) => failed,
        };
        if !tries.again(&format!("attachment {}", message.attachment_id), &failed).await {
            return Err(failed);
        }
    }
}

async fn attempt(remote: &mut Remote, message: RegisterAttachmentRequest) -> Result<Attachment, Failed> {
    let mut client = remote.client().await?;
    match client.register_attachment(remote.request(message)).await {
        Ok(reply) => {
            remote.answered();
            let none = || Failed::here("the reply names no attachment".to_owned());
            reply.into_inner().attachment.ok_or_else(none)
        }
        Err(status) => Err(remote.failed(status).await),
    }
}
