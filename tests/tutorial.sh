#!/usr/bin/env bash
# Runs the commands of README.md and of the tutorial for a laptop as they are printed there, and compares what they print with the
# block that follows. Only the program and the ports are replaced. Usage: tests/tutorial.sh ATTACHD
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
attachd=$(realpath "$1")
work=$(mktemp -d)
pids=()
trap 'for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait; rm -rf "$work"' EXIT
passed=0
failed=0

# verdict NAME WHY: a check passed if there is nothing to say against it.
verdict() {
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: $2"
    fi
}

read -r rest grpc admin < <(python3 -B -c 'import sys; sys.path.insert(0, "tests"); import ports; print(*ports.free_ports(3))')

# Files that the commands read, in a folder whose paths are those of the documents.
cp LICENSE README.md "$work"
mkdir -p "$work/target/release"
ln -s "$attachd" "$work/target/release/attachd"

# blocks DOCUMENT: writes each block of commands to NUMBER.sh, and the block of output that follows it to NUMBER.out.
blocks() {
    python3 - "$1" "$2" "$rest" "$grpc" "$admin" <<'PYTHON'
import pathlib, re, sys
document, folder, rest, grpc, admin = sys.argv[1:]
text = pathlib.Path(document).read_text()
number = 0
for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
    block = block.replace(":8080", f":{rest}").replace(":50051", f":{grpc}")
    if language == "sh":
        number += 1
        ports = f"--rest 127.0.0.1:{rest} --grpc 127.0.0.1:{grpc} --admin 127.0.0.1:{admin}"
        block = block.replace("cargo run --release -- dev", f"exec target/release/attachd dev {ports}")
        pathlib.Path(folder, f"{number:02}.sh").write_text(block)
    elif language in ("json", "text"):
        pathlib.Path(folder, f"{number:02}.out").write_text(block)
print(number)
PYTHON
}

# run DOCUMENT COUNT: runs the blocks of one document up to COUNT in one shell, against a server of its own.
run() {
    local document=$1 count folder
    folder=$(mktemp -d -p "$work")
    count=$(blocks "$document" "$folder")
    [ "$count" -ge "$2" ] || { verdict "$document" "it has $count blocks of commands"; return; }
    rm -rf "$work/attachd-data"
    (cd "$work" && exec bash "$folder/01.sh") >"$work/server.log" 2>&1 &
    local server=$!
    pids+=("$server")
    local deadline=$((SECONDS + 30))
    until curl -sf -o "$work/ready" "http://127.0.0.1:$admin/readyz"; do
        if [ $SECONDS -ge $deadline ]; then
            verdict "$document: the server starts" "$(tail -n 3 "$work/server.log")"
            return
        fi
        sleep 0.1
    done
    verdict "$document: the server starts" ""
    # One shell for all blocks, since a later one uses the variables of an earlier one.
    for ((number = 2; number <= $2; number++)); do
        local block
        block=$(printf '%02d' "$number")
        echo ". '$folder/$block.sh' >'$folder/$block.said' 2>&1 || echo \"exit code \$?\" >'$folder/$block.why'"
    done >"$folder/all.sh"
    (cd "$work" && bash "$folder/all.sh")
    for ((number = 2; number <= $2; number++)); do
        local block why=""
        block=$(printf '%02d' "$number")
        if [ -e "$folder/$block.why" ]; then
            why="$(cat "$folder/$block.why"): $(tail -n 3 "$folder/$block.said")"
        elif [ -e "$folder/$block.out" ]; then
            # The time of an upload differs, and lines of HTTP end in CRLF.
            why=$(diff <(sed 's/"created_at": .*/"created_at"/; s/\r$//' "$folder/$block.said" | sed -e '$a\') \
                <(sed 's/"created_at": .*/"created_at"/' "$folder/$block.out" | sed -e '$a\') | tr '\n' ' ') || true
        fi
        verdict "$document: block $number, $(head -n 1 "$folder/$block.sh" | cut -c 1-60)" "$why"
    done
    kill "$server"
    wait "$server" || true
}

# The last block of commands in README.md is the test suite itself.
run README.md 3
run docs/tutorial/laptop.md 9
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
