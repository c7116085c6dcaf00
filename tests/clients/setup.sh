#!/usr/bin/env bash
# Installs what the clients need: interpreters and their HTTP libraries by apt where they are missing, the Python and Node
# packages (pinned) and the generated gRPC stubs into tests/.env. A second run changes nothing and takes seconds. Whatever
# cannot be had is named, and the exit status is 1: no client is ever skipped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../apt.sh"
. "$here/../npm.sh"
env_dir=$here/../.env
proto_dir=$here/../../proto

# what it is | the Debian package that brings it | the probe that tells whether it is here
tools=(
    "curl|curl|curl --version"
    "jq|jq|jq --version"
    "cmp|diffutils|cmp --version"
    "Ruby|ruby|ruby --version"
    "Ruby's rest-client|ruby-rest-client|ruby -e 'require \"rest-client\"'"
    "PHP|php-cli|php --version"
    "PHP's curl extension|php-curl|php -r 'exit((int) !extension_loaded(\"curl\"));'"
    "PHP's Guzzle|php-guzzlehttp-guzzle|php -r 'require \"GuzzleHttp/autoload.php\"; new GuzzleHttp\\Client();'"
    "Python with venv|python3-venv|python3 -c 'import ensurepip, venv'"
    "Node 18 or newer|nodejs|node -e 'process.exit(+(parseInt(process.versions.node) < 18))'"
    "npm|npm|npm --version"
    "Java with its compiler|default-jdk-headless|javac --version"
    "Go|golang-go|go version"
)

# Prints the fields of the tools that are not here.
missing() {
    local tool
    for tool in "${tools[@]}"; do
        bash -c "${tool##*|}" >/dev/null 2>&1 || echo "$tool"
    done
}

fail() {
    echo "setup: $*" >&2
    exit 1
}

mapfile -t lacking < <(missing)
if [ ${#lacking[@]} -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${lacking[@]}" | cut -d'|' -f2)
    command -v apt-get >/dev/null || fail "missing, and there is no apt-get to install it: $(cut -d'|' -f1 <<<"${lacking[0]}")"
    echo "setup: installing ${packages[*]}"
    apt_install "${packages[@]}" ||
        fail "cannot install ${packages[*]}"
    mapfile -t lacking < <(missing)
    [ ${#lacking[@]} -eq 0 ] || fail "still missing: $(printf '%s\n' "${lacking[@]}" | cut -d'|' -f1 | paste -sd,)"
fi

mkdir -p "$env_dir"

# Python: a virtual environment, renewed when the pins change.
python=$env_dir/python/bin/python
if ! cmp -s "$here/requirements.txt" "$env_dir/python/requirements.txt"; then
    python3 -m venv --clear "$env_dir/python" || fail "cannot create a Python virtual environment"
    "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
        fail "cannot install the Python packages of requirements.txt"
    cp "$here/requirements.txt" "$env_dir/python/"
fi

# The Python stubs, from the shipped protos and nothing else.
stubs=$env_dir/stubs
rm -rf "$stubs"
mkdir -p "$stubs"
(cd "$proto_dir" && "$python" -m grpc_tools.protoc -I . --python_out="$stubs" --grpc_python_out="$stubs" \
    google/api/http.proto google/api/annotations.proto attachments/v2/attachments.proto) || fail "cannot generate the Python stubs"

# Node: likewise, from the lock files.
for client in grpc-node:node javascript:form-data; do
    npm_packages "$here/${client%:*}" "$env_dir/${client#*:}" ||
        fail "cannot install the Node packages of ${client%:*}/package-lock.json"
done

# Go: compiles the standard library once, so that no check pays for it.
go build -o /dev/null "$here/go/upload.go" || fail "cannot build the Go client"

echo "setup: ready"
