//! Honest clients: a small upload at a fixed pace, over REST and gRPC in turns, each over a connection of its own. One that is
//! late does not delay the next, so a server that stands still is seen by all that would have come meanwhile.

use std::sync::Arc;
use std::time::Duration;

use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout};
use tokio_rustls::TlsConnector;

use crate::content::noise;
use crate::contestant::Door;
use crate::error::Result;
use crate::load::grpc::{Caller, finish, part};
use crate::load::upload::{Target, envelope, reply};
use crate::server::{NAME, Server};

/// The size of an upload, in bytes.
pub const SIZE: usize = 4 << 10;

/// One upload comes so often.
const EVERY: Duration = Duration::from_millis(25);

/// How long a client waits for its reply before it is lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// What came of honest clients.
#[derive(Debug, Default)]
pub struct Honest {
    /// How long each upload took that was accepted, in microseconds.
    pub latencies: Vec<u32>,
    /// How many were not accepted.
    pub lost: u64,
}

/// How a client speaks TLS to a server, with these protocols. None if the server speaks plain text.
fn tls(server: &Server, protocol: &[u8]) -> Result<Option<Arc<ClientConfig>>> {
    let Some(certificate) = &server.certificate else { return Ok(None) };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(certificate.clone()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Some(Arc::new(config)))
}

/// The first half of what a client begins a TLS handshake with.
pub fn half_hello(server: &Server) -> Result<Vec<u8>> {
    let config = tls(server, b"http/1.1")?.ok_or("the server speaks no TLS")?;
    let mut hello = Vec::new();
    ClientConnection::new(config, ServerName::try_from(NAME)?)?.write_tls(&mut hello)?;
    hello.truncate(hello.len() / 2);
    Ok(hello)
}

/// One client.
#[derive(Clone)]
struct Client {
    /// The TLS of REST, and of gRPC.
    tls: [Option<Arc<ClientConfig>>; 2],
    caller: Caller,
    content: Bytes,
    /// What gRPC sends after the header.
    rest: Bytes,
}

/// Uploads for so long.
pub async fn drive(time: Duration, server: &Server) -> Result<Honest> {
    let content = noise(SIZE);
    let rest = [part(Message::Chunk(content.clone())), finish()].concat().into();
    let tls = [tls(server, b"http/1.1")?, tls(server, b"h2")?];
    let client = Client { tls, caller: Caller::to(server.grpc, server, "UploadAttachment")?, content, rest };
    let mut clients = JoinSet::new();
    let mut pace = interval(EVERY);
    let begun = Instant::now();
    for number in 1_u64.. {
        let due = pace.tick().await;
        if due - begun >= time {
            break;
        }
        let (client, id) = (client.clone(), server.ids + number);
        let (head, tail) = envelope(Door::Form, server, Target::own(id), SIZE as u64);
        let address = server.address;
        clients.spawn(async move {
            let upload = async {
                if number % 2 == 0 {
                    return client.grpc(id).await;
                }
                let stream = TcpStream::connect(address).await?;
                let form = [head.as_bytes(), &client.content, tail.as_bytes()].concat();
                match &client.tls[0] {
                    None => over_rest(stream, &form).await,
                    Some(tls) => over_rest(encrypted(tls, stream).await?, &form).await,
                }
            };
            // Why it was lost is the server's to say.
            let accepted = timeout(PATIENCE, upload).await.is_ok_and(|outcome| outcome.is_ok());
            accepted.then(|| due.elapsed().as_micros())
        });
    }
    let mut honest = Honest::default();
    while let Some(ended) = clients.join_next().await {
        match ended? {
            Some(micros) => honest.latencies.push(u32::try_from(micros)?),
            None => honest.lost += 1,
        }
    }
    Ok(honest)
}

impl Client {
    async fn grpc(&self, id: u64) -> Result {
        let stream = self.caller.stream().await?;
        let mut connection = match &self.tls[1] {
            None => self.caller.over(stream).await?,
            Some(tls) => self.caller.over(encrypted(tls, stream).await?).await?,
        };
        connection.whole(id, &self.rest).await
    }
}

async fn encrypted(
    tls: &Arc<ClientConfig>,
    stream: TcpStream,
) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + use<>> {
    Ok(TlsConnector::from(Arc::clone(tls)).connect(ServerName::try_from(NAME)?, stream).await?)
}

/// One upload over REST.
async fn over_rest(mut stream: impl AsyncRead + AsyncWrite + Unpin, form: &[u8]) -> Result {
    stream.write_all(form).await?;
    stream.flush().await?;
    let mut received = Vec::new();
    loop {
        if stream.read_buf(&mut received).await? == 0 {
            return Err("the connection was closed before the reply".into());
        }
        if reply(&received)?.is_some_and(|reply| received.len() >= reply.length) {
            return Ok(());
        }
    }
}
