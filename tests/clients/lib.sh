# Helpers of run.sh: servers, clients, checks. Sourced, never run. Needs $attachd and $work.
# shellcheck shell=bash disable=SC2034,SC2154
clients_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$clients_dir/../layout.sh"
passed=0
failed=0
declare -A server_pid rest_url grpc_addr storage_root

# Nothing of the caller's surroundings may change what a client makes of a filename, where it sends it, or the server.
export LC_ALL=C.UTF-8
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY grpc_proxy
unset "${!ATTACHD_@}"

pass() {
    passed=$((passed + 1))
    echo "ok $1"
}

fail() {
    failed=$((failed + 1))
    echo "FAIL $1: $2"
}

# verdict NAME WHY: passes where WHY is empty.
verdict() {
    if [ -z "$2" ]; then pass "$1"; else fail "$1" "$2"; fi
}

# ---- servers ----

# start_server NAME ON_UNKNOWN: starts one on ports of its own and waits until it is ready.
start_server() {
    local name=$1 dir=$work/$1 port
    storage_root[$name]=$dir/root
    mkdir -p "$dir/root"
    head -c 48 /dev/urandom | base64 >"$dir/secret"
    cat >"$dir/attachd.toml" <<EOF
[rest]
listen = "127.0.0.1:0"
[grpc]
listen = "127.0.0.1:0"
[admin]
listen = "127.0.0.1:0"
[storage]
service = "fs"
[storage.options]
root = "$dir/root"
[attachments]
on_unknown = "$2"
[limits]
max_upload_size = "5GiB"
memory_budget = "256MiB"
[[auth.issuers]]
issuer = "https://id.example"
audience = ["attachd"]
algorithms = ["HS256"]
hmac_secret_file = "$dir/secret"
EOF
    ATTACHD_LOG__FORMAT=json "$attachd" serve --config "$dir/attachd.toml" >"$dir/stdout" 2>"$dir/stderr" &
    server_pid[$name]=$!
    for port in rest grpc admin; do
        listening "$name" "$port" >"$dir/$port" || abort "server $name: no $port port; it said: $(tail -n 5 "$dir/stderr")"
    done
    rest_url[$name]=http://$(cat "$dir/rest")
    grpc_addr[$name]=$(cat "$dir/grpc")
    curl -sf -o /dev/null --max-time 10 --retry 10 --retry-delay 1 "http://$(cat "$dir/admin")/readyz" || abort "server $name: not ready"
}

# listening SERVER PORT: waits for the line that tells the address of a port, and prints the address.
listening() {
    local deadline=$((SECONDS + 20)) address
    while [ $SECONDS -lt $deadline ]; do
        address=$(jq -Rr --arg port "$2" \
            'fromjson? | objects | .fields | select(.message == "listening" and .port == $port) | .address' "$work/$1/stderr")
        if [ -n "$address" ]; then
            echo "$address"
            return
        fi
        kill -0 "${server_pid[$1]}" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}

# stop_server NAME: asks it to end, waits for it, insists after 20 seconds. Returns its exit status.
stop_server() {
    local pid=${server_pid[$1]} deadline=$((SECONDS + 20))
    unset "server_pid[$1]"
    kill -TERM "$pid" 2>/dev/null
    while [ $SECONDS -lt $deadline ] && kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null
    wait "$pid"
}

stop_servers() {
    local name
    for name in "${!server_pid[@]}"; do stop_server "$name"; done
}

# abort WHY: nothing can be checked any further.
abort() {
    fail "the run itself" "$1"
    echo "$passed passed, $failed failed"
    exit 1
}

# token SERVER SCOPE: prints a token for client 42.
token() {
    timeout 20 "$attachd" token --config "$work/$1/attachd.toml" --client 42 --scope "$2" --ttl 1h ||
        echo "attachd token failed" >&2
}

# ---- clients ----

