//! A gRPC client that sends any messages in any order.

use std::collections::BTreeMap;
use std::time::Duration;

use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{
    Attachment, DeleteAttachmentRequest, DownloadAttachmentRequest, DownloadHeader, GetAttachmentRequest,
    ListAttachmentsRequest, ListAttachmentsResponse, RegisterAttachmentRequest, UndeleteAttachmentRequest,
    UploadAttachmentRequest, UploadFinish, UploadHeader, download_attachment_response,
};
use bytes::Bytes;
use futures_util::Stream;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::Server;

/// What a refusal over gRPC said.
#[derive(Debug)]
pub struct GrpcRefusal {
    /// The status code.
    pub code: Code,
    /// The reason of the `ErrorInfo`; empty where there is none.
    pub reason: String,
    /// The domain of the `ErrorInfo`; empty where there is none.
    pub domain: String,
    /// The metadata of the `ErrorInfo`.
    pub metadata: BTreeMap<String, String>,
    /// The status message.
    pub message: String,
    /// The fields that were violated.
    pub fields: Vec<String>,
    /// The delay of the `RetryInfo`.
    pub retry_after: Option<Duration>,
    /// The request id.
    pub request_id: Option<String>,
    /// What would have to be brought, as `www-authenticate` says it.
    pub challenge: Option<String>,
}

impl From<Status> for GrpcRefusal {
    fn from(status: Status) -> Self {
        let info = status.get_details_error_info();
        let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
        GrpcRefusal {
            code: status.code(),
            reason: info.as_ref().map(|info| info.reason.clone()).unwrap_or_default(),
            domain: info.as_ref().map(|info| info.domain.clone()).unwrap_or_default(),
            metadata: info.map(|info| info.metadata.into_iter().collect()).unwrap_or_default(),
            message: status.message().to_owned(),
            fields: fields.into_iter().map(|violation| violation.field).collect(),
            retry_after: status.get_details_retry_info().and_then(|info| info.retry_delay),
            request_id: request_id(status.metadata()),
            challenge: ascii(status.metadata(), "www-authenticate"),
        }
    }
}

/// The request id that came with a reply.
pub fn request_id(metadata: &MetadataMap) -> Option<String> {
    ascii(metadata, "x-request-id")
}

fn ascii(metadata: &MetadataMap, key: &str) -> Option<String> {
    metadata.get(key).map(|value| value.to_str().expect("metadata without -bin is ASCII").to_owned())
}

/// A header message for an attachment.
pub fn header(client: i64, attachment: i64) -> UploadHeader {
    UploadHeader {
        client_id: client,
        attachment_id: attachment,
        filename: "a.bin".to_owned(),
        ..UploadHeader::default()
    }
}

/// A chunk message.
pub fn chunk(bytes: impl Into<Bytes>) -> Message {
    Message::Chunk(bytes.into())
}

/// A finish message that declares nothing.
pub fn finish() -> Message {
    Message::Finish(UploadFinish::default())
}

impl Server {
    /// A channel to the gRPC port.
    pub async fn channel(&self) -> AttachmentServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.grpc)).expect("an address");
        AttachmentServiceClient::new(endpoint.connect().await.expect("the port is open"))
    }

    /// Sends the messages of one upload. An empty token sends none.
    pub async fn grpc_upload(&self, token: &str, messages: Vec<Message>) -> Result<Attachment, GrpcRefusal> {
        self.grpc_upload_stream(token, futures_util::stream::iter(messages)).await
    }

    /// Sends the messages of one upload as they come.
    pub async fn grpc_upload_stream<S>(&self, token: &str, messages: S) -> Result<Attachment, GrpcRefusal>
    where
        S: Stream<Item = Message> + Send + 'static,
    {
        use futures_util::StreamExt;
        let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
        let request = authorised(Request::new(messages), token);
        let reply = self.channel().await.upload_attachment(request).await?;
        Ok(reply.into_inner().attachment.expect("a reply names the attachment"))
    }

    /// Registers an attachment. An empty token sends none.
    pub async fn grpc_register(
        &self,
        token: &str,
        request: RegisterAttachmentRequest,
    ) -> Result<Attachment, GrpcRefusal> {
        let reply = self.channel().await.register_attachment(authorised(Request::new(request), token)).await?;
        Ok(reply.into_inner().attachment.expect("a reply names the attachment"))
    }
}

impl Server {
    /// Looks an attachment up. An empty token sends none.
    pub async fn grpc_get(&self, token: &str, request: GetAttachmentRequest) -> Result<Attachment, GrpcRefusal> {
        let reply = self.channel().await.get_attachment(authorised(Request::new(request), token)).await?;
        Ok(reply.into_inner().attachment.expect("a reply names the attachment"))
    }

    /// Lists attachments, one page. An empty token sends none.
    pub async fn grpc_list(
        &self,
        token: &str,
        request: ListAttachmentsRequest,
    ) -> Result<ListAttachmentsResponse, GrpcRefusal> {
        let reply = self.channel().await.list_attachments(authorised(Request::new(request), token)).await?;
        Ok(reply.into_inner())
    }

    /// Deletes an attachment. An empty token sends none.
    pub async fn grpc_delete(&self, token: &str, request: DeleteAttachmentRequest) -> Result<(), GrpcRefusal> {
        self.channel().await.delete_attachment(authorised(Request::new(request), token)).await?;
        Ok(())
    }

    /// Undoes the deletion of an attachment. An empty token sends none.
    pub async fn grpc_undelete(
        &self,
        token: &str,
        request: UndeleteAttachmentRequest,
    ) -> Result<Attachment, GrpcRefusal> {
        let reply = self.channel().await.undelete_attachment(authorised(Request::new(request), token)).await?;
        Ok(reply.into_inner().attachment.expect("a reply names the attachment"))
    }

    /// Downloads to the end of the stream. An empty token sends none.
    pub async fn grpc_download(
        &self,
        token: &str,
        request: DownloadAttachmentRequest,
    ) -> Result<(DownloadHeader, Vec<u8>), GrpcRefusal> {
        use download_attachment_response::Message;
        let reply = self.channel().await.download_attachment(authorised(Request::new(request), token)).await?;
        let mut messages = reply.into_inner();
        let first = messages.message().await?.expect("a header comes first").message;
        let Some(Message::Header(header)) = first else { panic!("the first message is {first:?}") };
        let mut bytes = Vec::new();
        while let Some(message) = messages.message().await? {
            let Some(Message::Chunk(chunk)) = message.message else { panic!("a chunk is {message:?}") };
            bytes.extend_from_slice(&chunk);
        }
        Ok((header, bytes))
    }
}

/// A request to download an attachment.
pub fn download(client: i64, attachment: i64) -> DownloadAttachmentRequest {
    DownloadAttachmentRequest { client_id: client, attachment_id: attachment, ..DownloadAttachmentRequest::default() }
}

/// Puts a token into the metadata of a request.
pub fn authorised<M>(mut request: Request<M>, token: &str) -> Request<M> {
    if !token.is_empty() {
        let value = format!("Bearer {token}").parse().expect("a token is ASCII");
        request.metadata_mut().insert("authorization", value);
    }
    request
}
