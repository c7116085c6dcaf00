//! How often a request to a storage service is tried, and how long one try may take. It does not know what the requests are
//! for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Request, Response};
use opendal::layers::{RetryEvent, RetryInterceptor, RetryLayer};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport, HttpTransporter, Operator, Result};

use crate::store::meaning::plain;

/// How often an operation is tried.
pub const TRIES: usize = 3;

/// The pause before the second try; it doubles, and a random part is added to each.
pub const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The share of an operation's time that one try has, in tenths: three tries and their pauses fit into the whole.
const TENTHS_OF_A_TRY: u32 = 3;

/// Counts the tries of an operation that failed and were followed by another one, and logs each on one line.
#[derive(Clone, Debug, Default)]
pub struct Retries(Arc<AtomicUsize>);

/// A transport on which one request has the time of a try.
struct Limited {
    inner: HttpTransporter,
    time: Duration,
    /// Whether the request makes an object of its parts.
    completes: fn(&Request<Buffer>) -> bool,
}

/// The time of one try of an operation that has `time`.
pub fn of(time: Duration) -> Duration {
    time / 10 * TENTHS_OF_A_TRY
}

/// `operator`, which tries again up to `times` times what failed in passing.
pub fn again(operator: &Operator, times: usize, retries: Retries) -> Operator {
    let layer = RetryLayer::new()
        .with_max_times(times)
        .with_min_delay(PAUSE)
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .with_notify(retries);
    operator.clone().layer(layer)
}

/// `operator`, on which each request has `time`, but for one that `completes` an object of parts: that one has no limit of its
/// own. A service may take long to put the parts together, and one that is asked again meanwhile may acknowledge what it has
/// not done yet. Only for requests whose answers are short.
pub fn limited(operator: &Operator, time: Duration, completes: fn(&Request<Buffer>) -> bool) -> Operator {
    let (context, service) = operator.clone().into_parts();
    let inner = context.http_transport().clone();
    let transport = HttpTransporter::new(Limited { inner, time, completes });
    Operator::from_parts(context.with_http_transport(transport), service)
}

impl Retries {
    /// How many there were.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl RetryInterceptor for Retries {
    fn intercept(&self, event: RetryEvent<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        log(event.op.into_static(), event.attempt as usize, event.err);
    }
}

/// Says on one line that the try of this number, from 1, failed and that another one follows.
pub fn log(operation: &str, attempt: usize, error: &Error) {
    tracing::warn!(operation, attempt, error = plain(error), "a storage operation failed and is tried again");
}

impl HttpTransport for Limited {
    async fn fetch(&self, request: Request<Buffer>) -> Result<Response<HttpBody>> {
        if (self.completes)(&request) {
            return self.inner.fetch(request).await;
        }
        let answer = async {
            let (head, mut body) = self.inner.fetch(request).await?.into_parts();
            let body = body.to_buffer().await?;
            Ok(Response::from_parts(head, HttpBody::new(futures_util::stream::iter([Ok(body)]), None)))
        };
        tokio::time::timeout(self.time, answer).await.map_err(|_| {
            let text = format!("the storage did not answer a request within {:?}", self.time);
            Error::new(ErrorKind::Unexpected, text).set_temporary()
        })?
    }
}
