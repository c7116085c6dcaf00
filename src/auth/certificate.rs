//! Whom a client certificate speaks for: an identity that the configuration names becomes a [`Principal`]. That the
//! certificate holds was proved in the handshake; this file reads what it says and looks it up.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::load_error::LoadError;
use super::principal::{Ids, MAX_SUBJECT_BYTES, Principal, Rights, Scope, is_subject};
use super::subject;

/// The issuer of every [`Principal`] that a certificate speaks for.
const ISSUER: &str = "certificate";

/// One `[[auth.certificates]]` table: an identity, and what its bearer may do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate's one URI, such as `spiffe://cluster.local/ns/billing/sa/archiver` (the SPIFFE X.509-SVID), or, where
    /// it has none, its subject in the form of RFC 4514, such as `CN=archiver,O=Example`: what
    /// `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb` prints. Any other form is refused at the start. Compared byte
    /// by byte. It is also the name by which the records know the uploader: 1 to 255 bytes without control characters.
    pub identity: String,
    /// What it may do. Default nothing.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// For which clients: a list of ids, or `"*"` for all. Default none.
    #[serde(default)]
    pub clients: Ids,
    /// For which projects, likewise.
    #[serde(default)]
    pub projects: Ids,
    /// For which portfolios, likewise.
    #[serde(default)]
    pub portfolios: Ids,
}

/// The identities that the configuration knows.
#[derive(Debug, Default)]
pub struct Certificates(Vec<Principal>);

/// Who is at the other end of a connection, as far as the connection itself proves it: by default nobody.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    principal: Option<Principal>,
    /// Why the client's certificate speaks for nobody.
    stranger: Option<Arc<str>>,
}

impl Peer {
    /// Whom the client's certificate speaks for, if it sent one that the configuration names.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// Why the certificate that the client sent speaks for nobody, in words for the log.
    pub fn stranger(&self) -> Option<&str> {
        self.stranger.as_deref()
    }
}

impl Certificates {
    /// Reads the `[[auth.certificates]]` tables.
    ///
    /// # Errors
    /// A [`LoadError`] names the first identity that is empty, too long, of a form that no certificate has, or there twice.
    pub fn load(config: &[CertificateConfig]) -> Result<Certificates, LoadError> {
        let mut known: Vec<Principal> = Vec::with_capacity(config.len());
        for (index, entry) in config.iter().enumerate() {
            let wrong = |what: &str| Err(LoadError::new(format!("auth.certificates[{index}].identity"), what));
            if !is_subject(&entry.identity) {
                return wrong("must be 1 to 255 bytes without control characters");
            }
            if !is_uri(&entry.identity)
                && let Err(form) = subject::check(&entry.identity)
            {
                let mend = form.map_or_else(String::new, |form| format!("; write {form}"));
                return wrong(&format!(
                    "`{}` is neither a URI nor a subject in the form of RFC 4514{mend}",
                    entry.identity
                ));
            }
            if let Some(first) = known.iter().position(|other| other.subject() == entry.identity) {
                return wrong(&format!("is that of auth.certificates[{first}] already"));
            }
            let CertificateConfig { identity, scopes, clients, projects, portfolios } = entry.clone();
            known.push(Principal::new(ISSUER, &identity, Rights { scopes, clients, projects, portfolios }));
        }
        Ok(Certificates(known))
    }

    /// Whom a certificate, in DER, speaks for. Its URI is looked up first, and its subject only where it has none: a
    /// certificate with several URIs is no SPIFFE identity (X509-SVID §2) and speaks for nobody.
    pub fn peer(&self, certificate: &[u8]) -> Peer {
        let identity = identity(certificate);
        tracing::debug!(?identity, "a client certificate");
        let stranger = match identity {
            Ok(identity) => match self.0.iter().find(|known| known.subject() == identity) {
                Some(known) => return Peer { principal: Some(known.clone()), stranger: None },
                None => {
                    let identity: String = identity.chars().take(MAX_SUBJECT_BYTES).collect();
                    format!("the client certificate's identity {identity:?} is that of no auth.certificates")
                }
            },
            Err(why) => format!("the client certificate {why}"),
        };
        Peer { principal: None, stranger: Some(stranger.into()) }
    }
}

/// Who a certificate says it is for, or why it says that of nobody.
fn identity(certificate: &[u8]) -> Result<String, String> {
    let unreadable = |_| "cannot be read".to_owned();
    let (_, certificate) = X509Certificate::from_der(certificate).map_err(|_| "cannot be read".to_owned())?;
    let mut uris = Vec::new();
    if let Some(names) = certificate.subject_alternative_name().map_err(unreadable)? {
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                // What cannot be read may be a URI as well.
                GeneralName::Invalid(..) => {
                    return Err("has a subject alternative name that cannot be read".to_owned());
                }
                _ => {}
            }
        }
    }
    match uris.as_slice() {
        [] => match subject::of(certificate.subject()) {
            None => Err("has no URI, and a subject that is not text".to_owned()),
            Some(subject) if subject.is_empty() => Err("has neither a URI nor a subject".to_owned()),
            Some(subject) => Ok(subject),
        },
        [uri] => Ok((*uri).to_owned()),
        several => Err(format!("has {} URIs, and an identity is one", several.len())),
    }
}

/// Whether a text has the form of an absolute URI (RFC 3986 §3): a scheme, a colon, and visible ASCII.
fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_graphic())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_speaks_for_nobody() {
        let known = [CertificateConfig {
            identity: "CN=a".to_owned(),
            scopes: Vec::new(),
            clients: Ids::All,
            projects: Ids::All,
            portfolios: Ids::All,
        }];
        let known = Certificates::load(&known).unwrap();
        for bytes in [&b""[..], b"nonsense", &[0x30, 0x80], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]] {
            let peer = known.peer(bytes);
            assert!(peer.principal().is_none() && peer.stranger().is_some());
        }
    }
}
