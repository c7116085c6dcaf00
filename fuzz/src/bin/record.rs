//! Records: a line of JSON, and the content behind it.
#![no_main]

libfuzzer_sys::fuzz_target!(|object: &[u8]| attachd::fuzzing::store::record(object));
