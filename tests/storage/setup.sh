#!/usr/bin/env bash
# Installs the storage servers that the tests need, all pinned: moto and the clients by pip, azurite by npm and S3Mock by
# Maven into tests/.env, MinIO, versitygw and fake-gcs-server by `go install` into a cache, since MinIO takes minutes to build. A second run changes nothing and
# takes seconds. curl, iproute2, strace and nginx come by apt. Whatever cannot be had is named, and the exit status is 1.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../apt.sh"
. "$here/../go.sh"
. "$here/../npm.sh"
env_dir=$here/../.env
cache=${XDG_CACHE_HOME:-$HOME/.cache}/attachd-tests/bin

fail() {
    echo "storage setup: $*" >&2
    exit 1
}

lacking=()
command -v go >/dev/null || lacking+=(golang-go)
command -v curl >/dev/null || lacking+=(curl)
command -v ip >/dev/null || lacking+=(iproute2)
command -v nginx >/dev/null || lacking+=(nginx-light)
command -v strace >/dev/null || lacking+=(strace)
command -v java >/dev/null || lacking+=(default-jre-headless)
command -v mvn >/dev/null || lacking+=(maven)
command -v npm >/dev/null || lacking+=(nodejs npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || lacking+=(python3-venv)
if [ ${#lacking[@]} -gt 0 ]; then
    apt_install "${lacking[@]}" ||
        fail "cannot install ${lacking[*]}"
fi

mkdir -p "$env_dir" "$cache"

# Python: a virtual environment, renewed when the pins change.
python=$env_dir/storage/bin/python
if ! cmp -s "$here/requirements.txt" "$env_dir/storage/requirements.txt"; then
    python3 -m venv --clear "$env_dir/storage" || fail "cannot create a Python virtual environment"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
        fail "cannot install the Python packages of requirements.txt"
    cp "$here/requirements.txt" "$env_dir/storage/"
fi

# Node: azurite, from the lock file.
npm_packages "$here/azurite" "$env_dir/azurite" || fail "cannot install the Node packages of azurite/package-lock.json"

# built NAME MODULE VERSION: builds a Go program into the cache, unless it is there in this version.
built() {
    local name=$1 module=$2 version=$3
    if ! go version -m "$cache/$name" 2>/dev/null | grep -qF "$version"; then
        GOBIN=$cache go_apart install "$module@$version" || fail "cannot build $name $version"
    fi
}
built fake-gcs-server github.com/fsouza/fake-gcs-server v1.56.1
built versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0
built minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c

# S3Mock, one file of Maven's.
s3mock=5.2.0
if ! [ -f "$env_dir/s3mock-$s3mock.jar" ]; then
    jar=com.adobe.testing:s3mock:$s3mock:jar:exec
    plugin=org.apache.maven.plugins:maven-dependency-plugin:3.8.1
    mvn -q -B "$plugin:copy" -Dartifact="$jar" -DoutputDirectory="$env_dir/s3mock" >/dev/null ||
        fail "cannot fetch $jar"
    mv "$env_dir/s3mock/s3mock-$s3mock-exec.jar" "$env_dir/s3mock-$s3mock.jar"
    ln -sf "s3mock-$s3mock.jar" "$env_dir/s3mock.jar"
    rmdir "$env_dir/s3mock"
fi

echo "storage setup: ready"
