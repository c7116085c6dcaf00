//! The generated code of `proto/`. The messages are the wire's; what they mean is decided in `rpc`.

#![allow(missing_docs, clippy::pedantic, reason = "generated code")]

tonic::include_proto!("attachments.v2");

/// The compiled descriptors of `proto/` with their comments, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The path template of the upload over REST, for the benchmarks.
pub const UPLOAD_ROUTE: &str = crate::operation::UPLOAD_ATTACHMENT.template;
