#!/usr/bin/env bash
# Runs every client against a server of its own and checks what it gets and what is stored.
#   tests/clients/run.sh PATH_TO_ATTACHD
# Run setup.sh first. The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -uo pipefail
attachd=${1:?usage: run.sh PATH_TO_ATTACHD}
work=$(mktemp -d)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
trap 'stop_servers; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM

rest=(curl raw javascript ruby python php java go)
grpc=(grpc-python grpc-node)
files=("$work/empty.bin" "$work/one byte.bin" "$work/Übersicht (1).bin" "$work/large.bin")
: >"${files[0]}"
head -c 1 /dev/urandom >"${files[1]}"
head -c 100K /dev/urandom >"${files[2]}"
head -c 8M /dev/urandom >"${files[3]}"
truncate -s 100M "$work/huge.bin"
truncate -s 100K "$work/zeros.bin"
id=0

# on SERVER: the clients that follow talk to it.
on() {
    server=$1
    export BASE_URL=${rest_url[$server]} GRPC_ADDR=${grpc_addr[$server]}
    TOKEN=$(token "$server" attachments:write)
    export TOKEN
}

# fresh: the clients that follow use an attachment that none has used.
fresh() {
    id=$((id + 1))
    export ATTACHMENT_ID=$id
}

# the attachment that a gRPC client must be told of
attachment() {
    jq -n --arg filename "$(basename "$1")" --argjson size "$(stat -c %s "$1")" \
        --arg sha256 "$(sha256sum <"$1" | cut -d' ' -f1)" --argjson attachment_id "$id" \
        '{client_id: 42, $attachment_id, $filename, content_type: "application/x-attachd-test", $size, $sha256}'
}

start_server open create
start_server closed reject
export CLIENT_ID=42 MODE=upload FILE=${files[2]}

on open
for name in "${rest[@]}"; do
    for file in "${files[@]}"; do
        fresh
        client "$name" FILE="$file"
        answered "$name: uploads ${file##*/}" "$created"
        stored "$name: ${file##*/} is stored as sent" open "$id" "$file"
    done

    fresh
    client "$name" MODE=documented
    answered "$name: the sample as documented is refused, and an upload right after it is not" \
        "$(refused 400 'Invalid request' 'Validation error')" "$created"
    stored "$name: what followed the sample is stored as sent" open "$id" "$FILE"

    fresh
    client "$name" CLIENT_ID=43
    answered "$name: another client's attachment" "$(refused 403 'Access denied' 'Insufficient permissions')"
done

for name in raw java ruby; do
    fresh
    client "$name" MODE=literal
    answered "$name: the sample to the letter, which sends no token" \
        "$(refused 401 'Authentication failed' 'JWT token not found')"
done

for name in "${grpc[@]}"; do
    for file in "${files[@]}"; do
        fresh
        client "$name" FILE="$file"
        answered "$name: uploads ${file##*/}" \
            ".ok and (.attachment | del(.uploaded_by) == $(attachment "$file") and (.uploaded_by | length > 0))"
        stored "$name: ${file##*/} is stored as sent" open "$id" "$file"
    done

    client "$name" MODE=if-absent
    answered "$name: if-absent, where there is content" "$(rpc_refused ALREADY_EXISTS ALREADY_EXISTS)"
    stored "$name: if-absent leaves the content" open "$id" "${files[-1]}"

    while read -r mode code reason; do
        fresh
        client "$name" MODE="$mode"
        answered "$name: $mode" "$(rpc_refused "$code" "$reason")"
        nothing_stored "$name: $mode stores nothing" open "$id"
    done <<'EOF'
no-token UNAUTHENTICATED TOKEN_MISSING
bad-token UNAUTHENTICATED TOKEN_INVALID
chunk-first INVALID_ARGUMENT INVALID_REQUEST
no-finish ABORTED INCOMPLETE_UPLOAD
wrong-size INVALID_ARGUMENT SIZE_MISMATCH
wrong-digest INVALID_ARGUMENT DIGEST_MISMATCH
too-big-message INVALID_ARGUMENT INVALID_REQUEST
EOF

    # Some clients compress only the messages that become smaller.
    fresh
    client "$name" MODE=compressed FILE="$work/zeros.bin"
    answered "$name: compressed" "$(rpc_refused UNIMPLEMENTED UNSUPPORTED_COMPRESSION)"
    nothing_stored "$name: compressed stores nothing" open "$id"

    fresh
    client "$name" CLIENT_ID=43
    answered "$name: another client's attachment" "$(rpc_refused PERMISSION_DENIED FORBIDDEN)"
