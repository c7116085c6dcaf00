# Helpers of the scripts in this folder. Sourced, never run.
# shellcheck shell=bash disable=SC2034
. tests/apt.sh
. tests/go.sh
. tests/layout.sh
passed=0
failed=0
work=$(mktemp -d)
env_dir=$PWD/tests/.env
# What is dear to build and the same for every checkout. It may be emptied at any time.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/attachd-tests
mkdir -p "$cache" "$env_dir"

# Nothing of the caller's surroundings may change what is asked of a server, or what it is told.
export LC_ALL=C.UTF-8
# Where Debian puts servers.
export PATH=$PATH:/usr/sbin
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY grpc_proxy
unset "${!ATTACHD_@}"

# verdict NAME WHY: passes where WHY is empty.
verdict() {
    if [ -z "$2" ]; then passed=$((passed + 1)); echo "ok $1"; else failed=$((failed + 1)); echo "FAIL $1: $2"; fi
}

# count: takes the verdicts of another program into the totals, and passes them on.
count() {
    local line
    while IFS= read -r line; do
        echo "$line"
        case $line in
            "ok "*) passed=$((passed + 1)) ;;
            "FAIL "*) failed=$((failed + 1)) ;;
        esac
    done
}

# abort WHY: nothing can be looked at any further.
abort() {
    verdict "the run itself" "$1"
    conclude
}

# conclude: prints the totals and ends with 1 if anything failed.
conclude() {
    echo "$passed passed, $failed failed"
    if [ "$failed" -ne 0 ] || [ "$passed" -eq 0 ]; then exit 1; fi
    exit 0
}

# need COMMAND PACKAGE: installs a Debian package where a command is missing.
need() {
    command -v "$1" >/dev/null && return
    apt_install "$2" && command -v "$1" >/dev/null || abort "$2 cannot be installed"
}

# configuration ROOT: prints one for a server on ports that the system picks, with its files in ROOT and the key of its tokens in
# `secret` beside the configuration.
configuration() {
    cat <<TOML
[rest]
listen = "127.0.0.1:0"
[grpc]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "fs"
[storage.options]
root = "$1"
[attachments]
on_unknown = "create"
[log]
format = "json"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "secret"
TOML
}

# tool NAME MODULE@VERSION: builds a Go program, once for each version, and puts its path into $NAME.
tool() {
    local bin=$cache/go/$1-${2##*@}
    if ! [ -x "$bin/$1" ]; then
        GOBIN=$bin.$$ go_apart install "$2" || abort "$2 cannot be built"
        mkdir -p "$bin"
        mv "$bin.$$/$1" "$bin/$1"
        rmdir "$bin.$$"
    fi
    printf -v "${1//-/_}" %s "$bin/$1"
}

# python_packages: those of requirements.txt, in an environment of their own; renewed when the pins change. Sets $python.
python_packages() {
    python=$env_dir/deploy/bin/python
    if ! cmp -s tests/deploy/requirements.txt "$env_dir/deploy/requirements.txt"; then
        python3 -m venv --clear "$env_dir/deploy" || abort "cannot create a Python virtual environment"
        "$python" -m pip install --quiet --disable-pip-version-check -r tests/deploy/requirements.txt ||
            abort "cannot install the Python packages of tests/deploy/requirements.txt"
        cp tests/deploy/requirements.txt "$env_dir/deploy/"
    fi
}
