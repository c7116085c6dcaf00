#!/usr/bin/env bash
# Runs the fuzz targets of fuzz/, each for some time, and prints a table of them.
#   tests/fuzz.sh [SECONDS]            each target for so long, by default 60 seconds
#   tests/fuzz.sh --runs NUMBER        each target so many times, however long that takes
#   tests/fuzz.sh --replay             the inputs of fuzz/corpus alone
#   tests/fuzz.sh [SECONDS] -- TARGET… these targets alone
# SEED chooses the sequence of random numbers. It is printed, and by default it is the same each time. The inputs are not: they
# also follow from the order of hash maps and from addresses, which differ from run to run. JOBS targets run at once, by
# default as many as there are processors. CORPUS is a folder that keeps what a run found, for the next one; by default it
# is thrown away. The checkout is not changed. An input on which a target failed is printed, and so is how to run it.
# The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source-path=SCRIPTDIR source=apt.sh
. tests/apt.sh
usage() {
    sed -n 's/^#   //p' "${BASH_SOURCE[0]}" >&2
    exit 2
}
seconds=60 runs=""
case ${1:-} in
    --replay) runs=0 && shift ;;
    --runs)
        case ${2:-} in "" | *[!0-9]* | 0) usage ;; esac
        runs=$2 && shift 2
        ;;
    "" | --) ;;
    *[!0-9]* | 0) usage ;;
    *) seconds=$1 && shift ;;
esac
case ${1:-} in
    "") ;;
    --) shift ;;
    *) usage ;;
esac
targets=("$@")
if [ $# -eq 0 ]; then
    for file in fuzz/src/bin/*.rs; do targets+=("$(basename "$file" .rs)"); done
fi
seed=${SEED:-1} at_once=${JOBS:-$(nproc)}
# One input may take this long, in seconds, and this much memory, in MiB. Targets take microseconds and 200 MiB.
slow=10 memory=1024
triple=$(rustc -vV | sed -n 's/^host: //p')
built=${CARGO_TARGET_DIR:-target}/fuzz
work=$(mktemp -d)
running=()
# Each target runs in a subshell whose process has the target as its child.
trap 'for job in "${running[@]}"; do pkill -P "$job"; done; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

command -v c++ >/dev/null || apt_install g++ || { echo "FAIL libFuzzer needs a C++ compiler" && echo "0 passed, 1 failed" && exit 1; }

# Counts every edge, which tells libFuzzer what an input reaches, and shows it what is compared. These are flags of a stable
# compiler. With --target they are not used for build scripts and macros.
flags="-Cpasses=sancov-module"
for flag in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$flag"
done
begun=$SECONDS
if ! RUSTFLAGS=$flags cargo build --quiet --locked --release --manifest-path fuzz/Cargo.toml --target "$triple" \
    --target-dir "$built"; then
    echo "FAIL the fuzz targets cannot be built"
    echo "0 passed, 1 failed"
    exit 1
fi
echo "built in $((SECONDS - begun)) s, seed $seed"

# one TARGET: runs a target on a copy of its inputs.
one() {
    local target=$1 dir=$work/$1 limits
    mkdir -p "$dir/new" && : >"$dir/log" || return 1
    cp -r "fuzz/corpus/$target" "$dir/seeds" 2>"$dir/log" || return 1
    limits=(-timeout="$slow" -rss_limit_mb="$memory" -artifact_prefix="$dir/failed-" -print_final_stats=1)
    if [ -f "fuzz/dictionaries/$target" ]; then limits+=(-dict="fuzz/dictionaries/$target"); fi
    limits+=(-seed="$seed")
    if [ -n "$runs" ]; then
        limits+=(-runs="$runs")
    else
        limits+=(-max_total_time="$seconds")
    fi
    if [ -n "${CORPUS:-}" ]; then mkdir -p "$CORPUS/$target" && dir=$CORPUS/$target; else dir=$dir/new; fi
    "$built/$triple/release/$target" "${limits[@]}" "$dir" "$work/$target/seeds" >"$work/$target/log" 2>&1
}

waiting=("${targets[@]}")
while [ ${#waiting[@]} -gt 0 ] || [ ${#running[@]} -gt 0 ]; do
    while [ ${#waiting[@]} -gt 0 ] && [ ${#running[@]} -lt "$at_once" ]; do
        (one "${waiting[0]}"; echo $? >"$work/${waiting[0]}.status") &
        running+=($!)
        waiting=("${waiting[@]:1}")
    done
    wait -n "${running[@]}"
    left=()
    for job in "${running[@]}"; do
        if kill -0 "$job" 2>/dev/null; then left+=("$job"); fi
    done
    running=("${left[@]}")
done

passed=0 failed=0
row="%-22s %14s %12s %8s %8s\n"
# shellcheck disable=SC2059 # the row is a format
printf "$row" target executions "executions/s" edges corpus
for target in "${targets[@]}"; do
    log=$work/$target/log
    last=$(grep -aoE 'cov: [0-9]+ ft: [0-9]+ corp: [0-9]+' "$log" 2>/dev/null | tail -1)
    read -r _ edges _ _ _ corpus <<<"${last:-cov: - ft: - corp: -}"
    of() { sed -n "s/^stat::$1: *//p" "$log"; }
    # shellcheck disable=SC2059
    printf "$row" "$target" "$(of number_of_executed_units)" "$(of average_exec_per_sec | sed "s|^0\$|-|")" "$edges" "$corpus"
done
for target in "${targets[@]}"; do
    if [ "$(cat "$work/$target.status")" = 0 ]; then
        passed=$((passed + 1))
        echo "ok $target"
        continue
    fi
    failed=$((failed + 1))
    echo "FAIL $target"
    grep -aE "panicked at|ERROR: |cp: " -A2 "$work/$target/log" | head -20
    for input in "$work/$target"/failed-*; do
        [ -f "$input" ] || continue
        echo "The input, in base64; to run it, give the file to the program:"
        echo "    base64 -d >input <<<'$(base64 -w0 "$input")'"
        echo "    $built/$triple/release/$target input"
    done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
