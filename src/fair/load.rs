//! How much a queue has to do at a moment.

/// What waits in a queue, and what has left it and is not done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// How many wait.
    pub waiting: usize,
    /// How many are at work.
    pub active: usize,
}
