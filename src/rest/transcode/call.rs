//! Calls a method of a gRPC service in this process, by the descriptors of its messages alone: tonic's own client over the
//! service, without a connection between. It must not know what the messages say.

use std::convert::Infallible;

use http::uri::PathAndQuery;
use prost::Message;
use prost_reflect::{DynamicMessage, MessageDescriptor};
use tonic::Status;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::Service;
use tower::util::BoxCloneSyncService;

use crate::error::{Error, Result};
use crate::request::Call;
use crate::rpc::{Failure, Passed};

/// A gRPC service.
#[derive(Clone, Debug)]
pub struct Server(BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>);

impl Server {
    /// A service that tonic generated, or one like it.
    pub fn new<S>(service: S) -> Server
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        Server(BoxCloneSyncService::new(service))
    }
}

/// Calls the method at `path`, which replies with the message that `reply` describes.
///
/// # Errors
/// What the method refuses with.
pub async fn unary(
    server: Server,
    path: PathAndQuery,
    call: Call,
    message: DynamicMessage,
    reply: MessageDescriptor,
) -> Result<DynamicMessage> {
    let failure = Failure::default();
    let mut passed = Passed::new(failure.clone());
    passed.call = Some(call);
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(passed);
    let mut client = Grpc::new(server.0).max_decoding_message_size(usize::MAX);
    let replied = match client.ready().await {
        Ok(()) => client.unary(request, path, Dynamic(reply)).await,
        Err(never) => match never {},
    };
    match (replied, failure.take()) {
        (_, Some(error)) => Err(error),
        (Ok(reply), None) => Ok(reply.into_inner()),
        // An operation leaves its error; what comes without one is a defect.
        (Err(status), None) => Err(Error::internal(status)),
    }
}

/// Messages that are known by their descriptors. It has that of the messages that are read.
#[derive(Clone, Debug)]
pub struct Dynamic(pub MessageDescriptor);

impl Codec for Dynamic {
    type Encode = DynamicMessage;
    type Decode = DynamicMessage;
    type Encoder = Dynamic;
    type Decoder = Dynamic;

    fn encoder(&mut self) -> Dynamic {
        self.clone()
    }

    fn decoder(&mut self) -> Dynamic {
        self.clone()
    }
}

impl Encoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn encode(&mut self, message: DynamicMessage, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for Dynamic {
    type Item = DynamicMessage;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<DynamicMessage>, Status> {
        let message = DynamicMessage::decode(self.0.clone(), buffer);
        message.map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
