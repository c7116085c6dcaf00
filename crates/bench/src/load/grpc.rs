//! gRPC, with messages that were encoded beforehand: one thread with as many connections as there are clients.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{DownloadAttachmentRequest, UploadAttachmentRequest, UploadFinish, UploadHeader};
use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::paced::pace;
use super::read::offset;
use super::share::{BEFORE, CROWD, Counts, FEW, REFUSED};
use super::upload::{IDS, Outcome, Target};
use crate::cell::{Load, Share};
use crate::content::noise;
use crate::error::Result;
use crate::plant::CLIENT;
use crate::read::Read;
use crate::server::Server;

/// The windows that a client gives to replies, in bytes.
const WINDOW: u32 = 1 << 20;

/// Puts the RPC under a load, with `message` bytes of content in a message.
pub async fn drive(load: Load, message: usize, server: &Server) -> Result<Outcome> {
    let caller = Caller::new(server, "UploadAttachment")?;
    let begun = Instant::now();
    let mut clients: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    let (uploads, size) = match load {
        Load::Bulk { uploads, size } => {
            let full = part(Message::Chunk(noise(message.min(size as usize))));
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
            let full = part(Message::Chunk(noise(piece)));
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
        Load::Share(load) => return share(&caller, load, message).await,
        Load::Idle(_) | Load::Read(_) | Load::Hostile(_) | Load::Overload(_) => (0, 0),
    };
    while let Some(client) = clients.join_next().await {
        client??;
    }
    let uploads = uploads as u64;
    Ok(Outcome { time: begun.elapsed(), uploads, bytes: uploads * size, ..Outcome::default() })
}

/// One upload of `size` bytes after the other over each of `connections`, with `message` of them in a message.
async fn small(caller: &Caller, connections: usize, size: usize, message: usize, time: Duration) -> Result<Outcome> {
    let chunk = part(Message::Chunk(noise(size.min(message))));
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
    Ok(Outcome::of_small(begun.elapsed(), size, latencies))
}

/// What a client with few connections keeps beside one with many, as over HTTP/1.
async fn share(caller: &Caller, load: Share, message: usize) -> Result<Outcome> {
    let content: Arc<[Bytes]> =
        noise(load.size).chunks(message).map(|chunk| part(Message::Chunk(chunk.to_vec().into()))).collect();
    let alone = few(caller, load, &content, 0).await?;
    let counts = Arc::new(Counts::default());
    // On a thread of its own, or the few would wait for the crowd before they reach the server.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    for number in 0..load.crowd {
        let (caller, content, counts) = (caller.clone(), Arc::clone(&content), Arc::clone(&counts));
        runtime.spawn(async move {
            let mut id = caller.ids + number as u64 * IDS;
            while !counts.over.load(Ordering::Relaxed) {
                let Ok(mut connection) = caller.connect().await else { continue };
                loop {
                    id += 1;
                    match connection.pieces(Target { client: CROWD, id }, &content).await {
                        Ok(()) => counts.accepted.fetch_add(1, Ordering::Relaxed),
                        Err(_) => break,
                    };
                }
                counts.refused.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(REFUSED).await;
            }
        });
    }
    tokio::time::sleep(BEFORE).await;
    let before = counts.accepted.load(Ordering::Relaxed);
    let beside = few(caller, load, &content, load.few).await;
    let accepted = counts.accepted.load(Ordering::Relaxed) - before;
    runtime.shutdown_background();
    let mut beside = beside?;
    beside.beside_crowd = Some((Box::new(alone), accepted, counts.refused.load(Ordering::Relaxed)));
    Ok(beside)
}

