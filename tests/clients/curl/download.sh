#!/usr/bin/env bash
# Downloads an attachment with curl. See ../README.md for what goes in and out.
set -euo pipefail

request=("$BASE_URL/api/v2/clients/$CLIENT_ID/attachments/$ATTACHMENT_ID/content"
    -H "Authorization: Bearer $TOKEN"
    -sS -w '{"status":%{http_code}}\n')

case $MODE in
    rest) curl "${request[@]}" -H "If-Range: $ETAG" -C - -o "$OUT" ;;
    *) curl "${request[@]}" -o "$OUT" ;;
esac
