#!/usr/bin/env bash
# Usage: hack/conformance.sh node|storage [ARGS...]
# Runs Kubernetes' own tests on the virtual node and, beside it, on an ordinary one; writes docs/conformance.md.
set -euo pipefail
cd "$(dirname "$0")/.."
suite=${1:?usage: hack/conformance.sh node|storage}; shift
hack/preflight.sh bash=bash curl=curl nc.openbsd=netcat-openbsd busybox=busybox-static redis-server=redis-server redis-cli=redis-tools
failed=0
for node in ${NODES_UNDER_TEST:-vn-1 node-1}; do
  go run ./test/conformance -suite "$suite" -node "$node" -doc docs/conformance.md "$@" || failed=1
done
exit $failed
