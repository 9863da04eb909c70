# Runs on a host: sh -c SCRIPT snapdeck HOLDER MODE PATH [MODE PATH]. Acquires locks, each MODE being "shared" or
# "exclusive", and prints "acquired", or "conflict", the number of a lock (from 1) and its holder. Holds them until stdin
# ends or is silent for 20 s.
set -u
umask 077
trap '' HUP PIPE
holder=$1
shift

# is_only_name FD PATH: PATH is the only name of the open file.
is_only_name() { [ "$(stat -L -c '%d:%i 1' "/proc/self/fd/$1")" = "$(stat -c '%d:%i %h' -- "$2" 2>/dev/null)" ]; }

# lock_mode PATH: prints the mode of a lock file. Who can read it can lock it: other users get access only if they can write
# to its directory, and so are operators, too.
lock_mode() {
  case $(stat -L -c %a -- "${1%/*}") in
  *[2367]? | *[2367]) echo 644 ;;
  *) echo 600 ;;
  esac
}

# acquire FD MODE PATH
acquire() {
  # Files in a missing directory have no writers.
  [ -d "${3%/*}" ] || return 0
  tries=0
  while [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    # Neither creates nor opens the target of a link; opened for writing by its descriptor, because NFS needs that.
    message=$(dd of="$3" count=0 conv=excl status=none </dev/null 2>&1) || [ -e "$3" ] || [ -L "$3" ] || fail "$message"
    if ! is_file "$3"; then
      # Its last holder may have removed it.
      [ -e "$3" ] || [ -L "$3" ] || continue
      busy "$3 is not a regular file"
    fi
    # Its last holder may have removed it.
    (refuse_blocking "$3") 2>/dev/null || [ ! -e "$3" ] || refuse_blocking "$3"
    guard_open "$3"
    eval "command exec $1<\"\$3\"" 2>/dev/null && is_open=yes || is_open=
    end_guard
    [ -n "$is_open" ] || continue
    # A link that got the name just now may lead to a device.
    [ -f "/proc/self/fd/$1" ] || busy "$3 is not a regular file"
    eval "command exec $1<>/proc/self/fd/$1" || exit 1
    if ! flock -n "--$2" "$1"; then
      printf 'conflict %s %s\n' $(($1 - 2)) "$(head -c 500 "/proc/self/fd/$1" | head -n 1)"
      exit 0
    fi
    # Between open and lock, its last holder may have removed it. A file with another name is not a lock.
    if is_only_name "$1" "$3"; then
      chmod "$(lock_mode "$3")" "/proc/self/fd/$1" 2>/dev/null
      truncate -s 0 "/proc/self/fd/$1" && printf '%s\n' "$holder" >"/proc/self/fd/$1"
      return
    fi
  done
  busy "$3 is replaced again and again, or has other names"
}

# release FD PATH: removes the file if this is the last holder, which gets the lock exclusively.
release() {
  if [ -e "/proc/self/fd/$1" ] && flock -n --exclusive "$1" && is_only_name "$1" "$2"; then rm -f -- "$2"; fi
}

acquire 3 "$1" "$2"
[ $# -lt 4 ] || acquire 4 "$3" "$4"
echo acquired
while byte=$(timeout 20 head -c 1) && [ -n "$byte" ]; do :; done
release 3 "$2"
[ $# -lt 4 ] || release 4 "$4"
