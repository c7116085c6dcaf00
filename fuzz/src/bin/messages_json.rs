//! JSON bodies: as JSON, and as messages of every type.
#![no_main]

use std::sync::LazyLock;

use attachd::fuzzing::rest::transcode::{Service, json, message};

static SERVICES: LazyLock<[Service; 2]> = LazyLock::new(|| {
    let library = include_bytes!(concat!(env!("OUT_DIR"), "/library.bin"));
    [Service::own(), Service::new(library, "library.v1.LibraryService")]
});

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    json(text);
    SERVICES.iter().for_each(|service| message(service, text));
});
