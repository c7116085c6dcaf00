//! Whom a client certificate speaks for: an identity that the configuration names becomes a [`Principal`]. That the
//! certificate holds was proved in the handshake; this file reads what it says and looks it up.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::X509Name;

use super::LoadError;
use super::principal::{Ids, Principal, Rights, Scope, is_subject};

/// The issuer of every [`Principal`] that a certificate speaks for.
const ISSUER: &str = "certificate";

/// One `[[auth.certificates]]` table: an identity, and what its bearer may do.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateConfig {
    /// The certificate's one URI, such as `spiffe://cluster.local/ns/billing/sa/archiver` (the SPIFFE X.509-SVID), or, where
    /// it has none, its subject in the form of RFC 4514, such as `CN=archiver,O=Example`: what
    /// `openssl x509 -noout -subject -nameopt RFC2253,-esc_msb` prints. Compared byte by byte. It is also the name by which
    /// the records know the uploader: 1 to 255 bytes without control characters.
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

/// Who is at the other end of a connection, as far as the connection itself proves it.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Whom the client's certificate speaks for, where it sent one that the configuration names.
    pub principal: Option<Principal>,
}

impl Certificates {
    /// Reads the `[[auth.certificates]]` tables.
    ///
    /// # Errors
    /// A [`LoadError`] names the first identity that is empty, too long or there twice.
    pub fn load(config: &[CertificateConfig]) -> Result<Certificates, LoadError> {
        let mut known: Vec<Principal> = Vec::with_capacity(config.len());
        for (index, entry) in config.iter().enumerate() {
            let wrong = |what: &str| Err(LoadError::new(format!("auth.certificates[{index}].identity"), what));
            if !is_subject(&entry.identity) {
                return wrong("must be 1 to 255 bytes without control characters");
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
    pub fn principal(&self, certificate: &[u8]) -> Option<Principal> {
        let identity = identity(certificate);
        let found = self.0.iter().find(|known| Some(known.subject()) == identity.as_deref()).cloned();
        tracing::debug!(?identity, known = found.is_some(), "a client certificate");
        found
    }
}

/// Who a certificate says it is for.
fn identity(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut uris = Vec::new();
    if let Some(names) = certificate.subject_alternative_name().ok()? {
        for name in &names.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                // What cannot be read may be a URI as well.
                GeneralName::Invalid(..) => return None,
                _ => {}
            }
        }
    }
    match uris.as_slice() {
        [] => subject(certificate.subject()),
        [uri] => Some((*uri).to_owned()),
        _ => None,
    }
}

/// A subject in the form of RFC 4514, the most specific part first. None where it is empty or has a part that is no text.
fn subject(name: &X509Name<'_>) -> Option<String> {
    let mut parts = Vec::new();
    for relative in name.iter_rdn() {
        let mut attributes = Vec::new();
        for attribute in relative.iter() {
            let value = attribute.as_str().ok()?;
            let oid = attribute.attr_type().to_id_string();
            // The names of RFC 4514 §3 and some more, as OpenSSL spells them; any other is its number.
            let kind = match oid.as_str() {
                "2.5.4.3" => "CN",
                "2.5.4.5" => "serialNumber",
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.9" => "street",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                "0.9.2342.19200300.100.1.1" => "UID",
                "0.9.2342.19200300.100.1.25" => "DC",
                "1.2.840.113549.1.9.1" => "emailAddress",
                other => other,
            };
            attributes.push(format!("{kind}={}", escaped(value)));
        }
        parts.push(attributes.join("+"));
    }
    parts.reverse();
    Some(parts.join(",")).filter(|subject| !subject.is_empty())
}

/// A value as RFC 4514 §2.4 writes it, so that no value can look like the end of itself.
fn escaped(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (index, character) in value.chars().enumerate() {
        let at_edge = (index == 0 && " #".contains(character)) || (index == last && character == ' ');
        if character.is_control() {
            for byte in character.to_string().bytes() {
                let _ = write!(text, "\\{byte:02X}");
            }
            continue;
        }
        if at_edge || ",+\"\\<>;".contains(character) {
            text.push('\\');
        }
        text.push(character);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_of_a_subject_can_look_like_the_end_of_itself() {
        for (value, written) in [
            ("plain", "plain"),
            ("Zoë", "Zoë"),
            ("a,O=Example", "a\\,O=Example"),
            ("a+CN=b", "a\\+CN=b"),
            ("\"a\" <b>; \\", "\\\"a\\\" \\<b\\>\\; \\\\"),
            (" a ", "\\ a\\ "),
            (" ", "\\ "),
            ("#1", "\\#1"),
            ("1#", "1#"),
            ("a\nb", "a\\0Ab"),
            ("", ""),
        ] {
            assert_eq!(escaped(value), written, "{value:?}");
        }
    }

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
            assert!(known.principal(bytes).is_none());
        }
    }
}
