#!/usr/bin/env bash
# Builds every overlay, and the base with each component, and holds them to the schemas of Kubernetes and of the custom resources,
# to a policy (kube-score), and to the program itself. Usage: tests/deploy/manifests.sh ATTACHD, as root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
attachd=$(realpath "$1")
# shellcheck source=tests/deploy/lib.sh
. tests/deploy/lib.sh
# shellcheck source=tests/npm.sh
. tests/npm.sh
trap 'rm -rf "$work"' EXIT

# ---- what it needs ----
need go golang-go
need node nodejs
need npm npm
need openssl openssl
need curl curl
need nginx nginx-light
tool kustomize sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
tool kube-score github.com/zegl/kube-score/cmd/kube-score@v1.20.0
python_packages
npm_packages tests/deploy/schemas "$env_dir/schemas" || abort "the packages of tests/deploy/schemas cannot be installed"
cp tests/deploy/schemas/crds.mjs "$env_dir/schemas/"

# ---- every set that someone could apply ----
mkdir -p "$work/sets"
kubernetes=$(realpath --relative-to="$work/one" deploy/kubernetes)

# build NAME DIRECTORY
build() {
    local why=""
    "$kustomize" build "$2" >"$work/sets/$1.yaml" 2>"$work/err" || why=$(cat "$work/err")
    verdict "$1 builds" "$why"
}

# with NAME COMPONENT…: the base with these components.
with() {
    local name=$1 component
    shift
    mkdir -p "$work/one"
    { printf 'resources: [%s/base]\ncomponents:\n' "$kubernetes"
      for component in "$@"; do printf -- '- %s/components/%s\n' "$kubernetes" "$component"; done
    } >"$work/one/kustomization.yaml"
    build "$name" "$work/one"
}

for overlay in deploy/kubernetes/overlays/*/; do build "$(basename "$overlay")" "$overlay"; done
for component in deploy/kubernetes/components/*/; do
    component=$(basename "$component")
    case $component in
        gateway-envoy) with "base+$component" gateway gateway-envoy ;;
        fs | azblob) with "base+$component" gc "$component" ;;
        *) with "base+$component" "$component" ;;
    esac
done

# run NAME COMMAND…: runs a program of verdicts; that it ends well is one more.
run() {
    local name=$1 why=""
    shift
    "$@" >"$work/verdicts" 2>"$work/err" || why="exit $?: $(tail -n 3 "$work/err")"
    count <"$work/verdicts"
    verdict "$name" "$why"
}

run "Kubernetes' schemas" "$python" tests/deploy/schemas/kubernetes.py "$work"/sets/*.yaml
run "the schemas of custom resources" node "$env_dir/schemas/crds.mjs" "$work/types" "$work"/sets/*.yaml

# ---- the program ----
version=$("$attachd" --version | cut -d' ' -f2)
run "the manifests and the program agree" "$python" tests/deploy/agree.py "$attachd" "$version" "$work"/sets/*.yaml

# Those that differ in what the server is told. Each has a network of its own, so they run side by side.
starts=(dev staging production base+fs)
for set in "${starts[@]}"; do
    unshare --net --mount --propagation private "$python" tests/deploy/start.py "$attachd" "$work/sets/$set.yaml" \
        >"$work/$set.started" 2>&1 &
done
wait
for set in "${starts[@]}"; do
    why=""
    grep -q "^ok $set: " "$work/$set.started" || why=$(tail -n 5 "$work/$set.started" | tr '\n' ' ')
    verdict "$set runs as its pod: probed, measured, asked at its routes, ended" "$why"
done

run "uploads through nginx" "$python" tests/deploy/proxy.py "$attachd" "$(command -v nginx)" \
    "$work/sets/base+ingress-nginx.yaml" "$work/nginx"

# ---- the policy ----
# What is not asked, and why:
#   container-resources' CPU limit   it would stall uploads that the node has the time for
#   container-image-pull-policy      images are named by an unchanging tag or a digest; nodes need not ask the registry each time
#   *-podantiaffinity                topologySpreadConstraints say the same, for zones too
policy=(--kubernetes-version v1.30 --ignore-container-cpu-limit
    --enable-optional-test container-ports-check --enable-optional-test container-seccomp-profile
    --ignore-test container-image-pull-policy
    --ignore-test deployment-has-host-podantiaffinity --ignore-test statefulset-has-host-podantiaffinity)
for set in "$work"/sets/*.yaml; do
    "$kube_score" score "${policy[@]}" --exit-one-on-warning --output-format ci "$set" >"$work/score" 2>&1 || true
    why=$(grep -vE '^\[(OK|SKIPPED)\]' "$work/score" | tr '\n' ';' || true)
    grep -q '^\[OK\]' "$work/score" || why="it looked at nothing; $why"
    verdict "$(basename "$set" .yaml) keeps the policy of kube-score" "$why"
done

conclude
