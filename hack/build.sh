#!/usr/bin/env bash
# Usage: hack/build.sh [images]
# Builds every binary into $BIN (default .cache/bin): the product, the JuiceFS client, the cluster and its tools. With "images" only those that images need, which
# is no Kubernetes, and what a cluster needs of this machine is not asked for.
set -euo pipefail
cd "$(dirname "$0")/.."
what=${1:-}
hack/preflight.sh ${what:+build}
BIN=${BIN:-$PWD/.cache/bin}
ldflags="-s -w -X main.version=${VERSION:-dev}"
mkdir -p "$BIN"

step() { # step NAME COMMAND...: run it, with a dot every ten seconds so that nobody thinks it hangs
  local name=$1 began=$SECONDS dots=0 work; shift
  printf 'build %-20s' "$name" >&2
  "$@" >"$BIN/.log" 2>&1 & work=$!
  while kill -0 "$work" 2>/dev/null; do
    sleep 0.2
    if (( (SECONDS - began) / 10 > dots )); then dots=$((dots + 1)); printf . >&2; fi
  done
  wait "$work" || { echo " failed" >&2; cat "$BIN/.log" >&2; exit 1; }
  echo " $((SECONDS - began)) s" >&2
}

step sidemount-agent env CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$BIN/sidemount-agent" ./cmd/sidemount-agent
step sidemount env CGO_ENABLED=0 go build -trimpath -ldflags "$ldflags" -o "$BIN/sidemount" ./cmd/sidemount
step sidemount-juicefs mount/clients/juicefs/build.sh "$BIN/sidemount-juicefs"
step cluster env CGO_ENABLED=0 go build -C hack/cluster -trimpath -o "$BIN/cluster" ./cmd/cluster
[ "$what" = images ] || "$BIN/cluster" build --bin "$BIN"
