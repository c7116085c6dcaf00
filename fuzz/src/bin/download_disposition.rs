//! The `Content-Disposition` of a download: the name of the file.
#![no_main]

libfuzzer_sys::fuzz_target!(|name: &str| attachd::fuzzing::rest::disposition(name));
