//! `If-Match` and `If-None-Match`: two lines of the field.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, second)) = attachd_fuzz::two(input) else { return };
    attachd::fuzzing::rest::conditions(first, second);
});
