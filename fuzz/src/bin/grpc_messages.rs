//! Single messages of gRPC, as protobuf.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| attachd::fuzzing::rpc::messages(bytes));
