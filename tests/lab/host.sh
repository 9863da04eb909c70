#!/usr/bin/env bash
# A host of the lab: a directory whose folders stand, in a mount namespace of its own, where the machine has its own.
#   host.sh start DIR [CACHE]     makes it and starts its libvirtd; CACHE is what an earlier one found out about QEMU
#   host.sh libvirtd DIR          starts its libvirtd again
#   host.sh enter DIR COMMAND...  becomes that command, in it
#   host.sh stop DIR              ends all that runs in it: guests, libvirtd, SSH sessions
set -euo pipefail

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

alive() {
  as_root kill -0 "$1" 2>/dev/null
}

until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "the lab: $what is not up after its time:" >&2
      as_root tail -n 20 "$dir"/*.log >&2
      return 1
    fi
    sleep 0.05
  done
}

# Kills who lives in a mount namespace, but the process ids that follow.
empty() {
  local namespace=$1 pid
  shift
  for pid in $(as_root find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/mnt' -printf '%l %h\n' 2>/dev/null |
    awk -v namespace="$namespace" '$1 == namespace { split($2, part, "/"); print part[3] }'); do
    [[ " $* " = *" $pid "* ]] || as_root kill -9 "$pid" 2>/dev/null || true
  done
}

# The namespace lasts as long as this process, whatever becomes of libvirtd.
hold() {
  as_root unshare -m --propagation private bash -euc '
    echo $$ >"$1/holder.pid.new"
    for pair in etc:/etc/libvirt run:/run lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log/libvirt; do
      mount --bind "$1/${pair%%:*}" "${pair#*:}"
    done
    # sshd puts its part without rights in there.
    mkdir -m 755 /run/sshd
    mv "$1/holder.pid.new" "$1/holder.pid"
    exec env --default-signal sleep infinity
  ' snapdeck-lab "$dir" >"$dir/holder.log" 2>&1 </dev/null &
  until_true 20 "a mount namespace" test -s "$dir/holder.pid"
}

# With a /run of its own it meets neither the machine's D-Bus nor its firewall daemon, and needs no folder made there.
start_libvirtd() {
  local holder
  holder=$(cat "$dir/holder.pid")
  as_root nsenter --mount="/proc/$holder/ns/mnt" -- env --default-signal \
    libvirtd -f /etc/libvirt/libvirtd.conf -p "$dir/libvirtd.pid" -d >"$dir/libvirtd.out.log" 2>&1 </dev/null
  until_true 60 libvirtd timeout 30 virsh -q -c "qemu:///system?socket=$dir/run/libvirt/libvirt-sock" list --all
}

start() {
  # Half a host would be one that nobody stops.
  trap '' INT TERM HUP
  mkdir -p "$dir"/{etc,run,lib,cache,log}
  # Two libvirtds that look for free ports for their guests' screens at once may find the same.
  local port=$((5900 + RANDOM % 40 * 100))
  if [ -d "${1-}" ]; then as_root cp -a "$1/." "$dir/cache"; fi
  cat >"$dir/etc/qemu.conf" <<CONF
user = "$(id -un)"
group = "$(id -gn)"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remote_display_port_min = $port
remote_display_port_max = $((port + 99))
CONF
  cat >"$dir/etc/libvirtd.conf" <<CONF
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
log_outputs = "3:file:$dir/libvirtd.log"
CONF
  hold
  start_libvirtd
}

stop() {
  local holder namespace libvirtd
  holder=$(cat "$dir"/holder.pid* 2>/dev/null | head -n 1)
  namespace=$(as_root readlink "/proc/${holder:-none}/ns/mnt") || return 0
  [ "$namespace" != "$(readlink /proc/self/ns/mnt)" ] || return 0
  libvirtd=$(as_root cat "$dir/libvirtd.pid" 2>/dev/null || true)
  # Guests first: libvirtd would leave them running.
  empty "$namespace" "$holder" "$libvirtd"
  # One that was killed has left its number, perhaps to somebody else.
  if [ "$(as_root readlink "/proc/${libvirtd:-none}/ns/mnt")" = "$namespace" ]; then
    as_root kill "$libvirtd"
    for _ in $(seq 100); do alive "$libvirtd" || break; sleep 0.1; done
  fi
  empty "$namespace"
}

verb=$1 dir=$2
shift 2
case $verb in
start) start "$@" ;;
libvirtd) start_libvirtd ;;
enter)
  if [ "$(id -u)" = 0 ]; then
    exec nsenter --mount="/proc/$(cat "$dir/holder.pid")/ns/mnt" -- "$@"
  else
    exec sudo nsenter --mount="/proc/$(cat "$dir/holder.pid")/ns/mnt" -- \
      setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups -- "$@"
  fi
  ;;
stop) stop ;;
*) echo "host.sh: $verb?" >&2 && exit 2 ;;
esac
