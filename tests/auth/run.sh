#!/usr/bin/env bash
# Tokens of other people's making: signed with PyJWT, jose and openssl by every algorithm, by an OpenID provider that rotates its
# keys under load, and by Keycloak and Hydra, through changes of their keys and outages.
#   tests/auth/run.sh PATH_TO_ATTACHD
# Installs what it needs into tests/.env, and builds Hydra with the caches of Go. The last line is `N passed, N failed`; the exit status is 1 if any failed.
set -uo pipefail
attachd=$(realpath "${1:?usage: run.sh PATH_TO_ATTACHD}")
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../apt.sh"
. "$here/../go.sh"
. "$here/../npm.sh"
env_dir=$here/../.env/auth
work=$(mktemp -d)
passed=0
failed=0
pids=()
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
unset "${!ATTACHD_@}"

finish() {
    local pid
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null; done
    wait
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

verdict() { # NAME WHY: passes where WHY is empty
    if [ -z "$2" ]; then
        passed=$((passed + 1))
        echo "ok $1"
    else
        failed=$((failed + 1))
        echo "FAIL $1: $2"
    fi
}

report() { # NAME EXIT_STATUS FILE: counts and shows the verdicts that a script of this folder has written to a file
    grep -E '^(ok|FAIL) ' "$3"
    passed=$((passed + $(grep -c '^ok ' "$3")))
    failed=$((failed + $(grep -c '^FAIL ' "$3")))
    if [ "$2" -ne 0 ] && ! grep -q '^FAIL ' "$3"; then verdict "$1" "$(tail -n 5 "$3")"; fi
}

abort() {
    verdict "the run itself" "$1"
    echo "$passed passed, $failed failed"
    exit 1
}

# ---- what is needed ----
lacking=()
for tool in curl:curl jq:jq openssl:openssl xxd:xxd node:nodejs npm:npm mvn:maven java:default-jre-headless go:golang-go gcc:gcc; do
    command -v "${tool%%:*}" >/dev/null || lacking+=("${tool##*:}")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || lacking+=(python3-venv)
if [ ${#lacking[@]} -gt 0 ]; then
    apt_install "${lacking[@]}" ||
        abort "cannot install ${lacking[*]}"
fi
mkdir -p "$env_dir"
# Both take their time on a machine that has nothing of them yet, so they go on beside the checks that do not need them.
keycloak_version=26.5.6
get_keycloak() {
    mvn -q -B -C org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy -DoutputDirectory="$work/fetched" \
        -Dartifact="org.keycloak:keycloak-quarkus-dist:$keycloak_version:tar.gz" &&
        tar -xzf "$work/fetched/keycloak-quarkus-dist-$keycloak_version.tar.gz" -C "$work" && rm -r "$work/fetched"
}
get_hydra() {
    go_apart build -C "$here/hydra" -tags sqlite,sqlite_omit_load_extension -o "$env_dir/hydra" github.com/ory/hydra/v2
}
get_keycloak >"$work/keycloak.get" 2>&1 &
keycloak_is_here=$!
get_hydra >"$work/hydra.get" 2>&1 &
hydra_is_here=$!
pids+=("$keycloak_is_here" "$hydra_is_here")
python=$env_dir/python/bin/python
if ! cmp -s "$here/requirements.txt" "$env_dir/python/requirements.txt"; then
    { python3 -m venv --clear "$env_dir/python" &&
        "$python" -m pip install --quiet --disable-pip-version-check -r "$here/requirements.txt" &&
        cp "$here/requirements.txt" "$env_dir/python/"; } || abort "cannot install the packages of requirements.txt"
fi
npm_packages "$here" "$env_dir/node" || abort "cannot install the packages of package-lock.json"
# Modules are looked for beside the script.
cp "$here"/*.mjs "$env_dir/node/"

# start_server NAME: starts a server with the rest of its configuration from standard input, and waits until it listens.
start_server() {
    local dir=$work/$1 deadline=$((SECONDS + 20))
    mkdir -p "$dir"
    {
        cat <<TOML
[rest]
listen = "127.0.0.1:0"
[grpc]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "memory"
[attachments]
on_unknown = "create"
[log]
format = "json"
TOML
        cat
    } >"$dir/attachd.toml"
    "$attachd" serve --config "$dir/attachd.toml" 2>"$dir/log" &
    pids+=($!)
    base=
    while [ -z "$base" ]; do
        [ $SECONDS -lt $deadline ] || abort "the server $1 does not listen: $(tail -n 3 "$dir/log")"
        base=$(jq -Rr 'fromjson? | .fields | select(.message == "listening" and .port == "rest") | "http://\(.address)"' "$dir/log")
        sleep 0.1
    done
}

# upload TOKEN: prints the status of an upload to client 42.
upload() {
    curl -sS -o "$work/reply" -w '%{http_code}' --max-time 20 -H "Authorization: Bearer $1" -F 'file=@-;filename=a.txt' \
        "$base/api/v2/clients/42/attachments/1" <<<content
}

# ---- signed by others ----
keys=$work/keys
mkdir "$keys"
openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$keys/rsa" || abort "no key"
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$keys/p256" || abort "no key"
openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out "$keys/p384" || abort "no key"
openssl genpkey -quiet -algorithm ED25519 -out "$keys/ed" || abort "no key"
for key in rsa p256 p384 ed; do openssl pkey -in "$keys/$key" -pubout -out "$keys/$key.pub" || abort "no public key"; done
head -c 63 /dev/urandom >"$keys/hmac"
printf x >>"$keys/hmac" # a newline at the end of the file would be no part of the secret
node "$env_dir/node/sign.mjs" set rsa "$keys/rsa.pub" p256 "$keys/p256.pub" p384 "$keys/p384.pub" ed "$keys/ed.pub" >"$keys/jwks" ||
    abort "jose makes no key set"

issuer() { # NAME SOURCE ALGORITHMS
    printf '[[auth.issuers]]\nissuer = "https://%s.example"\naudience = ["attachd"]\n%s\nalgorithms = %s\n' "$@"
}
start_server signed < <(
    issuer rsa "pem_file = \"$keys/rsa.pub\"" '["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]'
    issuer p256 "pem_file = \"$keys/p256.pub\"" '["ES256"]'
    issuer p384 "pem_file = \"$keys/p384.pub\"" '["ES384"]'
    issuer ed "pem_file = \"$keys/ed.pub\"" '["EdDSA"]'
    issuer hmac "hmac_secret_file = \"$keys/hmac\"" '["HS256", "HS384", "HS512"]'
    issuer jwks "jwks_file = \"$keys/jwks\"" \
        '["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"]'
)

sign() { # TOOL ALG KEY KID CLAIMS
    case $1 in
        PyJWT) "$python" "$here/sign.py" "${@:2}" ;;
        jose) node "$env_dir/node/sign.mjs" "${@:2}" ;;
        openssl) bash "$here/sign.sh" "${@:2}" ;;
    esac
}
claims() { # ISSUER
    printf '{"iss":"https://%s.example","aud":"attachd","sub":"someone","exp":%d,"scope":"attachments:write","client_ids":[42]}' \
        "$1" $(($(date +%s) + 600))
}
other_claims=$(printf '{"iss":"https://x.example"}' | base64 -w0 | tr -d '=')

for tool in PyJWT jose openssl; do
    for case in RS256:rsa RS384:rsa RS512:rsa PS256:rsa PS384:rsa PS512:rsa ES256:p256 ES384:p384 EdDSA:ed \
        HS256:hmac HS384:hmac HS512:hmac; do
        alg=${case%%:*} key=${case##*:}
        for issuer in "$key" jwks; do
            [ "$issuer $key" != "jwks hmac" ] || continue
            kid=
            if [ "$issuer" = jwks ]; then kid=$key; fi
            if ! token=$(sign "$tool" "$alg" "$keys/$key" "$kid" "$(claims "$issuer")" 2>"$work/err"); then
                verdict "$tool signs by $alg for $issuer" "$(tail -n 1 "$work/err")"
                continue
            fi
            status=$(upload "$token")
            why=
            if [ "$status" != 201 ]; then why="status $status, $(cat "$work/reply")"; fi
            # The same signature under other claims, and another signature under the same.
            IFS=. read -r header payload signature <<<"$token"
            for forged in "$header.$other_claims.$signature" "$header.$payload.$(rev <<<"$signature")" "$header.$payload."; do
                status=$(upload "$forged")
                if [ "$status" != 401 ]; then why="$why forged: status $status"; fi
            done
            verdict "$tool signs by $alg for $issuer" "$why"
        done
    done
done

# What an operator is told of the last of them.
if printf %s "$token" | "$attachd" token inspect --config "$work/signed/attachd.toml" >"$work/inspected" 2>&1; then why=; else why=$(cat "$work/inspected"); fi
if grep -qF "$signature" "$work/inspected"; then why="the signature is shown"; fi
verdict "attachd token inspect accepts a token of openssl and does not show its signature" "$why"

# ---- a provider that rotates its keys ----
node "$env_dir/node/provider.mjs" "$work/provider.json" >"$work/provider.log" 2>&1 &
pids+=($!)
deadline=$((SECONDS + 30))
until [ -s "$work/provider.json" ]; do
    [ $SECONDS -lt $deadline ] || abort "the provider does not start: $(tail -n 5 "$work/provider.log")"
    sleep 0.1
done
# The table of the recipe in docs/how-to/issuers.md, for the issuer that is running.
start_server rotating < <(
    cat <<TOML
[auth.keys]
refresh = "1s"
timeout = "2s"
cooldown = "100ms"
TOML
    sed -n '/^### oidc-provider$/,/^### /{/^```toml$/,/^```$/p}' "$here/../../docs/how-to/issuers.md" | grep -v '^```' |
        sed "s|^issuer = .*|issuer = \"$(jq -r .issuer "$work/provider.json")\"|"
)
BASE_URL=$base timeout -k 5 120 node "$env_dir/node/rotation.mjs" "$work/provider.json" >"$work/rotation" 2>&1
report "the rotation" $? "$work/rotation"

# ---- Keycloak and Hydra ----
wait "$keycloak_is_here" || abort "cannot get Keycloak: $(tail -n 5 "$work/keycloak.get")"
wait "$hydra_is_here" || abort "cannot build Hydra: $(tail -n 5 "$work/hydra.get")"
# Keycloak mostly waits for its own start, so that Hydra is tried beside it.
providers() { # NAME PROGRAM_OR_DIRECTORY
    mkdir "$work/$1"
    ATTACHD=$attachd WORK=$work/$1 exec timeout -k 30 600 node "$here/providers.mjs" "$@" >"$work/$1.said" 2>&1
}
providers keycloak "$work/keycloak-$keycloak_version" &
keycloak=$!
providers hydra "$env_dir/hydra" &
hydra=$!
pids+=("$keycloak" "$hydra")
wait "$hydra"
report "the checks of Hydra" $? "$work/hydra.said"
wait "$keycloak"
report "the checks of Keycloak" $? "$work/keycloak.said"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
