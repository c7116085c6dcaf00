//! What is known of a request beside its message, in one value. A port hands a request to its edge with an [`Arrival`]; the edge
//! makes the [`RequestContext`] of it, which goes along to the end. This module must not know what an operation does.

use http::Extensions;

use crate::audit::Entry;
use crate::auth::{Peer, Principal};
use crate::error::{Error, Kind, Result};
use crate::operation::Rpc;
use crate::origin::Origin;
use crate::telemetry::{Method, Trail};

/// What a port knows of a request before its edge has looked at it.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Where the request comes from.
    pub origin: Origin,
    /// Who is at the other end of the connection, as far as the connection proves it.
    pub peer: Peer,
    /// Why the head cannot be read, if it cannot. The request is answered with this, and nothing else of it is looked at.
    pub unreadable: Option<Unreadable>,
}

/// A head that cannot be read.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable {
    /// The kind of failure.
    pub kind: Kind,
    /// What was wrong, in words for the client.
    pub why: &'static str,
}

/// What is known of a request that has passed its edge.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// Who is at the other end of the connection, as far as the connection proves it.
    pub peer: Peer,
    /// What the log, the metrics and the traces learn of the request. It has the id.
    pub trail: Trail,
    /// The line of the audit trail. It has where the request comes from.
    pub audit: Entry,
}

impl RequestContext {
    /// The context of a request that arrived so.
    pub fn new(arrival: Arrival, trail: &Trail) -> RequestContext {
        let audit = Entry::new(trail.protocol(), trail.request_id().clone(), arrival.origin);
        RequestContext { peer: arrival.peer, trail: trail.clone(), audit }
    }

    /// The request asks for an operation.
    pub fn asks_for(&self, rpc: Rpc) {
        self.trail.asks_for(Method::Rpc(rpc));
        self.audit.asks_for(rpc);
    }
}

/// A request whose caller is known.
#[derive(Clone, Debug)]
pub struct Call {
    /// Who is calling.
    pub caller: Principal,
    /// What else is known of the request.
    pub request: RequestContext,
}

/// Takes what was put beside a request, on its way through a library that knows nothing of it. No port and no edge hands on a
/// request without it, so nothing else needs a word for its absence.
///
/// # Errors
/// [`Kind::Internal`].
pub fn take<T: Clone + Send + Sync + 'static>(extensions: &mut Extensions) -> Result<T> {
    extensions.remove().ok_or_else(|| Error::internal(format!("a request without its {}", std::any::type_name::<T>())))
}
