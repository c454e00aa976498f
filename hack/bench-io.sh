#!/usr/bin/env bash
# Usage: hack/bench-io.sh [-n ROUNDS]
# Measures reads, writes and names on a cluster of its own, beside stock JuiceFS and a plain directory, and writes docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/preflight.sh
if ! command -v fio >/dev/null; then
  command -v apt-get >/dev/null || { echo "bench-io: install fio first." >&2; exit 1; }
  echo "installing fio" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends fio; } >/tmp/sidemount-apt.log 2>&1 \
    || { echo "bench-io: apt-get could not install fio: see /tmp/sidemount-apt.log." >&2; exit 1; }
fi
stock=${BIN:-$PWD/.cache/bin}/juicefs-stock
if [ ! -x "$stock" ] || [ test/bench/io/stock/go.sum -nt "$stock" ]; then
  echo "build juicefs-stock (first time: minutes)" >&2
  test/bench/io/stock/build.sh "$stock"
fi
go build -o .cache/bench-io ./test/bench/io
exec .cache/bench-io -stock "$stock" "$@"
