//! Servers as they are written in an afternoon: what the frameworks of attachd cost by themselves. No token, no digest, no
//! fsync, no limit; their folder is a flat list of files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use attachd::pb::attachment_service_server::{AttachmentService, AttachmentServiceServer};
use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{
    Attachment, DeleteAttachmentRequest, DeleteAttachmentResponse, DownloadAttachmentRequest,
    DownloadAttachmentResponse, GetAttachmentRequest, GetAttachmentResponse, ListAttachmentsRequest,
    ListAttachmentsResponse, RegisterAttachmentRequest, RegisterAttachmentResponse, UndeleteAttachmentRequest,
    UndeleteAttachmentResponse, UploadAttachmentRequest, UploadAttachmentResponse,
};
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use clap::ValueEnum;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Result;

mod files;

/// Which.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Plain {
    /// axum, and the parser behind its `Multipart`, into `tokio::fs`.
    Axum,
    /// tonic, and its stream into `tokio::fs`.
    Tonic,
    /// axum, and files that are read piece by piece on threads that may block, with each piece hashed there.
    Files,
}

/// A folder whose files are numbered.
#[derive(Clone, Debug)]
struct Folder {
    root: Arc<PathBuf>,
    count: Arc<AtomicU64>,
}

impl Folder {
    async fn create(&self) -> std::io::Result<File> {
        File::create(self.root.join(self.count.fetch_add(1, Ordering::Relaxed).to_string())).await
    }
}

/// Serves until it is killed.
pub fn serve(plain: Plain, root: &Path) -> Result {
    let folder = Folder { root: Arc::new(root.to_owned()), count: Arc::default() };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        match plain {
            Plain::Axum => {
                let route = post(form).layer(DefaultBodyLimit::disable());
                let routes = Router::new().route(attachd::pb::UPLOAD_ROUTE, route).with_state(folder);
                axum::serve(listener, routes).await?;
            }
            Plain::Files => files::serve(listener, folder.root).await?,
            Plain::Tonic => {
                let service = AttachmentServiceServer::new(folder);
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await?;
            }
        }
        Ok(())
    })
}

async fn form(State(folder): State<Folder>, headers: HeaderMap, body: Body) -> StatusCode {
    match store_form(&folder, &headers, body).await {
        Ok(()) => StatusCode::CREATED,
        Err(error) => {
            eprintln!("{error}");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

async fn store_form(folder: &Folder, headers: &HeaderMap, body: Body) -> Result {
    let boundary = multer::parse_boundary(headers.get(CONTENT_TYPE).ok_or("no content type")?.to_str()?)?;
    let mut form = multer::Multipart::new(body.into_data_stream(), boundary);
    while let Some(mut field) = form.next_field().await? {
        let mut file = folder.create().await?;
        while let Some(bytes) = field.chunk().await? {
            file.write_all(&bytes).await?;
        }
        file.flush().await?;
    }
    Ok(())
}

#[tonic::async_trait]
impl AttachmentService for Folder {
    async fn upload_attachment(
        &self,
        request: Request<Streaming<UploadAttachmentRequest>>,
    ) -> std::result::Result<Response<UploadAttachmentResponse>, Status> {
        let mut messages = request.into_inner();
        let mut file = self.create().await?;
        let mut header = None;
        while let Some(message) = messages.message().await? {
            match message.message {
                Some(Message::Header(first)) => header = Some(first),
                Some(Message::Chunk(bytes)) => file.write_all(&bytes).await?,
                Some(Message::Finish(_)) | None => {}
            }
        }
        file.flush().await?;
        let header = header.ok_or_else(|| Status::invalid_argument("no header"))?;
        let (client_id, attachment_id) = (header.client_id, header.attachment_id);
        let attachment = Attachment { client_id, attachment_id, filename: header.filename, ..Attachment::default() };
        Ok(Response::new(UploadAttachmentResponse { attachment: Some(attachment) }))
    }

    async fn register_attachment(
        &self,
        _: Request<RegisterAttachmentRequest>,
    ) -> std::result::Result<Response<RegisterAttachmentResponse>, Status> {
        Err(only_stores())
    }

    async fn get_attachment(
        &self,
        _: Request<GetAttachmentRequest>,
    ) -> std::result::Result<Response<GetAttachmentResponse>, Status> {
        Err(only_stores())
    }

    async fn list_attachments(
        &self,
        _: Request<ListAttachmentsRequest>,
    ) -> std::result::Result<Response<ListAttachmentsResponse>, Status> {
        Err(only_stores())
    }

    type DownloadAttachmentStream = Streaming<DownloadAttachmentResponse>;

    async fn download_attachment(
        &self,
        _: Request<DownloadAttachmentRequest>,
    ) -> std::result::Result<Response<Self::DownloadAttachmentStream>, Status> {
        Err(only_stores())
    }

    async fn delete_attachment(
        &self,
        _: Request<DeleteAttachmentRequest>,
    ) -> std::result::Result<Response<DeleteAttachmentResponse>, Status> {
        Err(only_stores())
    }

    async fn undelete_attachment(
        &self,
        _: Request<UndeleteAttachmentRequest>,
    ) -> std::result::Result<Response<UndeleteAttachmentResponse>, Status> {
        Err(only_stores())
    }
}

fn only_stores() -> Status {
    Status::unimplemented("it only stores")
}
