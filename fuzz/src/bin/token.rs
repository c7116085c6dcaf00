//! Tokens: the header and the claims as JSON, with a line feed between them, which the target signs. The whole input is tried as
//! the value of a header, too.
#![no_main]

use std::sync::LazyLock;

use attachd::fuzzing::auth::{Bench, header, json, signed};

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("attachd-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder for the secret can be made");
    Bench::new(&folder)
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    header(&BENCH, input);
    let at = input.iter().position(|byte| *byte == b'\n').unwrap_or(input.len());
    let (header, claims) = (&input[..at], input.get(at + 1..).unwrap_or_default());
    json(claims);
    // Where the token is changed follows from the input, and differs from one to the next.
    let change = input.iter().fold(input.len(), |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    signed(&BENCH, header, claims, change);
});
