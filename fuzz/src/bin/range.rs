//! `Range`: the size of the content, a line feed, the value of the header.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((size, value)) = attachd_fuzz::two(input) else { return };
    let Ok(size) = size.parse() else { return };
    attachd::fuzzing::rest::range(value, size);
});
