//! One error type and one table. An [`Error`] says what went wrong once; both doors derive their encoding from its
//! [`Kind`], so that the same failure reads the same over REST and gRPC. What the caller may read (`detail`, `field`) and
//! what only the log may read (`source`) are separate fields. This module must not know who raises errors or why.

use std::borrow::Cow;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use tonic_types::{ErrorDetails, StatusExt};

mod kind;

pub use kind::Kind;

/// The `domain` of every `google.rpc.ErrorInfo` that attachd sends.
pub const DOMAIN: &str = "attachd";

/// How long a caller is asked to wait before it tries again, where the error itself names no other time.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How many refusals have named a time of their own.
static REFUSALS: AtomicU64 = AtomicU64::new(0);

/// The time within a range of seconds that the refusal with this number asks for.
fn spread(number: u64, seconds: &RangeInclusive<u64>) -> Duration {
    // Multiples of the golden ratio, without their whole part, lie far from each other.
    let share = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    let width = seconds.end().saturating_sub(*seconds.start()) + 1;
    Duration::from_secs(seconds.start() + (width.saturating_mul(share) >> 32))
}

/// A result whose error is attachd's own.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The version of stored content, as replies name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The entity tag, with its quotes (RFC 9110 s8.8.3).
    pub etag: String,
    /// The SHA-256 digest in lower-case hex.
    pub sha256: String,
    /// The digest as the value of `Repr-Digest` (RFC 9530).
    pub repr_digest: String,
}

/// A failure: what the caller may know of it, and apart from that, what the log should say.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    detail: Option<Cow<'static, str>>,
    field: Option<Cow<'static, str>>,
    stored: Option<Version>,
    size: Option<u64>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    unsettled: bool,
    at_limit: bool,
    retry: Option<Duration>,
}

impl Error {
    /// An error that says no more than its kind does.
    pub fn new(kind: Kind) -> Self {
        Error(Box::new(Inner {
            kind,
            detail: None,
            field: None,
            stored: None,
            size: None,
            source: None,
            unsettled: false,
            at_limit: false,
            retry: None,
        }))
    }

    /// A broken rule, in words for the caller: lower case, no full stop.
    pub fn invalid(detail: impl Into<Cow<'static, str>>) -> Self {
        Error::new(Kind::Invalid).detail(detail)
    }

    /// A broken rule about one named field or parameter of the request.
    pub fn invalid_field(field: impl Into<Cow<'static, str>>, detail: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Error::invalid(detail);
        error.0.field = Some(field.into());
        error
    }

    /// A defect or a permanent failure. The words are for the log alone.
    pub fn internal(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::new(Kind::Internal).because(why)
    }

