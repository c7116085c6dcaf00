//! Addresses at which the storage hands out content by itself, signed and valid for a time. This module must not know who is sent
//! there.

use std::fmt;
use std::time::Duration;

use opendal::options::ReadOptions;
use opendal::raw::PresignedRequest;

use super::backend::Backend;
use super::layout::{self, MARKER};
use super::{Store, failure};
use crate::attachment::Record;
use crate::error::{Error, Result};

/// The parameter that a signed address has, each service with a beginning of its own.
const SIGNATURE: &str = "-Signature=";

/// An address of content. Anyone who has it can read the content without a token, so nothing shows it but [`Address::reveal`].
pub struct Address(String);

/// How the storage is to send content, and for how long.
#[derive(Clone, Debug)]
pub struct Presented {
    /// The header `Content-Type`.
    pub content_type: String,
    /// The header `Content-Disposition`.
    pub disposition: String,
    /// The header `Cache-Control`.
    pub cache_control: String,
    /// How long the address is valid, to the second.
    pub expiry: Duration,
}

impl Address {
    /// The address itself, for the caller alone.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address")
    }
}

impl Store {
    /// Signs an address of the content that a record names, which is in one object of its own. The content is not looked at.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] if the content is elsewhere or the storage does not sign, and what storage raises.
    pub async fn address(&self, record: &Record, presented: &Presented) -> Result<Address> {
        let mut ids = record.content().into_iter().flat_map(|content| content.segment_ids());
        let (Some(id), None) = (ids.next(), ids.next()) else {
            return Err(Error::internal("an address is asked for of content that is not in one object"));
        };
        self.sign(&layout::segment(record.key, id), presented).await
    }

    /// Looks that the storage signs addresses. A key of the platform may be asked for.
    ///
    /// # Errors
    /// [`crate::error::Kind::Internal`] with words for an operator if it does not, and what storage raises.
    pub async fn prove_signing(&self) -> Result<()> {
        let presented = Presented {
            content_type: "application/octet-stream".to_owned(),
            disposition: "attachment".to_owned(),
            cache_control: "no-store".to_owned(),
            expiry: Duration::from_secs(1),
        };
        self.sign(MARKER, &presented).await.map(drop).map_err(|error| self.meanings.explain(error))
    }

    async fn sign(&self, path: &str, presented: &Presented) -> Result<Address> {
        if let Backend::Local(_) = &self.backend {
            return Err(Error::internal("a file system signs no addresses"));
        }
        let Presented { content_type, disposition, cache_control, expiry } = presented;
        let options = ReadOptions {
            override_content_type: Some(content_type.clone()),
            override_content_disposition: Some(disposition.clone()),
            override_cache_control: Some(cache_control.clone()),
            ..ReadOptions::default()
        };
        let signing = self.operator.presign_read_options(path, *expiry, options);
        let signed = self.patience.wait(signing).await?.map_err(failure)?;
        signed_only(&signed).map_err(Error::internal)
    }
}

/// The address of a request, if it is signed and the address is all that there is to it.
fn signed_only(request: &PresignedRequest) -> Result<Address, &'static str> {
    if !request.uri().query().is_some_and(|query| query.contains(SIGNATURE)) {
        return Err(
            "the storage is used without signatures (storage.options.skip_signature), so it signs no addresses",
        );
    }
    if !request.header().is_empty() {
        return Err("the options of the storage need a header in each request, which no address can have");
    }
    Ok(Address(request.uri().to_string()))
}

#[cfg(test)]
#[cfg(feature = "gcs")]
mod tests {
    use std::collections::BTreeMap;

    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

    use super::*;
    use crate::store::{Access, Config, Sizing};
    use crate::telemetry::Metrics;

    /// What a canonical query escapes: all but the unreserved characters of RFC 3986.
    const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

    const DISPOSITION: &str =
        "attachment; filename=\"_ a&b=c;+ _.html\"; filename*=UTF-8''%E2%82%AC%20a%26b%3Dc%3B%2B%20%25.html";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As Google documents it: cloud.google.com/storage/docs/access-control/signing-urls-manually.
    #[tokio::test]
    async fn an_address_of_google_is_signed_with_the_key_of_the_account_and_all_that_it_says() {
        crate::tls::install_crypto();
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let lines = STANDARD.encode(der.as_ref()).into_bytes();
        let lines: Vec<_> = lines.chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let account =
            serde_json::json!({ "type": "service_account", "client_email": "me@example", "private_key": pem });
        let options = BTreeMap::from([
            ("bucket".to_owned(), "files".to_owned()),
            ("credential".to_owned(), STANDARD.encode(account.to_string())),
        ]);
        let sizing = Sizing { largest: 1 << 20, memory: 64 << 20 };
        let store = Store::open(&Config::new("gcs", options), Access::Inspect, sizing, &Metrics::default()).unwrap();
        let presented = Presented {
            content_type: "text/html; charset=\"utf-8\"".to_owned(),
            disposition: DISPOSITION.to_owned(),
            cache_control: "private, no-cache".to_owned(),
            expiry: Duration::from_secs(300),
        };
        store.prove_signing().await.unwrap();
        let address = store.sign("clients/1/content/2/x.0", &presented).await.unwrap();
        assert_eq!(format!("{address:?}"), "Address");

        let (place, query) = address.reveal().split_once('?').unwrap();
        assert_eq!(place, "https://storage.googleapis.com/files/clients/1/content/2/x.0");
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let mut pairs: BTreeMap<String, String> = pairs
            .map(|(name, value)| (name.to_owned(), percent_decode_str(value).decode_utf8().unwrap().into_owned()))
            .collect();
        let signature = pairs.remove("X-Goog-Signature").unwrap();
        for (name, value) in [
            ("X-Goog-Algorithm", "GOOG4-RSA-SHA256"),
            ("X-Goog-Expires", "300"),
            ("X-Goog-SignedHeaders", "host"),
            ("response-content-type", &presented.content_type),
            ("response-content-disposition", &presented.disposition),
            ("response-cache-control", &presented.cache_control),
        ] {
            assert_eq!(pairs[name], value, "{name}");
        }
        let escape = |text: &str| utf8_percent_encode(text, &ESCAPED).to_string();
        let canonical: Vec<_> =
            pairs.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
        let request = format!(
            "GET\n/files/clients/1/content/2/x.0\n{}\nhost:storage.googleapis.com\n\nhost\nUNSIGNED-PAYLOAD",
            canonical.join("&")
        );
        let scope = pairs["X-Goog-Credential"].strip_prefix("me@example/").unwrap();
        let hash = hex(digest(&SHA256, request.as_bytes()).as_ref());
        let signed = format!("GOOG4-RSA-SHA256\n{}\n{scope}\n{hash}", pairs["X-Goog-Date"]);
        let signature: Vec<u8> = (0..signature.len() / 2)
            .map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).expect("the signature is of the whole address");
    }
}
