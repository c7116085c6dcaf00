#!/usr/bin/env bash
# TLS as other people's programs speak it: curl over both versions of HTTP, openssl, and gRPC in Python; mutual TLS with
# certificates that openssl made; what is older than TLS 1.2; and a certificate that changes under load.
# Usage: run.sh path/to/attachd. Its last line is `N passed, N failed`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../apt.sh"
. "$here/../layout.sh"
attachd=$(realpath "$1")
python=$here/../.env/python/bin/python
"$here/../clients/setup.sh"
command -v openssl >/dev/null || apt_install openssl

export LC_ALL=C.UTF-8
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY grpc_proxy
unset "${!ATTACHD_@}"
work=$(mktemp -d)
server=""
finish() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM
passed=0
failed=0

# check NAME COMMAND…: passes where the command succeeds.
check() {
    local name=$1
    shift
    if "$@" >"$work/out" 2>"$work/err"; then
        passed=$((passed + 1))
        echo "ok $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name: $(tail -c 400 "$work/out" | tr '\n' ' ') $(tail -c 400 "$work/err" | tr '\n' ' ')"
    fi
}
equals() { [ "$1" = "$2" ] || { echo "got $1, not $2"; return 1; }; }
fails() { if "$@"; then return 1; fi; }

# ---- certificates ----

authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=$1" \
        -keyout "$work/$1.key" -out "$work/$1.pem" 2>/dev/null
}

# certificate NAME AUTHORITY SUBJECT SAN USE
certificate() {
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -utf8 -subj "$3" \
        -keyout "$work/$1.key" -out "$work/$1.csr" 2>/dev/null
    { [ -z "$4" ] || echo "subjectAltName=$4"; echo "extendedKeyUsage=$5"; } >"$work/$1.ext"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/$2.pem" -CAkey "$work/$2.key" -CAcreateserial -days 2 \
        -extfile "$work/$1.ext" -out "$work/$1.pem" 2>/dev/null
}

