#!/usr/bin/env bash
# Uses the page of `attachd dev` in headless Chromium, as a person does.
#   tests/page/run.sh PATH_TO_ATTACHD [FOLDER]
# With a FOLDER, pictures of the page are written there. Installs what it needs into tests/.env and by apt. The last line is
# `N passed, N failed`; the exit status is 1 if any failed.
set -uo pipefail
attachd=$(realpath "${1:?usage: run.sh PATH_TO_ATTACHD [FOLDER]}")
pictures=${2:+$(realpath "$2")}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
node=$here/../.env/page
work=$(mktemp -d)
pid=""
# shellcheck source-path=SCRIPTDIR source=../apt.sh
. "$here/../apt.sh"
# shellcheck source-path=SCRIPTDIR source=../npm.sh
. "$here/../npm.sh"
trap 'if [ -n "$pid" ]; then kill "$pid" 2>/dev/null; wait "$pid"; fi; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

abort() {
    echo "FAIL the run itself: $1"
    echo "0 passed, 1 failed"
    exit 1
}

lacking=()
for tool in chromium:chromium node:nodejs npm:npm; do
    command -v "${tool%%:*}" >/dev/null || lacking+=("${tool##*:}")
done
if [ ${#lacking[@]} -gt 0 ]; then
    apt_install "${lacking[@]}" || abort "cannot install ${lacking[*]}"
fi
major=$(node --version | sed 's/^v//; s/\..*//')
if [ "$major" -lt 20 ]; then abort "Node $(node --version) is too old for playwright-core: install Node 20 or newer"; fi
npm_packages "$here" "$node" >"$work/npm" 2>&1 ||
    abort "cannot install the packages of package-lock.json: $(tail -c 2000 "$work/npm")"
# Modules are looked for beside the script.
cp "$here/page.mjs" "$node/"

"$attachd" dev --data "$work/data" --rest 127.0.0.1:0 --grpc 127.0.0.1:0 --admin 127.0.0.1:0 \
    >"$work/stdout" 2>"$work/stderr" &
pid=$!
deadline=$((SECONDS + 20))
until link=$(grep -m 1 '/#token=' "$work/stdout"); do
    if ! kill -0 "$pid" 2>/dev/null || [ $SECONDS -ge $deadline ]; then abort "no server: $(tail -n 5 "$work/stderr")"; fi
    sleep 0.1
done
LINK=$link SERVER=$pid WORK=$work PICTURES=$pictures CHROMIUM=$(command -v chromium) timeout -k 5 300 node "$node/page.mjs"
status=$?
if [ $status -gt 1 ]; then abort "the browser did not end: exit status $status"; fi
if grep -q "token=" "$work/stderr"; then abort "the token is in the log of the server"; fi
exit $status
