# shellcheck shell=bash
# Builds large Go programs, for the scripts that source this file.

# go_apart ARGUMENT…: runs go with caches of its own, which are deleted afterwards. What a large program is built from takes
# gigabytes, and is not needed once there is the program.
go_apart() {
    local caches status=0
    caches=$(mktemp -d) || return 1
    GOCACHE=$caches/build GOMODCACHE=$caches/modules GOFLAGS="${GOFLAGS:-} -modcacherw" nice go "$@" || status=$?
    rm -rf "$caches"
    return "$status"
}
