//! The service: what each message means, in which order messages may come, and how the wire's words become the domain's
//! and back. Its inherent methods are the operations; the tonic trait and the REST port both call them.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument;
use tracing::field::Empty;

use crate::attachment::{Content, Id, Record, Target};
use crate::audit::Asked;
use crate::auth::{Peer, Principal, Verifier, bearer};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::pb::attachment_service_server::AttachmentService;
use crate::pb::download_attachment_response::Message as Part;
use crate::pb::upload_attachment_request::Message;
use crate::pb::{
    DeleteAttachmentRequest, DeleteAttachmentResponse, DownloadAttachmentRequest, DownloadAttachmentResponse,
    DownloadHeader, GetAttachmentRequest, GetAttachmentResponse, ListAttachmentsRequest, ListAttachmentsResponse,
    RegisterAttachmentRequest, RegisterAttachmentResponse, UndeleteAttachmentRequest, UndeleteAttachmentResponse,
    UploadAttachmentRequest, UploadAttachmentResponse, UploadHeader,
};
use crate::reads::Reads;
pub use crate::reads::{Download, Plan, Presented, Sent};
use crate::request::{Call, RequestContext};
use crate::rights::{self, Named};
use crate::telemetry::{Metrics, SPANS};
use crate::upload::Uploads;
pub use crate::upload::{Admitted, Conditions, Declared, Header, Piece};

mod deadline;
mod failure;
mod frames;
mod framing;
mod messages;
mod passed;
#[cfg(test)]
pub(crate) mod tests;
mod whole;

#[cfg(feature = "fuzzing")]
#[path = "../fuzz/inside/rpc.rs"]
pub mod fuzzing;

pub use deadline::{TIMEOUT, before_deadline};
pub use failure::Failure;
pub use frames::Unread;
pub use framing::{Encoding, MAX_WHOLE_MESSAGE};
pub use passed::Passed;
pub use whole::{Takes, checked};

use messages::{attachment, conditions, described, empty_message, page, piece, query, range, tags, target};

/// The operations of `attachments.v2.AttachmentService`.
#[derive(Clone, Debug)]
pub struct Attachments {
    verifier: Arc<Verifier>,
    uploads: Arc<Uploads>,
    reads: Arc<Reads>,
    metrics: Metrics,
}

impl Attachments {
    /// The service over `uploads` and `reads`, for callers whom `verifier` knows.
    pub fn new(verifier: Arc<Verifier>, uploads: Arc<Uploads>, reads: Arc<Reads>, metrics: Metrics) -> Self {
        Attachments { verifier, uploads, reads, metrics }
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

    /// Looks up an attachment.
    pub async fn get(&self, call: &Call, target: Target) -> Result<GetAttachmentResponse> {
        call.request.trail.names(target.key);
        let record = self.reads.get(call, target).await?;
        Ok(GetAttachmentResponse { attachment: Some(attachment(&record)) })
    }

    /// Lists the attachments of a client, one page.
    pub async fn list(&self, call: &Call, message: &ListAttachmentsRequest) -> Result<ListAttachmentsResponse> {
        let query = query(message)?;
        call.request.trail.names_client(query.client);
        Ok(page(self.reads.list(call, &query).await?, query.full))
    }

    /// Begins to read what `plan` makes of the content that stands. Returns the attachment's record, what the plan replies, and
    /// what the caller is sent.
    pub async fn download<T>(
        &self,
        call: &Call,
        target: Target,
        plan: impl Fn(&Content) -> Result<Plan<T>>,
    ) -> Result<(Record, T, Sent)> {
        call.request.trail.names(target.key);
        self.reads.download(call, target, plan).await
    }

    /// Deletes an attachment.
    pub async fn delete(
        &self,
        call: &Call,
        target: Target,
        conditions: Conditions,
    ) -> Result<DeleteAttachmentResponse> {
        call.request.trail.names(target.key);
        self.uploads.delete(call, target, conditions).await?;
        Ok(DeleteAttachmentResponse {})
    }

    /// Undoes the deletion of an attachment.
    pub async fn undelete(&self, call: &Call, target: Target) -> Result<UndeleteAttachmentResponse> {
        call.request.trail.names(target.key);
        let record = self.uploads.undelete(call, target).await?;
        Ok(UndeleteAttachmentResponse { attachment: Some(attachment(&record)) })
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
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            let admitted = self.admit(call, target(asked)?, conditions(&header)?).await?;
            let header = described(&header)?;
            let admitted = self.uploads.make_room(admitted, header.declared.size, None).await?;
            self.upload(admitted, header, messages.map(|message| piece(message?))).await
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
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            self.register(&call, target(asked)?).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }

    async fn get_attachment(
        &self,
        request: Request<GetAttachmentRequest>,
    ) -> Result<Response<GetAttachmentResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let GetAttachmentRequest { client_id, attachment_id, project_id, portfolio_id } = message;
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            self.get(&call, target(asked)?).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }

