//! Standard output and standard error, for every command. A reader that closes its end of a pipe wants no more text, which
//! is no failure; any other reason why standard output cannot be written is one.

use std::io::{self, ErrorKind, Write};

use super::failure::Failure;

/// Whether standard output still has a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The text was written.
    Present,
    /// The reader has closed the pipe.
    Gone,
}

/// Writes a text to standard output.
///
/// # Errors
/// A [`Failure`] if it cannot be written for another reason than a closed pipe, such as a full disk.
pub fn print(text: &str) -> Result<Reader, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(Reader::Present),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(unwritable(&error)),
    }
}

/// The failure of a command whose text could not be written.
pub fn unwritable(error: &io::Error) -> Failure {
    Failure::running(format!("standard output cannot be written: {error}"))
}

/// Writes a line to standard error. If that fails there is no place left to report it; the exit code still tells.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
