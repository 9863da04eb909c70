# Runs on a host: sh -c SCRIPT snapdeck VERB ARGUMENT... Lists and removes leftovers of interrupted operations that are
# neither open nor locked and were not modified for a day: partial files of pulls in the snapshots directory, and
# snapdeck's directories in the temporary one.
set -u
export LC_ALL=C
day=1440
fail() { printf '%s\n' "$1" >&2; exit 1; }

# is_old FILE...: neither they nor anything in them was modified within a day.
is_old() { [ -z "$(find "$@" -mmin -$day -print -quit 2>/dev/null)" ]; }
# is_in_use DIR: its watchdog runs, or a process has one of its files open.
is_in_use() {
  if [ -f "$1/.guard" ] && kill -0 "$(cat -- "$1/.guard")" 2>/dev/null; then return 0; fi
  [ -n "$(find /proc/[0-9]*/fd -lname "$1/*" -print -quit 2>/dev/null)" ]
}
is_stale_partial() {
  [ -f "$1" ] && [ ! -L "$1" ] || return 1
  if [ -e "$1.mark" ]; then is_old "$1" "$1.mark"; else is_old "$1"; fi || return 1
  # Its writer holds this lock.
  flock -n --exclusive "$1" true
}
is_stale_directory() { [ -d "$1" ] && [ ! -L "$1" ] && is_old "$1" && ! is_in_use "$1"; }
# print_leftover KIND PATH...: prints the kind, allocated bytes, last modification in seconds since the epoch and first
# path, each followed by NUL.
print_leftover() {
  kind=$1
  shift
  bytes=$(du -sk -- "$@" 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f", sum * 1024 }')
  modified=$(find "$@" -printf '%Ts\n' 2>/dev/null | sort -n | tail -n 1)
  printf '%s\0%s\0%s\0%s\0' "$kind" "${bytes:-0}" "${modified:-0}" "$1"
}

verb=$1
case $verb in
# list SNAPSHOTS_DIR TEMP_DIR
list)
  for file in "$2"/.*.qcow2.partial; do
    is_stale_partial "$file" || continue
    if [ -e "$file.mark" ]; then print_leftover partial "$file" "$file.mark"; else print_leftover partial "$file"; fi
  done
  for dir in "$3"/snapdeck-*; do
    if is_stale_directory "$dir"; then print_leftover directory "$dir"; fi
  done
  ;;

# remove_partial DIR NAME and remove_directory DIR NAME: print "removed" if it is still a leftover.
remove_partial)
  case $3 in .*.qcow2.partial) ;; *) fail "it is not a partial file of a pull" ;; esac
  is_stale_partial "$2/$3" || exit 0
  flock -n --exclusive "$2/$3" rm -f -- "$2/$3" "$2/$3.mark" && sync -- "$2/" && echo removed
  ;;
remove_directory)
  case $3 in snapdeck-*) ;; *) fail "snapdeck did not create it" ;; esac
  is_stale_directory "$2/$3" || exit 0
  rm -rf -- "$2/$3" && echo removed
  ;;
esac
