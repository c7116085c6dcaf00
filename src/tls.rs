//! The certificates of the doors: files become what a handshake needs, are read again when they change, and the ones in use
//! stay where the new ones are bad. TLS 1.2 and 1.3, no older. This module must not know what is served.

use std::error::Error;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsConnector};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::units;

/// The protocols that a port offers (RFC 7301), the preferred one first.
pub type Protocols = &'static [&'static [u8]];

/// HTTP/2 or HTTP/1.1, as the client prefers.
pub const HTTP: Protocols = &[b"h2", b"http/1.1"];

/// HTTP/2 alone, which is what gRPC runs on.
pub const HTTP2: Protocols = &[b"h2"];

/// The `[rest.tls]` and `[grpc.tls]` tables: with one of them a port speaks TLS, and nothing else.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The certificate in PEM, with those between it and the root after it.
    pub cert_file: PathBuf,
    /// Its private key in PEM: PKCS#8, PKCS#1 or SEC1.
    pub key_file: PathBuf,
    /// The authorities, in PEM, that vouch for clients: with it, clients are asked for a certificate. Default none.
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// What becomes of a client without a certificate, where one is asked for. Default `required`.
    #[serde(default)]
    pub client_auth: ClientAuth,
    /// How often the files are looked at, from 100 ms to 1 h. Default 10 s.
    #[serde(default = "reload_interval", with = "units::time")]
    #[schemars(with = "units::Time")]
    pub reload_interval: Duration,
}

/// What becomes of a client without a certificate, where one is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Its handshake fails.
    #[default]
    Required,
    /// It is served, and proves who it is by a token.
    Optional,
}

fn reload_interval() -> Duration {
    Duration::from_secs(10)
}

/// Why a port cannot speak TLS: which key of the configuration, and what is wrong. Holds no key material.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {what}")]
pub struct LoadError {
    key: String,
    what: String,
}

/// The certificate of a port, as it stands now.
#[derive(Debug)]
pub struct Tls {
    section: &'static str,
    config: Config,
    protocols: Protocols,
    current: ArcSwap<ServerConfig>,
}

/// A client whose ClientHello is complete.
pub type ClientHello = StartHandshake<TcpStream>;

/// Waits until the ClientHello of a client is complete. The caller bounds the time.
pub async fn client_hello(stream: TcpStream) -> io::Result<ClientHello> {
    LazyConfigAcceptor::new(Acceptor::default(), stream).await
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// Makes aws-lc-rs the one crypto library of the process. To be called before anything speaks TLS.
pub fn install_crypto() {
    // It fails where it was done before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

impl Config {
    /// The paths, as seen from the folder of the configuration.
    pub fn resolve(&mut self, folder: &Path) {
        let files = [&mut self.cert_file, &mut self.key_file].into_iter().chain(&mut self.client_ca_file);
        for path in files {
            *path = folder.join(&*path);
        }
    }

    /// What a type cannot express: the key, and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.reload_interval) {
            return Err(("reload_interval", "must be from 100ms to 1h".to_owned()));
        }
        if self.client_auth == ClientAuth::Optional && self.client_ca_file.is_none() {
            return Err(("client_auth", "asks for no certificate without client_ca_file".to_owned()));
        }
        Ok(())
    }
}

impl Tls {
    /// Reads the files of a port; `section` is the configuration key of its table, such as `rest.tls`.
    ///
    /// # Errors
    /// A [`LoadError`] names the key that is wrong: a file that cannot be read or holds something else, a key that is not
    /// that of the certificate.
    pub fn load(section: &'static str, config: &Config, protocols: Protocols) -> Result<Tls, LoadError> {
        let files = Files::read(section, config)?;
        let made = files.assemble(section, config, protocols)?;
        if let Err(what) = files.holds_now() {
            tracing::warn!(section, what, "the certificate does not hold now");
        }
        Ok(Tls { section, config: config.clone(), protocols, current: ArcSwap::from_pointee(made) })
    }

