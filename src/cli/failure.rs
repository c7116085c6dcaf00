//! How a command fails.

/// Why a command failed, and how the process ends for it.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What is written to standard error; `None` if nobody wants to read it.
    pub why: Option<String>,
}

impl Failure {
    /// The command or the configuration is wrong.
    pub fn usage(why: impl ToString) -> Failure {
        Failure { code: 2, why: Some(why.to_string()) }
    }

    /// Something failed on the way.
    pub fn running(why: impl ToString) -> Failure {
        Failure { code: 1, why: Some(why.to_string()) }
    }

    /// The reader of standard output closed the pipe before the work was done.
    pub fn unread() -> Failure {
        Failure { code: 1, why: None }
    }
}
