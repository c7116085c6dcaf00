//! Certificates as an authority of the tests makes them, and clients that speak TLS.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attachd::pb::attachment_service_client::AttachmentServiceClient;
use base64::Engine;
use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
    SigningKey as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    /// An authority of this name, with a fresh key.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key can be made");
        Authority(CertifiedIssuer::self_signed(params, key).expect("an authority can sign itself"))
    }

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for the address of the tests.
    pub fn server(&self) -> Identity {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()]).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    /// A certificate of a client, with these URIs and the subject `O=Example, CN=name`.
    pub fn client(&self, name: &str, uris: &[&str]) -> Identity {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Example");
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names =
            uris.iter().map(|uri| SanType::URI((*uri).try_into().expect("a URI is ASCII"))).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// A certificate of these parameters.
    pub fn sign(&self, params: CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key can be made");
        Identity { certificate: params.signed_by(&key, &self.0).expect("an authority can sign").into(), key }
    }

    /// The same as a certificate of X.509 version 1, which has no extensions.
    pub fn first_version(&self, identity: Identity) -> Identity {
        Identity { certificate: first_version(&identity.certificate, self.0.key()), key: identity.key }
    }

    /// A client that trusts this authority, offers these protocols and shows this certificate.
    pub fn connector(&self, protocols: &[&str], identity: Option<&Identity>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority is a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the versions are known")
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&identity.private_key());
                let certified = CertifiedKey::new(vec![identity.der()], key.expect("a key that can sign"));
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    }
}

impl Identity {
    /// A certificate that its own key has signed.
    pub fn self_signed(params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key can be made");
        Identity { certificate: params.self_signed(&key).expect("a key can sign its certificate").into(), key }
    }

    /// The same as a certificate of X.509 version 1, which its own key has signed.
    #[must_use]
    pub fn in_first_version(self) -> Identity {
        Identity { certificate: first_version(&self.certificate, &self.key), key: self.key }
    }

    /// The certificate, in PEM.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    /// A server that shows this certificate and asks for none.
    pub fn serve(&self) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("the versions are known").with_no_client_auth();
        // rustls itself would not show a certificate of version 1, so that it is not asked to read it.
        let key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.private_key()).expect("a key that can sign");
        let certified = CertifiedKey::new(vec![self.der()], key);
        config.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))
    }

    /// The certificate, in DER.
    pub fn der(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).expect("a key is PKCS#8")
    }

    /// Writes certificate and key, in PEM, as the files of this name, and returns their paths.
    pub fn write(&self, folder: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, self.pem()).expect("a certificate can be written");
        fs::write(&key, self.key.serialize_pem()).expect("a key can be written");
        (certificate, key)
    }
}

/// DER in PEM (RFC 7468).
pub fn pem(label: &str, der: &[u8]) -> String {
    let base64 = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// A certificate (RFC 5280 §4.1) without its version and its extensions, signed anew.
fn first_version(certificate: &[u8], signer: &KeyPair) -> CertificateDer<'static> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const VERSION: u8 = 0xa0;
    const EXTENSIONS: u8 = 0xa3;
    let parts = elements(content(certificate));
    let mut kept = elements(content(parts[0]));
    kept.retain(|part| ![VERSION, EXTENSIONS].contains(&part[0]));
    let signed = element(SEQUENCE, &kept.concat());
    let signature = [&[0][..], &signer.sign(&signed).expect("a key can sign")].concat();
    element(SEQUENCE, &[&signed, parts[1], &element(BIT_STRING, &signature)].concat()).into()
}

/// The bytes before the content of a DER element, and those of the content.
fn lengths(element: &[u8]) -> (usize, usize) {
    let first = usize::from(element[1]);
    // Above 127 it is the number of bytes that have the length.
    let more = first.saturating_sub(0x80);
    let length = element[2..2 + more].iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
    (2 + more, if more == 0 { first } else { length })
}

/// The content of a DER element.
fn content(element: &[u8]) -> &[u8] {
    &element[lengths(element).0..]
}

/// The DER elements that follow each other in these bytes.
fn elements(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let (head, content) = lengths(bytes);
        let (element, rest) = bytes.split_at(head + content);
        found.push(element);
        bytes = rest;
    }
    found
}

/// A DER element of this content, which has less than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a short content").to_be_bytes();
    // The shortest form is the only one (X.690 §10.1).
    let head: &[u8] = match content.len() {
        0..0x80 => &[tag, length[1]],
        0x80..0x100 => &[tag, 0x81, length[1]],
        _ => &[tag, 0x82, length[0], length[1]],
    };
    [head, content].concat()
}

/// Opens a connection and shakes hands.
pub async fn connect_tls(address: SocketAddr, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await
}

/// A gRPC channel over TLS.
pub async fn grpc_over_tls(
    address: SocketAddr,
    connector: TlsConnector,
) -> Result<AttachmentServiceClient<Channel>, tonic::transport::Error> {
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move { connect_tls(address, &connector).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    Ok(AttachmentServiceClient::new(endpoint.connect_with_connector(connect).await?))
}
