#!/usr/bin/env bash
# Lints the OpenAPI description that attachd prints, uploads through the clients that three generators make of it, and
# compares how a server behaves with what the description says.
#   tests/openapi/run.sh PATH_TO_ATTACHD
# Installs what it needs into tests/.env. The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -uo pipefail
attachd=$(realpath "${1:?usage: run.sh PATH_TO_ATTACHD}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
env_dir=$here/../.env/openapi
work=$(mktemp -d)
# shellcheck source-path=SCRIPTDIR source=../clients/lib.sh
. "$here/../clients/lib.sh"
# shellcheck source-path=SCRIPTDIR source=../apt.sh
. "$here/../apt.sh"
# shellcheck source-path=SCRIPTDIR source=../npm.sh
. "$here/../npm.sh"
trap 'stop_servers; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
# No tool reports its use, or looks for a newer version of itself.
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true PYTHONDONTWRITEBYTECODE=1

# check NAME COMMAND…: passes if the command succeeds.
check() {
    local why=""
    "${@:2}" >"$work/out" 2>&1 || why="exit status $?: $(tail -c 2000 "$work/out")"
    verdict "$1" "$why"
}

# ---- tools ----
lacking=()
for tool in curl:curl jq:jq cmp:diffutils node:nodejs npm:npm go:golang-go; do
    command -v "${tool%%:*}" >/dev/null || lacking+=("${tool##*:}")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || lacking+=(python3-venv)
if [ ${#lacking[@]} -gt 0 ]; then
    apt_install "${lacking[@]}" || abort "cannot install ${lacking[*]}"
fi
mkdir -p "$env_dir"

python=$env_dir/python
install_python() {
    if cmp -s "$here/requirements.txt" "$python/requirements.txt"; then return; fi
    python3 -m venv --clear "$python" &&
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
        cp "$here/requirements.txt" "$python/"
}

node=$env_dir/node

# Compiles the generator, which Go caches.
install_go() {
    cp -r "$here/go" "$work/go" && cd "$work/go" && go tool oapi-codegen -version
}

npm_packages "$here" "$node" >"$work/npm" 2>&1 &
npm=$!
install_go >"$work/go.log" 2>&1 &
go=$!
install_python >"$work/pip" 2>&1 || abort "cannot install the packages of requirements.txt: $(tail -c 2000 "$work/pip")"
wait "$npm" || abort "cannot install the packages of package-lock.json: $(tail -c 2000 "$work/npm")"
wait "$go" || abort "cannot build the modules of go/go.mod: $(tail -c 2000 "$work/go.log")"
PATH=$python/bin:$node/node_modules/.bin:$PATH

# ---- the document ----
document=$work/openapi.json
"$attachd" openapi >"$document" || abort "attachd openapi failed"
echo 'extends: ["spectral:oas"]' >"$work/spectral.yaml"
check "the recommended rules of Redocly" redocly lint --extends recommended "$document"
check "the OpenAPI rules of Spectral" spectral lint --ruleset "$work/spectral.yaml" --fail-severity warn "$document"

# ---- generated clients ----
generate_python() {
    openapi-python-client generate --path "$document" --meta none --output-path "$work/attachd_client" --fail-on-warning
}

# Modules are looked for beside the script.
generate_typescript() {
    cp "$here"/typescript/* "$node/" &&
        openapi-typescript "$document" --output "$node/attachd.d.ts" && tsc --project "$node"
}

generate_go() {
    cd "$work/go" && mkdir api && go tool oapi-codegen -config oapi-codegen.yaml "$document" && go build -o "$work/upload" .
}

check "openapi-python-client generates" generate_python
check "openapi-typescript generates, and what uses it compiles" generate_typescript
check "oapi-codegen generates, and what uses it compiles" generate_go

# upload LANGUAGE VAR=VALUE…: uploads through a generated client.
upload() {
    local run=(timeout -k 5 60 env "${@:2}")
    case $1 in
        python) run+=(PYTHONPATH="$work" python "$here/python/upload.py") ;;
        typescript) run+=(node "$node/out/upload.js") ;;
        go) run+=("$work/upload") ;;
    esac
    "${run[@]}" >"$work/out" 2>"$work/err"
    client_exit=$?
}

start_server open create
export BASE_URL=${rest_url[open]} CLIENT_ID=42 FILE=$work/one\ MiB.bin MODE=upload
TOKEN=$(token open attachments:write)
export TOKEN
head -c 1M /dev/urandom >"$FILE"
other=$work/other.bin
head -c 1M /dev/urandom >"$other"
id=0
for language in python typescript go; do
    id=$((id + 1))
    export ATTACHMENT_ID=$id
    upload "$language"
    answered "$language: uploads 1 MiB" "$created"
    stored "$language: 1 MiB is stored as sent" open "$id" "$FILE"
    upload "$language" MODE=if-absent FILE="$other"
    answered "$language: create-only, where there is content" "$(refused 412 'Precondition failed' 'A precondition')"
    upload "$language" TOKEN=bad FILE="$other"
    answered "$language: a bad token" "$(refused 401 'Authentication failed' 'JWT token invalid')"
    stored "$language: a refused upload changes nothing" open "$id" "$FILE"
done

# ---- the server, by the document ----
everything=$("$attachd" token --config "$work/open/attachd.toml" --client '*' --project '*' --portfolio '*') ||
    abort "attachd token failed"
# The same requests each time: statuses, headers and bodies must be documented, invalid requests refused, valid ones taken.
by_document() {
    cd "$work" && SCHEMATHESIS_HOOKS=hooks PYTHONPATH=$here timeout -k 5 400 schemathesis \
        --config-file "$here/schemathesis.toml" run "$document" --url "$BASE_URL" --header "Authorization: Bearer $everything" \
        --max-examples 20 --generation-deterministic --suppress-health-check all --continue-on-failure --no-color "$@"
}
check "schemathesis: what the server answers is documented" by_document

stop_server open
status=$?
why=$(grep -c panicked "$work/open/stderr")
if [ "$status" -eq 0 ] && [ "$why" -eq 0 ]; then why=""; else why="exit status $status, $why panics"; fi
verdict "the server ends well when asked" "$why"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
