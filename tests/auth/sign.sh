#!/usr/bin/env bash
# Signs claims with openssl and nothing else: sign.sh ALG KEY_FILE KID CLAIMS_JSON
set -euo pipefail
alg=$1 key=$2 kid=$3 claims=$4
url() { base64 -w0 | tr '+/' '-_' | tr -d '='; }
if [ -n "$kid" ]; then header="{\"alg\":\"$alg\",\"kid\":\"$kid\"}"; else header="{\"alg\":\"$alg\"}"; fi
message="$(printf %s "$header" | url).$(printf %s "$claims" | url)"
bits=${alg:2}

# raw WIDTH: turns the DER form of an ECDSA signature into two numbers of that many bytes (RFC 7518 §3.4).
raw() {
    local number
    openssl asn1parse -inform DER | sed -n 's/.*INTEGER *:\(-\{0,1\}\)0*\([0-9A-F]*\)$/\2/p' | while read -r number; do
        printf "%0$(($1 * 2))s" "$number" | tr ' ' 0
    done | xxd -r -p
}

case $alg in
    HS*) signature=$(printf %s "$message" | openssl dgst "-sha$bits" -mac HMAC -macopt "hexkey:$(xxd -p -c 999 <"$key")" -binary | url) ;;
    RS*) signature=$(printf %s "$message" | openssl dgst "-sha$bits" -sign "$key" | url) ;;
    PS*) signature=$(printf %s "$message" | openssl dgst "-sha$bits" -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest -sign "$key" | url) ;;
    ES*) signature=$(printf %s "$message" | openssl dgst "-sha$bits" -sign "$key" | raw $((bits / 8)) | url) ;;
    EdDSA)
        file=$(mktemp)
        trap 'rm -f "$file"' EXIT
        printf %s "$message" >"$file"
        signature=$(openssl pkeyutl -sign -inkey "$key" -rawin -in "$file" | url)
        ;;
esac
echo "$message.$signature"
