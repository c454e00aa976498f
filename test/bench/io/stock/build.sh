#!/usr/bin/env bash
# Usage: build.sh OUTPUT
# Builds stock JuiceFS at OUTPUT, static and with the build tags of this project's own client.
set -euo pipefail
output=$(realpath -m "${1:?usage: build.sh OUTPUT}")
cd "$(dirname "$0")"
tags=$(../../../../mount/clients/juicefs/build.sh --print-tags)
CGO_ENABLED=1 go build -trimpath -tags "$tags" -ldflags '-s -w -linkmode external -extldflags "-static"' -o "$output" github.com/juicedata/juicefs
