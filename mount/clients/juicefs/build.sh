#!/usr/bin/env bash
# Usage: build.sh OUTPUT
# Builds the static sidemount-juicefs binary at OUTPUT. cgo is needed (SQLite, LZ4); glibc's static archive must be there.
# TAGS may be printed for go vet and go test with: build.sh --print-tags
set -euo pipefail

# Metadata: Redis, SQLite, MySQL, PostgreSQL. Objects: file, S3 and what speaks S3 (MinIO). All else is left out.
tags="nogateway,nowebdav,nocos,nobos,nohdfs,noibmcos,noobs,nooss,noqingstor,noqingstore,noqiniu,nosftp,noswift,noazure"
tags="$tags,nogs,noufile,nob2,nonfs,nodragonfly,notikv,nobadger,noetcd,osusergo,netgo,sqlite_omit_load_extension"

if [[ "${1:-}" == --print-tags ]]; then
	echo "$tags"
	exit 0
fi
output=$(realpath -m "${1:?usage: build.sh OUTPUT}")
cd "$(dirname "$0")"
CGO_ENABLED=1 go build -trimpath -tags "$tags" -ldflags '-s -w -linkmode external -extldflags "-static"' \
	-o "$output" ./cmd/sidemount-juicefs
