#!/usr/bin/env bash
# Usage: hack/build-images.sh
# Builds the container images as tar files (OCI layout and docker archive at once) in .cache/images, without Docker.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
out=.cache/images
tag=${IMAGE_TAG:-dev}
mkdir -p "$out"

build() { # build NAME BINARY ARGS...: skipped when the image is newer than what goes in
  local name=$1 binary=$2; shift 2
  [ "$out/$name.tar" -nt "$binary" ] && [ "$out/$name.tar" -nt "$0" ] && return
  echo "image ghcr.io/sidemount/$name:$tag" >&2
  "$BIN/cluster" image build --name "ghcr.io/sidemount/$name:$tag" --tar "$out/$name.tar" "$@"
}

# The same content as the Dockerfile's final stages.
build juicefs-client "$BIN/sidemount-juicefs" \
  --file "$BIN/sidemount-juicefs:/usr/local/bin/sidemount-juicefs:0755" \
  --file /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:0644 \
  --dir /tmp:1777 --user 65534:65534 --entrypoint /usr/local/bin/sidemount-juicefs
build sidemount "$BIN/sidemount" \
  --file "$BIN/sidemount:/usr/local/bin/sidemount:0755" \
  --file "$BIN/sidemount-agent:/usr/local/bin/sidemount-agent:0755" \
  --file /etc/ssl/certs/ca-certificates.crt:/etc/ssl/certs/ca-certificates.crt:0644 \
  --dir /tmp:1777 --entrypoint /usr/local/bin/sidemount
