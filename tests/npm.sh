# shellcheck shell=bash
# Installs Node packages, for the scripts that source this file.

# npm_packages FROM TO: installs what FROM/package-lock.json pins into the folder TO, unless that is there already.
npm_packages() {
    if cmp -s "$1/package-lock.json" "$2/installed-lock.json"; then return; fi
    rm -rf "$2" && mkdir -p "$2" && cp "$1/package.json" "$1/package-lock.json" "$2/" &&
        (cd "$2" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null) &&
        cp "$1/package-lock.json" "$2/installed-lock.json"
}
