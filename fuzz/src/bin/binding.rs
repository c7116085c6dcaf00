//! Requests over REST, to attachd's own service and to one that has every kind of field.
#![no_main]

use std::sync::LazyLock;

use attachd::fuzzing::rest::transcode::{Service, bind};

static SERVICES: LazyLock<[Service; 2]> = LazyLock::new(|| {
    let library = include_bytes!(concat!(env!("OUT_DIR"), "/library.bin"));
    [Service::own(), Service::new(library, "library.v1.LibraryService")]
});

libfuzzer_sys::fuzz_target!(|request: &[u8]| SERVICES.iter().for_each(|service| bind(service, request)));
