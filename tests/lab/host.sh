#!/usr/bin/env bash
# One host of the lab: a mount namespace in which the directories of libvirt, swtpm and sshd are folders of DIR.
#   host.sh start DIR [CACHE] [no-tpm]  creates it and starts its libvirtd; CACHE holds QEMU capabilities of an earlier run
#                                       ('' for none); with no-tpm swtpm is hidden, as if it were not installed
#   host.sh libvirtd DIR                starts its libvirtd again after SIGTERM or SIGKILL
#   host.sh enter DIR COMMAND...        runs a command in it
#   host.sh stop DIR                    ends everything that runs in it: guests, libvirtd, SSH sessions
# SNAPDECK_LAB_RELEASE, for start, is a directory with another Debian release (chroot.sh): the programs of the host are those
# of its /usr.
# A libvirtd that crashes is restarted. SNAPDECK_LAB/crashes.log (without SNAPDECK_LAB: DIR/crashes.log) has a line for each
# crash, and DIR/libvirtd.restarting exists until the new one answers.
set -euo pipefail

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

is_alive() {
  as_root kill -0 "$1" 2>/dev/null
}

until_true() {
  local end=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -ge $end ]; then
      echo "the lab: timed out waiting for $what:" >&2
      as_root tail -n 20 "$dir"/*.log >&2
      return 1
    fi
    sleep 0.05
  done
}

# Kills all processes in a mount namespace.
kill_namespace() {
  local namespace=$1 pid
  for pid in $(as_root find /proc -maxdepth 3 -path '/proc/[0-9]*/ns/mnt' -printf '%l %h\n' 2>/dev/null |
    awk -v namespace="$namespace" '$1 == namespace { split($2, part, "/"); print part[3] }'); do
    as_root kill -9 "$pid" 2>/dev/null || true
  done
}

# Starts the process that keeps the namespace when libvirtd ends.
start_holder() {
  as_root unshare -m --propagation private bash -euc '
    dir=$1 tpm=$2 release=$3
    echo $$ >"$dir/holder.pid.new"
    # Both have merged /usr: /bin and /lib are links into it. The cache of libraries is that of the machine without this.
    if [ -n "$release" ]; then
      mount --bind "$release/usr" /usr
      mount --bind "$release/etc/ld.so.cache" /etc/ld.so.cache
      mount --bind "$release/etc/alternatives" /etc/alternatives
    fi
    for pair in etc:/etc/libvirt run:/run lib:/var/lib/libvirt cache:/var/cache/libvirt log:/var/log; do
      mount --bind "$dir/${pair%%:*}" "${pair#*:}"
    done
    # swtpm_localca locks a file in this directory, which another user of the machine may own.
    if [ -d /var/lib/swtpm-localca ]; then mount --bind "$dir/swtpm-localca" /var/lib/swtpm-localca; fi
    if [ "$tpm" = no-tpm ]; then
      for program in swtpm swtpm_setup swtpm_ioctl; do
        if path=$(command -v $program); then mount --bind /dev/null "$path"; fi
      done
    fi
    # For the privilege separation of sshd, and for the locks of serial devices in /var/lock.
    mkdir -m 755 /run/sshd /run/lock
    mv "$dir/holder.pid.new" "$dir/holder.pid"
    exec env --default-signal sleep infinity
  ' snapdeck-lab "$dir" "$1" "${SNAPDECK_LAB_RELEASE-}" >"$dir/holder.log" 2>&1 </dev/null &
  until_true 20 "a mount namespace" test -s "$dir/holder.pid"
}

answers() {
  timeout 30 virsh -q -c "qemu:///system?socket=$dir/run/libvirt/libvirt-sock" list --all
}

# /run is private to the host, so libvirtd finds neither the machine's D-Bus nor its firewall daemon.
start_libvirtd() {
  as_root nsenter --mount="/proc/$(cat "$dir/holder.pid")/ns/mnt" -- \
    setsid "$(realpath "$0")" supervise "$dir" "${SNAPDECK_LAB:-$dir}/crashes.log" >>"$dir/libvirtd.out.log" 2>&1 </dev/null &
  until_true 60 libvirtd answers
}

