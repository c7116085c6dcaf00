//! The options and the connection of the commands that talk to a server: which attachments of which client, the server, the
//! caller, and how often a request is tried. It must not know what a request asks for.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

use super::failure::Failure;
use crate::config;
use crate::pb::Attachment;
use crate::pb::attachment_service_client::AttachmentServiceClient;
use crate::tls::{self, Credentials, Whose};

mod failed;
mod outcomes;
mod retry;

pub use failed::Failed;
pub use outcomes::Outcomes;
pub use retry::Tries;

/// How long the address of a server may take to answer.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);

/// How long a server may send nothing while a request is open, before it is asked for a sign of life (PING, RFC 9113 s6.7).
const SILENT: Duration = Duration::from_secs(10);

/// How long it may take to answer that. A client that uploads over a slow line has up to a window of bytes before the question.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// The exit codes, and the token, for the help of each command.
pub const EXIT_CODES: &str = "The token: the file of --token-file, else the variable ATTACHD_TOKEN, else none is sent.

Exit codes:
  0  done
  1  refused or failed; the same command will fail again
  2  the command is wrong; nothing was sent
  3  try again later: the server or the way to it is unavailable, a rate limit was exceeded, or the content was replaced
     during a download
If several requests fail, the code is 1 unless all of them can be tried again.";

/// The client for all operations of a server.
pub type Client = AttachmentServiceClient<Channel>;

/// Attachments of one client, and the server that has them.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Attachments {
    /// The client that the attachment belongs to
    #[arg(long, value_name = "N")]
    pub client: i64,
    /// The attachment's id; several are separated by commas
    #[arg(long, value_name = "N", value_delimiter = ',', required = true)]
    pub attachment: Vec<i64>,
    /// The project that the attachment belongs to
    #[arg(long, value_name = "N")]
    pub project: Option<i64>,
    /// The portfolio that the attachment belongs to
    #[arg(long, value_name = "N")]
    pub portfolio: Option<i64>,
    #[command(flatten)]
    remote: Arguments,
}

/// The server, the caller, and how often a request is tried.
#[derive(Debug, Args)]
#[group(skip)]
pub struct Arguments {
    /// The gRPC port, such as https://127.0.0.1:50051, or http:// if it has no TLS
    #[arg(long, value_name = "URL")]
    to: String,
    /// A file with the token. Default: the variable ATTACHD_TOKEN
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CA bundle in PEM, used to verify the server. Default: the system trust store
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A client certificate in PEM, with those between it and the root after it
    #[arg(long, value_name = "FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Its private key in PEM
    #[arg(long, value_name = "FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// Try again if the server or the way to it is unavailable, or a rate limit was exceeded: up to N times, each time
    /// after a longer pause, and after the one that the server asks for [default: 0, or 5 without N]
    #[arg(long, value_name = "N", num_args = 0..=1, default_value_t = 0, default_missing_value = "5", hide_default_value = true)]
    retry: u32,
}

/// A server, and who asks it.
pub struct Remote {
    to: String,
    endpoint: Endpoint,
    credentials: Credentials,
    authorization: Option<MetadataValue<Ascii>>,
    retry: u32,
    /// The connection, while it is good.
    client: Option<Client>,
    /// When the server last answered something, if it has.
    answered: Option<Instant>,
}

impl Attachments {
    /// Checks these arguments. Nothing is sent.
    pub fn remote(&self) -> Result<Remote, Failure> {
        let mut attachments = self.attachment.clone();
        attachments.sort_unstable();
        if let Some(twice) = attachments.windows(2).find(|two| two[0] == two[1]) {
            return Err(Failure::usage(format!("--attachment: {} is given twice", twice[0])));
        }
        self.remote.remote()
    }
}

impl Arguments {
    /// Checks these arguments. Nothing is sent.
    pub fn remote(&self) -> Result<Remote, Failure> {
        let (to, (endpoint, credentials)) = (self.to.clone(), self.endpoint()?);
        Ok(Remote {
            to,
            endpoint,
            credentials,
            authorization: self.authorization()?,
            retry: self.retry,
            client: None,
            answered: None,
        })
    }

