//! The operations, in one table that is made at build time from the annotations of the proto. Routes, metrics, log, audit trail
//! and rights read it, so a new RPC is written down once. This module does not know how an operation is done.

use crate::auth::Scope;

/// What the proto says of an RPC.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The name of the RPC, also in the log, the metrics and the traces.
    pub name: &'static str,
    /// The path of the RPC over gRPC.
    pub path: &'static str,
    /// The name of the operation in the audit trail.
    pub action: &'static str,
    /// The scope that the caller needs.
    pub scope: Scope,
    /// Whether the request is a stream, which brings content.
    pub takes_content: bool,
    /// Whether the reply is a stream, which brings content.
    pub gives_content: bool,
    /// The REST route, if there is one.
    pub route: Option<&'static Route>,
}

/// A REST route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path template. Its variables are fields of the request.
    pub template: &'static str,
}

include!(concat!(env!("OUT_DIR"), "/operations.rs"));

pub(crate) use {names_over_grpc_only, names_over_rest};
