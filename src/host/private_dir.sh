# Part of scripts that run on a host: private directories, which only this user can change. Each has a file with the mark of the
# snapdeck that created it. It is entered once, and used by relative names: another directory may get its name meanwhile.
mark=.snapdeck-owner

identity() { stat -c %d:%i -- "$1" 2>/dev/null; }
# enter DIR: makes DIR itself, not the target of a link, the working directory. What follows acts on that directory, even
# if another one gets its name.
enter() { [ ! -L "$1" ] && cd -P -- "$1" 2>/dev/null && [ "$(identity .)" = "$(identity "$1")" ]; }
# A directory in one with the setgid bit has it, too.
is_private() {
  case $(stat -c '%u %a' -- "$1") in "$(id -u) 700" | "$(id -u) 2700") ;; *) return 1 ;; esac
}
# has_mark_id ID: the mark in the working directory has this id.
has_mark_id() { [ -n "$1" ] && is_file "./$mark" && head -c 1000 -- "./$mark" | grep -qF "\"id\":\"$1\""; }
# is_unmarked: the working directory is one whose creation was interrupted: only this user can change it, and it has nothing
# but a mark that was not finished.
is_unmarked() {
  is_private . && [ ! -s "./$mark" ] || return 1
  case $(ls -A) in '' | "$mark" | "$mark.new") ;; *) return 1 ;; esac
}
# write_mark TEXT: on the disk first, since after a failure of the file system an empty mark would prove nothing.
write_mark() {
  rm -f -- "./$mark.new" && printf '%s' "$1" >"./$mark.new" && sync -- "./$mark.new" &&
    mv -fT -- "./$mark.new" "./$mark" && sync -- .
}
# write_new PATH TOKEN SIZE: for PATH as of pin, creates the file "new" from stdin, mode 0600, as descriptor 8, in a private directory beside PATH, which
# it enters. The directory of PATH may be one of QEMU's user, where a link to a device could take any name. "name" is the last part
# of PATH, to be used as "../$name".
write_new() {
  pin "$1"
  set -- "$pinned" "$2" "$3"
  new_dir=${1%/*}/.${1##*/}.$2 name=${1##*/}
  mkdir -m 700 -- "$new_dir" || exit 1
  enter "$new_dir" && is_private . && [ "$(identity ..)" = "$(stat -L -c %d:%i -- "${1%/*}")" ] ||
    busy "the directory of $shown was replaced"
  trap remove_new EXIT
  set -C
  command exec 8>./new || exit 1
  set +C
  dd bs=64K status=none >&8 || exit 1
  [ "$(stat -L -c %s /proc/self/fd/8)" = "$3" ] || fail 'the connection was lost'
}
# remove_new: removes the directory of write_new, and a file that has not got its name.
remove_new() {
  rm -f -- ./new && cd / && rmdir -- "$new_dir" 2>/dev/null
}
# enter_own DIR ID: enters the directory with this mark if only this user can change what is in it.
enter_own() {
  enter "$1" && has_mark_id "$2" || fail "$1: snapdeck did not create it"
  [ "$(stat -c %u .)" = "$(id -u)" ] || fail "$1: it belongs to another user"
}
# remove_entered PATH: removes the working directory, which has the name PATH. Other file systems mounted in it stay. The
# mark goes last: until then an interrupted removal can be repeated.
remove_entered() {
  entered=$(identity .)
  # QEMU's user may have put anything into the directory "run". No path is compared: that takes minutes for 20,000 directories,
  # each in the other.
  timeout 100 find . -xdev -mindepth 2 -delete && timeout 100 find . -xdev -mindepth 1 ! -name "$mark" -delete || {
    [ $? != 124 ] || busy "$1 has too many files; remove it by hand"
    exit 1
  }
  rm -f -- "./$mark" || exit 1
  cd / || exit 1
  [ "$(identity "$1")" = "$entered" ] || fail 'another directory has its name now'
  # The record of the directory is removed next: it must not come back if the machine fails.
  rmdir -- "$1" && sync -- "${1%/*}/"
}

# The directory of a pull has the file "partial", and its resume log.
#
# make_pull DIR MARK: creates the directory of a pull, or uses an existing one, and enters it. One without a mark is used if it
# is empty: its creation was interrupted.
make_pull() {
  if message=$(mkdir -m 700 -- "$1" 2>&1); then made=yes; else made=; fi
  [ -e "$1" ] || [ -L "$1" ] || fail "$message"
  enter "$1" || busy "$1 is not a directory, or was replaced"
  is_private . || busy "$1 belongs to another user, or is not private"
  if is_file "./$mark"; then return; fi
  case $(ls -A) in '' | "$mark.new") ;; *) busy "$1 exists, and snapdeck did not create it" ;; esac
  write_mark "$2" && return
  rm -f -- "./$mark.new"
  [ -z "$made" ] || { cd / && rmdir -- "$1"; }
  exit 1
}
# enter_pull DIR ID IDENTITY: enters the directory of a pull that has this mark, device and inode.
enter_pull() {
  enter "$1" && [ "$(identity .)" = "$3" ] && is_private . && has_mark_id "$2" ||
    busy "$1 was replaced, or snapdeck did not create it"
}
# remove_entered_pull DIR: removes the working directory, the mark last.
remove_entered_pull() {
  rm -f -- ./unattended ./partial ./partial.mark "./$mark.new" || exit 1
  case $(ls -A) in '' | "$mark") ;; *) busy "$1 has files that snapdeck did not create" ;; esac
  [ "$(identity "../${1##*/}")" = "$(identity .)" ] || busy "another directory has the name $1 now"
  rm -f -- "./$mark" && cd .. && rmdir -- "./${1##*/}" && sync -- .
}
# end_unattended DIR: ends the download that continues unattended in the directory of a pull of this user, which ends without this file;
# fails if there is none.
end_unattended() (
  enter "$1" && is_private . && is_file "./$mark" && [ -e ./unattended ] && rm -f ./unattended
)
