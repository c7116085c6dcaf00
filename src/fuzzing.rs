//! What the fuzz targets of `fuzz/` call. It is compiled in only with the feature `fuzzing`. The targets lie in `fuzz/inside`,
//! and each is a module of the module that it tries, so that it reaches what is private there.

pub use crate::auth::fuzzing as auth;
pub use crate::reads::fuzzing as reads;
pub use crate::rest::fuzzing as rest;
pub use crate::rpc::fuzzing as rpc;
pub use crate::server::fuzzing as server;
pub use crate::store::fuzzing as store;

#[cfg(not(debug_assertions))]
compile_error!("the feature `fuzzing` is for tests and has no place in a release");
