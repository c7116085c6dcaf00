//! The values of labels, other than those of requests: closed lists, so that nothing that a caller chose can become one.

use super::words::label;
use crate::error::Kind;

label! {
    /// A kind of storage operation.
    Operation {
        /// A look at an object.
        Stat = "stat",
        /// The reading of an object, or of a part of it.
        Read = "read",
        /// The next page of a listing.
        List = "list",
        /// A write to an object that is not closed yet.
        Write = "write",
        /// The closing of an object, which makes it visible.
        Close = "close",
        /// The taking back of an object that is not closed.
        Abort = "abort",
        /// A deletion.
        Delete = "delete",
        /// The replacement of a record, on a local file system: its lock, its file, its directories.
        Put = "put",
        /// The commit of a content, on a local file system: its end, its fsync, and the replacement of the record.
        Commit = "commit",
    }
}

label! {
    /// How a storage operation ended.
    Outcome {
        /// It was done.
        Ok = "ok",
        /// There is no such object.
        NotFound = "not_found",
        /// A condition did not hold.
        Condition = "condition",
        /// The storage asks to slow down.
        RateLimited = "rate_limited",
        /// The storage does not permit it.
        Denied = "denied",
        /// It failed and may succeed later.
        Unavailable = "unavailable",
        /// It failed.
        Failed = "failed",
        /// Nobody waited for its end, as when its time had passed.
        Abandoned = "abandoned",
    }
}

impl Outcome {
    /// What became of an operation whose failure is one of ours.
    pub fn of(failure: Option<Kind>) -> Outcome {
        match failure {
            None => Outcome::Ok,
            Some(Kind::StorageUnavailable) => Outcome::Unavailable,
            Some(Kind::Internal) => Outcome::Failed,
            // What was asked for is not to be, and the storage has done its part.
            Some(_) => Outcome::Condition,
        }
    }
}

label! {
    /// A kind of log line.
    LogLine {
        /// A line of the audit trail.
        Audit = "audit",
        /// The line of a request.
        Request = "request",
        /// A line of either for a request that was refused, where there were too many of the kind.
        Refusal = "refusal",
        /// Any other line.
        Other = "other",
    }
}

label! {
    /// A limit, by its configuration key.
    Limit {
        /// How much of the storage uploads leave free.
        MinFree = "storage.min_free",
        /// How many uploads may be under way.
        MaxUploads = "limits.max_uploads",
        /// How many downloads may be under way.
        MaxDownloads = "limits.max_downloads",
        /// How many uploads may wait for memory.
        MaxWaitingUploads = "limits.max_waiting_uploads",
        /// How many refused requests are drained at once.
        MaxDrains = "limits.max_drains",
        /// How many refusals a second are answered at once.
        RefusalsPerSecond = "limits.refusals_per_second",
        /// How many bytes a second of refused requests are drained.
        DrainBytesPerSecond = "limits.drain_bytes_per_second",
        /// How many uploads a client may have under way.
        ClientUploads = "limits.per_client.max_uploads",
        /// How many requests a second a client may make.
        ClientRequests = "limits.per_client.requests_per_second",
        /// How many bytes a second a client may send and receive.
        ClientBytes = "limits.per_client.bytes_per_second",
    }
}

label! {
    /// A port.
    Port {
        /// The REST port.
        Rest = "rest",
        /// The gRPC port.
        Grpc = "grpc",
        /// The admin port.
        Admin = "admin",
    }
}

label! {
    /// Why the head of a request could not be read.
    HeadFault {
        /// The method is no token.
        Method = "method",
        /// The target is no URI.
        Target = "target",
        /// The version is unknown.
        Version = "version",
        /// A header line has no colon, a space before it, or a character that is not permitted.
        Header = "header",
        /// Content-Length is no number, or several.
        Length = "length",
        /// Transfer-Encoding is not chunked, or the version does not know it.
        Encoding = "encoding",
        /// The head is too long, or has too many headers.
        Large = "large",
        /// The head was begun and not completed in time.
        Slow = "slow",
        /// The client broke the rules of HTTP/2.
        Http2 = "http2",
    }
}

impl Port {
    /// What can be wrong with heads here: gRPC knows HTTP/2 alone.
    pub(super) fn head_faults(self) -> impl Iterator<Item = HeadFault> {
        HeadFault::ALL.into_iter().filter(move |fault| self != Port::Grpc || *fault == HeadFault::Http2)
    }
}

label! {
    /// What a client did, or did not do, whose connection was ended.
    Eviction {
        /// It had asked for nothing.
        Silent = "silent",
        /// Its TLS handshake was not complete.
        Handshaking = "handshaking",
        /// It had no request under way.
        Idle = "idle",
        /// It took nothing of what was sent to it.
        Stalled = "stalled",
        /// It sent too many frames of HTTP/2 for what they carried.
        Flooding = "flooding",
    }
}

label! {
    /// Why a connection was closed without having served anything.
    Rejection {
        /// The TLS handshake failed.
        Tls = "tls",
        /// It said nothing in time.
        Silent = "silent",
        /// Its address had as many connections as it may have.
        Address = "address",
    }
}
