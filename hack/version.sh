#!/usr/bin/env bash
# Usage: hack/version.sh
# Prints the version of this tree: that of the chart, whose images are named after it, and behind a + the commit, which no image's tag can have.
set -euo pipefail
cd "$(dirname "$0")/.."
release=$(sed -n 's/^appVersion: "\(.*\)"$/\1/p' charts/sidemount/Chart.yaml)
commit=$(git describe --always --dirty --exclude '*' 2>/dev/null || true)
echo "${release:?no appVersion in charts/sidemount/Chart.yaml}${commit:++$commit}"
