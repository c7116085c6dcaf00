//! gRPC, with messages that were encoded beforehand: one thread with as many connections as there are clients.

use std::future::poll_fn;
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{UploadAttachmentRequest, UploadFinish, UploadHeader};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::paced::pace;
use super::upload::{IDS, Outcome};
use crate::cell::Load;
use crate::content::noise;
use crate::error::Result;
use crate::server::Server;

/// The windows that a client gives to replies, in bytes.
const WINDOW: u32 = 1 << 20;

/// Puts the RPC under a load, with `message` bytes of content in a message.
pub async fn drive(load: Load, message: usize, server: &Server) -> Result<Outcome> {
    let caller = Caller::new(server)?;
    let begun = Instant::now();
    let mut clients: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    let (uploads, size) = match load {
        Load::Bulk { uploads, size } => {
            let full = framed(Message::Chunk(noise(message.min(size as usize))));
            for number in 0..uploads {
                let (caller, full) = (caller.clone(), full.clone());
                clients.spawn(async move {
                    let mut upload = caller.connect().await?.begin(caller.ids + number as u64 + 1).await?;
                    for _ in 0..size.div_ceil(message as u64) {
                        upload.send(full.clone()).await?;
                    }
                    upload.finish().await.map(|()| Vec::new())
                });
            }
            (uploads, size)
        }
        Load::Paced { uploads, pieces, piece, every } => {
            let full = framed(Message::Chunk(noise(piece)));
            for number in 0..uploads {
                let (caller, full, mut pace) = (caller.clone(), full.clone(), pace(begun, every, number, uploads));
                clients.spawn(async move {
                    pace.tick().await;
                    let mut upload = caller.connect().await?.begin(caller.ids + number as u64 + 1).await?;
                    for _ in 0..pieces {
                        pace.tick().await;
                        upload.send(full.clone()).await?;
                    }
                    upload.finish().await.map(|()| Vec::new())
                });
            }
            (uploads, u64::from(pieces) * piece as u64)
        }
        Load::Small { connections, size, time } => return small(&caller, connections, size, message, time).await,
        Load::Idle(_) => (0, 0),
    };
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let uploads = uploads as u64;
    Ok(Outcome { time: begun.elapsed(), uploads, bytes: uploads * size, latencies: Vec::new() })
}

/// One upload of `size` bytes after the other over each of `connections`, with `message` of them in a message.
async fn small(caller: &Caller, connections: usize, size: usize, message: usize, time: Duration) -> Result<Outcome> {
    let chunk = framed(Message::Chunk(noise(size.min(message))));
    let rest = [chunk.repeat(size.div_ceil(message)).into(), finish()].concat();
    let mut opened = Vec::new();
    for number in 0..connections {
        let first = caller.ids + number as u64 * IDS;
        let mut connection = caller.connect().await?;
        // The first upload opens what stays open, and is not measured.
        connection.whole(first + 1, &rest).await?;
        opened.push((connection, first));
    }
    let begun = Instant::now();
    let mut clients: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    for (mut connection, first) in opened {
        let rest = rest.clone();
        clients.spawn(async move {
            let mut latencies = Vec::with_capacity(1 << 16);
            let mut now = begun;
            for id in first + 2.. {
                if now - begun >= time {
                    break;
                }
                connection.whole(id, &rest).await?;
                let then = Instant::now();
                latencies.push(u32::try_from((then - now).as_micros())?);
                now = then;
            }
            Ok(latencies)
        });
    }
    let mut latencies = Vec::new();
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    let uploads = latencies.len() as u64;
    Ok(Outcome { time: begun.elapsed(), uploads, bytes: uploads * size as u64, latencies })
}

/// What every call begins with.
#[derive(Clone)]
struct Caller {
    address: std::net::SocketAddr,
    uri: http::Uri,
    headers: HeaderMap,
    ids: u64,
}

impl Caller {
    fn new(server: &Server) -> Result<Caller> {
        let uri = format!("http://{}/attachments.v2.AttachmentService/UploadAttachment", server.address).parse()?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {}", server.token))?);
        Ok(Caller { address: server.address, uri, headers, ids: server.ids })
    }

    async fn connect(&self) -> Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (requests, connection) = builder.handshake(stream).await?;
        // Its failure is seen by the uploads over it.
        tokio::spawn(connection);
        Ok(Connection { caller: self.clone(), requests })
    }
}

/// One HTTP/2 connection.
struct Connection {
    caller: Caller,
    requests: SendRequest<Bytes>,
}

impl Connection {
    async fn call(&mut self) -> Result<Upload> {
        let mut request = Request::post(self.caller.uri.clone()).body(())?;
        *request.headers_mut() = self.caller.headers.clone();
        poll_fn(|context| self.requests.poll_ready(context)).await?;
        let (reply, stream) = self.requests.send_request(request, false)?;
        Ok(Upload { reply, stream, _requests: self.requests.clone() })
    }

    async fn begin(&mut self, id: u64) -> Result<Upload> {
        let mut upload = self.call().await?;
        upload.send(header(id)?).await?;
        Ok(upload)
    }

    /// A whole upload, whose messages after the header are `rest`.
    async fn whole(&mut self, id: u64, rest: &[u8]) -> Result {
        let mut upload = self.call().await?;
        let header = header(id)?;
        let mut all = BytesMut::with_capacity(header.len() + rest.len());
        all.extend_from_slice(&header);
        all.extend_from_slice(rest);
        upload.stream.send_data(all.freeze(), true)?;
        upload.accepted().await
    }
}

/// A call that is under way.
struct Upload {
    reply: h2::client::ResponseFuture,
    stream: SendStream<Bytes>,
    /// A connection without a handle to it is closed once it is idle.
    _requests: SendRequest<Bytes>,
}

impl Upload {
    /// Sends what fits the windows of the server, and waits for room for the rest.
    async fn send(&mut self, mut bytes: Bytes) -> Result {
        while !bytes.is_empty() {
            self.stream.reserve_capacity(bytes.len());
            match poll_fn(|context| self.stream.poll_capacity(context)).await {
                Some(Ok(room)) => self.stream.send_data(bytes.split_to(room.min(bytes.len())), false)?,
                Some(Err(error)) if error.reason() != Some(Reason::NO_ERROR) => return Err(error.into()),
                _ => return Err("the server stopped reading".into()),
            }
        }
        Ok(())
    }

    async fn finish(mut self) -> Result {
        self.stream.send_data(finish(), true)?;
        self.accepted().await
    }

    async fn accepted(self) -> Result {
        let response = self.reply.await?;
        let refused = |headers: &HeaderMap| {
            let status = headers.get("grpc-status").is_some_and(|status| status != "0");
            status.then(|| format!("{headers:?}"))
        };
        if let Some(refusal) = refused(response.headers()) {
            return Err(refusal.into());
        }
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let length = data?.len();
            body.flow_control().release_capacity(length)?;
        }
        let trailers = body.trailers().await?.ok_or("a reply without trailers")?;
        refused(&trailers).map_or(Ok(()), |refusal| Err(refusal.into()))
    }
}

fn header(id: u64) -> Result<Bytes> {
    let attachment_id = i64::try_from(id)?;
    let filename = format!("{id}.bin");
    Ok(framed(Message::Header(UploadHeader { client_id: 1, attachment_id, filename, ..UploadHeader::default() })))
}

fn finish() -> Bytes {
    framed(Message::Finish(UploadFinish::default()))
}

/// A message as gRPC frames it: a byte that says that it is not compressed, its length, the message.
fn framed(message: Message) -> Bytes {
    let message = UploadAttachmentRequest { message: Some(message) };
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}
