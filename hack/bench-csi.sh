#!/usr/bin/env bash
# Usage: hack/bench-csi.sh [-n ROUNDS] [-claims CLAIMS] [-pods PODS]
# Measures the CSI driver on a cluster of its own and writes docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
exec go run ./test/bench/csi "$@"
