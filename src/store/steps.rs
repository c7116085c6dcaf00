//! The steps of a commit, by name. With the feature `faults` the process can be made to end itself at one of them, as if
//! the power had gone, to show what is found afterwards; without it they are only names.

/// A step that an upload has passed, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "faults", derive(serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Step {
    /// The content's writer exists, nothing is written.
    ContentOpened,
    /// A batch of the content is written.
    ContentWritten,
    /// The content is closed: whole, under its name, and no record names it.
    ContentClosed,
    /// The directories of the content are durable.
    ContentSynced,
    /// The record is written under a temporary name.
    RecordWritten,
    /// The record stands.
    RecordPut,
    /// The directories of the record are durable: the commit has come about.
    RecordSynced,
    /// The reply is about to be made.
    Replying,
    /// What the commit replaced is deleted.
    ReplacedDeleted,
}

/// Where this process ends itself, if anywhere.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    #[cfg(feature = "faults")]
    crash: Option<std::sync::Arc<super::faults::CrashPoint>>,
}

impl Steps {
    /// Ends the process at the configured step.
    #[cfg(feature = "faults")]
    pub fn new(crash: Option<super::faults::Crash>) -> Steps {
        Steps { crash: crash.map(|crash| std::sync::Arc::new(crash.into())) }
    }

    /// Says that a step was passed.
    #[cfg_attr(
        not(feature = "faults"),
        expect(clippy::unused_self, reason = "it has something to look at with `faults`")
    )]
    pub fn passed(&self, step: Step) {
        #[cfg(feature = "faults")]
        if let Some(crash) = &self.crash {
            crash.passed(step);
        }
        #[cfg(not(feature = "faults"))]
        let _ = step;
    }
}
