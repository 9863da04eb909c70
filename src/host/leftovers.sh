# Runs on a host, for snapdeck: sh -c THIS snapdeck VERB ... Finds and removes what operations left behind that broke
# off, where nobody has touched it for a day: parts of pulls in the snapshots directory, directories of ours under the
# temporary one. What somebody has open or locked is under way.
set -u
export LC_ALL=C
day=1440
fail() { printf '%s\n' "$1" >&2; exit 1; }

# Nothing below it was touched within a day.
is_old() { [ -z "$(find "$@" -mmin -$day -print -quit 2>/dev/null)" ]; }
# Its guard lives, or some process has a file in it open.
is_open() {
  if [ -f "$1/.guard" ] && kill -0 "$(cat -- "$1/.guard")" 2>/dev/null; then return 0; fi
  [ -n "$(find /proc/[0-9]*/fd -lname "$1/*" -print -quit 2>/dev/null)" ]
}
# Told as: kind, bytes on the disk, seconds since the epoch, path; each ends with NUL.
tell() {
  kind=$1
  shift
  bytes=$(du -sk -- "$@" 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f", sum * 1024 }')
  at=$(find "$@" -printf '%Ts\n' 2>/dev/null | sort -n | tail -n 1)
  printf '%s\0%s\0%s\0%s\0' "$kind" "${bytes:-0}" "${at:-0}" "$1"
}
part() {
  [ -f "$1" ] && [ ! -L "$1" ] || return 1
  if [ -e "$1.mark" ]; then is_old "$1" "$1.mark"; else is_old "$1"; fi || return 1
  # Whoever writes it holds its lock.
  flock -n --exclusive "$1" true
}
directory() { [ -d "$1" ] && [ ! -L "$1" ] && is_old "$1" && ! is_open "$1"; }

verb=$1
case $verb in
list)
  snapshots=$2 temp=$3
  for file in "$snapshots"/.*.qcow2.partial; do
    part "$file" || continue
    if [ -e "$file.mark" ]; then tell partial "$file" "$file.mark"; else tell partial "$file"; fi
  done
  for dir in "$temp"/snapdeck-*; do
    if directory "$dir"; then tell directory "$dir"; fi
  done
  ;;

# Removes what is still as it was listed: DIRECTORY NAME.
partial)
  case $3 in .*.qcow2.partial) ;; *) fail "it is no part of a pull" ;; esac
  part "$2/$3" || exit 0
  flock -n --exclusive "$2/$3" rm -f -- "$2/$3" "$2/$3.mark" && sync -- "$2/" && echo removed
  ;;
directory)
  case $3 in snapdeck-*) ;; *) fail "it is no directory of snapdeck's" ;; esac
  directory "$2/$3" || exit 0
  rm -rf -- "$2/$3" && echo removed
  ;;
esac