spiffe=spiffe://cluster.local/ns/billing/sa/archiver
authority ca
authority strangers
certificate server ca /CN=localhost "DNS:localhost,IP:127.0.0.1" serverAuth
certificate next ca /CN=localhost "DNS:localhost,IP:127.0.0.1" serverAuth
certificate by-uri ca /CN=whoever "URI:$spiffe" clientAuth
# All that a subject may hold which has to be escaped, as openssl escapes it.
certificate by-subject ca '/C=CH/O=Example, "Inc" <a>/OU=#1;+\\/CN= Zoë  /emailAddress=a@example.com' "" clientAuth
certificate unknown ca /CN=unknown "URI:$spiffe/other" clientAuth
certificate stranger strangers /CN=whoever "URI:$spiffe" clientAuth
subject=$(openssl x509 -in "$work/by-subject.pem" -noout -subject -nameopt RFC2253,-esc_msb)
subject=${subject#subject=}
cp "$work/server.pem" "$work/current.pem"
cp "$work/server.key" "$work/current.key"

# ---- the server ----

head -c 48 /dev/urandom | base64 >"$work/secret"
cat >"$work/attachd.toml" <<EOF
[rest]
listen = "127.0.0.1:0"
[rest.tls]
cert_file = "current.pem"
key_file = "current.key"
client_ca_file = "ca.pem"
client_auth = "optional"
reload_interval = "200ms"
[grpc]
listen = "127.0.0.1:0"
[grpc.tls]
cert_file = "current.pem"
key_file = "current.key"
client_ca_file = "ca.pem"
reload_interval = "200ms"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "fs"
[storage.options]
root = "$work/root"
[attachments]
on_unknown = "create"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "secret"
[[auth.certificates]]
identity = "$spiffe"
scopes = ["attachments:write"]
clients = [42]
[[auth.certificates]]
identity = '$subject'
scopes = ["attachments:write"]
clients = [42]
[log]
format = "json"
[shutdown]
delay = "0s"
EOF
mkdir "$work/root"
"$attachd" serve --config "$work/attachd.toml" 2>"$work/log" &
server=$!

# port NAME: waits for the line that tells the address of a port, and prints its number.
port() {
    local deadline=$((SECONDS + 20)) address
    while [ $SECONDS -lt $deadline ]; do
        address=$(jq -Rr --arg port "$1" \
            'fromjson? | objects | .fields | select(.message == "listening" and .port == $port) | .address' "$work/log")
        if [ -n "$address" ]; then echo "${address##*:}"; return; fi
        kill -0 "$server" 2>/dev/null || break
        sleep 0.1
    done
    echo "the server did not start: $(tail -n 3 "$work/log")" >&2
    return 1
}
rest=$(port rest)
grpc=$(port grpc)
token=$("$attachd" token --config "$work/attachd.toml" --client 42 --scope attachments:write --ttl 1h)
head -c 3000000 /dev/urandom >"$work/file"
digest=$(sha256sum <"$work/file" | cut -d' ' -f1)

# upload ID CURL-ARGUMENT…: prints the version of HTTP and the status.
upload() {
    local id=$1
    shift
    curl -sS --max-time 30 --cacert "$work/ca.pem" -o "$work/body" -w '%{http_version} %{http_code}' "$@" \
        -F "file=@$work/file" "https://localhost:$rest/api/v2/clients/42/attachments/$id"
}
record() { record_of "$work/root" 42 "$1" | jq -r "$2"; }
with=(-H "Authorization: Bearer $token")
mine=(--cert "$work/by-uri.pem" --key "$work/by-uri.key")

# ---- curl ----

for version in 1.1 2; do
    check "curl uploads over HTTP/$version" equals "$(upload 1 "--http$version" "${with[@]}")" "$version 201"
    check "what it uploaded is stored" equals "$(record 1 .content.sha256)" "$digest"
    rm -r "$work/root/clients/42"
done
check "curl speaks HTTP/2 where it may choose" equals "$(upload 1 "${with[@]}")" "2 201"
check "curl with a certificate and no token uploads as itself" equals "$(upload 2 "${mine[@]}")" "2 201"
check "its record names it" equals "$(record 2 .content.uploaded_by)" "$spiffe"
check "so does one that is known by its subject" equals \
    "$(upload 3 --cert "$work/by-subject.pem" --key "$work/by-subject.key")" "2 201"
check "its record has the subject as openssl prints it" equals "$(record 3 .content.uploaded_by)" "$subject"
check "a certificate that is not configured needs a token" equals \
    "$(upload 4 --cert "$work/unknown.pem" --key "$work/unknown.key")" "2 401"
check "a bad token is not mended by a good certificate" equals \
    "$(upload 4 "${mine[@]}" -H "Authorization: Bearer a.b.c")" "2 401"
check "no certificate and no token is nobody" equals "$(upload 4)" "2 401"
check "and is told so in the envelope, over both versions of HTTP" equals \
    "$(for version in 1.1 2; do upload 4 "--http$version" >/dev/null; jq -r .details "$work/body"; done | uniq -c | xargs)" \
    "2 JWT token not found"
check "the certificate of a stranger is refused in the handshake" \
    fails upload 4 --cert "$work/stranger.pem" --key "$work/stranger.key" "${with[@]}"
check "curl trusts nobody else" fails upload 4 --cacert "$work/strangers.pem" "${with[@]}"
check "plain HTTP is told so" equals \
    "$(curl -sS --max-time 30 "http://localhost:$rest/x" | jq -r '"\(.code) \(.details)"')" \
    "400 Validation error: this port speaks TLS"

# ---- openssl ----

# greeted PORT ARGUMENT…: what openssl says of a handshake.
greeted() {
    local at=$1
    shift
    timeout 20 openssl s_client -connect "localhost:$at" -CAfile "$work/ca.pem" -verify_return_error "$@" </dev/null 2>&1
}
says() { grep -qF -- "$2" <<<"$1" || { echo "$1" | head -c 300; return 1; }; }
for at in "$rest" "$grpc"; do
    more=()
    if [ "$at" = "$grpc" ]; then more=(-cert "$work/by-uri.pem" -key "$work/by-uri.key"); fi
    check "TLS 1.3 on $at" says "$(greeted "$at" -tls1_3 "${more[@]}" || true)" "New, TLSv1.3"
    check "TLS 1.2 on $at" says "$(greeted "$at" -tls1_2 "${more[@]}" || true)" "New, TLSv1.2"
    for old in -tls1_1 -tls1; do
        # What openssl itself no longer likes by default has to be permitted, or it would be openssl that refuses.
        check "no ${old#-} on $at" says "$(greeted "$at" "$old" -cipher 'ALL:@SECLEVEL=0' "${more[@]}" || true)" "SSL alert number"
    done
done
check "REST offers h2" says "$(greeted "$rest" -alpn h2,http/1.1 || true)" "ALPN protocol: h2"
check "REST offers http/1.1" says "$(greeted "$rest" -alpn http/1.1 || true)" "ALPN protocol: http/1.1"
check "gRPC offers h2" says "$(greeted "$grpc" -alpn h2 "${more[@]}" || true)" "ALPN protocol: h2"
check "gRPC offers nothing else" says "$(greeted "$grpc" -alpn http/1.1 "${more[@]}" || true)" "alert no application protocol"
check "gRPC requires a certificate" says "$(greeted "$grpc" -tls1_2 || true)" "alert"

# ---- gRPC in Python ----

# call ID IDENTITY TOKEN: prints who uploaded, or the reason of the refusal.
call() {
    timeout 60 "$python" "$here/grpc_client.py" "localhost:$grpc" "$work/ca.pem" "$2" "$3" "$1"
}
check "gRPC in Python over mutual TLS uploads without a token" equals "$(call 10 "$work/by-uri" "")" "$spiffe"
check "and by its token where it sends one" equals "$(call 11 "$work/by-uri" "$token")" "$(call 12 "$work/unknown" "$token")"
check "a certificate that is not configured needs one" equals "$(call 13 "$work/unknown" "")" "UNAUTHENTICATED TOKEN_MISSING"
check "a stranger does not get that far" equals "$(call 13 "$work/stranger" "$token")" "UNAVAILABLE none"
check "nor does who has no certificate" equals "$(call 13 "" "$token")" "UNAVAILABLE none"

# ---- a certificate that changes under load ----

serial() {
    openssl s_client -connect "localhost:$rest" </dev/null 2>/dev/null | openssl x509 -noout -serial
}
replace() {
    cp "$work/$1.pem" "$work/current.pem.new"
    cp "$work/$1.key" "$work/current.key.new"
    mv "$work/current.key.new" "$work/current.key"
    mv "$work/current.pem.new" "$work/current.pem"
}
load() {
    local id=$1 all=0 bad=0
    while [ ! -e "$work/enough" ]; do
        # Slow enough to be under way while the certificate changes.
        [ "$(upload "$id" --limit-rate 3M "${with[@]}" 2>>"$work/load-errors")" = "2 201" ] || bad=$((bad + 1))
        all=$((all + 1))
    done
    echo "$all $bad" >"$work/load-$id"
}
before=$(serial)
for id in 20 21 22; do load "$id" & loads+=("$!"); done
changes=0
for name in next server next server; do
    replace "$name"
    wanted=$(openssl x509 -in "$work/$name.pem" -noout -serial)
    for _ in $(seq 100); do
        if [ "$(serial)" = "$wanted" ]; then changes=$((changes + 1)); break; fi
        sleep 0.1
    done
    sleep 1
done
touch "$work/enough"
wait "${loads[@]}"
read -r all bad < <(awk '{ all += $1; bad += $2 } END { print all, bad }' "$work"/load-2[0-9])
echo "$changes changes of the certificate under $all uploads, $bad of them failed"
check "each certificate was taken into use" equals "$changes" 4
check "it began with the first" equals "$before" "$(openssl x509 -in "$work/server.pem" -noout -serial)"
check "no upload failed meanwhile" equals "$bad" 0
check "there were uploads meanwhile" test "$all" -ge 8

kill -TERM "$server"
code=0
wait "$server" || code=$?
server=""
check "the server ends well" equals "$code" 0
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
