#!/usr/bin/env bash
# Usage: hack/bench-start.sh [-n ROUNDS]
# Measures pod start and memory on a cluster of its own and writes docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./test/bench/start "$@"
