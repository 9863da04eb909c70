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
# is_changeable UID GROUPS FILE: whether the user, who is not root and in GROUPS ("12 34"), may change the file, replace it, or a
# directory on its path.
is_changeable() {
  path=$3 sticky=
  case $path in /*) ;; *) return 0 ;; esac
  while [ -n "$path" ]; do
    set -- "$1" "$2" $(stat -L -c '%u %g %a' -- "$path" 2>/dev/null)
    [ -n "${5:-}" ] && [ "$3" != "$1" ] || return 0
    mode=$((0$5)) writable=$((mode & 02))
    if [ $((mode & 020)) != 0 ]; then
      # With an access control list the group's bits are the most that anyone in it may do (acl(5)).
      case " $2 " in *" $4 "*) writable=1 ;; esac
      case $(LC_ALL=C ls -ldL -- "$path") in ??????????+*) writable=1 ;; esac
    fi
    # In a directory with the sticky bit only the owner of a name replaces it.
    [ $writable = 0 ] || { [ -n "$sticky" ] && [ $((mode & 01000)) != 0 ]; } || return 0
    path=${path%/*} sticky=yes
  done
  return 1
}
# choose_reader OWNER TARGET COUNT FILE...: sets reader to the start of a command that runs as nobody or else as QEMU's user,
# OWNER (USER:GROUP), who can read the first COUNT files. With a TARGET, an image to write, it is OWNER. reader is empty if
# this user is not root or QEMU's is, without setpriv, where root may not change its user, and for images of others. QEMU's user
# can end what runs as itself: such an end is never a reason to be root.
choose_reader() {
  reader= qemu=$1 target=$2 count=$3
  shift 3
  [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null || return 0
  uid=$(id -u -- "${qemu%%:*}" 2>/dev/null) || uid=${qemu%%:*}
  case $uid in 0 | '' | *[!0-9]*) return 0 ;; esac
  # CAP_SETGID and CAP_SETUID; a program that tries it could be ended.
  capabilities=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)
  [ $((0x${capabilities:-0} >> 6 & 3)) = 3 ] || return 0
  nobody=nobody:$(id -g nobody 2>/dev/null)
  [ -z "$target" ] || nobody=$qemu
  for candidate in "$nobody" "$qemu"; do
    if can_read "$candidate" "$count" "$@"; then
      reader="setpriv --reuid ${candidate%%:*} --regid ${candidate#*:} --clear-groups --no-new-privs --"
      return 0
    fi
  done
  # Images that libvirt has left to root. One that QEMU's user can change may name any other file: root opens none of them.
  changeable= hidden= group=${qemu#*:}
  case $group in *[!0-9]*) group=$(getent group "$group" | cut -d : -f 3) ;; esac
  groups="$(id -G -- "${qemu%%:*}" 2>/dev/null) $group"
  while [ "$count" -gt 0 ]; do
    if is_changeable "$uid" "$groups" "$1"; then changeable=$1; fi
    [ -n "$hidden" ] || can_read "$qemu" 1 "$1" || hidden=$1
    shift
    count=$((count - 1))
  done
  [ -n "$changeable" ] || return 0
  printf '%s\n' "${hidden:-$changeable}: Permission denied for ${qemu%%:*}, who can change $changeable or its directory: chown it to $qemu" >&2
  return 1
}
