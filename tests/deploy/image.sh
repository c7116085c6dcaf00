#!/usr/bin/env bash
# Builds deploy/Dockerfile with buildah, looks at what is in the image, and runs it: as uid 65532, on a root that nobody can
# write to, probed, and used for uploads through both doors. No image registry is needed: the base is made of Debian packages.
# Usage: tests/deploy/image.sh ATTACHD, as root. ATTACHD is the program of `cargo build --profile dist`, with the same variables
# CARGO_PROFILE_DIST_*.
#
# The toolchain in the base is that of this machine, mounted, and so is what `cargo build --profile dist` has compiled: cargo in
# the image compiles what differs. If nothing differs, the image has the very program that the other tests tried.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
attachd=$(realpath "$1")
# shellcheck source=tests/deploy/lib.sh
. tests/deploy/lib.sh

need buildah buildah
need mmdebstrap mmdebstrap
need curl curl
need jq jq
need mandoc mandoc
need groff groff-base

suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
base=attachd-test-base-$$
image=attachd-test-$$
container=""
server=""

end() {
    if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi
    if [ -n "$container" ]; then buildah rm "$container" >/dev/null; fi
    for name in "$image" "$base"; do
        if buildah inspect --type image "$name" >/dev/null 2>&1; then buildah rmi "$name" >/dev/null; fi
    done
    rm -rf "$work"
}
trap end EXIT

# ---- the base: Debian's essential packages and what compiles C ----
tar=$cache/builder-$suite.tar
if [ ! -s "$tar" ]; then
    mmdebstrap --quiet --variant=essential --include=ca-certificates,gcc,libc6-dev "$suite" "$tar.$$"
    mv "$tar.$$" "$tar"
fi
scratch=$(buildah from scratch)
buildah add --quiet "$scratch" "$tar" / >/dev/null
# cargo and rustc are mounted where they lie on this machine, and the sources laid where they lie: what was compiled knows
# them by path.
sysroot=$(rustc --print sysroot)
# The settings of the profile that are not those of Cargo.toml.
settings=()
for name in "${!CARGO_PROFILE_DIST_@}"; do settings+=(--env "$name=${!name}"); done
buildah config "${settings[@]}" --env "PATH=$sysroot/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
    --env "CARGO_HOME=${CARGO_HOME:-$HOME/.cargo}" "$scratch"
buildah commit --quiet --rm "$scratch" "$base" >/dev/null

# ---- the image ----
# The copy keeps times, by which cargo knows what is compiled.
mkdir -p "$work/target/dist"
cp -a --reflink=auto "$(dirname "$attachd")"/{.fingerprint,build,deps} "$work/target/dist/"
started=$SECONDS
version=$("$attachd" --version | cut -d' ' -f2)
revision=$(git rev-parse HEAD)
buildah build --quiet --isolation chroot --pull=never --layers=false -f deploy/Dockerfile -t "$image" \
    --build-arg BUILDER="$base" --build-arg DIRECTORY="$PWD" --build-arg VERSION="$version" --build-arg REVISION="$revision" \
    --volume "$sysroot:$sysroot:ro" --volume "${CARGO_HOME:-$HOME/.cargo}:${CARGO_HOME:-$HOME/.cargo}" \
    --volume "$work/target:$PWD/target" . >"$work/build.log" 2>&1 || abort "buildah: $(tail -n 20 "$work/build.log")"
rm -rf "$work/target"
echo "built in $((SECONDS - started)) s"

# ---- what is in it ----
container=$(buildah from --pull=never "$image")
root=$(buildah mount "$container")
size_mib=$(du -sm --apparent-size "$root" | cut -f1)
buildah push --quiet "$image" "oci-archive:$work/image.tar" >/dev/null
packed_mib=$((($(stat -c %s "$work/image.tar") + 1048575) / 1048576))
why=""
[ "$size_mib" -le 40 ] || why="$size_mib MiB"
verdict "the image is small: $size_mib MiB, $packed_mib MiB to pull" "$why"

why=$(find "$root" -type f -printf '/%P\n' | grep -vxE \
    '/usr/bin/attachd|/usr/share/man/man1/attachd(-[a-z]+)*\.1|/etc/(passwd|group|ssl/certs/ca-certificates\.crt)|/lib(64)?/([a-z0-9_]+-linux-gnu/)?(ld-linux[^/]*|lib(c|m|gcc_s))\.so\.[0-9]+' |
    tr '\n' ' ' || true)
verdict "it holds the program, its pages, its libraries and the authorities, and nothing that could be a shell" "$why"

why=$(find "$root" ! -type l \( -perm /6022 -o ! -user 0 -o ! -group 0 \) -printf '/%P ' | sed 's|^/var/lib/attachd $||')
verdict "all of it is root's and only root's to change, but the folder of the storage" "$why"

