//! The table of errors: what each kind of failure is over HTTP and over gRPC, and its texts for the caller.

use http::StatusCode;
use tonic::Code;

/// What went wrong, as a caller can act on it. Adding a variant makes [`Kind::row`] fail to compile until it has an
/// encoding for both protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No token was sent where one is required.
    TokenMissing,
    /// A token was sent and it does not hold: malformed, wrong key, wrong issuer, wrong audience.
    TokenInvalid,
    /// The token was good once.
    TokenExpired,
    /// The keys that the token must be checked with are not available.
    KeysUnavailable,
    /// The caller is known and may not do this.
    Forbidden,
    /// The request breaks a documented rule.
    Invalid,
    /// The request was cut short: no closing boundary, no finish message.
    Incomplete,
    /// The bytes that arrived have another digest than the caller declared.
    DigestMismatch,
    /// Another number of bytes arrived than the caller declared.
    SizeMismatch,
    /// There is no such route, or no such attachment for this caller.
    NotFound,
    /// The route exists, with other methods than this one.
    MethodNotAllowed,
    /// The attachment already has content and the caller asked for create-only.
    AlreadyExists,
    /// The attachment is in another state than the operation begins with.
    Conflict,
    /// The stored content is not what the caller expects to replace.
    PreconditionFailed,
    /// The range that is asked for is not within the content.
    RangeNotSatisfiable,
    /// A configured size limit was passed.
    TooLarge,
    /// The request is in another format than the port takes.
    UnsupportedMediaType,
    /// A message is compressed in a way that is not supported.
    UnsupportedCompression,
    /// The request line and the headers are longer, or more, than permitted.
    HeadTooLarge,
    /// The caller sent nothing for too long, or took too long altogether.
    ClientTooSlow,
    /// The caller sends more requests than it may.
    RateLimited,
    /// This replica has no memory left for one more upload.
    Overloaded,
    /// This replica is shutting down.
    Draining,
    /// The storage backend did not answer as it should, and may do so later.
    StorageUnavailable,
    /// A defect of ours, or a storage failure that trying again will not mend.
    Internal,
}

/// One row of the error table: how a [`Kind`] looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The gRPC status code.
    pub code: Code,
    /// The HTTP status.
    pub status: StatusCode,
    /// `google.rpc.ErrorInfo.reason`: stable, for programs.
    pub reason: &'static str,
    /// The envelope's `message`: fixed for the HTTP status.
    pub message: &'static str,
    /// The text with which the envelope's `details` begins.
    pub details: &'static str,
    /// Whether the same request may succeed later without a change.
    pub retriable: bool,
}

impl Kind {
    /// Every kind, for tests and for the documents that list them.
    pub const ALL: [Kind; 25] = [
        Kind::TokenMissing,
        Kind::TokenInvalid,
        Kind::TokenExpired,
        Kind::KeysUnavailable,
        Kind::Forbidden,
        Kind::Invalid,
        Kind::Incomplete,
        Kind::DigestMismatch,
        Kind::SizeMismatch,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::AlreadyExists,
        Kind::Conflict,
        Kind::PreconditionFailed,
        Kind::RangeNotSatisfiable,
        Kind::TooLarge,
        Kind::UnsupportedMediaType,
        Kind::UnsupportedCompression,
        Kind::HeadTooLarge,
        Kind::ClientTooSlow,
        Kind::RateLimited,
        Kind::Overloaded,
        Kind::Draining,
        Kind::StorageUnavailable,
        Kind::Internal,
    ];

