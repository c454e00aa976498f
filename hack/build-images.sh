#!/usr/bin/env bash
# Usage: hack/build-images.sh
# Builds the container images as tar files (OCI layout and docker archive at once) in .cache/images, without Docker, with the same
# content as the Dockerfile's final stages. csi-sidecars is built once its programs are there (hack/build-csi.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
out=.cache/images
tag=${IMAGE_TAG:-dev}
mkdir -p "$out/sbom"
bindir=/usr/local/bin
certificates=/etc/ssl/certs/ca-certificates.crt

build() { # build NAME PROGRAM[,PROGRAM...] ARGS...: skipped when the image is newer than what goes in
  local name=$1 programs=() files=() program newer=true; shift
  IFS=, read -ra programs <<<"$1"; shift
  for program in "${programs[@]}"; do
    [ "$out/$name.tar" -nt "$BIN/$program" ] || newer=false
    files+=(--file "$BIN/$program:$bindir/$program:0755")
  done
  if $newer && [ "$out/$name.tar" -nt "$0" ]; then return; fi
  echo "image ghcr.io/sidemount/$name:$tag" >&2
  go run ./hack/images/sbom --name "$name" --version "${VERSION:-dev}" "${programs[@]/#/$BIN/}" >"$out/sbom/$name.spdx.json"
  "$BIN/cluster" image build --name "ghcr.io/sidemount/$name:$tag" --tar "$out/$name.tar" "${files[@]}" \
    --file "$out/sbom/$name.spdx.json:/usr/share/sbom/$name.spdx.json:0644" \
    --file "$certificates:$certificates:0644" --dir /tmp:1777 "$@"
}

build juicefs-client sidemount-juicefs --user 65534:65534 --entrypoint "$bindir/sidemount-juicefs"
build sidemount sidemount,sidemount-agent --entrypoint "$bindir/sidemount"
if [ -x "$BIN/snapshot-controller" ]; then
  build csi-sidecars csi-provisioner,csi-resizer,csi-snapshotter,snapshot-controller --user 65534:65534
fi