done

# What was uploaded comes back: whole, and continued after a first part.
read=$(token open attachments:read)
for file in "${files[@]}"; do
    fresh
    client curl FILE="$file"
    answered "downloads: ${file##*/} is uploaded" "$created"
    etag="\"$(sha256sum <"$file" | cut -d' ' -f1)\""
    size=$(stat -c %s "$file")
    for name in curl javascript ruby python php java go grpc-python grpc-node; do
        rm -f "$work/back"
        whole='. == {status: 200}' continued='. == {status: 206}'
        case $name in grpc-*) whole=".ok and .length == $size" continued=".ok and .length == $((size - size / 3))" ;; esac
        client "$name-download" OUT="$work/back" MODE=whole TOKEN="$read"
        answered "$name: downloads ${file##*/}" "$whole"
        verdict "$name: ${file##*/} comes back as it was sent" "$(cmp "$file" "$work/back" 2>&1)"
        [ "$size" -gt 2 ] || continue
        head -c $((size / 3)) "$file" >"$work/back"
        client "$name-download" OUT="$work/back" MODE=rest ETAG="$etag" TOKEN="$read"
        answered "$name: continues ${file##*/}" "$continued"
        verdict "$name: the parts of ${file##*/} make the whole" "$(cmp "$file" "$work/back" 2>&1)"
    done
    client curl-download OUT="$work/back" MODE=whole
    answered "downloads: the scope to write does not read ${file##*/}" '. == {status: 403}'
done

# A refusal that comes while the client is still sending must reach it: an answer, never a reset.
fresh
for name in "${rest[@]}"; do
    client "$name" FILE="$work/huge.bin" TOKEN=bad
    answered "$name: sees the refusal while it sends 100 MB" "$(refused 401 'Authentication failed' 'JWT token invalid')"
done
client form-data FILE="$work/huge.bin" TOKEN=bad
answered "form-data: sees it, and stops sending" "$(refused 401 'Authentication failed' 'JWT token invalid')"
client curl FILE="$work/huge.bin" TOKEN=bad MODE=unexpecting
answered "curl: sees it without Expect: 100-continue too" "$(refused 401 'Authentication failed' 'JWT token invalid')"
for name in "${grpc[@]}"; do
    client "$name" FILE="$work/huge.bin" MODE=bad-token
    answered "$name: sees the refusal while it sends 100 MB" "$(rpc_refused UNAUTHENTICATED TOKEN_INVALID)"
done
nothing_stored "refused uploads store nothing" open "$id"

on closed
for name in "${rest[@]}"; do
    fresh
    client "$name"
    answered "$name: an attachment that is not registered" \
        "$(refused 404 'Not found' 'The requested resource was not found')"
    nothing_stored "$name: an attachment that is not registered stores nothing" closed "$id"
done
manage=$(token closed attachments:manage)
for name in "${grpc[@]}"; do
    fresh
    client "$name" MODE=unregistered
    answered "$name: an attachment that is not registered" "$(rpc_refused NOT_FOUND NOT_FOUND)"
    nothing_stored "$name: an attachment that is not registered stores nothing" closed "$id"

    client "$name" MODE=register
    answered "$name: may not register with the scope to write" "$(rpc_refused PERMISSION_DENIED FORBIDDEN)"
    client "$name" MODE=register TOKEN="$manage"
    answered "$name: registers" ".ok and .attachment.attachment_id == $id and .attachment.size == null"
    client "$name"
    answered "$name: uploads what it registered" '.ok'
    stored "$name: what it registered is stored as sent" closed "$id" "$FILE"

    fresh
    client "$name" MODE=register TOKEN="$manage"
    client curl
    answered "curl: uploads what $name registered" "$created"
    stored "curl: what $name registered is stored as sent" closed "$id" "$FILE"
done

for name in open closed; do
    stop_server "$name"
    status=$?
    why=$(grep -c panicked "$work/$name/stderr")
    if [ "$status" -eq 0 ] && [ "$why" -eq 0 ]; then why=""; else why="exit status $status, $why panics"; fi
    verdict "server $name: ends well when asked" "$why"
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
