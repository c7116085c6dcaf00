#!/usr/bin/env bash
# The documented sample for curl, completed. See ../README.md for what goes in and out.
set -euo pipefail

request=(-X POST "$BASE_URL/api/v2/clients/$CLIENT_ID/attachments/$ATTACHMENT_ID"
    -H 'Accept: application/json'
    -H "Authorization: Bearer $TOKEN"
    -sS -w '\n%{http_code}\n')
file=(-F "file=@\"$FILE\"")

case $MODE in
    documented) curl "${request[@]}" -H 'Content-Type: multipart/form-data' --next "${request[@]}" "${file[@]}" ;;
    unexpecting) curl "${request[@]}" "${file[@]}" -H 'Expect:' ;; # does not wait for 100 Continue: sends at once
    *) curl "${request[@]}" "${file[@]}" ;;
esac | jq -cn 'inputs as $body | {status: input, $body}'
