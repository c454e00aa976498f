#!/usr/bin/env bash
# Usage: hack/preflight.sh [build] [TOOL=PACKAGE...]
# Says in one sentence what is missing to run a cluster on this machine, or with "build" only to compile, and installs what Debian has.
set -euo pipefail

die() { echo "sidemount: $*" >&2; exit 1; }

run=true
if [ "${1:-}" = build ]; then run=false; shift; fi
[ "$(uname -s)" = Linux ] || die "a real Kubernetes with FUSE needs Linux; this is $(uname -s)."
command -v go >/dev/null || die "Go 1.26 or newer is missing; see https://go.dev/dl."
want=$(sed -n 's/^go \([0-9]*\.[0-9]*\).*/\1/p' "$(dirname "$0")/../go.mod")
have=$(go env GOVERSION | sed 's/^go//')
[ "$(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] || die "Go $want or newer is needed; this is $have."

declare -A package=([gcc]=gcc [git]=git)
if $run; then
  [ "$(id -u)" = 0 ] || die "run this as root: it makes namespaces, mounts and cgroups."
  [ -c /dev/fuse ] || die "/dev/fuse is missing; load the fuse module or use a kernel that has it."
  # Nodes say disk pressure, and take no pods, when less than a tenth of the disk is free (kubelet's nodefs.available<10%).
  read -r size free <<<"$(df --output=size,avail / | tail -n 1)"
  [ $((free * 100 / size)) -ge 10 ] || die "only $((free * 100 / size)) % of the disk is free; nodes refuse pods below 10 %, so free some space first."
  package+=([runc]=runc [busybox]=busybox-static [iptables]=iptables [ip]=iproute2)
fi
for pair in "$@"; do package[${pair%%=*}]=${pair#*=}; done
missing=()
for tool in "${!package[@]}"; do
  command -v "$tool" >/dev/null || missing+=("${package[$tool]}")
done
# A static link of the JuiceFS client needs libc's archive.
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || [ -e /usr/lib/aarch64-linux-gnu/libc.a ] || missing+=(libc6-dev)
if [ ${#missing[@]} -gt 0 ]; then
  command -v apt-get >/dev/null || die "install these first: ${missing[*]}."
  echo "installing ${missing[*]}" >&2
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -yq --no-install-recommends "${missing[@]}"; } >/tmp/sidemount-apt.log 2>&1 \
    || die "apt-get could not install ${missing[*]}: see /tmp/sidemount-apt.log."
fi
