//! HTTP/2 frames: how often all of it comes, how many KiB were sent to the client before, after how many milliseconds it comes
//! (a byte each), then [`attachd_fuzz::pieces`].
#![no_main]

use std::time::Duration;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some(([times, sent, pause], input)) = input.split_first_chunk() else { return };
    let pause = Duration::from_millis((*pause).into());
    attachd::fuzzing::server::governor(&attachd_fuzz::pieces(input), (*times).into(), usize::from(*sent) << 10, pause);
});
