//! `attachd download`: writes the content of attachments to files or to standard output. An interrupted download is continued
//! where it ended, as long as the content is the same.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::failure::Failure;
use super::remote::{self, Failed, Outcomes, Remote};
use super::{get, progress, shown};
use crate::pb::DownloadAttachmentRequest;
use content::Content;
use part::Part;
use received::{Received, Stopped};

mod content;
mod name;
mod part;
mod received;

/// The path that stands for standard output.
const STANDARD_OUTPUT: &str = "-";

/// The reasons of a server after which the bytes of an interrupted download are of no more use.
const USELESS: [&str; 3] = ["PRECONDITION_FAILED", "NOT_FOUND", "INTERNAL"];

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    #[command(flatten)]
    attachments: remote::Attachments,
    /// The file to write, for one attachment; `-` is standard output [default: the recorded name, in the current directory, or
    /// the id if no name is recorded]
    #[arg(short, long, value_name = "FILE")]
    output_file: Option<PathBuf>,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    if arguments.output_file.is_some() && arguments.attachments.attachment.len() > 1 {
        return Err(Failure::usage("--output-file is for one attachment; download the others by themselves"));
    }
    let mut remote = arguments.attachments.remote()?;
    let mut outcomes = Outcomes::default();
    for attachment_id in &arguments.attachments.attachment {
        let downloaded = arguments.one(&mut remote, *attachment_id).await;
        outcomes.add(downloaded)?;
    }
    outcomes.conclude()
}

impl Arguments {
    /// Downloads one attachment. Returns what is printed of it.
    async fn one(&self, remote: &mut Remote, attachment_id: i64) -> Result<Option<Value>, Failure> {
        let named = self.output_file.as_deref().filter(|path| path.as_os_str() != STANDARD_OUTPUT);
        if let Some(path) = named {
            part::check(path, self.force)?;
        }
        let attachment = get::look_up(remote, &self.attachments, attachment_id).await?;
        let content = Content::of(&attachment)?;
        if self.output_file.is_some() && named.is_none() {
            self.receive(remote, &content, Received::on_standard_output()).await?;
            return Ok(None);
        }
        let path = named.map_or_else(|| name::safe(&attachment.filename, attachment_id).into(), Path::to_owned);
        let part = Part::open(&path, self.force)?;
        let received = Received::in_part(part, &content)?;
        self.receive(remote, &content, received).await?;
        let mut printed = shown::as_json(&attachment);
        printed["file"] = json!(path.display().to_string());
        Ok(Some(printed))
    }

    /// Receives the content, as often as it may be tried.
    async fn receive(&self, remote: &mut Remote, content: &Content, mut received: Received) -> Result<(), Failure> {
        let name = format!("attachment {}", content.attachment_id);
        let mut tries = remote.tries();
        loop {
            let failed = match self.attempt(remote, content, &mut received).await {
                Ok(()) => return received.finish(),
                Err(Stopped::Here(failure)) => return Err(failure),
                Err(Stopped::Failed(failed)) => failed,
            };
            if tries.again(&name, &failed).await {
                continue;
            }
            let failed = match failed.reason() {
                "PRECONDITION_FAILED" => failed
                    .passing()
                    .and("; the content was replaced during the download; the same command downloads the new content"),
                _ => failed,
            };
            let is_useful = !USELESS.contains(&failed.reason());
            let failed = failed.and(&received.abandon(content, is_useful)?);
            return Err(failed.of(&name));
        }
    }

    /// Receives what is missing of the content, and verifies all of it.
    async fn attempt(&self, remote: &mut Remote, content: &Content, received: &mut Received) -> Result<(), Stopped> {
        if received.bytes() < content.size {
            let bar = progress::bar(Some(content.size));
            bar.set_position(received.bytes());
            let end = self.rest(remote, content, received, |bytes| bar.inc(bytes)).await;
            bar.finish_and_clear();
            match end {
                // The digest decides over content that is complete.
                Err(Stopped::Failed(_)) if received.bytes() == content.size => {}
                end => end?,
            }
        }
        received.verify(content)
    }

    /// Receives the rest of the content.
    async fn rest(
        &self,
        remote: &mut Remote,
        content: &Content,
        received: &mut Received,
        progress: impl Fn(u64),
    ) -> Result<(), Stopped> {
        let mut client = remote.client().await?;
        let message = DownloadAttachmentRequest {
            client_id: self.attachments.client,
            attachment_id: content.attachment_id,
            project_id: self.attachments.project,
            portfolio_id: self.attachments.portfolio,
            offset: received.bytes().cast_signed(),
            length: None,
            if_match: Some(content.tag()),
        };
        let mut messages = match client.download_attachment(remote.request(message)).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return Err(remote.failed(status).await.into()),
        };
        loop {
            match messages.message().await {
                Ok(Some(message)) => {
                    remote.answered();
                    progress(received.take(content, message.message)?);
                }
                Ok(None) if received.bytes() < content.size => {
                    return Err(Failed::here("the server ended the download too early".to_owned()).passing().into());
                }
                Ok(None) => return Ok(()),
                Err(status) => return Err(remote.failed(status).await.into()),
            }
        }
    }
}
