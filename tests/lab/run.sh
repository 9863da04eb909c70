#!/usr/bin/env bash
# Runs a command in the lab: a libvirtd and an S3 server of its own, both gone afterwards.
#   tests/lab/run.sh COMMAND [ARGUMENT...]
# The command finds: SNAPDECK_LAB (its directory), SNAPDECK_LAB_URI (libvirt), SNAPDECK_LAB_S3 (endpoint),
# SNAPDECK_LAB_S3_KEY, SNAPDECK_LAB_S3_SECRET, SNAPDECK_LAB_BUCKET, SNAPDECK_LAB_S5CMD (another S3 client).
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
cache=$project/.lab/capabilities
bin=$project/.lab/venv/bin
# Short, for the sockets below it: their paths must stay under 108 bytes.
lab=$(mktemp -d /tmp/snapdeck-lab.XXXXXX)
chmod 755 "$lab"
ports=() weed='' libvirtd='' command=''

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

alive() {
  as_root kill -0 "$1" 2>/dev/null
}

# until_true SECONDS WHAT COMMAND...
until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$lab/wait.log" 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "the lab: $what is not up after its time:" >&2
      tail -n 20 "$lab/wait.log" "$lab"/*.log >&2
      return 1
    fi
    sleep 0.1
  done
}

# Ends a process and all below it, from the leaves up.
end_tree() {
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do end_tree "$child"; done
  as_root kill "$1" 2>/dev/null || true
}

# Kills who lives in a mount namespace: of libvirtd's that is itself and the guests. $2: a pid to spare.
empty() {
  local pid
  for pid in $(as_root find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/mnt' -printf '%l %h\n' 2>/dev/null |
    awk -v namespace="$1" '$1 == namespace { split($2, part, "/"); print part[3] }'); do
    [ "$pid" = "${2-}" ] || as_root kill -9 "$pid" 2>/dev/null
  done
}

stop() {
  trap '' INT TERM HUP
  set +e
  local port namespace
  if [ -n "$command" ]; then
    end_tree "$command"
    wait "$command" 2>/dev/null
  fi
  # Started, but stopped before its process id was read.
  [ -n "$libvirtd" ] || libvirtd=$(as_root cat "$lab/libvirtd.pid" 2>/dev/null)
  namespace=$(as_root readlink "/proc/${libvirtd:-none}/ns/mnt")
  if [ -n "$namespace" ] && [ "$namespace" != "$(readlink /proc/self/ns/mnt)" ]; then
    # Guests first: libvirtd would leave them running.
    empty "$namespace" "$libvirtd"
    as_root kill "$libvirtd" 2>/dev/null
    for _ in $(seq 100); do alive "$libvirtd" || break; sleep 0.1; done
    empty "$namespace"
  fi
  if [ -n "$weed" ]; then
    kill -9 "$weed" 2>/dev/null
    wait "$weed" 2>/dev/null
  fi
  # Sockets named after the ports, in a directory that cannot be chosen.
  for port in "${ports[@]}"; do
    rm -f /tmp/seaweedfs-*-"$port".sock /tmp/seaweedfs-*-$((port + 10000)).sock
  done
  if as_root test -d "$lab/cache/qemu"; then
    mkdir -p "$cache"
    as_root cp -a "$lab/cache/." "$cache"
  fi
  as_root rm -rf --one-file-system "$lab"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start_s3() {
  mkdir "$lab/s3"
  # Ports whose neighbour 10000 above, which SeaweedFS takes for gRPC, is free, too.
  mapfile -t ports < <(python3 - <<'PYTHON'
import random, socket

def free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

# No neighbour is another's port, and none is among those that the kernel hands out (from 32768 on).
candidates = random.sample(range(10100, 20000), 200)
print(*[port for port in candidates if free(port) and free(port + 10000)][:4], sep="\n")
PYTHON
  )
  export SNAPDECK_LAB_S3=http://127.0.0.1:${ports[3]}
  export SNAPDECK_LAB_S3_KEY=lab SNAPDECK_LAB_S3_SECRET=lab-secret-$RANDOM$RANDOM SNAPDECK_LAB_BUCKET=lab
  export SNAPDECK_LAB_S5CMD=$bin/s5cmd
  cat >"$lab/s3.json" <<JSON
{"identities": [{"name": "lab", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$SNAPDECK_LAB_S3_KEY", "secretKey": "$SNAPDECK_LAB_S3_SECRET"}]}]}
JSON
  # Unasked it would tell its makers about itself, which is nobody's business. It dies with us, even if we are killed.
  setpriv --pdeathsig KILL setsid "$bin/weed" -logdir="$lab" server -dir="$lab/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.telemetry=false -master.volumeSizeLimitMB=4096 -master.port="${ports[0]}" \
    -volume.port="${ports[1]}" -volume.max=60 -filer -filer.port="${ports[2]}" -s3 -s3.port="${ports[3]}" -s3.config="$lab/s3.json" \
    -s3.port.iceberg=0 -s3.port.lance=0 >"$lab/weed.log" 2>&1 </dev/null &
  weed=$!
}

s5cmd() {
  env AWS_ACCESS_KEY_ID="$SNAPDECK_LAB_S3_KEY" AWS_SECRET_ACCESS_KEY="$SNAPDECK_LAB_S3_SECRET" AWS_REGION=us-east-1 \
    S3_ENDPOINT_URL="$SNAPDECK_LAB_S3" timeout 20 "$SNAPDECK_LAB_S5CMD" --retry-count 0 "$@"
}

# A libvirtd that sees private folders in the places of the machine's. With a /run of its own it meets neither the
# machine's D-Bus nor its firewall daemon, and needs no folder made there.
start_libvirtd() {
  mkdir "$lab"/{etc,run,lib,cache,log,hosts}
  if [ -d "$cache" ]; then as_root cp -a "$cache/." "$lab/cache"; fi
  cat >"$lab/etc/qemu.conf" <<CONF
user = "$(id -un)"
group = "$(id -gn)"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
CONF
  cat >"$lab/etc/libvirtd.conf" <<CONF
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
log_outputs = "3:file:$lab/libvirtd.log"
CONF
  as_root unshare -m --propagation private bash -euc '
    for pair in etc:/etc/libvirt run:/run lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
      mount --bind "$1/${pair%%:*}" "${pair#*:}"
    done
    exec libvirtd -f /etc/libvirt/libvirtd.conf -p "$1/libvirtd.pid" -d
  ' libvirtd "$lab" >"$lab/libvirtd.out.log" 2>&1 </dev/null
  export SNAPDECK_LAB_URI="qemu:///system?socket=$lab/run/libvirt/libvirt-sock"
}

export SNAPDECK_LAB=$lab
start_s3
start_libvirtd
until_true 20 "libvirtd's pid file" test -s "$lab/libvirtd.pid"
libvirtd=$(as_root cat "$lab/libvirtd.pid")
until_true 60 libvirtd timeout 30 virsh -q -c "$SNAPDECK_LAB_URI" list --all
until_true 60 "the S3 server" s5cmd ls
# The first writes fail while its volumes are being made.
until_true 60 "the bucket" s5cmd mb "s3://$SNAPDECK_LAB_BUCKET"
until_true 60 "the bucket's first object" s5cmd cp "$lab/s3.json" "s3://$SNAPDECK_LAB_BUCKET/ready"
s5cmd rm "s3://$SNAPDECK_LAB_BUCKET/ready" >/dev/null

# In the background: a signal to us alone would have to wait for its end otherwise. It has our terminal and Ctrl-C.
env --default-signal=INT,QUIT "$@" <&0 &
command=$!
code=0
wait "$command" || code=$?
command=''
exit "$code"
