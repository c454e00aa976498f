#!/usr/bin/env bash
# Usage: [IMAGE_TAG=TAG] hack/build-images.sh
# Builds the container images as docker archives in $IMAGES (default .cache/images), without Docker, with the
# same content as the Dockerfile's final stages. The tag is that of the programs' default images: $VERSION without its commit.
# csi-sidecars is built once its programs are there (hack/build-csi.sh).
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
out=${IMAGES:-.cache/images}
tag=${IMAGE_TAG:-${VERSION:-dev}}
tag=${tag%%+*}
mkdir -p "$out/sbom"
bindir=/usr/local/bin
certificates=/etc/ssl/certs/ca-certificates.crt

build() { # build NAME PROGRAM[,PROGRAM...] ARGS...: skipped when the image has this tag and is newer than what goes in
  local name=$1 programs=() files=() program newer=true; shift
  [ "$(cat "$out/$name.tag" 2>/dev/null)" = "$tag" ] || newer=false
  IFS=, read -ra programs <<<"$1"; shift
  for program in "${programs[@]}"; do
    [ "$out/$name.tar" -nt "$BIN/$program" ] || newer=false
    files+=(--file "$BIN/$program:$bindir/$program:0755")
  done
  if $newer && [ "$out/$name.tar" -nt "$0" ]; then return; fi
  echo "image ghcr.io/sidemount/$name:$tag" >&2
  rm -f "$out/$name.tag"
  go run ./hack/images/sbom --name "$name" --version "${VERSION:-dev}" "${programs[@]/#/$BIN/}" >"$out/sbom/$name.spdx.json"
  "$BIN/cluster" image build --name "ghcr.io/sidemount/$name:$tag" --tar "$out/$name.tar" "${files[@]}" \
    --file "$out/sbom/$name.spdx.json:/usr/share/sbom/$name.spdx.json:0644" \
    --file "$certificates:$certificates:0644" --dir /tmp:1777 "$@"
  echo "$tag" >"$out/$name.tag"
}

build juicefs-client sidemount-juicefs --user 65534:65534 --entrypoint "$bindir/sidemount-juicefs"
build sidemount sidemount,sidemount-agent --entrypoint "$bindir/sidemount"
if [ -x "$BIN/snapshot-controller" ]; then
  build csi-sidecars csi-provisioner,csi-resizer,csi-snapshotter,snapshot-controller --user 65534:65534
fi