    /// The token as it is sent.
    fn authorization(&self) -> Result<Option<MetadataValue<Ascii>>, Failure> {
        let (from, text) = match (&self.token_file, config::token()) {
            (Some(path), _) => {
                let text = std::fs::read_to_string(path).map_err(|error| named(path, &error))?;
                (format!("--token-file: {}", path.display()), text)
            }
            (None, Some(token)) => ("ATTACHD_TOKEN".to_owned(), token.to_string_lossy().into_owned()),
            (None, None) => return Ok(None),
        };
        let text = text.trim();
        let bare = match text.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim_start(),
            _ => text,
        };
        if bare.is_empty() {
            return Err(Failure::usage(format!("{from}: is empty; a token is needed")));
        }
        let wrong = || Failure::usage(format!("{from}: the token has characters that no token has"));
        if !bare.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong());
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {bare}").parse().map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// Where to send, and by which certificates to know each other.
    fn endpoint(&self) -> Result<(Endpoint, Credentials), Failure> {
        let to = &self.to;
        let wrong = |why: &str| Failure::usage(format!("--to: {to:?} {why}"));
        let usual = "write the scheme, the host and the gRPC port, such as https://127.0.0.1:50051";
        let Some((scheme, rest)) = to.split_once("://") else {
            return Err(wrong(&format!("has no scheme; write https://{to}, or http://{to} if the port has no TLS")));
        };
        let endpoint = Endpoint::from_shared(to.clone()).map_err(|_| wrong(&format!("is not a URL; {usual}")))?;
        let endpoint = endpoint.connect_timeout(CONNECTED_WITHIN);
        let endpoint = endpoint.http2_keep_alive_interval(SILENT).keep_alive_timeout(ANSWERED_WITHIN);
        if rest.is_empty() || rest.starts_with(['/', ':']) {
            return Err(wrong(&format!("has no host; {usual}")));
        }
        let Arguments { ca_file, cert_file, key_file, .. } = self;
        match scheme {
            "https" => {}
            "http" => {
                let given =
                    [("--ca-file", ca_file), ("--cert-file", cert_file)].into_iter().find(|(_, file)| file.is_some());
                return match given {
                    Some((flag, _)) => {
                        Err(Failure::usage(format!("{flag} goes with an address that begins with https://")))
                    }
                    None => Ok((endpoint, Credentials::default())),
                };
            }
            _ => return Err(wrong("must begin with https:// or http://")),
        }
        let read = |path: &Path| std::fs::read(path).map_err(|error| named(path, &error));
        let certificates = |flag: &str, path: &Path| {
            let pem = read(path)?;
            let wrong = |what: String| Failure::usage(format!("{flag}: {}: {what}", path.display()));
            tls::certificates(&pem).map_err(wrong).map(|_| pem)
        };
        let mut credentials = Credentials::default();
        let known = match ca_file {
            Some(path) => {
                let pem = credentials.trusted.insert(certificates("--ca-file", path)?);
                ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem))
            }
            None => ClientTlsConfig::new().with_native_roots(),
        };
        let endpoint = match (cert_file, key_file) {
            (Some(certificate), Some(path)) => {
                let pair = (certificates("--cert-file", certificate)?, read(path)?);
                let (pem, key) = credentials.identity.insert(pair);
                let wrong = |error| {
                    Failure::usage(match tls::distrusted(&error, Whose::Own) {
                        Some(what) => format!("--cert-file: {}: {what}", certificate.display()),
                        None => format!("--key-file: {}: {}", path.display(), failed::with_causes(&error)),
                    })
                };
                endpoint.tls_config(known.identity(Identity::from_pem(pem, key))).map_err(wrong)?
            }
            _ => endpoint
                .tls_config(known)
                .map_err(|error| Failure::usage(format!("--to: {}", failed::with_causes(&error))))?,
        };
        Ok((endpoint, credentials))
    }
}

impl Remote {
    /// A connection to the server: the one in use, or a new one.
    pub async fn client(&mut self) -> Result<Client, Failed> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        match self.endpoint.connect().await {
            Ok(channel) => Ok(self.client.insert(AttachmentServiceClient::new(channel)).clone()),
            Err(error) => Err(Failed::to_connect(&self.to, &error).await),
        }
    }

    /// A request of who asks.
    pub fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        request
    }

    /// Why a request failed. If the connection did, the next request makes a new one.
    pub async fn failed(&mut self, status: tonic::Status) -> Failed {
        // Of a stream, the HTTP library does not say that its connection gave no sign of life.
        let is_silent = self.answered.is_some_and(|at| at.elapsed() >= SILENT + ANSWERED_WITHIN);
        let failed = Failed::from_status(&self.to, status, self.answered.is_none(), &self.credentials).await;
        if !failed.is_lost() {
            self.answered();
            return failed;
        }
        self.client = None;
        if is_silent { Failed::silent(&self.to) } else { failed }
    }

    /// Takes note that the server has answered.
    pub fn answered(&mut self) {
        self.answered = Some(Instant::now());
    }

    /// Sends one request, as often as it may be tried. It must change nothing to send it twice. `name` is what it is about.
    pub async fn ask<M: Clone, R>(
        &mut self,
        name: &str,
        message: &M,
        send: impl AsyncFn(Client, Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let mut tries = self.tries();
        loop {
            let failed = match self.client().await {
                Ok(client) => match send(client, self.request(message.clone())).await {
                    Ok(reply) => {
                        self.answered();
                        return Ok(reply.into_inner());
                    }
                    Err(status) => self.failed(status).await,
                },
                Err(failed) => failed,
            };
            if !tries.again(name, &failed).await {
                return Err(failed.of(name));
            }
        }
    }

    /// The tries that one request has.
    pub fn tries(&self) -> Tries {
        Tries::new(self.retry)
    }
}

/// The failure of reading a file.
pub fn named(path: &Path, error: &io::Error) -> Failure {
    Failure::running(format!("{}: {error}", path.display()))
}

/// The attachment that a reply names.
pub fn named_by(name: &str, attachment: Option<Attachment>) -> Result<Attachment, Failure> {
    attachment.ok_or_else(|| Failed::here("the reply names no attachment".to_owned()).of(name))
}
