//! What the edge of the gRPC port hands over with a request, past tonic, in one value. Only the edge makes it, for every request
//! that it lets pass.

use tonic::Extensions;

use super::failure::Failure;
use super::frames::Unread;
use crate::error::{Error, Result};
use crate::request::{self, Call};

/// What goes along with a request.
#[derive(Clone, Debug)]
pub struct Passed {
    failure: Failure,
    /// The call, if it is one of those that need a caller.
    pub call: Option<Call>,
    /// The body, if it is not for tonic to read.
    pub body: Option<Unread>,
}

impl Passed {
    /// A request that leaves the error that it ends with in `failure`.
    pub fn new(failure: Failure) -> Passed {
        Passed { failure, call: None, body: None }
    }

    /// Takes the call and the body out of a request of an operation.
    pub(super) fn taken(extensions: &mut Extensions) -> Result<(Call, Option<Unread>)> {
        let Passed { call, body, .. } = request::take(extensions)?;
        Ok((call.ok_or_else(|| Error::internal("a call without a caller"))?, body))
    }
}

impl Failure {
    /// Where a request leaves its error. Where no edge looks for it, as on the admin port, it is lost.
    pub fn of(extensions: &Extensions) -> Failure {
        extensions.get::<Passed>().map(|passed| passed.failure.clone()).unwrap_or_default()
    }
}
