# Part of scripts that run on a host: a program that reads images runs as a user that can read little else.
#
# Names and headers of images may be what QEMU's user makes of them, at any moment: root reads nothing for it that it cannot
# read itself, and an image that takes over the program has not got the rights of root.

# as_user USER:GROUP COMMAND...
as_user() {
  user=${1%%:*} group=${1#*:}
  shift
  setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs -- "$@"
}
# can_read USER:GROUP COUNT FILE...: whether the user can read the first COUNT files.
can_read() {
  as_user "$1" sh -c '
    count=$2
    shift 2
    while [ "$count" -gt 0 ]; do
      [ -r "$1" ] || exit 1
      shift
      count=$((count - 1))
    done' sh "$@" 2>/dev/null
}
# choose_reader OWNER TARGET COUNT FILE...: sets reader to the start of a command that runs as nobody or else as QEMU's user,
# OWNER (USER:GROUP), who can read the first COUNT files. With a TARGET, an image to write, it is OWNER. reader is empty if
# this user is not root or QEMU's is, without setpriv, where root may not change its user, and for images of others.
choose_reader() {
  reader= qemu=$1 target=$2 count=$3
  shift 3
  [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || return 0
  uid=$(id -u -- "${qemu%%:*}" 2>/dev/null) || uid=${qemu%%:*}
  case $uid in 0 | '' | *[!0-9]*) return 0 ;; esac
  as_user "$qemu" true 2>/dev/null || return 0
  nobody=nobody:$(id -g nobody 2>/dev/null)
  [ -z "$target" ] || nobody=$qemu
  for candidate in "$nobody" "$qemu"; do
    if can_read "$candidate" "$count" "$@"; then
      reader="setpriv --reuid ${candidate%%:*} --regid ${candidate#*:} --clear-groups --no-new-privs --"
      return 0
    fi
  done
  # Images that libvirt has left to root. Where QEMU's user can give their names to other files, root opens none of them.
  while [ "$count" -gt 0 ]; do
    dir=${1%/*}/
    if ! can_read "$qemu" 1 "$1" && { [ "$(stat -L -c %u -- "$dir")" = "$uid" ] || as_user "$qemu" test -w "$dir"; }; then
      printf '%s\n' "$1: Permission denied for ${qemu%%:*}, to whom its directory belongs" >&2
      return 1
    fi
    shift
    count=$((count - 1))
  done
}
