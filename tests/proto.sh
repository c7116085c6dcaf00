#!/usr/bin/env bash
# Checks proto/ by buf's STANDARD rules. Installs buf, pinned, into tests/.env.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=1.75.0
env_dir=$PWD/tests/.env/buf
buf=$env_dir/node_modules/.bin/buf

if [ "$("$buf" --version 2>/dev/null)" != "$version" ]; then
    rm -rf "$env_dir"
    mkdir -p "$env_dir"
    npm install --prefix "$env_dir" --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error \
        "@bufbuild/buf@$version" >/dev/null || { echo "FAIL buf cannot be installed"; exit 1; }
fi

cd proto
if "$buf" lint; then
    echo "ok proto/ passes buf's STANDARD rules"
    echo "1 passed, 0 failed"
else
    echo "FAIL proto/ breaks buf's STANDARD rules"
    echo "0 passed, 1 failed"
    exit 1
fi
