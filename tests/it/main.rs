//! The suite: the real program, through real sockets. A file a capability; test names are sentences.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on shall say so and end"
)]
#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the numbers of the tests are small")]

mod harness;

mod audit;
mod certificates;
mod chunks;
mod cli;
mod clients;
mod conditions;
mod cors;
mod crowd;
mod culprit;
mod delete;
mod descriptors;
mod digests;
mod download;
mod early;
mod ending;
mod examples;
mod flood;
mod framing;
mod gc;
mod grpc;
mod grpc_cut;
mod grpc_edge;
mod grpc_limits;
mod grpc_wire;
mod heads;
mod health;
mod house;
mod http2;
mod idle;
mod inspect;
mod keys;
mod layout;
mod limits;
mod links;
mod listing;
mod load;
mod log;
mod memory;
mod metrics;
mod multipart;
mod openapi;
mod operations;
mod order;
mod outcome;
mod pace;
mod page;
mod parity;
mod per_client;
mod query;
mod race;
mod reference;
mod reflection;
mod register;
mod rest;
mod roots;
mod security;
mod serve;
mod storage;
mod supply;
mod tls;
mod tokens;
mod traces;
mod transcode;
mod two_processes;
mod undelete;
mod verify;
