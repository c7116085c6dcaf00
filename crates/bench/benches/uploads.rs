//! `cargo bench -p attachd-bench`: what uploads cost. README.md says how it is run.

use std::path::Path;

fn main() -> attachd_bench::Result {
    attachd_bench::run(Path::new(env!("CARGO_TARGET_TMPDIR")))
}