    /// The table. The only place where a kind meets a status.
    pub const fn row(self) -> Row {
        use StatusCode as Http;
        const AUTH: &str = "Authentication failed";
        const BAD: &str = "Invalid request";
        const BUSY: &str = "Service unavailable";
        const PRECONDITION: &str = "Precondition failed";
        const NOT_MET: &str = "A precondition of the request is not met";
        const MEDIA: &str = "Unsupported media type";
        let (code, status, reason, message, details, retriable) = match self {
            Kind::TokenMissing => {
                (Code::Unauthenticated, Http::UNAUTHORIZED, "TOKEN_MISSING", AUTH, "JWT token not found", false)
            }
            Kind::TokenInvalid => {
                (Code::Unauthenticated, Http::UNAUTHORIZED, "TOKEN_INVALID", AUTH, "JWT token invalid", false)
            }
            Kind::TokenExpired => {
                (Code::Unauthenticated, Http::UNAUTHORIZED, "TOKEN_EXPIRED", AUTH, "JWT token expired", false)
            }
            Kind::KeysUnavailable => (
                Code::Unavailable,
                Http::SERVICE_UNAVAILABLE,
                "KEYS_UNAVAILABLE",
                BUSY,
                "The token cannot be checked now, try again later",
                true,
            ),
            Kind::Forbidden => (
                Code::PermissionDenied,
                Http::FORBIDDEN,
                "FORBIDDEN",
                "Access denied",
                "Insufficient permissions",
                false,
            ),
            Kind::Invalid => {
                (Code::InvalidArgument, Http::BAD_REQUEST, "INVALID_REQUEST", BAD, "Validation error", false)
            }
            Kind::Incomplete => (Code::Aborted, Http::BAD_REQUEST, "INCOMPLETE_UPLOAD", BAD, "Validation error", true),
            Kind::DigestMismatch => {
                (Code::InvalidArgument, Http::BAD_REQUEST, "DIGEST_MISMATCH", BAD, "Validation error", false)
            }
            Kind::SizeMismatch => {
                (Code::InvalidArgument, Http::BAD_REQUEST, "SIZE_MISMATCH", BAD, "Validation error", false)
            }
            Kind::NotFound => (
                Code::NotFound,
                Http::NOT_FOUND,
                "NOT_FOUND",
                "Not found",
                "The requested resource was not found",
                false,
            ),
            Kind::MethodNotAllowed => (
                Code::Unimplemented,
                Http::METHOD_NOT_ALLOWED,
                "METHOD_NOT_ALLOWED",
                "Method not allowed",
                "The resource does not support this method",
                false,
            ),
            Kind::AlreadyExists => {
                (Code::AlreadyExists, Http::PRECONDITION_FAILED, "ALREADY_EXISTS", PRECONDITION, NOT_MET, false)
            }
            Kind::Conflict => (
                Code::AlreadyExists,
                Http::CONFLICT,
                "CONFLICT",
                "Conflict",
                "The attachment is in another state than the request assumes",
                false,
            ),
            Kind::PreconditionFailed => (
                Code::FailedPrecondition,
                Http::PRECONDITION_FAILED,
                "PRECONDITION_FAILED",
                PRECONDITION,
                NOT_MET,
                false,
            ),
            Kind::RangeNotSatisfiable => (
                Code::OutOfRange,
                Http::RANGE_NOT_SATISFIABLE,
                "RANGE_NOT_SATISFIABLE",
                "Range not satisfiable",
                "The range is not within the content",
                false,
            ),
            Kind::TooLarge => (
                Code::ResourceExhausted,
                Http::PAYLOAD_TOO_LARGE,
                "TOO_LARGE",
                "Payload too large",
                "The upload is larger than permitted",
                false,
            ),
            Kind::UnsupportedMediaType => (
                Code::InvalidArgument,
                Http::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_MEDIA_TYPE",
                MEDIA,
                "The format of the request is not supported",
                false,
            ),
            Kind::UnsupportedCompression => (
                Code::Unimplemented,
                Http::UNSUPPORTED_MEDIA_TYPE,
                "UNSUPPORTED_COMPRESSION",
                MEDIA,
                "The compression of the request is not supported",
                false,
            ),
            Kind::HeadTooLarge => (
                Code::ResourceExhausted,
                Http::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "HEAD_TOO_LARGE",
                "Request header fields too large",
                "The head of the request is larger than permitted",
                false,
            ),
            Kind::ClientTooSlow => (
                Code::DeadlineExceeded,
                Http::REQUEST_TIMEOUT,
                "CLIENT_TOO_SLOW",
                "Request timeout",
                "The request did not arrive in time",
                true,
            ),
            Kind::RateLimited => (
                Code::ResourceExhausted,
                Http::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                "Too many requests",
                "The rate limit was exceeded",
                true,
            ),
            Kind::Overloaded => (
                Code::Unavailable,
                Http::SERVICE_UNAVAILABLE,
                "OVERLOADED",
                BUSY,
                "The service is at its limit, try again later",
                true,
            ),
            Kind::Draining => (
                Code::Unavailable,
                Http::SERVICE_UNAVAILABLE,
                "DRAINING",
                BUSY,
                "The service is shutting down, try again",
                true,
            ),
            Kind::StorageUnavailable => (
                Code::Unavailable,
                Http::SERVICE_UNAVAILABLE,
                "STORAGE_UNAVAILABLE",
                BUSY,
                "The storage is not available, try again later",
                true,
            ),
            Kind::Internal => (
                Code::Internal,
                Http::INTERNAL_SERVER_ERROR,
                "INTERNAL",
                "Internal server error",
                "An internal server error occurred",
                false,
            ),
        };
        Row { code, status, reason, message, details, retriable }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_kind_has_its_own_reason_but_for_no_kind_at_all() {
        let reasons: HashSet<_> = Kind::ALL.iter().map(|kind| kind.row().reason).collect();
        assert_eq!(reasons.len(), Kind::ALL.len());
    }

    #[test]
    fn one_http_status_has_one_message() {
        for a in Kind::ALL {
            for b in Kind::ALL {
                if a.row().status == b.row().status {
                    assert_eq!(a.row().message, b.row().message, "{a:?} and {b:?}");
                }
            }
        }
    }
}