    /// Completes the handshake of a client, with the certificate that is in use now.
    pub async fn accept(&self, hello: ClientHello) -> io::Result<TlsStream<TcpStream>> {
        hello.into_stream(self.current.load_full()).await
    }

    /// Looks at the files again and again. What changed is used by the handshakes that begin after; connections that are
    /// open keep what they began with. What is bad is said once, and the certificate in use stays.
    pub async fn watch(self: Arc<Self>) {
        let mut pause = tokio::time::interval(self.config.reload_interval);
        pause.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // What was seen last, good or bad: as a digest, so that a private key is not kept for this.
        let mut seen = None;
        loop {
            pause.tick().await;
            let tls = Arc::clone(&self);
            let before = seen;
            match tokio::task::spawn_blocking(move || tls.look(before)).await {
                Ok(now) => seen = now,
                Err(error) => tracing::error!(%error, "the certificate files could not be looked at"),
            }
        }
    }

    /// Reads the files, takes them into use if they are others than `before`, and returns their digest; none where they
    /// cannot be read.
    fn look(&self, before: Option<[u8; 32]>) -> Option<[u8; 32]> {
        let section = self.section;
        let files = match Files::read(section, &self.config) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(section, %error, "the certificate files cannot be read, the ones in use stay");
                return before;
            }
        };
        let now = files.digest();
        // At the first look they are those of the start, unless they have changed since.
        if before == Some(now) {
            return before;
        }
        let made = files.assemble(section, &self.config, self.protocols).map_err(|error| error.to_string());
        match made.and_then(|made| files.holds_now().map(|until| (made, until))) {
            Ok((made, until)) => {
                self.current.store(Arc::new(made));
                tracing::info!(section, until, "the certificate is in use");
            }
            Err(error) => tracing::warn!(section, error, "the new certificate is bad, the one in use stays"),
        }
        Some(now)
    }
}

impl Files {
    fn read(section: &str, config: &Config) -> Result<Files, LoadError> {
        let read = |key: &str, path: &Path| {
            fs::read(path).map_err(|error: io::Error| LoadError {
                key: format!("{section}.{key}"),
                what: format!("{}: {error}", path.display()),
            })
        };
        Ok(Files {
            certificate: read("cert_file", &config.cert_file)?,
            key: read("key_file", &config.key_file)?,
            client_ca: config.client_ca_file.as_deref().map(|path| read("client_ca_file", path)).transpose()?,
        })
    }

    fn digest(&self) -> [u8; 32] {
        let parts = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        let each: Vec<u8> =
            parts.into_iter().flatten().flat_map(|part| digest(&SHA256, part).as_ref().to_vec()).collect();
        let mut whole = [0; 32];
        whole.copy_from_slice(digest(&SHA256, &each).as_ref());
        whole
    }

