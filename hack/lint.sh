#!/usr/bin/env bash
# Usage: hack/lint.sh
# golangci-lint over every module, `bash -n` over every script, and the commits' own rule: gofmt changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
mkdir -p "$BIN"
if [ ! -x "$BIN/golangci-lint" ] || [ hack/tools/go.sum -nt "$BIN/golangci-lint" ]; then
  echo "lint: building golangci-lint (first time: minutes)" >&2
  go build -C hack/tools -o "$BIN/golangci-lint" github.com/golangci/golangci-lint/v2/cmd/golangci-lint
fi

unformatted=$(git ls-files '*.go' | xargs -r gofmt -l)
[ -z "$unformatted" ] || { echo "lint: gofmt would change: $unformatted" >&2; exit 1; }
git ls-files '*.sh' .ci/run | xargs -rn 1 bash -n

config=$PWD/.golangci.yml
for mod in $(git ls-files '*go.mod' | grep -v '^hack/tools/'); do
  dir=$(dirname "$mod")
  (cd "$dir" && go list ./... >/dev/null 2>&1) || continue
  echo "lint: $dir" >&2
  (cd "$dir" && "$BIN/golangci-lint" run --config "$config" ./...)
done
