//! Compiles the proto that has every kind of field.

use std::path::Path;

fn main() {
    let root = Path::new("..");
    let (proto, includes) =
        (root.join("tests/transcode/library.proto"), ["tests/transcode", "proto"].map(|folder| root.join(folder)));
    let mut compiler = protox::Compiler::new(includes).expect("the folders are there");
    compiler.include_imports(true).open_file("library.proto").expect("the proto compiles");
    let out = std::env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("library.bin"), compiler.encode_file_descriptor_set())
        .expect("it can be written");
    println!("cargo::rerun-if-changed={}", proto.display());
}
