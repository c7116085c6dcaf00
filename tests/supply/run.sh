#!/usr/bin/env bash
# Checks the bill of materials, and the page on the supply chain against the build. Installs the schemas of CycloneDX, pinned, into
# tests/.env. Usage: tests/supply/run.sh DEPS, the `deps` of a finished build, such as target/dist/deps.
set -euo pipefail
deps=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
env_dir=$PWD/tests/.env/supply

if ! cmp -s tests/supply/requirements.txt "$env_dir/requirements.txt"; then
    python3 -m venv --clear "$env_dir"
    "$env_dir/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/supply/requirements.txt
    cp tests/supply/requirements.txt "$env_dir/"
fi
exec "$env_dir/bin/python" tests/supply/check.py "$deps"
