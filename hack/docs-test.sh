#!/usr/bin/env bash
# Usage: [DOCS_ARGS='-ginkgo.skip=without.a.cluster'] hack/docs-test.sh
# Runs every command block of README.md and docs/ in the order of the pages, on a cluster of its own with the chart installed.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/preflight.sh redis-server=redis-server redis-cli=redis-tools openssl=openssl
export BIN=${BIN:-$PWD/.cache/bin}
hack/helm/build.sh
hack/build-csi.sh
read -ra DOCS_ARGS <<<"${DOCS_ARGS:-}"
SIDEMOUNT_DOCS=run exec go test -count=1 -timeout 45m -v ./test/docs -run TestBlocks -ginkgo.v "${DOCS_ARGS[@]}"
