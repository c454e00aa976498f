#!/usr/bin/env bash
# Usage: hack/helm/build.sh
# Builds helm, of the version in hack/helm/go.mod, into $BIN (default .cache/bin). The second time it does nothing.
set -euo pipefail
cd "$(dirname "$0")"
BIN=${BIN:-$PWD/../../.cache/bin}
mkdir -p "$BIN"
[ "$BIN/helm" -nt go.sum ] && [ "$BIN/helm" -nt build.sh ] && exit
began=$SECONDS
printf 'build %-20s' helm >&2
version=$(go list -m -f '{{.Version}}' helm.sh/helm/v3)
CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=$version" -o "$BIN/helm" helm.sh/helm/v3/cmd/helm
echo " $((SECONDS - began)) s" >&2
