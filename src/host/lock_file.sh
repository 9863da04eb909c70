# Part of scripts that run on a host: lock files, hidden files beside what they lock. A lock is held with flock(2); the text of its file
# names the holder.
#
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

# lock_descriptor FD MODE SECONDS
lock_descriptor() {
  case $2 in shared) ;; *) set -- "$1" exclusive "$3" ;; esac
  if [ -n "$3" ]; then flock --wait "$3" "--$2" "$1"; else flock -n "--$2" "$1"; fi
}

# take_over FD MODE PATH
take_over() {
  [ "$2" = takeover ] && end_unattended "${3%.lock}.pull" && flock --wait 15 --exclusive "$1"
}

# acquire FD MODE PATH [SECONDS]: opens the lock file PATH as descriptor FD with a lock, "shared", "exclusive", or "takeover": exclusive, and an
# unattended download of this user that holds it is ended. Waits for SECONDS; then prints "conflict", the number of the lock, which is FD
# less 2, and its holder, and exits. The text of the file is $holder then.
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
    if ! lock_descriptor "$1" "$2" "${4:-}" && ! take_over "$1" "$2" "$3"; then
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
