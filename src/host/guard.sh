# A small process on a host that outlives snapdeck. Told what to guard over stdin, a line each, so that its own
# arguments name nothing: a temporary directory, libvirt's URI and the sandbox that is about to be paused (or none),
# the seconds of silence after which whoever started it counts as gone (0: only the end of stdin tells), and the
# seconds that the directory is kept then, for a new guard to take it over.
#
# Gone without "release", in that order: our qemu-img is ended (it is known by the directory in its arguments),
# the sandbox goes on, the directory goes.
trap '' HUP INT TERM PIPE
cd /
exec 2>/dev/null
dir= uri= id= silence= grace=
IFS= read -r dir && IFS= read -r uri && IFS= read -r id && IFS= read -r silence && IFS= read -r grace || exit 1
if [ -n "$id" ]; then
  if ! command -v virsh >/dev/null; then echo virsh; exit 1; fi
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
while next_word; do [ "$word" = release ] && exit 0; done

for file in $(printf '%s' "$dir" | grep -alsF -f - /proc/[0-9]*/cmdline); do
  pid=${file#/proc/} pid=${pid%/cmdline} comm=
  read -r comm <"/proc/$pid/comm" && [ "$comm" = qemu-img ] && kill -9 "$pid"
done
if [ -n "$id" ]; then
  tries=0
  while [ $tries -lt 60 ]; do
    timeout 20 virsh -c "$uri" resume --domain "$id" && break
    state=$(timeout 20 virsh -c "$uri" domstate --domain "$id") && [ "$state" != paused ] && break
    tries=$((tries + 1))
    sleep 1
  done
  exit 0
fi
while [ "$grace" -gt 0 ]; do
  # Removed, or in another guard's care.
  [ "$(cat "$dir/.guard")" = $$ ] || exit 0
  sleep 1
  grace=$((grace - 1))
done
rm -rf -- "$dir"
