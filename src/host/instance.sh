# start_time PID: prints the start time of a process in clock ticks since boot (proc(5), field 22).
start_time() {
  stat=$(cat "/proc/$1/stat") || return 1
  set -- ${stat##*) }
  printf %s "${20}"
}

# find_process UUID: prints "PID START" of the QEMU process of a domain. Fails without one, and if several processes have that UUID in
# their arguments, into which QEMU's user can write anything.
find_process() {
  found=
  for file in $(printf '%s' "$1" | grep -alsF -f - /proc/[0-9]*/cmdline); do
    pid=${file#/proc/} pid=${pid%/cmdline}
    [ "$(tr '\n\0' ' \n' <"$file" | grep -xF -A 1 -e -uuid | tail -n 1)" = "$1" ] || continue
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

