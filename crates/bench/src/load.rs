//! The clients. They share the machine with the server, so they are made to cost little: one block of noise is sent again
//! and again, and nothing is copied or encoded while the clock runs that could have been before.

mod grpc;
mod hostile;
mod http1;
mod overload;
mod paced;
mod read;
mod share;
mod upload;

use crate::cell::{Cell, Load};
use crate::contestant::{Contestant, Door};
use crate::error::Result;
use crate::server::Server;
use upload::asynchronous;
pub use upload::{IDS, Ordeal, Outcome, Stage};

/// Puts a server under a load. Every upload must be accepted, and every read must bring all that it asks for.
pub fn drive(cell: &Cell, contestant: &Contestant, server: &Server) -> Result<Outcome> {
    let mut outcome = match (cell.load, contestant.door) {
        (Load::Bulk { uploads, size }, Door::Copy) => {
            let begun = std::time::Instant::now();
            server.copy(uploads, size)?;
            Outcome {
                time: begun.elapsed(),
                uploads: uploads as u64,
                bytes: size * uploads as u64,
                ..Outcome::default()
            }
        }
        (Load::Idle(time), _) => {
            std::thread::sleep(time);
            Outcome { time: server.ready, ..Outcome::default() }
        }
        (Load::Overload(overload), door) => overload::drive(overload, door, server)?,
        (Load::Hostile(hostile), _) => hostile::drive(hostile, server)?,
        (Load::Read(load), Door::Grpc { .. }) => asynchronous(grpc::read(load, server))?,
        (Load::Read(load), door) => read::drive(load, door, server)?,
        (load, Door::Grpc { message }) => asynchronous(grpc::drive(load, message, server))?,
        (Load::Paced { uploads, pieces, piece, every }, door) => {
            asynchronous(paced::drive(uploads, pieces, piece, every, door, server))?
        }
        (Load::Share(share), door) => share::drive(share, door, server)?,
        (Load::Bulk { uploads, size }, door) => http1::bulk(uploads, size, door, server)?,
        (Load::Small { connections, size, time }, door) => http1::small(connections, size, time, door, server)?,
    };
    outcome.latencies.sort_unstable();
    Ok(outcome)
}
