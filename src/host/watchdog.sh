# Watchdog: a small process on a host that outlives snapdeck and cleans up after it.
#
# It reads its configuration from stdin, one value a line, so that its own arguments do not contain the directory by
# which it finds processes to kill:
#   dir              temporary directory
#   uri, uuid        libvirt URI and UUID of the sandbox that is about to be paused; empty for none (virsh takes a name that
#                    is a number for the ID of another domain)
#   flags            "backup": the sandbox's disk is backed up into dir; "pause": dir is only for the note of the pause
#   silence          seconds without a line after which snapdeck is assumed dead while the sandbox may be paused, or 0
#   running_silence  the same while the sandbox runs
#   grace            seconds that dir is kept after that, so that another watchdog can adopt it
# Lines after that; those with an answer are answered by one line:
#   freezing   the file systems are about to be frozen; answers "ok"
#   pausing    the sandbox is about to be paused; answers "ok"
#   paused     the sandbox is paused
#   check      answers "ran" if the guest has run since "paused": another client has resumed it then; else "same"
#   running    the sandbox runs again
#   thawed     its file systems are thawed
#   release    exit without cleaning up
#
# At the end of stdin or after that silence it resumes the sandbox if it is paused by snapdeck, kills qemu-img processes that use dir,
# thaws the sandbox's file systems if they are frozen by snapdeck, aborts the backup job and removes dir, in this order.
trap '' HUP INT TERM PIPE
cd /
exec 2>/dev/null
# remove_dir: removes the directory, or whatever is left of it.
remove_dir() {
  find . -xdev -mindepth 1 -delete
  cd / && rmdir -- "$dir"
}
# identity FILE
identity() { stat -c %d:%i -- "$1"; }
dir= uri= uuid= flags= silence= running_silence= grace=
IFS= read -r dir && IFS= read -r uri && IFS= read -r uuid && IFS= read -r flags && IFS= read -r silence &&
  IFS= read -r running_silence && IFS= read -r grace || exit 1
# What follows acts on this directory, not on one that gets its name: QEMU's user may own its parent.
[ ! -L "$dir" ] && cd -P -- "$dir" && [ "$(identity .)" = "$(identity "$dir")" ] &&
  [ "$(stat -c %u .)" = "$(id -u)" ] || exit 1
paused= frozen= process= instance=
if [ -n "$uuid" ]; then
  if ! command -v virsh >/dev/null; then echo virsh; exit 1; fi
  # Found now, since noting the pause has to be quick.
  process=$(find_process "$uuid")
else
  echo $$ >./.guard || exit 1
fi
echo ready

read_command() {
  if [ "$silence" = 0 ]; then
    IFS= read -r line
  else
    line=$(timeout "$silence" sh -c 'IFS= read -r line && printf %s "$line"')
  fi
}
while read_command; do
  case $line in
  release) exit 0 ;;
  freezing)
    frozen=yes
    echo ok
    ;;
  pausing)
    # If this process is killed, too, the next snapdeck resumes the sandbox, provided that the guest has not run since; until
    # the pause, which follows at once, it runs a little.
    case $flags in ?*)
      [ -z "$process" ] || instance="$process $(cpu_time "${process% *}")"
      echo "$uuid $instance pausing" >./paused || continue
      instance=
      ;;
    esac
    paused=yes
    echo ok
    ;;
  paused)
    [ -z "$process" ] || instance="$process $(cpu_time "${process% *}")"
    case $flags in ?*) echo "$uuid $instance" >./paused ;; esac
    ;;
  check) if [ -n "$instance" ] && has_run "$instance"; then echo ran; else echo same; fi ;;
  running)
    paused= instance= silence=$running_silence
    rm -f ./paused
    ;;
  thawed) frozen= ;;
  esac
done
exec >/dev/null
# Another client has resumed the guest, and may have paused it again.
if [ -n "$paused" ] && [ -n "$instance" ] && has_run "$instance"; then paused=; fi

# end_readers: kills the qemu-img processes that use the directory, by a name in their arguments, or by a descriptor, which the result
# of a conversion is.
end_readers() {
  # Of a directory that was removed, some shells have no path: any would match.
  here=$(pwd -P) && [ -n "$here" ] || return 0
  for file in /proc/[0-9]*/comm; do
    comm=
    read -r comm <"$file" && [ "$comm" = qemu-img ] || continue
    pid=${file#/proc/} pid=${pid%/comm}
    if head -c "$max_arguments" "/proc/$pid/cmdline" | grep -aqF -e "$dir" ||
      [ -n "$(find "/proc/$pid/fd" -lname "$here/*" -print -quit)" ]; then kill -9 "$pid"; fi
  done
}

run_virsh() {
  timeout 20 virsh -q -c "$uri" "$@"
}
if [ -n "$uuid" ]; then
  tries=0
  while [ -n "$paused" ] && [ $tries -lt 60 ]; do
    run_virsh resume --domain "$uuid" && break
    state=$(run_virsh domstate --domain "$uuid") && [ "$state" != paused ] && break
    tries=$((tries + 1))
    sleep 1
  done
  rm -f ./paused
  end_readers
  case $flags in backup) ;; *) remove_dir; exit 0 ;; esac
  tries=0
  while [ -n "$frozen" ] && [ $tries -lt 3 ]; do
    run_virsh domfsthaw --domain "$uuid" && break
    tries=$((tries + 1))
  done
  # A backup that was just being started may appear only now: wait until three polls in a row show none.
  tries=0 absent=0
  while [ $absent -lt 3 ] && [ $tries -lt 100 ]; do
    if job=$(run_virsh backup-dumpxml --domain "$uuid"); then
      absent=$((absent + 1))
      case $job in
      *"/${dir##*/}/"*)
        absent=0
        run_virsh domjobabort --domain "$uuid"
        ;;
      esac
    elif run_virsh uri; then
      absent=$((absent + 1))
    fi
    tries=$((tries + 1))
    sleep 0.3
  done
  # QEMU pauses a guest when there is no space for the backup's scratch file.
  case $(run_virsh domstate --domain "$uuid" --reason) in
  'paused (I/O error)') run_virsh resume --domain "$uuid" ;;
  esac
  remove_dir
  exit 0
fi
end_readers
while [ "$grace" -gt 0 ]; do
  # The directory was removed, or another watchdog has adopted it.
  [ "$(cat ./.guard)" = $$ ] || exit 0
  sleep 1
  grace=$((grace - 1))
done
remove_dir