    fn chain(&self) -> Result<Vec<CertificateDer<'static>>, String> {
        certificates(&self.certificate)
    }

    /// Puts together what a handshake needs.
    fn assemble(&self, section: &str, config: &Config, protocols: Protocols) -> Result<ServerConfig, LoadError> {
        let wrong = |key: &str, path: &Path, what: String| LoadError {
            key: format!("{section}.{key}"),
            what: format!("{}: {what}", path.display()),
        };
        let chain = self.chain().map_err(|what| wrong("cert_file", &config.cert_file, what))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| wrong("key_file", &config.key_file, "holds no private key in PEM".to_owned()))?;
        let builder = ServerConfig::builder();
        let builder = match (&self.client_ca, &config.client_ca_file) {
            (Some(pem), Some(path)) => {
                let wrong = |what: String| wrong("client_ca_file", path, what);
                let mut roots = RootCertStore::empty();
                for root in certificates(pem).map_err(wrong)? {
                    roots.add(root).map_err(|error| wrong(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder(Arc::new(roots));
                let verifier = match config.client_auth {
                    ClientAuth::Required => verifier,
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| wrong(error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut made = builder.with_single_cert(chain, key).map_err(|error| match distrusted(&error, Whose::Own) {
            Some(what) => wrong("cert_file", &config.cert_file, what),
            None => wrong("key_file", &config.key_file, format!("does not go with the certificate: {error}")),
        })?;
        made.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(made)
    }

    /// Until when the certificate holds, or why it does not hold now: clients would refuse it.
    fn holds_now(&self) -> Result<String, String> {
        let chain = self.chain()?;
        let leaf = chain.first().ok_or("holds no certificate")?;
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| error.to_string())?;
        let now = UnixTime::since_unix_epoch(SystemTime::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())?);
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let validity = leaf.validity();
        if now < validity.not_before.timestamp() {
            return Err(format!("the certificate holds from {}", validity.not_before));
        }
        if now > validity.not_after.timestamp() {
            return Err(format!("the certificate held until {}", validity.not_after));
        }
        Ok(validity.not_after.to_string())
    }
}

/// Whose certificate is not accepted, and what the one who does not accept it can change.
#[derive(Clone, Copy, Debug)]
pub enum Whose<'a> {
    /// Of a server that we are a client of.
    Server {
        /// What names the trusted authorities, such as `with --ca-file`.
        trusted: &'a str,
        /// What names the address, such as `--to`.
        address: &'a str,
    },
    /// Of a client.
    Client,
    /// Of a port of ours.
    Own,
}

/// Why a certificate is not accepted, and the mend, in words; `None` if the error is about something else.
pub fn distrusted(error: &(dyn Error + 'static), whose: Whose<'_>) -> Option<String> {
    use rustls::CertificateError as Bad;
    let rustls::Error::InvalidCertificate(bad) = found(error)? else { return None };
    let (certificate, purpose) = match whose {
        Whose::Server { .. } => ("the server's certificate", "servers: its extended key usage lacks serverAuth"),
        Whose::Client => ("the client's certificate", "clients: its extended key usage lacks clientAuth"),
        Whose::Own => ("the certificate", "servers: its extended key usage lacks serverAuth"),
    };
    // What rustls has no kind of its own for is known by the name that its library gives it.
    let other = format!("{bad:?}");
    let what = match (bad, whose) {
        (Bad::UnknownIssuer, Whose::Server { trusted, .. }) => {
            format!("is signed by no certificate authority that is trusted here; name its CA bundle {trusted}")
        }
        (Bad::UnknownIssuer, _) => "is signed by no certificate authority of client_ca_file".to_owned(),
        (Bad::NotValidForName | Bad::NotValidForNameContext { .. }, Whose::Server { address, .. }) => {
            format!("is for another host name; use a name that the certificate has in {address}")
        }
        (Bad::Expired | Bad::ExpiredContext { .. }, _) => {
            "has expired; have it renewed, and check the clock of this machine".to_owned()
        }
        (Bad::NotValidYet | Bad::NotValidYetContext { .. }, _) => {
            "is not valid yet; check the clock of this machine".to_owned()
        }
        (Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. }, _) => {
            format!("is not for {purpose}; have one issued with it")
        }
        _ if other.contains("UnsupportedCertVersion") => {
            "is of X.509 version 1; have one of version 3 issued, which has extensions".to_owned()
        }
        _ if other.contains("CaUsedAsEndEntity") => {
            "is marked as that of a certificate authority (basicConstraints CA:TRUE); use one with CA:FALSE, \
             self-signed or signed by an authority"
                .to_owned()
        }
        _ => format!("is invalid: {bad}"),
    };
    Some(format!("{certificate} {what}"))
}

/// Why a port refused the certificate of a client in its handshake, in words for the operator; `None` if the error is about
/// something else.
pub fn refused(error: &io::Error) -> Option<String> {
    match found(error)? {
        rustls::Error::NoCertificatesPresented => Some("the client has sent no certificate".to_owned()),
        _ => distrusted(error, Whose::Client),
    }
}

/// The error of the TLS library that is the cause of another.
fn found<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    if let Some(found) = error.downcast_ref::<rustls::Error>() {
        return Some(found);
    }
    // The error within an I/O error is not among its sources.
    let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    within.and_then(|within| found(within)).or_else(|| found(error.source()?))
}

/// Why a client of ours and a server did not come to an agreement, and the mend, in words for the person who runs the client; `None`
/// if the error is not about TLS.
pub fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    use rustls::Error as Tls;
    if let Some(words) = distrusted(error, Whose::Server { trusted: "with --ca-file", address: "--to" }) {
        return Some(words);
    }
    Some(match found(error) {
        // A library that passes an error on may keep nothing of it but its text.
        None => return alert_in(error).map(alerted),
        Some(Tls::InvalidMessage(_)) => {
            "the port does not speak TLS; write http:// in --to if plain text is intended".to_owned()
        }
        Some(Tls::AlertReceived(alert)) => alerted(format!("{alert:?}")),
        Some(other) => format!("TLS failed: {other}"),
    })
}

