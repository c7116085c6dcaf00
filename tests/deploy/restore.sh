#!/usr/bin/env bash
# The drill of docs/how-to/backup.md: copies a storage while uploads go on that replace each other, verifies the
# copy and mends it, restores it, serves from it, and finds a damaged byte. Usage: tests/deploy/restore.sh ATTACHD
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
attachd=$(realpath "$1")
# shellcheck source=tests/deploy/lib.sh
. tests/deploy/lib.sh
need curl curl
need jq jq
need cpio cpio
server=""
uploaders=()

end() {
    local process
    for process in "${uploaders[@]}" $server; do
        kill "$process" 2>/dev/null || true
        wait "$process" 2>/dev/null || true
    done
    uploaders=()
    server=""
}
trap 'end; rm -rf "$work"' EXIT

head -c 48 /dev/urandom | base64 >"$work/secret"

# start ROOT: runs a server on this storage. Sets $server and $rest.
start() {
    local deadline=$((SECONDS + 30))
    configuration "$1" >"$work/attachd.toml"
    "$attachd" serve --config "$work/attachd.toml" >"$work/log" 2>&1 &
    server=$!
    rest=""
    while [ -z "$rest" ]; do
        if [ $SECONDS -gt $deadline ] || ! kill -0 "$server" 2>/dev/null; then
            abort "attachd did not start: $(tail -n 3 "$work/log")"
        fi
        sleep 0.1
        rest=$(jq -Rr 'fromjson? | objects | .fields | select(.message == "listening" and .port == "rest") | .address' "$work/log")
    done
}

# upload ATTACHMENT FILE: prints the status.
upload() {
    curl -s -o /dev/null -w '%{http_code}' --max-time 30 -H "Authorization: Bearer $token" -F "file=@$2" \
        "http://$rest/api/v2/clients/1/attachments/$1" || true
}

# verify ROOT: leaves what it prints in $work/verified; its exit status.
verify() {
    configuration "$1" >"$work/attachd.toml"
    "$attachd" verify --config "$work/attachd.toml" >"$work/verified" 2>&1
}

mkdir "$work/live" "$work/copy"
start "$work/live"
token=$("$attachd" token --config "$work/attachd.toml" --client 1 --scope attachments:write --ttl 1h)
head -c 300000 /dev/urandom >"$work/file"
for id in $(seq 40); do upload "$id" "$work/file" >>"$work/first"; done
why=""
[ "$(cat "$work/first")" = "$(printf '201%.0s' $(seq 40))" ] || why=$(cat "$work/first")
verdict "forty attachments are stored" "$why"

# Four uploaders replace them again and again, for as long as the copy takes.
for _ in 1 2 3 4; do
    for _ in $(seq 500); do upload $((RANDOM % 40 + 1)) "$work/file" >>"$work/replaced"; done &
    uploaders+=($!)
done

# Everything, then what has changed since, records last. What vanishes in between is for `verify` to say.
copy_all() {
    (cd "$work/live" && find clients -path '*/content/*' -type f | cpio -pdmu --quiet "$work/copy") 2>/dev/null || true
    (cd "$work/live" && find attachd.json clients/*/records -type f | cpio -pdmu --quiet "$work/copy") 2>/dev/null || true
}
copy_all
copy_all
rounds=0
while ! verify "$work/copy" && [ $rounds -lt 50 ]; do
    rounds=$((rounds + 1))
    # `missing: clients/1/content/0000000000000000007/…`, and records that were just being put in place.
    mapfile -t torn < <(sed -nE 's/^(missing|damaged|unreadable): clients\/1\/(content|records)\/([0-9]+).*/\3/p' "$work/verified" | sort -u)
    [ ${#torn[@]} -gt 0 ] || break
    for attachment in "${torn[@]}"; do
        cp -a "$work/live/clients/1/records/$attachment" "$work/copy/clients/1/records/$attachment"
        cp -aT "$work/live/clients/1/content/$attachment" "$work/copy/clients/1/content/$attachment" 2>/dev/null || true
    done
done
running=0
for process in "${uploaders[@]}"; do kill -0 "$process" 2>/dev/null && running=$((running + 1)); done
end
why=""
verify "$work/copy" || why=$(tail -n 5 "$work/verified" | tr '\n' ' ')
[ $running -gt 0 ] || why+=" the uploads had ended before the copy had"
verdict "a copy taken under uploads is verified and mended ($rounds rounds, $(($(wc -c <"$work/replaced") / 3)) uploads meanwhile)" "$why"

cp -a "$work/copy" "$work/restored"
why=""
verify "$work/restored" || why=$(tail -n 5 "$work/verified" | tr '\n' ' ')
grep -q 'read 40 attachments' "$work/verified" || why+=$(tail -n 1 "$work/verified")
verdict "the restored storage is whole, all forty attachments" "$why"

start "$work/restored"
status=$(upload 7 "$work/file")
end
verdict "it is served from" "$([ "$status" = 201 ] || echo "$status $(tail -n 2 "$work/log")")"

content=$(content_paths "$work/restored" 1 9)
printf 'X' | dd of="$content" bs=1 seek=1000 conv=notrunc status=none
printf 'Y' | dd of="$content" bs=1 seek=1001 conv=notrunc status=none
why=""
if verify "$work/restored"; then why="it did not notice"; fi
grep -q '^damaged: clients/1/content/0000000000000000009/' "$work/verified" || why+=$(tail -n 3 "$work/verified")
verdict "a damaged byte is found and named" "$why"

conclude
