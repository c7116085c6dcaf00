//! Dictionaries of HTTP: two lines of a field.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((first, second)) = attachd_fuzz::two(input) else { return };
    attachd::fuzzing::rest::dictionary(first, second);
});
