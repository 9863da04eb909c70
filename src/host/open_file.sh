# Part of scripts that run on a host: opens files in directories that QEMU's user may own, and change at any moment.
fail() { printf '%s\n' "$1" >&2; exit 1; }
busy() { fail "Device or resource busy: $1"; }
is_file() { [ -f "$1" ] && [ ! -L "$1" ]; }
# refuse_blocking PATH: fails for a file whose opening would wait: one with a lease (fcntl(2)), which its owner can take, and
# a FIFO that got the name just now.
refuse_blocking() {
  message=$(dd if="$1" iflag=nofollow,nonblock count=0 status=none 2>&1 </dev/null) && return
  case $message in
  *'temporarily unavailable'*) busy "another process has a lease on $1" ;;
  *) fail "$message" ;;
  esac
}
# guard_open PATH, end_guard: kills this script if what opens the file in between takes more than 5 s. A FIFO that got the name just
# now would wait for a writer.
guard_open() {
  # In a subshell $$ would be that of the script.
  read -r self _ </proc/self/stat
  {
    # Neither a lock nor a pipe of this script lasts as long as it sleeps.
    sleep 5 2>/dev/null 3<&- 4>&- 6<&- 7<&- 8<&- 9<&-
    echo "Device or resource busy: $1 makes its reader wait" >&2
    kill -9 "$self"
  } </dev/null >/dev/null 3<&- 4>&- 6<&- 7<&- 8<&- 9<&- &
  opener=$!
}
end_guard() {
  # Not by a signal that the script handles.
  kill -9 "$opener"
  wait "$opener" 2>/dev/null
}
# pin PATH: sets pinned to a name of PATH on which no link leads elsewhere, and shown to the name for messages. PATH is DIR/./ORG/NAME
# for a file in a directory of DIR, which QEMU's user may own and replace by a link at any moment: ORG is opened as descriptor 5, and
# used by that. Any other PATH stays as it is.
pin() {
  pinned=$1
  case $1 in
  */./*/*) ;;
  /proc/self/fd/5/*) return ;;
  *)
    shown=$1
    return
    ;;
  esac
  org=${1%/*}
  shown=${1%%/./*}/${1##*/./}
  # A missing directory has no files.
  pinned=/proc/self/missing/${1##*/}
  [ -e "$org" ] || [ -L "$org" ] || return 0
  guard_open "$org"
  # With the dot nothing but a directory is opened, no device that a link leads to.
  command exec 5<"$org/." && is_open=yes || is_open=
  end_guard
  [ -n "$is_open" ] || { [ -d "$org" ] && exit 1; } || busy "${shown%/*} is not a directory, or was replaced"
  # Device, inode, owner and access of the open one, what has its name, owner and access of the directory that it is in, and the places
  # of both.
  set -- "$1" $(stat -L -c '%d:%i %u %g:%a' /proc/self/fd/5) "$(stat -c %d:%i -- "$org" 2>/dev/null)" \
    $(stat -L -c '%u %g:%a' -- "${org%/*}") "$(exec 5<"${org%/*}" && place_of_5)" "$(place_of_5)"
  [ "$2" = "$5" ] || busy "${shown%/*} is not a directory, or was replaced"
  # No file could get its name there in one step. A subvolume of btrfs has a device of its own.
  [ "$8" = "$9" ] || busy "${shown%/*} is on another file system than the snapshots directory"
  # Whose directory it is in can give its name to a directory of root.
  if [ "$3" != "$6" ] && ! { is_trusted "$3" && is_trusted "$6"; }; then
    # Another operator's, if both have the group that may write to them.
    case $4,$7 in
    *[2367][0145],*[2367][0145]) [ "${4%:*}" = "${7%:*}" ] ;;
    *) false ;;
    esac || busy "${shown%/*} belongs to another user than the snapshots directory"
  fi
  pinned=/proc/self/fd/5/${1##*/}
}
place_of_5() {
  sed -n 's/^mnt_id:[[:space:]]*//p' /proc/self/fdinfo/5
  stat -L -c %d /proc/self/fd/5
}
is_trusted() { [ "$1" = 0 ] || [ "$1" = "$(id -u)" ]; }
# owner_uid: the user of the host's owner (USER:GROUP), a number.
owner_uid() {
  case ${owner%%:*} in
  '' | *[!0-9]*) id -u -- "${owner%%:*}" 2>/dev/null ;;
  *) echo "${owner%%:*}" ;;
  esac
}
# open_file PATH [own]: opens a regular file, PATH as of pin, as descriptor 8, for reading; never the target of a link. A file that not
# everyone may read, and one that is to be written ("own"), has no other name and belongs to root, this user or the owner.
# What follows acts on /proc/self/fd/8: another file may get the name.
open_file() {
  pin "$1"
  set -- "$pinned" "${2:-}"
  [ -e "$1" ] || [ -L "$1" ] || stat -- "$1" >/dev/null || exit 1
  is_file "$1" || busy "$shown is not a regular file"
  refuse_blocking "$1"
  guard_open "$1"
  command exec 8<"$1" && is_open=yes || is_open=
  end_guard
  [ -n "$is_open" ] || exit 1
  # One stat(1) of the name for all: it may change between two.
  set -- "$1" "${2:-}" "$(stat -L -c %d:%i /proc/self/fd/8)" $(stat -c '%d:%i %h %u %a' -- "$1" 2>/dev/null)
  [ -f /proc/self/fd/8 ] && [ "$3" = "${4:-}" ] || busy "$shown was replaced while it was opened"
  if [ -z "$2" ]; then case $7 in *[4567]) return ;; esac; fi
  [ "$5" = 1 ] || busy "$shown has other names (hard links)"
  case $6 in
  0 | "$(id -u)") ;;
  *) [ "$6" = "$(owner_uid)" ] || busy "$shown belongs to another user than $owner" ;;
  esac
}
# give_away MODE [OWNER]: changes mode and owner of descriptor 8.
give_away() {
  { [ -z "${2:-}" ] || chown -- "$2" /proc/self/fd/8; } && chmod "$1" /proc/self/fd/8 && sync -- /proc/self/fd/8
}
# publish FROM TO: gives a file its name, never in place of another.
publish() {
  if message=$(ln -T -- "$1" "$2" 2>&1); then
    rm -f -- "$1"
    return
  fi
  if [ -e "$2" ] || [ -L "$2" ]; then fail "$2: File exists"; fi
  # A file system without links.
  mv -nT -- "$1" "$2" && [ ! -e "$1" ] || fail "$message"
}