    async fn list_attachments(
        &self,
        request: Request<ListAttachmentsRequest>,
    ) -> Result<Response<ListAttachmentsResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let ListAttachmentsRequest { client_id, project_id, portfolio_id, .. } = message;
            call.request.audit.asked(Asked { attachment: None, ..Asked::of(client_id, 0, project_id, portfolio_id) });
            self.list(&call, &message).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }

    type DownloadAttachmentStream = BoxStream<'static, Result<DownloadAttachmentResponse, Status>>;

    async fn download_attachment(
        &self,
        request: Request<DownloadAttachmentRequest>,
    ) -> Result<Response<Self::DownloadAttachmentStream>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let DownloadAttachmentRequest { client_id, attachment_id, project_id, portfolio_id, .. } = message;
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            let target = target(asked)?;
            let conditions =
                Conditions { if_match: tags("if_match", message.if_match.as_deref())?, if_none_match: None };
            let plan = |content: &Content| {
                conditions.judge(Some(content.sha256))?;
                let range = range(message.offset, message.length, content.size)?;
                Ok(Plan { range: Some(range.clone()), redirect: None, reply: range })
            };
            self.download(&call, target, plan).await
        };
        let (record, range, sent) = served.await.map_err(|error| failure.leave(error))?;
        let header = DownloadHeader {
            attachment: Some(attachment(&record)),
            offset: range.start.cast_signed(),
            length: (range.end - range.start).cast_signed(),
        };
        let header = DownloadAttachmentResponse { message: Some(Part::Header(header)) };
        let chunks = stream::iter(sent.here()).flat_map(Download::into_stream).map(move |chunk| match chunk {
            Ok(chunk) => Ok(DownloadAttachmentResponse { message: Some(Part::Chunk(chunk)) }),
            Err(error) => Err(failure.leave(error)),
        });
        Ok(Response::new(stream::iter([Ok(header)]).chain(chunks).boxed()))
    }

    async fn delete_attachment(
        &self,
        request: Request<DeleteAttachmentRequest>,
    ) -> Result<Response<DeleteAttachmentResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let DeleteAttachmentRequest { client_id, attachment_id, project_id, portfolio_id, if_match } = message;
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            let conditions = Conditions { if_match: tags("if_match", if_match.as_deref())?, if_none_match: None };
            self.delete(&call, target(asked)?, conditions).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }

    async fn undelete_attachment(
        &self,
        request: Request<UndeleteAttachmentRequest>,
    ) -> Result<Response<UndeleteAttachmentResponse>, Status> {
        let (_, mut extensions, message) = request.into_parts();
        let failure = Failure::of(&extensions);
        let served = async {
            let (call, _) = Passed::taken(&mut extensions)?;
            let UndeleteAttachmentRequest { client_id, attachment_id, project_id, portfolio_id } = message;
            let asked = Asked::of(client_id, attachment_id, project_id, portfolio_id);
            call.request.audit.asked(asked);
            self.undelete(&call, target(asked)?).await
        };
        served.await.map(Response::new).map_err(|error| failure.leave(error))
    }
}
