#!/usr/bin/env bash
# Usage: hack/demo.sh up | down
# The main job on a real cluster: two Jobs on a virtual node share a JuiceFS volume, each through a FUSE sidecar without privilege.
set -euo pipefail
cd "$(dirname "$0")/.."
BIN=${BIN:-$PWD/.cache/bin}
export CLUSTER_NAME=demo
# hack/demo/*.yaml name these two; the volume's metadata and objects lie in the first.
volume=/var/lib/sidemount-demo
input=/var/lib/sidemount-demo-input
ns=demo

say() { printf '\n== %s\n' "$*"; }
die() { echo "demo: $*" >&2; exit 1; }
kubectl() { "$BIN/kubectl" --kubeconfig "$("$BIN/cluster" kubeconfig --name demo)" "$@"; }

make_input() {
  [ -e "$input/done" ] && return
  say "input: the Go toolchain's source tree, with the SHA-256 of every file taken on this host"
  rm -rf "$input"; mkdir -p "$input"
  tar -C "$(go env GOROOT)" -cf "$input/tree.tar" --owner=65534 --group=65534 src
  (cd "$(go env GOROOT)" && find src -type f -print0 | xargs -0 sha256sum) >"$input/manifest.sha256"
  chmod -R a+rX "$input"
  touch "$input/done"
}

format() {
  [ -e "$volume/meta.db" ] && return
  say "format: a JuiceFS file system in $volume (SQLite metadata, objects in a directory)"
  install -d -o 65534 -g 65534 -m 0750 "$volume" "$volume/bucket"
  # The Secret of hack/demo is the one source of the settings; they go in on standard input, never in argv.
  local template='{"secret":{{"{"}}{{range $k, $v := .data}}{{printf "%q:%q," $k (base64decode $v)}}{{end}}"":""}}'
  kubectl -n "$ns" get secret juicefs -o go-template="$template" \
    | setpriv --reuid 65534 --regid 65534 --clear-groups "$BIN/sidemount-juicefs" format
}

# client_pid finds a pod's JuiceFS client, as this host counts. The API does not show the sidecar, its cgroup does.
client_pid() {
  local uid dir
  uid=$(kubectl -n "$ns" get pod "$1" -o jsonpath='{.metadata.uid}')
  for dir in /proc/[0-9]*; do
    if grep -qs "$uid" "$dir/cgroup" && [ "$(cat "$dir/comm" 2>/dev/null)" = sidemount-juice ]; then
      echo "${dir#/proc/}"
      return
    fi
  done
  die "the sidecar of pod $1 is not running"
}

job_pod() { kubectl -n "$ns" get pods -l "job-name=$1" -o jsonpath='{.items[0].metadata.name}'; }

wait_running() { # wait_running JOB
  local deadline=$((SECONDS + 120)) phase
  until phase=$(kubectl -n "$ns" get pods -l "job-name=$1" -o jsonpath='{.items[0].status.phase}' 2>/dev/null) && [[ $phase =~ Running|Succeeded ]]; do
    (( SECONDS < deadline )) || { kubectl -n "$ns" describe pods -l "job-name=$1" >&2; die "Job $1 did not start within 120 s"; }
    sleep 0.2
  done
}

wait_job() { # wait_job JOB: with a line of progress every ten seconds
  local began=$SECONDS told=0
  until kubectl -n "$ns" wait --for=condition=complete "job/$1" --timeout=10s >/dev/null 2>&1; do
    if [ "$(kubectl -n "$ns" get job "$1" -o jsonpath='{.status.failed}')" ]; then
      kubectl -n "$ns" logs "job/$1" --tail=20 >&2 || true
      die "Job $1 failed"
    fi
    (( SECONDS - began < 900 )) || die "Job $1 did not complete within 900 s"
    told=$((SECONDS - began)); echo "   $1: $told s" >&2
  done
}

report() { # report JOB FILES BYTES: from the Job's own clock
  local seconds
  seconds=$(kubectl -n "$ns" logs "job/$1" | awk '$1 == "seconds" {print $2}')
  awk -v job="$1" -v files="$2" -v bytes="$3" -v s="$seconds" \
    'BEGIN {printf "   %-8s %d files, %d bytes, %.1f s, %.1f MB/s\n", job, files, bytes, s, bytes / s / 1e6}'
}

up() {
  make_input
  say "cluster: Kubernetes with one ordinary and one virtual node"
  hack/cluster.sh up --nodes 1 --virtual 1
  kubectl get nodes -o wide
  kubectl apply -f hack/demo/namespace.yaml -f hack/demo/volume.yaml
  format
  kubectl -n "$ns" delete job ingest verify --ignore-not-found --wait >/dev/null

  say "ingest: a Job on the virtual node unpacks the tree onto the volume"
  kubectl apply -f hack/demo/ingest.yaml
  wait_running ingest
  local pod client proof
  pod=$(job_pod ingest)
  client=$(client_pid "$pod")
  proof=$(grep -E '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' "/proc/$client/status")
  sleep 3
  say "kill -9 of the sidecar's client, in the middle of it"
  kill -KILL "$client" || die "the client had ended already"
  wait_job ingest
  kubectl -n "$ns" get events --field-selector "involvedObject.name=$pod,reason=ClientRestarted" -o jsonpath='{range .items[*]}   {.reason}: {.message}{"\n"}{end}'

  say "verify: another Job, with a client of its own, checks every file"
  kubectl apply -f hack/demo/verify.yaml
  wait_job verify

  local files bytes
  files=$(wc -l <"$input/manifest.sha256")
  bytes=$(cd "$(go env GOROOT)" && find src -type f -printf '%s\n' | awk '{n += $1} END {printf "%d", n}')
  say "result"
  kubectl -n "$ns" get jobs
  report ingest "$files" "$bytes"
  report verify "$files" "$bytes"
  echo "   the sidecar's client, as the kernel sees it:"
  sed 's/^/      /' <<<"$proof"
  say "go on"
  cat <<TXT
   export KUBECONFIG=$("$BIN/cluster" kubeconfig --name demo) PATH=$BIN:\$PATH
   kubectl get nodes,pods -A -o wide
   kubectl -n $ns logs job/verify
   kubectl -n $ns apply -f hack/demo/shell.yaml && kubectl -n $ns exec -it shell -- ls /data
   make demo-down
TXT
}

down() {
  hack/cluster.sh down
  rm -rf "$volume" "$input"
  echo "demo: nothing is left"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  *) echo "usage: hack/demo.sh up|down" >&2; exit 2 ;;
esac