    /// Adds what exactly was wrong, in words for the caller. It must hold no storage key, path, bucket, token or library text.
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.0.detail = Some(detail.into());
        self
    }

    /// Adds the version of the stored content. Only for a caller that may upload to the attachment.
    pub fn stored(mut self, version: Version) -> Self {
        self.0.stored = Some(version);
        self
    }

    /// Adds the size of the stored content, in bytes. Only for a caller that may read it.
    pub fn of_size(mut self, size: u64) -> Self {
        self.0.size = Some(size);
        self
    }

    /// Adds the cause, for the log alone.
    pub fn because(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Marks a failure after which the change that was asked for may have been made all the same, or may yet be made.
    pub fn unsettled(mut self) -> Self {
        self.0.unsettled = true;
        self
    }

    /// Whether the change that was asked for may have been made all the same, or may yet be made.
    pub fn is_unsettled(&self) -> bool {
        self.0.unsettled
    }

    /// Marks the refusal of a request for which a resource is used up. Nothing failed, and any number of requests may be refused
    /// in the same way, so the log has a bounded number of lines about them.
    pub fn at_limit(mut self) -> Self {
        self.0.at_limit = true;
        self
    }

    /// Whether the request was refused because a resource is used up.
    pub fn is_at_limit(&self) -> bool {
        self.0.at_limit
    }

    /// Asks the caller to wait for a time within the range, in whole seconds. Callers that are refused one after another are given
    /// times that are spread evenly, so that they do not return at once.
    pub fn retry_within(mut self, seconds: RangeInclusive<u64>) -> Self {
        self.0.retry = Some(spread(REFUSALS.fetch_add(1, Ordering::Relaxed), &seconds));
        self
    }

    /// The cause, if it is of this type.
    pub fn source_as<T: StdError + 'static>(&self) -> Option<&T> {
        self.0.source.as_deref()?.downcast_ref()
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The field or parameter that the error is about, if it is about one.
    pub fn field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }

    /// The version of the stored content, if the error is about it.
    pub fn version(&self) -> Option<&Version> {
        self.0.stored.as_ref()
    }

    /// The size of the stored content in bytes, if the error is about it.
    pub fn size(&self) -> Option<u64> {
        self.0.size
    }

    /// What the caller may read: the documented text of the kind, then what exactly was wrong.
    pub fn public_details(&self) -> Cow<'static, str> {
        let documented = self.kind().row().details;
        match (self.field(), &self.0.detail) {
            (None, None) => Cow::Borrowed(documented),
            (None, Some(detail)) => Cow::Owned(format!("{documented}: {detail}")),
            (Some(field), Some(detail)) => Cow::Owned(format!("{documented}: {field}: {detail}")),
            (Some(field), None) => Cow::Owned(format!("{documented}: {field}")),
        }
    }

    /// How long the caller should wait before the same request may succeed; `None` where waiting does not help.
    pub fn retry_after(&self) -> Option<Duration> {
        let row = self.kind().row();
        (row.retriable && matches!(row.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE))
            .then(|| self.0.retry.unwrap_or(RETRY_AFTER))
    }

    /// What is wrong, for an operator: the cause, or the public text of an error without a cause.
    pub fn for_operator(&self) -> String {
        self.log_source().unwrap_or_else(|| self.public_details().to_string())
    }

    /// The cause, for the log alone, with the causes of the cause.
    pub fn log_source(&self) -> Option<String> {
        let mut link: &dyn StdError = self.0.source.as_deref()?;
        let mut text = link.to_string();
        while let Some(next) = link.source() {
            let cause = next.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
            link = next;
        }
        Some(text)
    }

    /// The gRPC encoding: code, public text and `google.rpc` details.
    pub fn to_status(&self) -> tonic::Status {
        let row = self.kind().row();
        let stored = self.version().into_iter();
        let metadata = stored.flat_map(|stored| [("etag", &stored.etag), ("sha256", &stored.sha256)]);
        let metadata = metadata.map(|(name, value)| (name.to_owned(), value.clone()));
        let metadata = metadata.chain(self.size().map(|size| ("size".to_owned(), size.to_string())));
        let mut details = ErrorDetails::with_error_info(row.reason, DOMAIN, metadata.collect::<HashMap<_, _>>());
        if let (Some(field), Some(detail)) = (self.field(), &self.0.detail) {
            details.add_bad_request_violation(field, detail.as_ref());
        }
        if let Some(delay) = self.retry_after() {
            details.set_retry_info(Some(delay));
        }
        tonic::Status::with_error_details(row.code, self.public_details(), details)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.public_details())?;
        match self.log_source() {
            Some(source) => write!(f, " ({source})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_begin_with_the_documented_text_and_name_the_field() {
        let error = Error::invalid_field("client_id", "must be an integer");
        assert_eq!(error.public_details(), "Validation error: client_id: must be an integer");
        assert_eq!(Error::new(Kind::Invalid).public_details(), "Validation error");
    }

    #[test]
    fn the_cause_reaches_the_log_and_never_the_caller() {
        let error = Error::internal(std::io::Error::other("disk on fire at /secret/path"));
        assert_eq!(error.public_details(), "An internal server error occurred");
        assert!(!format!("{:?}", error.to_status()).contains("secret"));
        assert!(error.to_string().contains("disk on fire"));
    }

    #[test]
    fn callers_that_are_refused_one_after_another_are_spread_over_the_time() {
        let times: Vec<_> = (0..31).map(|number| spread(number, &(30..=60)).as_secs()).collect();
        assert!(times.iter().all(|time| (30..=60).contains(time)), "{times:?}");
        assert!((0..31).all(|number| spread(number, &(1..=1)).as_secs() == 1));
        let distinct: std::collections::HashSet<_> = times.iter().collect();
        assert!(distinct.len() >= 20, "{times:?}");
        let error = Error::new(Kind::StorageUnavailable).retry_within(30..=60);
        let told = error.retry_after();
        assert_eq!(error.to_status().get_error_details().retry_info().expect("retry info").retry_delay, told);
    }

    #[test]
    fn a_status_carries_reason_field_and_retry() {
        let details = Error::invalid_field("client_id", "must be positive").to_status().get_error_details();
        assert_eq!(details.error_info().expect("error info").reason, "INVALID_REQUEST");
        assert_eq!(details.error_info().expect("error info").domain, DOMAIN);
        assert_eq!(details.bad_request().expect("bad request").field_violations[0].field, "client_id");
        let details = Error::new(Kind::Overloaded).to_status().get_error_details();
        assert_eq!(details.retry_info().expect("retry info").retry_delay, Some(RETRY_AFTER));
    }
}
