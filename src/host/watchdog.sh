# A small process on a host that outlives snapdeck. Told what to guard over stdin, a line each, so that its own
# arguments name nothing: a temporary directory; libvirt's URI and the sandbox that is about to be paused (or none); what
# else may be done to that sandbox ("backup": its disk is backed up into the directory, "thaw": its file systems are
# brought to rest before); the seconds of silence after which whoever started it counts as gone while the sandbox may be
# paused, and later (0: only the end of stdin tells); and the seconds that the directory is kept then, for a new guard to
# take it over. Later words: "running" and "thawed" say that the sandbox goes on and its file systems, too; "release"
# ends the guard.
#
# Gone without "release", in that order: our qemu-img is ended (it is known by the directory in its arguments),
# the sandbox goes on, its file systems go on, the backup ends, the directory goes.
trap '' HUP INT TERM PIPE
cd /
exec 2>/dev/null
dir= uri= id= more= silence= later= grace=
IFS= read -r dir && IFS= read -r uri && IFS= read -r id && IFS= read -r more && IFS= read -r silence &&
  IFS= read -r later && IFS= read -r grace || exit 1
paused= frozen=
case $more in *thaw*) frozen=yes ;; esac
if [ -n "$id" ]; then
  if ! command -v virsh >/dev/null; then echo virsh; exit 1; fi
  paused=yes
  # For the next start, should nobody be left to let it go on.
  case $more in backup*) : >"$dir/paused" || exit 1 ;; esac
else
  echo $$ >"$dir/.guard" || exit 1
fi
echo ready
exec >/dev/null

next_word() {
  if [ "$silence" = 0 ]; then
    IFS= read -r word
  else
    word=$(timeout "$silence" sh -c 'IFS= read -r word && printf %s "$word"')
  fi
}
while next_word; do
  case $word in
  release) exit 0 ;;
  running)
    paused= silence=$later
    rm -f -- "$dir/paused"
    ;;
  thawed) frozen= ;;
  esac
done

for file in $(printf '%s' "$dir" | grep -alsF -f - /proc/[0-9]*/cmdline); do
  pid=${file#/proc/} pid=${pid%/cmdline} comm=
  read -r comm <"/proc/$pid/comm" && [ "$comm" = qemu-img ] && kill -9 "$pid"
done

virsh_says() {
  timeout 20 virsh -q -c "$uri" "$@"
}
if [ -n "$id" ]; then
  tries=0
  while [ -n "$paused" ] && [ $tries -lt 60 ]; do
    virsh_says resume --domain "$id" && break
    state=$(virsh_says domstate --domain "$id") && [ "$state" != paused ] && break
    tries=$((tries + 1))
    sleep 1
  done
  case $more in backup*) ;; *) exit 0 ;; esac
  rm -f -- "$dir/paused"
  tries=0
  while [ -n "$frozen" ] && [ $tries -lt 3 ]; do
    virsh_says domfsthaw --domain "$id" && break
    tries=$((tries + 1))
  done
  # A begin that was under way may come true only now: it is looked for until it has stayed away for a while.
  tries=0 quiet=0
  while [ $quiet -lt 3 ] && [ $tries -lt 100 ]; do
    if job=$(virsh_says backup-dumpxml --domain "$id"); then
      quiet=$((quiet + 1))
      case $job in
      *"/${dir##*/}/"*)
        quiet=0
        virsh_says domjobabort --domain "$id"
        ;;
      esac
    elif virsh_says uri; then
      quiet=$((quiet + 1))
    fi
    tries=$((tries + 1))
    sleep 0.3
  done
  # QEMU stops a guest for which the backup had no room.
  case $(virsh_says domstate --domain "$id" --reason) in
  'paused (I/O error)') virsh_says resume --domain "$id" ;;
  esac
  rm -rf -- "$dir"
  exit 0
fi
while [ "$grace" -gt 0 ]; do
  # Removed, or in another guard's care.
  [ "$(cat "$dir/.guard")" = $$ ] || exit 0
  sleep 1
  grace=$((grace - 1))
done
rm -rf -- "$dir"
