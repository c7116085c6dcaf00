//! `Repr-Digest` and `Content-Digest`: lines of the field, a blank line, the body.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let at = input.windows(2).position(|two| two == b"\n\n").unwrap_or(input.len());
    let lines: Vec<&[u8]> = input[..at].split(|byte| *byte == b'\n').collect();
    attachd::fuzzing::rest::digests(&lines, input.get(at + 2..).unwrap_or_default());
});
