#!/usr/bin/env bash
# Usage: hack/test.sh unit|juicefs|e2e...
# Runs the named parts of the tests, with a heading and the time of each.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/preflight.sh
BIN=${BIN:-$PWD/.cache/bin}

# A package that fails is tried once more and named, for the same reason as below; a data race is final.
unit() {
  local packages failed log
  BIN=$BIN hack/helm/build.sh # without it the chart's tests render nothing
  log=$(mktemp)
  packages=$(go list ./... | grep -Ev '/test/(e2e|webhook|sidecars)$')
  # shellcheck disable=SC2086 # a list of packages
  if ! CGO_ENABLED=1 go test -race -timeout 20m $packages 2>&1 | tee "$log"; then
    failed=$(awk '$1 == "FAIL" && $2 ~ "/" {print $2}' "$log" | sort -u)
    if [ -z "$failed" ] || grep -q 'DATA RACE' "$log"; then rm -f "$log"; return 1; fi
    echo "== test: failed, and tried once more: $failed" >&2
    # shellcheck disable=SC2086
    CGO_ENABLED=1 go test -race -count=1 -timeout 20m $failed || { rm -f "$log"; return 1; }
  fi
  rm -f "$log"
  (cd hack/cluster && go test -timeout 10m ./...)
}

juicefs() {
  local tags
  hack/preflight.sh redis-server=redis-server pg_ctlcluster=postgresql
  tags=$(mount/clients/juicefs/build.sh --print-tags)
  (cd mount/clients/juicefs && go test -timeout 15m -tags "$tags" ./...)
}

# The machines are shared and noisy: a spec that fails is tried once more, and reported as flaked if it passes then.
e2e() {
  hack/preflight.sh redis-server=redis-server redis-cli=redis-tools
  # What the chart needs, before the clock of a spec runs.
  BIN=$BIN hack/helm/build.sh
  BIN=$BIN hack/build-csi.sh
  go test -v -count=1 -p 1 -timeout 40m ./test/e2e ./test/webhook ./test/sidecars -ginkgo.v -ginkgo.flake-attempts=2 "${E2E_ARGS[@]}"
}

read -ra E2E_ARGS <<<"${E2E_ARGS:-}"
for part in "${@:?usage: hack/test.sh unit|juicefs|e2e...}"; do
  began=$SECONDS
  printf '\n== test: %s\n' "$part" >&2
  "$part"
  printf '== test: %s took %d s\n' "$part" $((SECONDS - began)) >&2
done
