#!/usr/bin/env bash
# Usage: hack/chart-test.sh
# Tests the chart: lint, schema and golden files first, then installation, upgrade, rollback and uninstallation on a cluster of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/preflight.sh redis-server=redis-server redis-cli=redis-tools
export BIN=${BIN:-$PWD/.cache/bin}
hack/helm/build.sh
hack/build-csi.sh
go test -count=1 ./test/chart
SIDEMOUNT_CHART=install go test -count=1 -timeout 40m -v ./test/chart -run TestInstallation -ginkgo.v
