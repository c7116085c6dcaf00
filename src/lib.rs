//! attachd takes file attachments over REST and gRPC, checks who may write what, and streams the bytes into whichever
//! storage backend is configured. The modules stand in the order in which an upload passes through them; ARCHITECTURE.md
//! walks through it.

pub mod cli;
pub mod config;
pub mod server;

mod origin;
mod tls;

mod admin;
mod edge;
mod rest;

mod envelope;

mod rpc;

mod request;

mod audit;
mod auth;
mod reads;
mod rights;
mod upload;

mod attachment;
mod budget;
mod operation;
mod store;

mod error;
mod fair;
mod pace;
mod places;
mod rate;
mod spelling;
mod telemetry;
mod throttle;
mod units;

pub mod pb;

#[cfg(feature = "fuzzing")]
pub mod fuzzing;
