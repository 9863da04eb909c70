# Runs on a host, for snapdeck: sh -c THIS snapdeck WHO MODE PATH [MODE PATH]. Takes the locks, each MODE shared or
# exclusive, and says "held", or "taken" and who has one; holds them as long as it is given a dot now and then.
set -u
umask 022
trap '' HUP PIPE
who=$1
shift

is_at() { [ "$(stat -L -c %i "/proc/self/fd/$1")" = "$(stat -c %i -- "$2" 2>/dev/null)" ]; }

take() {
  # What does not exist has no writers.
  [ -d "${3%/*}" ] || return 0
  while :; do
    eval "exec $1<>\"\$3\"" || exit 1
    if ! flock -n "--$2" "$1"; then
      printf 'taken %s\n' "$(head -c 500 -- "$3" | head -n 1)"
      exit 0
    fi
    # Its last holder may have removed it between our opening and the lock.
    is_at "$1" "$3" && break
  done
  printf '%s\n' "$who" >"$3"
}

# Whoever has it for himself alone is the last one, and removes it.
give_back() {
  if [ -e "/proc/self/fd/$1" ] && flock -n --exclusive "$1" && is_at "$1" "$2"; then rm -f -- "$2"; fi
}

take 3 "$1" "$2"
[ $# -lt 4 ] || take 4 "$3" "$4"
echo held
while word=$(timeout 20 head -c 1) && [ -n "$word" ]; do :; done
give_back 3 "$2"
[ $# -lt 4 ] || give_back 4 "$4"
