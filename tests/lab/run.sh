#!/usr/bin/env bash
# Runs a command in the lab: two hosts with a libvirtd each and an S3 server, which end with the command.
#   tests/lab/run.sh COMMAND [ARGUMENT...]
# Sets for the command: SNAPDECK_LAB (the lab's directory; alpha and beta in it are the hosts, see host.sh; alpha has a TPM
# emulator, beta has none), SNAPDECK_LAB_S3 (endpoint), SNAPDECK_LAB_S3_KEY, SNAPDECK_LAB_S3_SECRET, SNAPDECK_LAB_BUCKET,
# SNAPDECK_LAB_S5CMD (an S3 client).
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
# QEMU's capabilities are those of one release.
cache=$project/.lab/capabilities${SNAPDECK_LAB_RELEASE:+-$(basename "$SNAPDECK_LAB_RELEASE")}
host=$project/tests/lab/host.sh
bin=$project/.lab/venv/bin
# A short path: those of sockets below it are limited to 107 bytes.
lab=$(mktemp -d "${TMPDIR:-/tmp}/snapdeck-lab.XXXXXX")
chmod 755 "$lab"
ports=() weed='' command=''

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

# until_true SECONDS WHAT COMMAND...
until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >"$lab/wait.log" 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "the lab: timed out waiting for $what:" >&2
      tail -n 20 "$lab/wait.log" "$lab"/*.log >&2
      return 1
    fi
    sleep 0.1
  done
}

# Ends a process and its descendants. The process is stopped first: a script would run its next command when the current one ends.
end_tree() {
  local child
  as_root kill -STOP "$1" 2>/dev/null || true
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do end_tree "$child"; done
  as_root kill "$1" 2>/dev/null || true
  as_root kill -CONT "$1" 2>/dev/null || true
}

stop() {
  trap '' INT TERM HUP
  set +e
  local port holder
  if [ -n "$command" ]; then
    end_tree "$command"
    wait "$command" 2>/dev/null
  fi
  for holder in "$lab"/*/holder.pid* "$lab"/hosts/*/*/holder.pid*; do
    [ ! -e "$holder" ] || "$host" stop "${holder%/*}"
  done
  if [ -n "$weed" ]; then
    kill -9 "$weed" 2>/dev/null
    wait "$weed" 2>/dev/null
  fi
  # The directory of these sockets is not configurable.
  for port in "${ports[@]}"; do
    rm -f /tmp/seaweedfs-*-"$port".sock /tmp/seaweedfs-*-$((port + 10000)).sock
  done
  if [ -s "$lab/crashes.log" ]; then
    echo "the lab: libvirtd crashed $(wc -l <"$lab/crashes.log") times:" >&2
    cat "$lab/crashes.log" >&2
  fi
  if as_root test -d "$lab/alpha/cache/qemu"; then
    mkdir -p "$cache"
    as_root cp -a "$lab/alpha/cache/." "$cache"
  fi
  as_root rm -rf --one-file-system "$lab"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start_s3() {
  mkdir "$lab/s3"
  # SeaweedFS uses port + 10000 for gRPC.
  mapfile -t ports < <(python3 - <<'PYTHON'
import random, socket

def free(port):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

# Neither port nor gRPC port is in the kernel's ephemeral range (from 32768 on), and the two ranges do not overlap.
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
  # Without telemetry, which is on by default. pdeathsig: it must also end when this script is killed.
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

export SNAPDECK_LAB=$lab
start_s3
mkdir "$lab/hosts"
"$host" start "$lab/alpha" "$cache"
"$host" start "$lab/beta" "$cache" no-tpm
until_true 60 "the S3 server" s5cmd ls
# The first writes fail while SeaweedFS creates volumes.
until_true 60 "the bucket" s5cmd mb "s3://$SNAPDECK_LAB_BUCKET"
until_true 60 "the bucket's first object" s5cmd cp "$lab/s3.json" "s3://$SNAPDECK_LAB_BUCKET/ready"
s5cmd rm "s3://$SNAPDECK_LAB_BUCKET/ready" >/dev/null

# In the background, since bash handles a signal only after a foreground command has ended. The command has the terminal and receives Ctrl-C.
env --default-signal=INT,QUIT "$@" <&0 &
command=$!
code=0
wait "$command" || code=$?
command=''
exit "$code"
