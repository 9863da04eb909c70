# Runs on a host: sh -c SCRIPT snapdeck HOLDER MODE PATH [MODE PATH]. Acquires locks, each MODE being "shared" or
# "exclusive", and prints "acquired", or "conflict" and the holder of one. Holds them until stdin ends or is silent for
# 20 s.
set -u
umask 022
trap '' HUP PIPE
holder=$1
shift

# is_same_file FD PATH
is_same_file() { [ "$(stat -L -c %i "/proc/self/fd/$1")" = "$(stat -c %i -- "$2" 2>/dev/null)" ]; }

# acquire FD MODE PATH
acquire() {
  # Files in a missing directory have no writers.
  [ -d "${3%/*}" ] || return 0
  while :; do
    eval "exec $1<>\"\$3\"" || exit 1
    if ! flock -n "--$2" "$1"; then
      printf 'conflict %s\n' "$(head -c 500 -- "$3" | head -n 1)"
      exit 0
    fi
    # Between open and lock, its last holder may have removed it.
    is_same_file "$1" "$3" && break
  done
  printf '%s\n' "$holder" >"$3"
}

# release FD PATH: removes the file if this is the last holder, which gets the lock exclusively.
release() {
  if [ -e "/proc/self/fd/$1" ] && flock -n --exclusive "$1" && is_same_file "$1" "$2"; then rm -f -- "$2"; fi
}

acquire 3 "$1" "$2"
[ $# -lt 4 ] || acquire 4 "$3" "$4"
echo acquired
while byte=$(timeout 20 head -c 1) && [ -n "$byte" ]; do :; done
release 3 "$2"
[ $# -lt 4 ] || release 4 "$4"
