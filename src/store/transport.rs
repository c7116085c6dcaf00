//! How requests to a storage service travel: HTTP over connections that are kept, TLS with the system's authorities and
//! those of the operator. It must not know which service it is.

use std::path::Path;
use std::time::Duration;

use opendal::{HttpTransporter, OperationContext};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::OpenError;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A context whose requests travel over connections of their own.
pub fn context(ca_file: Option<&Path>) -> Result<OperationContext, OpenError> {
    let mut client = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT);
    if let Some(file) = ca_file {
        let refusal = |why: String| OpenError::new("ca_file", format!("{}: {why}", file.display()));
        let pem = std::fs::read(file).map_err(|error| refusal(error.to_string()))?;
        let authorities = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refusal(error.to_string()))?;
        if authorities.is_empty() {
            return Err(refusal("there is no certificate in it".to_owned()));
        }
        client = client.tls_certs_merge(authorities);
    }
    let client = client.build().map_err(|error| OpenError::new("ca_file", error))?;
    Ok(OperationContext::new().with_http_transport(HttpTransporter::new(ReqwestTransport::new(client))))
}