why=""
"$attachd" man "$work/man"
diff -r "$work/man" "$root/usr/share/man/man1" >"$work/diff" 2>&1 || why=$(head -n 5 "$work/diff")
for page in "$root"/usr/share/man/man1/*; do
    why+=$(mandoc -Tlint -W error "$page" 2>&1 | head -n 3 || true)
    why+=$(groff -man -ww -z "$page" 2>&1 | head -n 3)
done
verdict "it has a manual page for each command, which mandoc and groff read without an error" "$why"

inspected=$(buildah inspect --type image "$image" | jq -c .OCIv1.config)
why=$(jq -r --arg version "$version" --arg revision "$revision" '
    {User: "65532:65532", Entrypoint: ["/usr/bin/attachd"], Cmd: ["serve", "--config", "/etc/attachd/attachd.toml"],
     StopSignal: "SIGTERM"} as $want
    | [(if (. | {User, Entrypoint, Cmd, StopSignal}) != $want then "starts as \(.)" else empty end),
       (if (.ExposedPorts | keys) != ["50051/tcp", "8080/tcp", "9090/tcp"] then "ports" else empty end),
       (.Labels as $labels | {version: $version, revision: $revision, title: "attachd", licenses: "Apache-2.0"} | to_entries[]
        | select($labels["org.opencontainers.image.\(.key)"] != .value) | "label \(.key)")] | join(", ")' <<<"$inspected")
verdict "it starts the server as uid 65532, and its labels say what it is" "$why"

# ---- it runs ----
mkdir -p "$work/etc" "$work/data"
chown 65532:65532 "$work/data"
head -c 48 /dev/urandom | base64 >"$work/etc/secret"
configuration /var/lib/attachd >"$work/etc/attachd.toml"
chmod -R a+rX "$work/etc"
touch "$work/before"
volumes=(--volume "$work/etc:/etc/attachd:ro" --volume "$work/data:/var/lib/attachd")
# What `buildah run` is told is the image's own entry point and command: it takes neither by itself.
mapfile -t command < <(jq -r '(.Entrypoint + .Cmd)[]' <<<"$inspected")
buildah run --isolation chroot "${volumes[@]}" "$container" -- "${command[@]}" >"$work/out" 2>"$work/log" &
server=$!

# address PORT: waits for the line that tells where a port listens.
address() {
    local deadline=$((SECONDS + 30)) address
    while [ $SECONDS -lt $deadline ]; do
        address=$(jq -Rr --arg port "$1" \
            'fromjson? | objects | .fields | select(.message == "listening" and .port == $port) | .address' "$work/log")
        if [ -n "$address" ]; then echo "$address"; return; fi
        kill -0 "$server" 2>/dev/null || return 1
        sleep 0.1
    done
    return 1
}
rest=$(address rest) && grpc=$(address grpc) && admin=$(address admin) || abort "it did not start: $(tail -n 5 "$work/log")"

why=""
for path in startupz livez readyz; do
    status=$(curl -sS -o "$work/reply" -w '%{http_code}' --max-time 10 --retry 10 --retry-delay 1 "http://$admin/$path") || true
    [ "$status" = 200 ] || why+="/$path: $status $(cat "$work/reply") "
done
verdict "it answers its three probes" "$why"

process=$(pgrep -n -x attachd -u 65532) || abort "no process of uid 65532"
why=$(awk '/^(Uid|Gid):/ { for (i = 2; i <= 5; i++) if ($i != 65532) print $1, $i }' "/proc/$process/status")
verdict "it runs as uid and gid 65532" "$why"

head -c 20000000 /dev/urandom >"$work/file"
"$attachd" token --config "$work/etc/attachd.toml" --client 1 --scope attachments:write --ttl 1h >"$work/token"
status=$(curl -sS -o "$work/reply" -w '%{http_code}' --max-time 60 -H "Authorization: Bearer $(cat "$work/token")" \
    -F "file=@$work/file" "http://$rest/api/v2/clients/1/attachments/1") || true
why=""
[ "$status" = 201 ] || why="$status $(cat "$work/reply")"
cmp "$work/file" <(content_of "$work/data" 1 1) >"$work/cmp" 2>&1 || why+=" $(cat "$work/cmp")"
verdict "it stores an upload over REST" "$why"

why=""
"$attachd" upload "$work/file" --client 1 --attachment 2 --to "http://$grpc" --token-file "$work/token" >"$work/reply" 2>&1 ||
    why=$(cat "$work/reply")
cmp "$work/file" <(content_of "$work/data" 1 2) >"$work/cmp" 2>&1 || why+=" $(cat "$work/cmp")"
verdict "it stores an upload over gRPC" "$why"

kill -TERM "$process"
status=0
wait "$server" || status=$?
server=""
why=""
[ "$status" -eq 0 ] || why="exit status $status: $(tail -n 3 "$work/log")"
verdict "on SIGTERM it drains and ends with 0" "$why"

# buildah lays three files of its own into /etc.
why=$(find "$root" -newer "$work/before" ! -type d -printf '/%P\n' | grep -vxE '/etc/(hosts|hostname|resolv\.conf)' | tr '\n' ' ' || true)
verdict "it wrote nothing outside of its volume" "$why"

# chroot isolation has no read-only root, so it is made here: a bind mount that the kernel keeps anyone from writing to.
# Warnings of the configuration may stand beside what it says.
why=""
# shellcheck disable=SC2016
unshare --mount --propagation private bash -euc '
    mount --bind "$1" "$1"
    mount --bind "$2/etc" "$1/etc/attachd"
    mount --bind "$2/data" "$1/var/lib/attachd"
    mount -o remount,bind,ro "$1"
    ! touch "$1/etc/written" 2>/dev/null || { echo "the root can be written to"; exit 1; }
    exec setpriv --no-new-privs chroot --userspec=65532:65532 --groups= "$1" /usr/bin/attachd check --config /etc/attachd/attachd.toml' \
    - "$root" "$work" >"$work/reply" 2>&1 || why=$(cat "$work/reply")
grep -q 'the storage works' "$work/reply" || why=$(cat "$work/reply")
verdict "it opens its storage on a root that is read-only" "$why"

conclude
