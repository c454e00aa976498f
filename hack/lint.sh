#!/usr/bin/env bash
# Usage: hack/lint.sh
# golangci-lint over every module, `bash -n` over every script, and the commits' own rule: gofmt changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
mkdir -p "$BIN"
# The JuiceFS engine is checked with cgo.
command -v gcc >/dev/null || hack/preflight.sh
if [ ! -x "$BIN/golangci-lint" ] || [ hack/tools/go.sum -nt "$BIN/golangci-lint" ]; then
  echo "lint: building golangci-lint (first time: minutes)" >&2
  go build -C hack/tools -o "$BIN/golangci-lint" github.com/golangci/golangci-lint/v2/cmd/golangci-lint
fi

unformatted=$(git ls-files '*.go' | xargs -r gofmt -l)
[ -z "$unformatted" ] || { echo "lint: gofmt would change: $unformatted" >&2; exit 1; }
git ls-files '*.sh' .ci/run | xargs -rn 1 bash -n

lint() { # lint DIR [FLAG...]
  local dir=$1; shift
  echo "lint: $dir" >&2
  (cd "$dir" && "$BIN/golangci-lint" run --allow-parallel-runners --config "$root/.golangci.yml" "$@" ./...)
}

root=$PWD
lint .
lint mount/clients/juicefs --build-tags "$(mount/clients/juicefs/build.sh --print-tags)"
# Not hack/cluster/kube and hack/cluster/runtime: they only name programs of Kubernetes and containerd, and checking them compiles both.
lint hack/cluster