# client NAME VAR=VALUE...: runs a client, bounded in time, with these on top of the exported variables.
client() {
    local name=$1 run=(timeout -k 5 60 env "${@:2}")
    [ $SECONDS -lt 900 ] || abort "15 minutes are over"
    case $name in
        *-download) run+=($(downloader "${name%-download}")) ;;
        curl) run+=(bash "$clients_dir/curl/upload.sh") ;;
        raw | python) run+=("$clients_dir/../.env/python/bin/python" "$clients_dir/$name/upload.py") ;;
        javascript) run+=(node "$clients_dir/javascript/upload.mjs") ;;
        # At its pace 100 MB take 50 seconds.
        form-data) run=(timeout -k 5 10 env "${@:2}" node "$clients_dir/javascript/submit.mjs") ;;
        ruby) run+=(ruby "$clients_dir/ruby/upload.rb") ;;
        php) run+=(php "$clients_dir/php/upload.php") ;;
        java) run+=(java "$clients_dir/java/Upload.java") ;;
        go) run+=(go run "$clients_dir/go/upload.go") ;;
        grpc-python) run+=("$clients_dir/../.env/python/bin/python" "$clients_dir/grpc-python/client.py") ;;
        grpc-node) run+=(node "$clients_dir/grpc-node/client.mjs") ;;
    esac
    "${run[@]}" >"$work/out" 2>"$work/err"
    client_exit=$?
}

# downloader NAME: prints the command of a client that downloads.
downloader() {
    local python="$clients_dir/../.env/python/bin/python"
    case $1 in
        curl) echo "bash $clients_dir/curl/download.sh" ;;
        python) echo "$python $clients_dir/python/download.py" ;;
        javascript) echo "node $clients_dir/javascript/download.mjs" ;;
        ruby) echo "ruby $clients_dir/ruby/download.rb" ;;
        php) echo "php $clients_dir/php/download.php" ;;
        java) echo "java $clients_dir/java/Download.java" ;;
        go) echo "go run $clients_dir/go/download.go" ;;
        grpc-python) echo "$python $clients_dir/grpc-python/download.py" ;;
        grpc-node) echo "node $clients_dir/grpc-node/download.mjs" ;;
    esac
}

# ---- checks ----

# answered NAME FILTER...: the last client ended well and printed one JSON line for each filter, and each holds.
answered() {
    local name=$1 filter all index=0
    all="length == $(($# - 1))"
    for filter in "${@:2}"; do
        all+=" and (.[$index] | $filter)"
        index=$((index + 1))
    done
    if [ "$client_exit" -eq 0 ] && jq -se "$all" "$work/out" >/dev/null 2>&1; then
        pass "$name"
    else
        fail "$name" "got $(tr '\n' ' ' <"$work/out")(exit $client_exit) $(tail -c 400 "$work/err" | tr '\n' ' ')"
    fi
}

# created, refused STATUS MESSAGE DETAILS, rpc_refused CODE REASON: filters for `answered`.
created='. == {status: 201, body:
    {status: "success", code: 201, message: "Operation completed successfully", details: []}}'

refused() {
    echo ".status == $1 and .body == {status: \"error\", code: $1, message: \"$2\", details: .body.details}
        and (.body.details | startswith(\"$3\"))"
}

rpc_refused() {
    echo ". == {ok: false, code: \"$1\", reason: \"$2\", domain: \"attachd\", message} and (.message | length > 0)"
}

# stored NAME SERVER ATTACHMENT_ID FILE: the record of client 42 tells of this file, its content is the file, and there is no
# other content.
stored() {
    local why="" at=("${storage_root[$2]}" 42 "$3")
    if ! cmp <(content_of "${at[@]}") "$4" >"$work/out" 2>&1; then
        why=$(cat "$work/out")
    elif ! diff <(content_paths "${at[@]}") <(find "$(content_folder "${at[@]}")" -type f 2>/dev/null) >"$work/out" 2>&1; then
        why=$(cat "$work/out")
    elif ! record_of "${at[@]}" | jq -e --arg filename "$(basename "$4")" --argjson size "$(stat -c %s "$4")" \
        --arg sha256 "$(sha256sum <"$4" | cut -d' ' -f1)" \
        '.content | {filename, size, sha256} == {$filename, $size, $sha256}' >/dev/null 2>&1; then
        why="record $(record_of "${at[@]}")"
    fi
    verdict "$1" "$why"
}

# nothing_stored NAME SERVER ATTACHMENT_ID: no file remains; what was written may take a moment to be swept.
nothing_stored() {
    local deadline=$((SECONDS + 5)) files
    while files=$(ls -d "$(record_path "${storage_root[$2]}" 42 "$3")" "$(content_folder "${storage_root[$2]}" 42 "$3")"/* 2>/dev/null) &&
        [ -n "$files" ]; do
        if [ $SECONDS -ge $deadline ]; then break; fi
        sleep 0.1
    done
    verdict "$1" "$files"
}
