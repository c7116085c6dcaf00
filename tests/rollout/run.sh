#!/usr/bin/env bash
# A rollout under load: two replicas on one directory behind a proxy, restarted in turn while uploads go through each door.
# Once behind HAProxy, which asks for readiness and balances REST and gRPC by it, and once behind nginx, which only notices
# that a port is closed. No upload that was acknowledged may be lost, and none may be refused or cut.
# Usage: run.sh path/to/attachd. Its last line is `N passed, N failed`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
attachd=$(realpath "$1")
python=$here/../.env/python/bin/python

for tool in haproxy nginx; do
    command -v "$tool" >/dev/null || {
        package=$tool
        if [ "$tool" = nginx ]; then package=nginx-light; fi
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null
    }
done
"$here/../clients/setup.sh"

export LC_ALL=C.UTF-8
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY grpc_proxy
exec "$python" "$here/rollout.py" "$attachd"