/// The name of a TLS alert in the text of an error or of what it comes from.
fn alert_in(error: &(dyn Error + 'static)) -> Option<String> {
    let mut link = Some(error);
    while let Some(error) = link {
        if let Some((_, alert)) = error.to_string().split_once("received fatal alert: ") {
            return Some(alert.chars().take_while(|c| c.is_alphanumeric()).collect());
        }
        link = error.source();
    }
    None
}

/// What a server means by a TLS alert (RFC 8446 §6.2), by the alert's name.
fn alerted(alert: impl AsRef<str>) -> String {
    match alert.as_ref() {
        "CertificateRequired" => "the server asks for a client certificate; name one with --cert-file and --key-file",
        "BadCertificate"
        | "UnknownCA"
        | "CertificateUnknown"
        | "CertificateExpired"
        | "CertificateRevoked"
        | "UnsupportedCertificate"
        | "AccessDenied"
        | "DecryptError" => "the server does not accept the client certificate of --cert-file",
        "NoApplicationProtocol" => "the port speaks TLS and no HTTP/2, which gRPC needs; --to takes the gRPC port",
        "ProtocolVersion" => "the server speaks neither TLS 1.2 nor TLS 1.3",
        other => return format!("the server ended the TLS handshake: {other}"),
    }
    .to_owned()
}

/// What a client of TLS shows to a server, and by what it knows the server.
#[derive(Debug, Default)]
pub struct Credentials {
    /// The CA bundle in PEM. Default: the system trust store.
    pub trusted: Option<Vec<u8>>,
    /// The certificate and its private key, each in PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

/// Shakes hands with a server, sends nothing, and waits for what the server says to that: why it refuses the client, in words.
/// In TLS 1.3 a client learns of that only after its handshake, and a client that is sending may see no more than the end of
/// the connection. It waits until the server says anything: the caller bounds the time.
pub async fn refusal(host: &str, port: u16, credentials: &Credentials) -> Option<String> {
    let mut roots = RootCertStore::empty();
    let trusted = match &credentials.trusted {
        Some(pem) => certificates(pem).ok()?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(trusted);
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = match &credentials.identity {
        Some((certificate, key)) => config
            .with_client_auth_cert(certificates(certificate).ok()?, PrivateKeyDer::from_pem_slice(key).ok()?)
            .ok()?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = HTTP2.iter().map(|protocol| protocol.to_vec()).collect();
    let name = rustls::pki_types::ServerName::try_from(host.to_owned()).ok()?;
    let socket = TcpStream::connect((host, port)).await.ok()?;
    let said = async { TlsConnector::from(Arc::new(config)).connect(name, socket).await?.read_u8().await };
    explain(&said.await.err()?)
}

/// What a client says first in TLS, to find out whether a port speaks it. It is not meant to be continued.
pub fn hello() -> Option<Vec<u8>> {
    let config = rustls::ClientConfig::builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("localhost").ok()?;
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).ok()?;
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).ok()?;
    Some(bytes)
}

/// The certificates of a PEM file, at least one, or what is wrong with it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if all.is_empty() { Err("holds no certificate in PEM".to_owned()) } else { Ok(all) }
}
