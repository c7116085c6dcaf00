//! `attachd upload`: a gRPC client, for people and scripts.

use std::error::Error;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use bytes::{Bytes, BytesMut};
use clap::Args;
use futures_util::{Stream, stream};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic_types::StatusExt;

use super::Failure;
use crate::attachment::Digest;
use crate::pb::attachment_service_client::AttachmentServiceClient;
use crate::pb::upload_attachment_request::Message;
use crate::pb::{Attachment, UploadAttachmentRequest, UploadFinish, UploadHeader};
use crate::tls;

/// The size of the chunks that are sent, in bytes.
const CHUNK: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Arguments {
    /// The file to upload
    file: PathBuf,
    /// The client that the attachment belongs to
    #[arg(long, value_name = "N")]
    client: i64,
    /// The attachment's id
    #[arg(long, value_name = "N")]
    attachment: i64,
    /// The project that the attachment belongs to
    #[arg(long, value_name = "N")]
    project: Option<i64>,
    /// The portfolio that the attachment belongs to
    #[arg(long, value_name = "N")]
    portfolio: Option<i64>,
    /// The gRPC port, such as https://127.0.0.1:50051, or http:// where it speaks plain text
    #[arg(long, value_name = "URL")]
    to: String,
    /// A file that holds the token; without it none is sent
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The authorities, in PEM, that vouch for the server; without it those that the system trusts
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client certificate in PEM, with those between it and the root after it
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// The media type of the file
    #[arg(long, value_name = "TYPE", default_value = "application/octet-stream")]
    content_type: String,
    /// Upload only where the attachment has no content yet
    #[arg(long)]
    if_absent: bool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let endpoint = endpoint(&arguments)?;
    let file = File::open(&arguments.file).await.map_err(|error| named(&arguments.file, error))?;
    let size = file.metadata().await.map_err(|error| named(&arguments.file, error))?.len();
    let token = match &arguments.token_file {
        Some(path) => Some(std::fs::read_to_string(path).map_err(|error| named(path, error))?),
        None => None,
    };
    let header = UploadHeader {
        client_id: arguments.client,
        attachment_id: arguments.attachment,
        project_id: arguments.project,
        portfolio_id: arguments.portfolio,
        filename: arguments.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
        content_type: arguments.content_type,
        size: Some(size.cast_signed()),
        sha256: None,
        if_absent: arguments.if_absent,
        ..UploadHeader::default()
    };
    let progress = if io::stderr().is_terminal() { ProgressBar::new(size) } else { ProgressBar::hidden() };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} eta {eta}");
    progress.set_style(style.map_err(Failure::running)?);

    let mut request = Request::new(messages(file, header, progress.clone()));
    if let Some(token) = token {
        let value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| Failure::usage("--token-file: the token has characters that no token has"))?;
        request.metadata_mut().insert("authorization", value);
    }
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| Failure::running(format!("{}: {}", arguments.to, with_causes(&error))))?;
    let reply = AttachmentServiceClient::new(channel).upload_attachment(request).await;
    progress.finish_and_clear();
    let stored = reply.map_err(|status| {
        let reason = status.get_details_error_info().map(|info| format!(" {}", info.reason)).unwrap_or_default();
        // Without a source it is the server's answer; with one there was none.
        let cause = status.source().map(|cause| format!(": {}", with_causes(cause))).unwrap_or_default();
        let hint = match status.source() {
            Some(_) if arguments.to.starts_with("http://") => " (a port that speaks TLS is an https:// address)",
            _ => "",
        };
        Failure::running(format!("{:?}{reason}: {}{cause}{hint}", status.code(), status.message()))
    })?;
    let attachment = stored.into_inner().attachment.ok_or_else(|| Failure::running("the reply names no attachment"))?;
    let text = serde_json::to_string_pretty(&as_json(&attachment)).map_err(Failure::running)?;
    println!("{text}");
    Ok(())
}

fn named(path: &Path, error: io::Error) -> Failure {
    Failure::running(format!("{}: {error}", path.display()))
}

/// Where to send, and by which certificates to know each other.
fn endpoint(arguments: &Arguments) -> Result<Endpoint, Failure> {
    let wrong = |error: &dyn Error| Failure::usage(format!("--to: {}", with_causes(error)));
    let endpoint = Endpoint::from_shared(arguments.to.clone()).map_err(|error| wrong(&error))?;
    let Arguments { ca_file, cert_file, key_file, .. } = arguments;
    match endpoint.uri().scheme_str() {
        Some("https") => {}
        Some("http") => {
            let given =
                [("--ca-file", ca_file), ("--cert-file", cert_file)].into_iter().find(|(_, file)| file.is_some());
            return match given {
                Some((flag, _)) => {
                    Err(Failure::usage(format!("{flag} goes with an address that begins with https://")))
                }
                None => Ok(endpoint),
            };
        }
        _ => return Err(Failure::usage("--to: must begin with https:// or http://")),
    }
    let read = |path: &Path| std::fs::read(path).map_err(|error| named(path, error));
    let certificates = |flag: &str, path: &Path| {
        let pem = read(path)?;
        let wrong = |what: String| Failure::usage(format!("{flag}: {}: {what}", path.display()));
        tls::certificates(&pem).map_err(wrong).map(|_| pem)
    };
    let known = match ca_file {
        Some(path) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(certificates("--ca-file", path)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    match (cert_file, key_file) {
        (Some(certificate), Some(key)) => {
            let identity = Identity::from_pem(certificates("--cert-file", certificate)?, read(key)?);
            let wrong = |error| Failure::usage(format!("--key-file: {}: {}", key.display(), with_causes(&error)));
            endpoint.tls_config(known.identity(identity)).map_err(wrong)
        }
        _ => endpoint.tls_config(known).map_err(|error| wrong(&error)),
    }
}

/// An error with what it comes from, in one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Where the sending of a file stands.
enum Sending {
    Header(UploadHeader),
    Chunks,
    Finished,
}

/// The messages of an upload: the header, the file in chunks, the finish with its digest. A file that cannot be read to its
/// end ends the stream without a finish, so that nothing of it is stored.
fn messages(file: File, header: UploadHeader, progress: ProgressBar) -> impl Stream<Item = UploadAttachmentRequest> {
    let begun = (file, digest::Context::new(&digest::SHA256), Sending::Header(header), progress);
    stream::unfold(begun, async |(mut file, mut hash, sending, progress)| {
        let (message, next) = match sending {
            Sending::Header(header) => (Message::Header(header), Sending::Chunks),
            Sending::Chunks => match read(&mut file).await {
                Ok(chunk) if chunk.is_empty() => {
                    let sha256 = Some(Bytes::copy_from_slice(hash.clone().finish().as_ref()));
                    (Message::Finish(UploadFinish { size: None, sha256 }), Sending::Finished)
                }
                Ok(chunk) => {
                    hash.update(&chunk);
                    progress.inc(chunk.len() as u64);
                    (Message::Chunk(chunk), Sending::Chunks)
                }
                Err(error) => {
                    eprintln!("attachd: the file could not be read to its end: {error}");
                    return None;
                }
            },
            Sending::Finished => return None,
        };
        Some((UploadAttachmentRequest { message: Some(message) }, (file, hash, next, progress)))
    })
}

async fn read(file: &mut File) -> io::Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(CHUNK);
    while chunk.len() < CHUNK && file.read_buf(&mut chunk).await? > 0 {}
    Ok(chunk.freeze())
}

fn as_json(attachment: &Attachment) -> serde_json::Value {
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
