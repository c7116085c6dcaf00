//! `attachd upload`: a gRPC client, for people and scripts.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;

use super::failure::Failure;
use super::remote::{self, Failed, Outcomes, Remote};
use super::{out, progress, shown};
use crate::pb::{Attachment, UploadHeader};
use source::{Reading, Sent, Source, is_standard_input};

mod source;

#[derive(Debug, Args)]
#[command(after_help = remote::EXIT_CODES)]
pub struct Arguments {
    /// The files to upload, one for each id of --attachment, in the same order; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    attachments: remote::Attachments,
    /// The name to record [default: that of the file; none for standard input]
    #[arg(long, value_name = "NAME")]
    filename: Option<String>,
    /// The media type of the files
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    content_type: String,
    /// Upload only if the attachment has no content yet
    #[arg(long)]
    if_absent: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let headers = arguments.headers()?;
    let mut remote = arguments.attachments.remote()?;
    let mut outcomes = Outcomes::default();
    for (path, header) in arguments.files.iter().zip(headers) {
        let stored = one(&mut remote, path, header).await;
        outcomes.add(stored.map(|attachment| Some(shown::as_json(&attachment))))?;
    }
    outcomes.conclude()
}

impl Arguments {
    /// The header of each file, if files and ids match.
    fn headers(&self) -> Result<Vec<UploadHeader>, Failure> {
        let (files, ids) = (self.files.len(), self.attachments.attachment.len());
        if files != ids {
            return Err(Failure::usage(format!(
                "--attachment: {files} files need {files} ids, not {ids}; write one for each file, such as --attachment 1,2,3"
            )));
        }
        if self.filename.is_some() && files > 1 {
            return Err(Failure::usage("--filename names one file; upload the others by themselves"));
        }
        if self.files.iter().filter(|path| is_standard_input(path)).count() > 1 {
            return Err(Failure::usage("standard input (-) can be uploaded once"));
        }
        self.files.iter().zip(&self.attachments.attachment).map(|(path, id)| self.header(path, *id)).collect()
    }

    fn header(&self, path: &Path, attachment_id: i64) -> Result<UploadHeader, Failure> {
        let own = path.file_name().filter(|_| !is_standard_input(path)).unwrap_or_default();
        let filename = match (&self.filename, own.to_str()) {
            (Some(given), _) => given.clone(),
            (None, Some(own)) => own.to_owned(),
            (None, None) => {
                return Err(Failure::usage(format!(
                    "{}: the name of the file is not UTF-8; give the name to record with --filename",
                    path.display()
                )));
            }
        };
        Ok(UploadHeader {
            client_id: self.attachments.client,
            attachment_id,
            project_id: self.attachments.project,
            portfolio_id: self.attachments.portfolio,
            filename,
            content_type: self.content_type.clone(),
            if_absent: self.if_absent,
            ..UploadHeader::default()
        })
    }
}

/// Uploads one file, as often as it may be tried.
async fn one(remote: &mut Remote, path: &Path, header: UploadHeader) -> Result<Attachment, Failure> {
    let name = path.display().to_string();
    let mut source = Source::open(path)?;
    let header = UploadHeader { size: source.size.map(u64::cast_signed), ..header };
    let mut tries = remote.tries();
    // What a server may have stored in a try whose answer was lost.
    let mut unanswered = None;
    loop {
        let (failed, sent) = match attempt(remote, &mut source, &header).await {
            Ok(attachment) => return Ok(attachment),
            Err(failed) => failed,
        };
        if let Some(Sent { digest, bytes }) = unanswered.take_if(|sent: &mut Sent| failed.has_stored(&sent.digest)) {
            out::complain(&format!("attachd: {name}: stored already, by the try whose answer was lost"));
            return Ok(stored_before(header, digest, bytes));
        }
        if failed.is_lost() && sent.is_some() {
            unanswered = sent;
        }
        let failed = match failed.is_retriable() && !source.can_be_read_again() {
            true => failed.and("; the input cannot be read a second time, so --retry does not apply"),
            false if tries.again(&name, &failed).await => continue,
            false => failed,
        };
        return Err(failed.of(&name));
    }
}

/// Uploads one file once. A failure comes with what was sent, if that was all of it.
async fn attempt(
    remote: &mut Remote,
    source: &mut Source,
    header: &UploadHeader,
) -> Result<Attachment, (Failed, Option<Sent>)> {
    let mut client = remote.client().await.map_err(|failed| (failed, None))?;
    let progress = progress::bar(source.size);
    let reading = Reading::default();
    let messages = source.messages(header.clone(), progress.clone(), reading.clone());
    let reply = client.upload_attachment(remote.request(messages)).await;
    progress.finish_and_clear();
    if let Some(why) = reading.unreadable() {
        return Err((Failed::here(why), None));
    }
    let status = match reply.map(|reply| reply.into_inner().attachment) {
        Ok(Some(attachment)) => {
            remote.answered();
            return Ok(attachment);
        }
        Ok(None) => return Err((Failed::here("the reply names no attachment".to_owned()), None)),
        Err(status) => status,
    };
    let failed = remote.failed(status).await;
    let sent = reading.sent();
    let failed = match (failed.is_lost() && failed.is_retriable(), &sent) {
        (false, _) => failed,
        (true, Some(_)) => {
            failed.and("; all of the content was sent, so it may be stored: to upload the same file again is safe")
        }
        (true, None) => failed.and(&format!(" after {} bytes of the content; nothing was stored", reading.bytes())),
    };
    Err((failed, sent))
}

/// What can be said of an attachment that an earlier try stored.
fn stored_before(header: UploadHeader, digest: Bytes, bytes: u64) -> Attachment {
    Attachment {
        client_id: header.client_id,
        attachment_id: header.attachment_id,
        project_id: header.project_id,
        portfolio_id: header.portfolio_id,
        filename: header.filename,
        content_type: header.content_type,
        size: Some(bytes.cast_signed()),
        sha256: Some(digest),
        ..Attachment::default()
    }
}
