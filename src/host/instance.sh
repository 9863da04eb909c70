# start_time PID: prints the start time of a process in clock ticks since boot (proc(5), field 22).
start_time() {
  stat=$(cat "/proc/$1/stat") || return 1
  set -- ${stat##*) }
  printf %s "${20}"
}

# Bytes of the arguments of a process that are read.
max_arguments=131072

# find_process UUID: prints "PID START" of the QEMU process of a domain. Fails without one, and if several processes have that UUID in
# their arguments, into which QEMU's user can write anything.
find_process() {
  found= count=0
  # Any process can give itself arguments of any length (prctl(2), PR_SET_MM): only their beginning is read. What it writes there can
  # look like the title of another process's, which is then read by itself.
  for pid in $(timeout 20 head -vc "$max_arguments" /proc/[0-9]*/cmdline 2>/dev/null | tr '\000' '\n' | awk -v uuid="$1" '
    /^==> \/proc\/[0-9]+\/cmdline <==$/ { split($2, part, "/"); pid = part[3] }
    $0 == uuid && last == "-uuid" { print pid }
    { last = $0 }' | sort -u | head -n 51); do
    count=$((count + 1))
    # The domain's may be missing.
    [ $count -le 50 ] || return 1
    [ "$(head -c "$max_arguments" "/proc/$pid/cmdline" | tr '\n\0' ' \n' | grep -xF -A 1 -e -uuid | tail -n 1)" = "$1" ] || continue
    start=$(start_time "$pid") || continue
    [ -z "$found" ] || return 1
    found="$pid $start"
  done
  [ -n "$found" ] && printf '%s\n' "$found"
}

# cpu_time PID: prints the CPU time of a guest's virtual CPUs in nanoseconds; it does not grow while it is
# paused.
cpu_time() {
  cpu=0
  for task in /proc/"$1"/task/*; do
    read -r name <"$task/comm" && read -r time rest <"$task/schedstat" || continue
    # Names of the threads (QEMU, -name debug-threads=on), which libvirt asks for.
    case $name in "CPU "*) cpu=$((cpu + time)) ;; esac
  done
  printf %s "$cpu"
}

# has_run "PID START CPU" [NANOSECONDS]: the guest has run since these were printed, for longer than that, or that process has
# ended.
has_run() {
  # Virtual CPUs may be woken up for a moment while they are paused.
  set -- $1 "${2:-200000}"
  [ "$(start_time "$1")" = "$2" ] || return 0
  [ $(($(cpu_time "$1") - $3)) -gt "$4" ]
}

