#!/usr/bin/env bash
# Runs every test. Installs what they need from the package registries, into tests/.env or by apt, and fails where
# something cannot be had. Its last line is the sum of all: `N passed, N failed`.
#
# --long ends the server 500 times where the short form does 60, races 1,000 rounds over each storage, sends 1 GiB to each, and
# runs each fuzz target for a minute. It also tries the build that is deployed, with link-time optimisation.
set -uo pipefail
# What builds and tests take of a disk.
gibibytes=10
# If less than this is free, what was built and is not needed any more is deleted.
scarce=6
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. tests/apt.sh
# A test that is ended from outside leaves its files, up to a gigabyte: all are below one directory, which goes with the run.
# Servers that give up root read there too.
TMPDIR=$(mktemp -d) && chmod 1777 "$TMPDIR" || exit 1
export TMPDIR
fuzz_pid=""
trap 'if [ -n "$fuzz_pid" ]; then kill "$fuzz_pid" && wait "$fuzz_pid"; fi; rm -rf "$TMPDIR"' EXIT
trap 'exit 1' INT TERM
log=$TMPDIR/log
# free PLACE: how many GiB are free there.
free() {
    df --output=avail -B1G "$1" | tail -1 | tr -d ' '
}
for place in . "$TMPDIR"; do
    if [ "$(free "$place")" -lt "$gibibytes" ]; then
        echo "all.sh: $place has $(free "$place") GiB free, and builds and tests take up to $gibibytes GiB"
        echo "0 passed, 1 failed"
        exit 1
    fi
done
broken=0
# A build cache may lie outside of the checkout.
built=${CARGO_TARGET_DIR:-target}
attachd=$built/dist/attachd
ignored=() fuzzing=(--runs 10000)
# Link-time optimisation takes ten minutes, and a short run does without it.
export CARGO_PROFILE_DIST_LTO=off CARGO_PROFILE_DIST_CODEGEN_UNITS=16
if [ "${1:-}" = --long ]; then
    unset CARGO_PROFILE_DIST_LTO CARGO_PROFILE_DIST_CODEGEN_UNITS
    export ATTACHD_TEST_KILLS=${ATTACHD_TEST_KILLS:-500} ATTACHD_TEST_LONG=1
    ignored=(--include-ignored) fuzzing=(60)
fi

# step NAME COMMAND…: runs one part of the suite, and says how long it took. A part that fails does not keep the others from
# running.
step() {
    local name=$1 begun=$SECONDS
    shift
    echo "== $name"
    if ! "$@" 2>&1 | tee -a "$log"; then
        echo "== $name: FAILED"
        broken=$((broken + 1))
    fi
    echo "== $name: $((SECONDS - begun)) s"
    # What tests have left that were ended, or whose server lived as long as they.
    rm -rf "$TMPDIR"/.tmp*
}

# The tests of faults mount a small disk, in mounts of their own, and look at system calls.
faults() {
    command -v strace >/dev/null || apt_install strace || return 1
    command -v bindfs >/dev/null || apt_install bindfs || return 1
    unshare --mount --propagation private cargo test --locked --features faults --test faults -- --nocapture
}

# Only that it works: with loads that say nothing of speed. The benchmark is a debug build, most of whose parts are there already.
benchmark() {
    command -v nginx >/dev/null || apt_install nginx-light || return 1
    cargo bench --locked --profile dev --package attachd-bench -- --attachd "$(realpath "$attachd")" --smoke --peers nginx,axum,tonic
}

# One suite over every storage, on servers that are started for it.
storage() {
    tests/storage/setup.sh || return 1
    cargo test --locked --features faults --test storage -- --nocapture --test-threads 4 "${ignored[@]}"
}

# What the fuzz targets said, which have ended.
fuzz() {
    cat "$TMPDIR/fuzz"
    return "$fuzz_status"
}

step "the documents" tests/prose/check.py
step "the check of the documents, on seeded violations" tests/prose/check.py --self-test
# Many tests wait for a time: four at once keep two processors busy.
step "the Rust suite" cargo test --locked -- --test-threads 4
step "faults, crashes and a full disk" faults
step "every storage by its servers" storage
# The fuzz targets take one processor. Nothing beside them waits for a time.
JOBS=1 tests/fuzz.sh "${fuzzing[@]}" >"$TMPDIR/fuzz" 2>&1 &
fuzz_pid=$!
# The one optimised build: what the image holds is what the benchmark and the scripts try.
step "the optimised build" cargo build --profile dist --locked --bin attachd
step "the benchmark, in small" benchmark
wait "$fuzz_pid"
fuzz_status=$? fuzz_pid=""
step "the fuzz targets" fuzz
if [ "$(free "$built")" -lt "$scarce" ]; then rm -rf "$built/debug" "$built/fuzz"; fi
step "the supply chain" tests/supply/run.sh "${attachd%/*}/deps"
step "the commands of README and the tutorial" tests/tutorial.sh "$attachd"
step "what the clients need" tests/clients/setup.sh
step "clients in ten languages" tests/clients/run.sh "$attachd"
step "the page for people, in a browser" tests/page/run.sh "$attachd"
step "the OpenAPI description, used" tests/openapi/run.sh "$attachd"
step "TLS as other programs speak it" tests/tls/run.sh "$attachd"
step "a rollout under load" tests/rollout/run.sh "$attachd"
step "tokens of other people's making, and keys that rotate" tests/auth/run.sh "$attachd"
step "a large file through each door" tests/big.sh "$attachd"
step "the protos" tests/proto.sh
step "the manifests" tests/deploy/manifests.sh "$attachd"
step "the alerts and the dashboard" tests/deploy/monitoring.sh "$attachd"
step "backup and restore" tests/deploy/restore.sh "$attachd"
step "the image" tests/deploy/image.sh "$attachd"

# cargo closes each binary with `test result: ok. N passed; N failed; …`, the scripts with `N passed, N failed`.
read -r passed failed < <(sed -nE 's/^(test result: [a-zA-Z]+\. )?([0-9]+) passed[;,] ([0-9]+) failed.*/\2 \3/p' "$log" |
    awk '{ passed += $1; failed += $2 } END { print passed + 0, failed + 0 }')
# A step that failed without a failing test, such as a build, counts as a failure all the same.
if [ "$failed" -lt "$broken" ]; then failed=$broken; fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
