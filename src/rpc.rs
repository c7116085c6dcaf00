//! The service: what each message means, in which order messages may come, and how the wire's words become the domain's
//! and back. Its inherent methods are the operations; the tonic trait and the REST door both call them.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::{Stream, StreamExt};
use prost_types::Timestamp;
use time::OffsetDateTime;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use tracing::field::Empty;

use crate::attachment::{Digest, Filename, Id, Key, MediaType, Record, Tags, Target};
use crate::audit::Asked;
use crate::auth::{Peer, Principal, Verifier, bearer};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::pb::attachment_service_server::AttachmentService;
use crate::pb::upload_attachment_request::Message;
use crate::pb::{
    Attachment, RegisterAttachmentRequest, RegisterAttachmentResponse, UploadAttachmentRequest,
    UploadAttachmentResponse, UploadFinish, UploadHeader,
};
use crate::request::{Call, RequestContext};
use crate::rights::{self, Named};
use crate::telemetry::{Metrics, SPANS};
use crate::upload::Uploads;
pub use crate::upload::{Admitted, Conditions, Declared, Header, Piece};

mod deadline;
mod failure;
mod frames;
mod framing;
mod passed;
mod whole;

pub use deadline::{TIMEOUT, before_deadline};
pub use failure::Failure;
pub use frames::Unread;
pub use framing::{Encoding, MAX_CHUNK, MAX_WHOLE_MESSAGE};
pub use passed::Passed;
pub use whole::{Takes, checked};

use framing::chunk_too_large;

/// The operations of `attachments.v2.AttachmentService`.
#[derive(Clone, Debug)]
pub struct Attachments {
    verifier: Arc<Verifier>,
    uploads: Arc<Uploads>,
    metrics: Metrics,
}

impl Attachments {
    /// The service over `uploads`, for callers whom `verifier` knows.
    pub fn new(verifier: Arc<Verifier>, uploads: Arc<Uploads>, metrics: Metrics) -> Self {
        Attachments { verifier, uploads, metrics }
    }

    /// The pipeline behind the service.
    pub fn uploads(&self) -> &Arc<Uploads> {
        &self.uploads
    }

    /// Finds out who is calling: by the values of the authorization header or metadata where there are any, else by the
    /// certificate of the connection. A token that is sent decides alone, even if it is invalid: the caller asks to be judged by
    /// it.
    ///
    /// # Errors
    /// [`Kind::TokenMissing`], [`Kind::TokenInvalid`], [`Kind::TokenExpired`], [`Kind::KeysUnavailable`].
    pub async fn authenticate<'a>(
        &self,
        authorization: impl Iterator<Item = &'a [u8]>,
        request: RequestContext,
    ) -> Result<Call> {
        let span = tracing::info_span!(target: SPANS, "authenticate", outcome = Empty);
        let caller = self.identify(authorization, &request.peer).instrument(span.clone()).await;
        span.record("outcome", caller.as_ref().map_or_else(|error| error.kind().row().reason, |_| "OK"));
        self.metrics.authenticated(caller.as_ref().err().map(Error::kind));
        let caller = caller?;
        request.audit.called(&caller);
        Ok(Call { caller, request })
    }

    async fn identify<'a>(&self, authorization: impl Iterator<Item = &'a [u8]>, peer: &Peer) -> Result<Principal> {
        let mut authorization = authorization.peekable();
        if let (None, Some(principal)) = (authorization.peek(), peer.principal()) {
            return Ok(principal.clone());
        }
        let token = bearer(authorization).map_err(|error| match peer.stranger() {
            Some(why) if error.kind() == Kind::TokenMissing => error.because(format!("no token was sent, and {why}")),
            _ => error,
        })?;
        self.verifier.verify(token, SystemTime::now()).await
    }

    /// Decides by the token alone whether the caller may use an operation on what the request names, before more of the request is
    /// read. The operation decides again, by all that it knows.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for an id out of range, [`Kind::Forbidden`].
    pub fn permit(&self, call: &Call, rpc: Rpc, asked: Option<Asked>) -> Result<()> {
        let named = |asked: Asked| -> Result<Named> {
            let client = Id::new("client_id", asked.client)?;
            asked.attachment.map(|id| Id::new("attachment_id", id)).transpose()?;
            let project = asked.project.map(|id| Id::new("project_id", id)).transpose()?;
            let portfolio = asked.portfolio.map(|id| Id::new("portfolio_id", id)).transpose()?;
            Ok(Named { client, project, portfolio })
        };
        rights::by_token(&call.caller, rpc.row().scope, asked.map(named).transpose()?)
    }

    /// Decides whether the caller may upload to `target`, before any content is asked for.
    pub async fn admit(&self, call: Call, target: Target, conditions: Conditions) -> Result<Admitted> {
        call.request.trail.names(target.key);
        let span = tracing::info_span!(target: SPANS, "admit");
        self.uploads.admit(call, target, conditions).instrument(span).await
    }

    /// Stores the content that `pieces` bring.
    pub async fn upload(
        &self,
        admitted: Admitted,
        header: Header,
        pieces: impl Stream<Item = Result<Piece>>,
    ) -> Result<UploadAttachmentResponse> {
        let receipt = self.uploads.receive(admitted, header, pieces).await?;
        Ok(UploadAttachmentResponse { attachment: Some(attachment(receipt.record())) })
    }

    /// Makes an attachment known.
    pub async fn register(&self, call: &Call, target: Target) -> Result<RegisterAttachmentResponse> {
        call.request.trail.names(target.key);
        let record = self.uploads.register(call, target).await?;
        Ok(RegisterAttachmentResponse { attachment: Some(attachment(&record)) })
    }

    /// The first message, which must be the header.
    async fn header<F>(&self, first: F) -> Result<UploadHeader>
    where
        F: Future<Output = Option<Result<UploadAttachmentRequest>>>,
    {
        match self.uploads.in_time(first).await?.transpose()?.map(|first| first.message) {
            Some(Some(Message::Header(header))) => Ok(header),
            Some(Some(Message::Chunk(_) | Message::Finish(_))) => {
                Err(Error::invalid("the first message must be the header"))
            }
            Some(None) => Err(empty_message()),
            None => Err(Error::new(Kind::Incomplete).detail("the upload ended before its header")),
        }
    }
}

