//! Faults on the way to a storage service: each request of the rules' attachments fails, hangs, dawdles or loses its answer.
//! The service's own replies are what OpenDAL has to make sense of, so a failure is a status and no error of a library.

use std::future::pending;

use http::{Method, Request, Response, StatusCode};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, OperationContext, Result};

use super::{Fault, Faults, Operation, Rule, SLOWNESS, TEXT};

/// A context whose requests have these faults.
pub fn on_the_way(rules: &[Rule], context: OperationContext) -> OperationContext {
    let transport = Wire { inner: context.http_transport().clone(), faults: Faults::new(rules) };
    context.with_http_transport(HttpTransporter::new(transport))
}

struct Wire {
    inner: HttpTransporter,
    faults: Faults,
}

impl HttpTransport for Wire {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy().into_owned();
        let query = request.uri().query().unwrap_or_default();
        // A listing has its folder in the query.
        let query = percent_encoding::percent_decode_str(query).decode_utf8_lossy().into_owned();
        let (operation, path) = (operation(request.method(), &query), format!("{path}?{query}"));
        let answer = self.act(operation, &path, request).await;
        // One that is given up before does not end.
        tracing::debug!(?operation, path, "storage operation ended");
        answer
    }
}

impl Wire {
    async fn act(&self, operation: Operation, path: &str, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        let status = match self.faults.next(operation, path) {
            None => return self.inner.fetch(request).await,
            Some(Fault::Hang) => pending().await,
            Some(Fault::Slow) => {
                tokio::time::sleep(SLOWNESS).await;
                return self.inner.fetch(request).await;
            }
            Some(Fault::Lost) => {
                let mut answer = self.inner.fetch(request).await?;
                // The service has done all of it.
                answer.body_mut().to_buffer().await?;
                return Err(Error::new(ErrorKind::Unexpected, TEXT).set_temporary());
            }
            Some(Fault::Temporary) => StatusCode::SERVICE_UNAVAILABLE,
            Some(Fault::Broken) => StatusCode::INTERNAL_SERVER_ERROR,
            Some(Fault::Permanent) => StatusCode::BAD_REQUEST,
            Some(Fault::PermissionDenied) => StatusCode::FORBIDDEN,
            Some(Fault::NotFound) => StatusCode::NOT_FOUND,
            Some(Fault::RateLimited) => StatusCode::TOO_MANY_REQUESTS,
        };
        let body = HttpBody::new(futures_util::stream::iter([Ok(Buffer::from(TEXT))]), None);
        let reply = Response::builder().status(status).body(body);
        reply.map_err(|error| Error::new(ErrorKind::Unexpected, "a reply could not be made up").set_source(error))
    }
}

/// What a request of the S3 API is about.
fn operation(method: &Method, query: &str) -> Operation {
    let has = |key: &str| query.split('&').any(|pair| pair.split('=').next() == Some(key));
    match *method {
        Method::HEAD => Operation::Stat,
        Method::GET if has("list-type") || has("prefix") => Operation::List,
        Method::GET => Operation::Read,
        Method::DELETE if has("uploadId") => Operation::Abort,
        Method::DELETE => Operation::Delete,
        Method::PUT if has("partNumber") => Operation::Write,
        Method::POST if has("uploads") => Operation::Open,
        Method::POST if has("delete") => Operation::Delete,
        _ => Operation::Close,
    }
}
