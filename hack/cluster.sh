#!/usr/bin/env bash
# Usage: hack/cluster.sh up [--nodes N] [--virtual N] | down | status
# Starts and stops the cluster named $CLUSTER_NAME (default sidemount) with this tree's binaries in it.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
name=${CLUSTER_NAME:-sidemount}
verb=${1:?usage: hack/cluster.sh up|down|status}; shift

cluster() { "$BIN/cluster" "$@"; }

case $verb in
  up)
    IMAGE_TAG=dev hack/build-images.sh
    cluster up --name "$name" --bin "$BIN" --sidemount "$BIN/sidemount" --sidemount-agent "$BIN/sidemount-agent" \
      --virtual-node-arg=--juicefs-image=ghcr.io/sidemount/juicefs-client:dev \
      --virtual-node-arg=--driver-name=csi.sidemount.io,csi.juicefs.com "$@"
    cluster image push --name "$name" .cache/images/*.tar
    ;;
  down)
    if [ ! -x "$BIN/cluster" ]; then echo "no cluster was built here" >&2; exit 0; fi
    cluster down --name "$name" "$@"
    ;;
  status) cluster status --name "$name" "$@" ;;
  *) echo "usage: hack/cluster.sh up|down|status" >&2; exit 2 ;;
esac
