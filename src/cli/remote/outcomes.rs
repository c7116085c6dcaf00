//! How a command over several attachments ends: each failure is reported when it happens, and the worst decides the exit code.

use serde_json::Value;

use super::super::failure::Failure;
use super::super::out;

/// The exit codes of the requests so far.
#[derive(Debug, Default)]
pub struct Outcomes(Vec<u8>);

impl Outcomes {
    /// Prints the result of a request, if it has one, or reports its failure.
    ///
    /// # Errors
    /// A [`Failure`] if standard output cannot be written. A reader that has gone does not undo a request, nor does it keep the
    /// next ones from being sent.
    pub fn add(&mut self, outcome: Result<Option<Value>, Failure>) -> Result<(), Failure> {
        match outcome {
            Ok(result) => {
                if let Some(result) = result {
                    out::print(&format!("{result:#}\n"))?;
                }
                self.0.push(0);
            }
            Err(Failure { code, why }) => {
                if let Some(why) = why {
                    out::complain(&format!("attachd: {why}"));
                }
                self.0.push(code);
            }
        }
        Ok(())
    }

    /// Ends the command.
    ///
    /// # Errors
    /// A [`Failure`] if a request failed: with 1, unless all that failed may succeed later.
    pub fn conclude(self) -> Result<(), Failure> {
        let Outcomes(codes) = self;
        let failed = codes.iter().filter(|code| **code != 0).count();
        let code = if codes.contains(&1) { 1 } else { 3 };
        match failed {
            0 => Ok(()),
            _ if codes.len() == 1 => Err(Failure { code, why: None }),
            _ => Err(Failure { code, why: Some(format!("{failed} of {} failed", codes.len())) }),
        }
    }
}
