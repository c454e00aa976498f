#!/usr/bin/env bash
# Usage: [N=100] [SEED=...] [KINDS=client,oom,agent,stop,upgrade,node,delete,server] hack/recovery.sh [-doc docs/recovery.md]
# KINDS: client@sidecar and client@mountpod are client in one of the two places, and so are oom and stop; delete and server are for Mount Pods only.
# Kills clients, agents, the node's process, Mount Pods and the CSI driver at random below applications that notice everything; fails if one of them did.
set -euo pipefail
cd "$(dirname "$0")/.."
hack/preflight.sh
missing=()
for tool in fio sqlite3 git; do command -v "$tool" >/dev/null || missing+=("$tool"); done
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || { echo "recovery: install these first: ${missing[*]}." >&2; exit 1; }
  echo "installing ${missing[*]}" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } >/tmp/sidemount-apt.log 2>&1 \
    || { echo "recovery: apt-get could not install ${missing[*]}: see /tmp/sidemount-apt.log." >&2; exit 1; }
fi
go build -o .cache/recovery-harness ./test/recovery
args=(-n "${N:-100}")
if [ -n "${SEED:-}" ]; then args+=(-seed "$SEED"); fi
if [ -n "${KINDS:-}" ]; then args+=(-kinds "$KINDS"); fi
exec .cache/recovery-harness "${args[@]}" "$@"
