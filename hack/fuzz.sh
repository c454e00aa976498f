#!/usr/bin/env bash
# Usage: FUZZTIME=60s hack/fuzz.sh
# Runs every fuzz target of this module, one after another. Go would otherwise spend most of a minute making the first input that it likes smaller.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${FUZZTIME:-60s}
git grep -lE '^func Fuzz' -- '*_test.go' | while read -r file; do
  dir=$(dirname "$file")
  for target in $(grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{print $2}'); do
    echo "fuzz: $dir $target for $time" >&2
    (cd "$dir" && go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 2s . </dev/null)
  done
done
