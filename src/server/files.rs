//! The limit of the system for open files. It knows nothing of what the files are for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// How many files the process may have open; `None` if nothing limits them.
pub(super) fn most() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the limit as far as the process may, and returns it. The limit that a process begins with is low for the sake of
/// programs that could not handle more.
pub(super) fn raise() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return maximum;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised");
            current
        }
    }
}
