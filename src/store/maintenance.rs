//! What is done to a whole storage, beside running uploads: looking for garbage, and reading all back.

mod finding;
mod gc;
mod tombstone;
mod verify;
mod walk;

pub use finding::{Fate, Finding};
pub use gc::Gc;
pub use verify::Verify;
pub use walk::{End, Walk};
