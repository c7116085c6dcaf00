//! HTTP/2 frame by frame, for what no gRPC client would send.

use std::net::SocketAddr;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{Attachment, UploadAttachmentRequest, UploadAttachmentResponse};
use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, SendStream};
use http::{HeaderMap, Request, StatusCode};
use prost::Message as _;
use tokio::net::TcpStream;
use tonic::Status;

use super::GrpcRefusal;

/// An HTTP/2 connection to the gRPC port.
pub struct RawConnection {
    requests: SendRequest<Bytes>,
    pings: PingPong,
    driver: tokio::task::JoinHandle<()>,
}

/// A call whose body is written by hand.
pub struct RawStream {
    body: SendStream<Bytes>,
    reply: ResponseFuture,
}

/// A reply as it came, whatever it is.
#[derive(Debug)]
pub struct RawReply {
    /// The HTTP status.
    pub status: StatusCode,
    /// The header.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
    /// The trailers; empty where there are none.
    pub trailers: HeaderMap,
}

impl RawReply {
    /// The gRPC status, from the trailers or from the header of a reply that has no more than that.
    pub fn grpc(&self) -> GrpcRefusal {
        let headers = if self.trailers.is_empty() { &self.headers } else { &self.trailers };
        Status::from_header_map(headers).unwrap_or_else(|| panic!("no gRPC status: {self:?}")).into()
    }
}

/// A message of an upload as it stands on the wire.
pub fn framed(message: Message) -> Vec<u8> {
    message_frame(0, &UploadAttachmentRequest { message: Some(message) }.encode_to_vec())
}

/// A message as it stands on the wire: whether it is compressed, its length, its bytes.
pub fn message_frame(flag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a message is short");
    [&[flag], &length.to_be_bytes()[..], bytes].concat()
}

impl RawConnection {
    /// Opens a connection.
    pub async fn open(address: SocketAddr) -> RawConnection {
        let socket = TcpStream::connect(address).await.expect("the port is open");
        let (requests, mut connection) = h2::client::handshake(socket).await.expect("the port speaks HTTP/2");
        let pings = connection.ping_pong().expect("nobody else pings");
        let driver = tokio::spawn(async move {
            // How the connection ends is seen by the streams.
            let _ = connection.await;
        });
        let mut opened = RawConnection { requests, pings, driver };
        // The server's settings arrive before its first answer.
        opened.delivered().await;
        opened
    }

    /// How many streams the server lets a connection have.
    pub fn max_streams(&self) -> usize {
        self.requests.current_max_send_streams()
    }

    /// Begins an upload. An empty token sends none.
    pub async fn upload(&mut self, token: &str, headers: &[(&str, &str)]) -> RawStream {
        self.call("UploadAttachment", token, headers).await
    }

    /// Begins a call of a method that answers with an attachment.
    pub async fn call(&mut self, method: &str, token: &str, headers: &[(&str, &str)]) -> RawStream {
        let mut requests = self.requests.clone().ready().await.expect("the connection is open");
        let mut request = Request::post(format!("http://attachd/attachments.v2.AttachmentService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).expect("a request");
        let (reply, body) = requests.send_request(request, false).expect("a stream can be opened");
        RawStream { body, reply }
    }

    /// Sends a request as it is, with its whole body, and reads all of the reply.
    pub async fn ask(&mut self, request: Request<Vec<u8>>) -> RawReply {
        let (head, body) = request.into_parts();
        let mut requests = self.requests.clone().ready().await.expect("the connection is open");
        let (reply, stream) =
            requests.send_request(Request::from_parts(head, ()), false).expect("a stream can be opened");
        let mut stream = RawStream { body: stream, reply };
        stream.send(body);
        stream.end();
        stream.raw_reply().await
    }

    /// Waits until the server has read all that was sent and that its windows permit.
    pub async fn delivered(&mut self) {
        // A ping may overtake data that is not written yet, but what was waiting when it was answered is ahead of the next.
        for _ in 0..2 {
            self.pings.ping(Ping::opaque()).await.expect("the connection is open");
        }
    }

    /// Waits until the server has ended the connection. Pings are answered meanwhile.
    pub async fn ended(self) {
        let RawConnection { driver, requests: _requests, .. } = self;
        driver.await.expect("the driver does not panic");
    }

    /// Closes the socket without a word.
    pub fn vanish(self) {
        self.driver.abort();
    }
}

impl RawStream {
    /// Sends bytes of the body. A server that has answered may have closed the stream; the reply is there all the same.
    pub fn send(&mut self, bytes: impl Into<Bytes>) {
        let _ = self.body.send_data(bytes.into(), false);
    }

    /// How many bytes the server takes of this stream before it has read any.
    pub async fn room(&mut self) -> usize {
        self.body.reserve_capacity(1 << 20);
        let assigned = std::future::poll_fn(|context| self.body.poll_capacity(context)).await;
        assigned.expect("the stream is open").expect("the server takes some")
    }

    /// Ends the body, likewise.
    pub fn end(&mut self) {
        let _ = self.body.send_data(Bytes::new(), true);
    }

    /// Resets the stream.
    pub fn reset(&mut self, reason: Reason) {
        self.body.send_reset(reason);
    }

    /// Waits for the reply, and reads all of it.
    pub async fn raw_reply(self) -> RawReply {
        let RawStream { body: _still_open, reply } = self;
        let (head, mut body) = reply.await.expect("a reply").into_parts();
        let mut bytes = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.expect("a body");
            body.flow_control().release_capacity(data.len()).expect("it was received");
            bytes.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.expect("a reply ends well").unwrap_or_default();
        RawReply { status: head.status, headers: head.headers, body: bytes, trailers }
    }

    /// Waits for the reply.
    pub async fn reply(self) -> Result<Attachment, GrpcRefusal> {
        let RawStream { body: _still_open, reply } = self;
        let (head, mut body) = reply.await.expect("a reply").into_parts();
        if let Some(status) = Status::from_header_map(&head.headers) {
            return Err(status.into());
        }
        let mut bytes = BytesMut::new();
        while let Some(data) = body.data().await {
            bytes.extend_from_slice(&data.expect("a body"));
        }
        let trailers = body.trailers().await.expect("a reply ends well").expect("gRPC has trailers");
        let status = Status::from_header_map(&trailers).expect("trailers have a status");
        if status.code() != tonic::Code::Ok {
            return Err(status.into());
        }
        bytes.advance(5);
        let response = UploadAttachmentResponse::decode(bytes).expect("a reply");
        Ok(response.attachment.expect("a reply names the attachment"))
    }
}
