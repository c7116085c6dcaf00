//! Who goes next if clients wait for the same thing: a client that asks for much must not starve one that asks for little.
//! [`Queue`] holds what waits, [`Semaphore`] hands out permits in the order of such a queue, [`Turns`] are taken at the
//! processors, and a [`Tally`] counts what each client has. This module does not know what is waited for.

pub use load::Load;
pub use queue::Queue;
pub use semaphore::{Permit, Semaphore};
pub use tally::Tally;
pub use turns::{Turn, Turns};

mod load;
mod queue;
mod semaphore;
mod tally;
mod turns;
