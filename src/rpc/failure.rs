//! How an error gets from an operation to the edge.

use std::sync::{Arc, Mutex, PoisonError};

use tonic::Status;

use crate::error::Error;

/// The error that a call ended with, on its way to the edge past tonic, which keeps of it what a caller may know. It goes along
/// with the request.
#[derive(Clone, Debug, Default)]
pub struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    /// Takes the error out, if there is one.
    pub fn take(&self) -> Option<Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Leaves an error, and returns what tonic is to answer.
    pub fn leave(&self, error: Error) -> Status {
        let status = error.to_status();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        status
    }
}
