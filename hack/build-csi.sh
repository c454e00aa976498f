#!/usr/bin/env bash
# Usage: hack/build-csi.sh
# Builds the sidecars of the CSI controller into $BIN (default .cache/bin): csi-provisioner, csi-resizer, csi-snapshotter and
# snapshot-controller; and puts the CRDs of snapshots into $CRDS (default .cache/csi-crds). The first time it compiles for
# minutes; a program that is newer than the module that pins it is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
CRDS=${CRDS:-$PWD/.cache/csi-crds}
mkdir -p "$BIN" "$CRDS"

version() { go list -C hack/csi -m -f '{{.Version}}' "$1"; }

build() { # build NAME MODULE: the version is asked for by the sidecar's --version, and in its log
  local began=$SECONDS
  if [ "$BIN/$1" -nt hack/csi/go.mod ] && [ "$BIN/$1" -nt hack/csi/go.sum ] && [ "$BIN/$1" -nt hack/build-csi.sh ]; then return; fi
  printf 'build %-20s' "$1" >&2
  CGO_ENABLED=0 go build -C hack/csi -trimpath -ldflags "-s -w -X main.version=$(version "$2")" -o "$BIN/$1" "$2/cmd/$1"
  echo " $((SECONDS - began)) s" >&2
}

build csi-provisioner github.com/kubernetes-csi/external-provisioner/v6
build csi-resizer github.com/kubernetes-csi/external-resizer/v2
build csi-snapshotter github.com/kubernetes-csi/external-snapshotter/v8
build snapshot-controller github.com/kubernetes-csi/external-snapshotter/v8

client=$(go list -C hack/csi -m -f '{{.Dir}}' github.com/kubernetes-csi/external-snapshotter/client/v8)
rm -f "$CRDS"/*.yaml
install -m 0644 "$client"/config/crd/snapshot.storage.k8s.io_*.yaml "$CRDS/"