/// The order of messages after the header.
fn piece(message: UploadAttachmentRequest) -> Result<Piece> {
    match message.message {
        Some(Message::Chunk(bytes)) if bytes.len() > MAX_CHUNK => Err(chunk_too_large()),
        Some(Message::Chunk(bytes)) => Ok(Piece::Chunk(bytes)),
        Some(Message::Finish(UploadFinish { size, sha256 })) => Ok(Piece::Finish(declared(size, sha256.as_deref())?)),
        Some(Message::Header(_)) => Err(Error::invalid("the header must come once")),
        None => Err(empty_message()),
    }
}

fn empty_message() -> Error {
    Error::invalid("a message must hold a header, a chunk or a finish")
}

fn target(asked: Asked) -> Result<Target> {
    Ok(Target {
        key: Key {
            client: Id::new("client_id", asked.client)?,
            attachment: Id::new("attachment_id", asked.attachment.unwrap_or_default())?,
        },
        project: asked.project.map(|id| Id::new("project_id", id)).transpose()?,
        portfolio: asked.portfolio.map(|id| Id::new("portfolio_id", id)).transpose()?,
    })
}

fn conditions(header: &UploadHeader) -> Result<Conditions> {
    let tags = |field, text: &Option<String>| text.as_deref().map(|text| Tags::parse(field, text)).transpose();
    let if_none_match = tags("if_none_match", &header.if_none_match)?;
    Ok(Conditions {
        if_match: tags("if_match", &header.if_match)?,
        // Create-only is the stricter of the two.
        if_none_match: if header.if_absent { Some(Tags::Any) } else { if_none_match },
    })
}

fn declared(size: Option<i64>, sha256: Option<&[u8]>) -> Result<Declared> {
    let size = size.map(u64::try_from).transpose().map_err(|_| Error::invalid_field("size", "must not be negative"))?;
    Ok(Declared { size, sha256: sha256.map(|bytes| Digest::new("sha256", bytes)).transpose()? })
}

fn attachment(record: &Record) -> Attachment {
    let content = record.content();
    Attachment {
        client_id: record.key.client.get(),
        attachment_id: record.key.attachment.get(),
        project_id: record.project_id.map(Id::get),
        portfolio_id: record.portfolio_id.map(Id::get),
        filename: content.map(|content| content.filename.as_str().to_owned()).unwrap_or_default(),
        content_type: content.map(|content| content.content_type.as_str().to_owned()).unwrap_or_default(),
        size: content.map(|content| content.size.cast_signed()),
        sha256: content.map(|content| content.sha256.as_bytes().to_vec().into()),
        created_at: Some(timestamp(content.map_or(record.registered_at, |content| content.created_at))),
        uploaded_by: content.map_or(&record.registered_by, |content| &content.uploaded_by).clone(),
    }
}

fn timestamp(time: OffsetDateTime) -> Timestamp {
    Timestamp { seconds: time.unix_timestamp(), nanos: time.nanosecond().cast_signed() }
}

/// What comes with the content beside the ids and the preconditions, which decide whether the rest is looked at.
fn described(header: &UploadHeader) -> Result<Header> {
    Ok(Header {
        filename: Filename::new(&header.filename)?,
        content_type: MediaType::new(&header.content_type)?,
        declared: declared(header.size, header.sha256.as_deref())?,
    })
}

/// The adapters: unwrap, call the operation, convert.
#[tonic::async_trait]
impl AttachmentService for Attachments {
    async fn upload_attachment(
        &self,
        request: Request<Streaming<UploadAttachmentRequest>>,
    ) -> Result<Response<UploadAttachmentResponse>, Status> {
        let (_, mut extensions, _) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, body) = Passed::taken(&mut extensions)?;
            // In a box, since every future that it is handed down through would have room for all of it, twice.
            let mut messages = Box::pin(frames::messages(body)?);
            let header = self.header(messages.next()).await?;
            let UploadHeader { client_id, attachment_id, project_id, portfolio_id, .. } = header;
            let asked = Asked {
                client: client_id,
                attachment: Some(attachment_id),
                project: project_id,
                portfolio: portfolio_id,
            };
            call.request.audit.asked(asked);
            let admitted = self.admit(call, target(asked)?, conditions(&header)?).await?;
            self.upload(admitted, described(&header)?, messages.map(|message| piece(message?))).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }

    async fn register_attachment(
        &self,
        request: Request<RegisterAttachmentRequest>,
    ) -> Result<Response<RegisterAttachmentResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let RegisterAttachmentRequest { client_id, attachment_id, project_id, portfolio_id } = message;
            let asked = Asked {
                client: client_id,
                attachment: Some(attachment_id),
                project: project_id,
                portfolio: portfolio_id,
            };
            call.request.audit.asked(asked);
            self.register(&call, target(asked)?).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }
}
