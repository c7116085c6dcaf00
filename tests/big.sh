#!/usr/bin/env bash
# Sends 1 GiB through each door of a release build, as a person would: by curl and by `attachd upload`. Compares what is
# stored with what was sent, and reads the peak memory of the server from /proc. Usage: tests/big.sh ATTACHD
set -euo pipefail
attachd=$(realpath "$1")
. "$(dirname "${BASH_SOURCE[0]}")/layout.sh"
most_mib=64
passed=0
failed=0
work=$(mktemp -d)
server=""

end() {
    if [ -n "$server" ]; then
        kill "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        server=""
    fi
}
trap 'end; rm -rf "$work"' EXIT

verdict() {
    if [ -z "$2" ]; then passed=$((passed + 1)); echo "ok $1"; else failed=$((failed + 1)); echo "FAIL $1: $2"; fi
}

start() {
    "$attachd" dev --data "$work/$1" --rest 127.0.0.1:0 --grpc 127.0.0.1:0 --admin 127.0.0.1:0 \
        >"$work/$1.out" 2>"$work/$1.err" &
    server=$!
    for _ in $(seq 200); do
        grep -q 'Press Ctrl-C' "$work/$1.out" && return
        kill -0 "$server" 2>/dev/null || break
        sleep 0.05
    done
    cat "$work/$1.err" >&2
    echo "FAIL the server did not start"
    exit 1
}

address() {
    sed -n "s|^  $2 *\(http://[0-9.:]*\).*|\1|p" "$work/$1.out"
}

# The stored bytes are the sent ones, and the server stayed small.
look() {
    local peak why=""
    cmp "$work/file" <(content_of "$work/$1" 1 "$2") >"$work/cmp" 2>&1 || why=$(cat "$work/cmp")
    verdict "1 GiB over $1 is stored as it was sent" "$why"
    peak=$(awk '/^VmHWM/ { print int($2 / 1024) }' "/proc/$server/status")
    why=""
    [ "$peak" -lt "$most_mib" ] || why="$peak MiB"
    verdict "1 GiB over $1 takes less than $most_mib MiB of memory ($peak MiB at the peak)" "$why"
}

head -c 1073741824 /dev/urandom >"$work/file"

start REST
status=$(curl -sS -o "$work/reply" -w '%{http_code} in %{time_total} s' -H "Authorization: Bearer $(cat "$work/REST/dev-token")" \
    -F "file=@$work/file" "$(address REST REST)/api/v2/clients/1/attachments/1") || status="curl failed"
echo "curl: $status"
case $status in 201*) why="" ;; *) why="$status $(cat "$work/reply")" ;; esac
verdict "1 GiB over REST is answered 201" "$why"
look REST 1
end
rm -rf "$work/REST"

start gRPC
why=""
"$attachd" upload "$work/file" --client 1 --attachment 2 --to "$(address gRPC gRPC)" \
    --token-file "$work/gRPC/dev-token" >"$work/reply" 2>&1 || why=$(cat "$work/reply")
verdict "1 GiB over gRPC is answered with the attachment" "$why"
look gRPC 2
end

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
