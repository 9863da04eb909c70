# Runs on a host: sh -c SCRIPT snapdeck VERB ARGUMENT... Creates, lists and removes the directories of jobs, and lists and
# removes what interrupted jobs have left.
#
# Each directory has a file with the mark of the snapdeck that created it, each partial file has one in its resume log.
# Nothing without a mark is listed or removed, whatever its name is. A leftover is neither open nor locked and was not
# modified for a day.
set -u
umask 077
export LC_ALL=C
day=1440
mark=.snapdeck-owner
fail() { printf '%s\n' "$1" >&2; exit 1; }

identity() { stat -c %d:%i -- "$1" 2>/dev/null; }
is_file() { [ -f "$1" ] && [ ! -L "$1" ]; }
# enter DIR: makes DIR itself, not the target of a link, the working directory. What follows acts on that directory, even
# if another one gets its name.
enter() { [ ! -L "$1" ] && cd -P -- "$1" 2>/dev/null && [ "$(identity .)" = "$(identity "$1")" ]; }
# has_mark_id ID: the mark in the working directory has this id.
has_mark_id() { [ -n "$1" ] && is_file "./$mark" && head -c 1000 -- "./$mark" | grep -qF "\"id\":\"$1\""; }
# remove_entered PATH: removes the working directory, which has the name PATH. Other file systems mounted in it stay. The
# mark goes last: until then an interrupted removal can be repeated.
remove_entered() {
  entered=$(identity .)
  find . -xdev -mindepth 1 ! -path "./$mark" -delete && rm -f -- "./$mark" || exit 1
  cd / || exit 1
  [ "$(identity "$1")" = "$entered" ] || fail 'another directory has its name now'
  rmdir -- "$1"
}

# is_old FILE...: neither they nor anything in them was modified within a day.
is_old() { [ -z "$(find "$@" -mmin -$day -print -quit 2>/dev/null)" ]; }
# is_entered_in_use: the watchdog of the working directory runs, or a process has one of its files open.
is_entered_in_use() {
  if is_file ./.guard && kill -0 "$(head -c 20 -- ./.guard)" 2>/dev/null; then return 0; fi
  [ -n "$(find /proc/[0-9]*/fd -lname "$(pwd -P)/*" -print -quit 2>/dev/null)" ]
}
# print_leftover KIND MARK PATH...: prints the kind, allocated bytes, last modification in seconds since the epoch,
# identity and mark of the first path, and the path, each followed by NUL.
print_leftover() {
  kind=$1 text=$2
  shift 2
  bytes=$(du -skx -- "$@" 2>/dev/null | awk '{ sum += $1 } END { printf "%.0f", sum * 1024 }')
  modified=$(find "$@" -xdev -printf '%Ts\n' 2>/dev/null | sort -n | tail -n 1)
  printf '%s\0%s\0%s\0%s\0%s\0%s\0' "$kind" "${bytes:-0}" "${modified:-0}" "$(identity "$1")" "$text" "$1"
}
print_leftover_directory() {
  (
    enter "$2" && is_file "./$mark" && is_old . && ! is_entered_in_use || exit 0
    print_leftover "$1" "$(head -c 1001 -- "./$mark" | tr -d '\0')" "$2"
  )
}
# last_header LOG: the last header of a resume log.
last_header() { head -c 67108864 -- "$1" | tr -d '\0' | tr '\t' '\n' | grep '^{' | tail -n 1 | head -c 4000; }

verb=$1
shift
case $verb in
# make DIR OWNER MARK: OWNER may be empty. May be repeated.
make)
  if message=$(mkdir -m 700 -- "$1" 2>&1); then
    (set -C && printf '%s' "$3" >"$1/$mark") && { [ -z "$2" ] || chown -- "$2" "$1"; } || {
      rm -f -- "$1/$mark"
      rmdir -- "$1"
      exit 1
    }
  else
    [ ! -L "$1" ] && is_file "$1/$mark" && [ "$(head -c 1001 -- "$1/$mark")" = "$3" ] || fail "$message"
  fi
  ;;

# list_backups DIR: name and mark of each directory of a backup, each followed by NUL.
list_backups)
  for dir in "$1"/.*.backup; do
    (
      enter "$dir" && is_file "./$mark" || exit 0
      printf '%s\0%s\0' "${dir##*/}" "$(head -c 1001 -- "./$mark" | tr -d '\0')"
    )
  done
  ;;

# remove DIR ID: a missing directory is fine.
remove)
  [ -e "$1" ] || [ -L "$1" ] || exit 0
  enter "$1" && has_mark_id "$2" || fail 'snapdeck did not create it'
  remove_entered "$1"
  ;;

# list_leftovers SNAPSHOTS_DIR TEMP_DIR SANDBOXES_DIR
list_leftovers)
  for log in "$1"/.*.partial.mark; do
    file=${log%.mark}
    is_file "$log" && is_old "$log" || continue
    if is_file "$file"; then
      # Its writer holds this lock.
      is_old "$file" && flock -n --exclusive "$file" true || continue
      print_leftover partial "$(last_header "$log")" "$file" "$log"
    fi
  done
  for dir in "$2"/snapdeck-*; do print_leftover_directory directory "$dir"; done
  for dir in "$3"/.*.backup; do print_leftover_directory backup "$dir"; done
  ;;

# remove_leftover_partial FILE ID IDENTITY: prints "removed" if it is still that leftover. An older resume log has no id.
remove_leftover_partial)
  is_file "$1" && is_file "$1.mark" && is_old "$1" "$1.mark" && exec 9<"$1" && flock -n --exclusive 9 || exit 0
  [ "$(stat -L -c %d:%i /proc/self/fd/9)" = "$3" ] && [ "$(identity "$1")" = "$3" ] || exit 0
  header=$(last_header "$1.mark")
  case $2 in
  '') case $header in *'"id":'*) exit 0 ;; esac ;;
  *) case $header in *"\"id\":\"$2\""*) ;; *) exit 0 ;; esac ;;
  esac
  rm -f -- "$1" "$1.mark" && sync -- "${1%/*}/" && echo removed
  ;;

# remove_leftover_directory DIR ID IDENTITY: prints "removed" if it is still that leftover.
remove_leftover_directory)
  enter "$1" && [ "$(identity .)" = "$3" ] && has_mark_id "$2" && is_old . && ! is_entered_in_use || exit 0
  remove_entered "$1" && echo removed
  ;;
esac