# Runs libvirtd in the namespace and restarts it when it crashes, as systemd does. SIGTERM and SIGKILL are not crashes: the lab or
# a test has ended libvirtd.
supervise() {
  local crash_log=$1 libvirtd status crashes=()
  cd /
  ulimit -c 0
  while true; do
    env --default-signal libvirtd -f /etc/libvirt/libvirtd.conf -p "$dir/libvirtd.pid" &
    libvirtd=$!
    if [ -e "$dir/libvirtd.restarting" ]; then
      until answers >/dev/null 2>&1 || ! is_alive $libvirtd; do sleep 0.05; done
      rm "$dir/libvirtd.restarting"
    fi
    status=0
    wait $libvirtd || status=$?
    case $status in 0 | 137 | 143) return ;; esac
    touch "$dir/libvirtd.restarting"
    crashes+=("$SECONDS")
    # 10 crashes in a minute: the next start would crash too.
    if [ ${#crashes[@]} -ge 10 ] && [ $((SECONDS - crashes[-10])) -lt 60 ]; then
      echo "$(date +%T) libvirtd of $dir ended with status $status: 10 crashes in a minute, not restarted" >>"$crash_log"
      rm "$dir/libvirtd.restarting"
      return 1
    fi
    echo "$(date +%T) libvirtd of $dir (process $libvirtd) ended with status $status and is restarted" >>"$crash_log"
    sleep 0.1
  done
}

start() {
  # An interrupted start would leave a namespace without a holder.pid, which nothing stops.
  trap '' INT TERM HUP
  mkdir -p "$dir"/{etc,run,lib,cache,log/libvirt,swtpm-localca}
  # Each host has its own range of ports: two libvirtds that search a free port at the same time may find the same one.
  local port=$((5900 + RANDOM % 40 * 100))
  if [ -d "${1-}" ]; then as_root cp -a "$1/." "$dir/cache"; fi
  cat >"$dir/etc/qemu.conf" <<CONF
user = "$(id -un)"
group = "$(id -gn)"
swtpm_user = "$(id -un)"
swtpm_group = "$(id -gn)"
security_driver = "none"
remember_owner = 0
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
max_core = 0
remote_display_port_min = $port
remote_display_port_max = $((port + 99))
CONF
  cat >"$dir/etc/libvirtd.conf" <<CONF
auth_unix_rw = "none"
unix_sock_rw_perms = "0777"
log_outputs = "3:file:$dir/libvirtd.log"
CONF
  start_holder "${2-}"
  start_libvirtd
}

stop() {
  local holder namespace
  holder=$(cat "$dir"/holder.pid* 2>/dev/null | head -n 1)
  namespace=$(as_root readlink "/proc/${holder:-none}/ns/mnt") || return 0
  [ "$namespace" != "$(readlink /proc/self/ns/mnt)" ] || return 0
  # Keeps the namespace, whose number a host that is started just now would get.
  if [ -r "/proc/$holder/ns/mnt" ]; then exec 9<"/proc/$holder/ns/mnt"; fi
  # Twice, since a process may have started another one meanwhile. SIGKILL, since libvirtd takes 2 s to end on SIGTERM.
  kill_namespace "$namespace"
  kill_namespace "$namespace"
}

verb=$1 dir=$2
shift 2
case $verb in
start) start "$@" ;;
libvirtd) start_libvirtd ;;
supervise) supervise "$@" ;;
enter)
  if [ "$(id -u)" = 0 ]; then
    exec nsenter --mount="/proc/$(cat "$dir/holder.pid")/ns/mnt" -- "$@"
  else
    exec sudo nsenter --mount="/proc/$(cat "$dir/holder.pid")/ns/mnt" -- \
      setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups -- "$@"
  fi
  ;;
stop) stop ;;
*) echo "host.sh: unknown verb $verb" >&2 && exit 2 ;;
esac
