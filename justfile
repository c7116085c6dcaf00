# Recipes for https://just.systems. `just` lists them.

# List the recipes
[private]
default:
    @just --list --unsorted

# Build the program for development
build:
    cargo build --locked

# Run the Rust tests: no root, no network
test:
    cargo test --locked

# Run all tests: root, Debian, 10 GiB of free disk space
test-all:
    ./tests/all.sh

# Check formatting, lints and the documents
lint:
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings
    cargo clippy --locked --workspace --all-targets --features faults,fuzzing -- -D warnings
    tests/prose/check.py

# Measure uploads, compared with other servers; arguments go to the benchmark
bench *arguments:
    cargo bench --package attachd-bench -- {{ arguments }}

# Regenerate the references, check the documents, and build the book if mdbook is installed
docs:
    cargo build --locked
    cargo run --locked -- reference configuration > docs/configuration.md
    cargo run --locked -- reference metrics > docs/metrics.md
    tests/prose/check.py
    if command -v mdbook >/dev/null; then mdbook build; fi

# Start a development server
dev:
    cargo run --release -- dev
