//! The body of an upload over gRPC: `=` or `!` (the call names a compression), then [`attachd_fuzz::pieces`].
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((kind, input)) = input.split_first() else { return };
    attachd::fuzzing::rpc::frames(&attachd_fuzz::pieces(input), *kind == b'!');
});