/// One upload after the other over each of the few connections, for the time of the load.
async fn few(caller: &Caller, load: Share, content: &Arc<[Bytes]>, number: usize) -> Result<Outcome> {
    let begun = Instant::now();
    let mut clients: JoinSet<Result<Vec<u32>>> = JoinSet::new();
    for own in 0..load.few {
        let (caller, content) = (caller.clone(), Arc::clone(content));
        clients.spawn(async move {
            let mut connection = caller.connect().await?;
            let (mut now, mut latencies) = (begun, Vec::new());
            let mut id = caller.ids + (number + own) as u64 * IDS;
            while now - begun < load.time {
                id += 1;
                connection.pieces(Target { client: FEW, id }, &content).await?;
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
    Ok(Outcome::of_small(begun.elapsed(), load.size, latencies))
}

/// What every call begins with.
#[derive(Clone)]
pub(super) struct Caller {
    address: SocketAddr,
    uri: http::Uri,
    headers: HeaderMap,
    ids: u64,
}

impl Caller {
    fn new(server: &Server, method: &str) -> Result<Caller> {
        Caller::to(server.address, server, method)
    }

    /// One that calls this port of a server.
    pub(super) fn to(address: SocketAddr, server: &Server, method: &str) -> Result<Caller> {
        let uri = format!("http://{address}/attachments.v2.AttachmentService/{method}").parse()?;
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("authorization", HeaderValue::try_from(format!("Bearer {}", server.token))?);
        Ok(Caller { address, uri, headers, ids: server.ids })
    }

    pub(super) async fn connect(&self) -> Result<Connection> {
        self.over(self.stream().await?).await
    }

    /// The socket of a connection.
    pub(super) async fn stream(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A connection over a socket, or over TLS.
    pub(super) async fn over<S>(&self, stream: S) -> Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW).enable_push(false);
        let (requests, connection) = builder.handshake(stream).await?;
        // Its failure is seen by the uploads over it.
        tokio::spawn(connection);
        Ok(Connection { caller: self.clone(), requests })
    }
}

/// One HTTP/2 connection.
pub(super) struct Connection {
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
        self.start(Target::own(id)).await
    }

    pub(super) async fn start(&mut self, target: Target) -> Result<Upload> {
        let mut upload = self.call().await?;
        upload.send(header(target)?).await?;
        Ok(upload)
    }

    /// A whole upload of messages that go as the windows of the server allow.
    async fn pieces(&mut self, target: Target, content: &[Bytes]) -> Result {
        let mut upload = self.call().await?;
        upload.send(header(target)?).await?;
        for message in content {
            upload.send(message.clone()).await?;
        }
        upload.finish().await
    }

    /// A whole upload, whose messages after the header are `rest`.
    pub(super) async fn whole(&mut self, id: u64, rest: &[u8]) -> Result {
        let mut upload = self.call().await?;
        let header = header(Target::own(id))?;
        let mut all = BytesMut::with_capacity(header.len() + rest.len());
        all.extend_from_slice(&header);
        all.extend_from_slice(rest);
        upload.stream.send_data(all.freeze(), true)?;
        upload.accepted().await.map(drop)
    }

    /// A call with one message, and how many bytes it is answered with.
    async fn ask(&mut self, message: &impl prost::Message) -> Result<u64> {
        let mut call = self.call().await?;
        call.stream.send_data(framed(message), true)?;
        call.accepted().await
    }
}

/// A call that is under way.
pub(super) struct Upload {
    reply: h2::client::ResponseFuture,
    stream: SendStream<Bytes>,
    /// A connection without a handle to it is closed once it is idle.
    _requests: SendRequest<Bytes>,
}

impl Upload {
    /// Sends what fits the windows of the server, and waits for room for the rest.
    pub(super) async fn send(&mut self, mut bytes: Bytes) -> Result {
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
        self.accepted().await.map(drop)
    }

    /// Waits for the reply, and returns how many bytes its messages have.
    async fn accepted(self) -> Result<u64> {
        let response = self.reply.await?;
        let refused = |headers: &HeaderMap| {
            let status = headers.get("grpc-status").is_some_and(|status| status != "0");
            status.then(|| format!("{headers:?}"))
        };
        if let Some(refusal) = refused(response.headers()) {
            return Err(refusal.into());
        }
        let (mut body, mut bytes) = (response.into_body(), 0);
        while let Some(data) = body.data().await {
            let length = data?.len();
            bytes += length as u64;
            body.flow_control().release_capacity(length)?;
        }
        let trailers = body.trailers().await?.ok_or("a reply without trailers")?;
        refused(&trailers).map_or(Ok(bytes), |refusal| Err(refusal.into()))
    }
}

/// Puts the RPCs of reading under a load.
pub async fn read(load: Read, server: &Server) -> Result<Outcome> {
    let caller = Caller::new(server, "DownloadAttachment")?;
    let begun = Instant::now();
    let mut clients: JoinSet<Result<(u64, Vec<u32>)>> = JoinSet::new();
    match load {
        Read::Bulk { downloads, size } => {
            for number in 0..downloads {
                let caller = caller.clone();
                clients.spawn(async move {
                    let message = download(load.id(number, 0), None)?;
                    whole(caller.connect().await?.ask(&message).await?, size).map(|bytes| (bytes, vec![0]))
                });
            }
        }
        Read::Small { connections, size: length, time } | Read::Ranges { connections, length, time, .. } => {
            for number in 0..connections {
                let mut connection = caller.connect().await?;
                clients.spawn(async move {
                    let (mut bytes, mut latencies) = (0, Vec::with_capacity(1 << 16));
                    let mut now = begun;
                    for turn in 0.. {
                        if now - begun >= time {
                            break;
                        }
                        let range = match load {
                            Read::Ranges { size, .. } => Some((offset(number, turn) % (size - length + 1), length)),
                            _ => None,
                        };
                        bytes += whole(connection.ask(&download(load.id(number, turn), range)?).await?, length)?;
                        let then = Instant::now();
                        latencies.push(u32::try_from((then - now).as_micros())?);
                        now = then;
                    }
                    Ok((bytes, latencies))
                });
            }
        }
        Read::Slow { .. } | Read::Pages { .. } => return Err("this is read over REST alone".into()),
    }
    let (mut bytes, mut latencies) = (0, Vec::new());
    while let Some(client) = clients.join_next().await {
        let (read, took) = client??;
        bytes += read;
        latencies.extend(took);
    }
    Ok(Outcome { time: begun.elapsed(), uploads: latencies.len() as u64, bytes, latencies, ..Outcome::default() })
}

/// The content, if all of it came: the messages have some bytes more.
fn whole(received: u64, size: u64) -> Result<u64> {
    if received < size { Err(format!("{received} bytes came and {size} were expected").into()) } else { Ok(size) }
}

fn download(id: u64, range: Option<(u64, u64)>) -> Result<DownloadAttachmentRequest> {
    let (client_id, attachment_id) = (i64::try_from(CLIENT)?, i64::try_from(id)?);
    let (offset, length) = range.map(|(offset, length)| (offset as i64, length as i64)).unzip();
    let offset = offset.unwrap_or_default();
    Ok(DownloadAttachmentRequest { client_id, attachment_id, offset, length, ..DownloadAttachmentRequest::default() })
}

pub(super) fn header(Target { client, id }: Target) -> Result<Bytes> {
    let (client_id, attachment_id) = (i64::try_from(client)?, i64::try_from(id)?);
    let filename = format!("{id}.bin");
    Ok(part(Message::Header(UploadHeader { client_id, attachment_id, filename, ..UploadHeader::default() })))
}

pub(super) fn finish() -> Bytes {
    part(Message::Finish(UploadFinish::default()))
}

/// A message of an upload, framed.
pub(super) fn part(message: Message) -> Bytes {
    framed(&UploadAttachmentRequest { message: Some(message) })
}

/// A message as gRPC frames it: a byte that says that it is not compressed, its length, the message.
fn framed(message: &impl prost::Message) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5 + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(message.encoded_len() as u32);
    bytes.extend_from_slice(&message.encode_to_vec());
    bytes.freeze()
}
