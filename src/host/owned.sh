# Runs on a host: sh -c SCRIPT snapdeck VERB ARGUMENT... Creates, lists and removes the directories of jobs, and lists and
# removes what interrupted jobs have left.
#
# Each directory has a file with the mark of the snapdeck that created it; a partial file of an earlier version has one in its
# resume log. Nothing without a mark is listed or removed, whatever its name is. A leftover is neither open nor locked and was
# not modified for a day.
set -u
umask 077
export LC_ALL=C
day=1440

# QEMU's user cannot be the owner if only root may choose that: QEMU is in the group.
share_run() { [ "$(id -u)" = 0 ] || chmod 770 ./run; }

# is_old FILE...: neither they nor anything in them was modified within a day.
is_old() { [ -z "$(find "$@" -mmin -$day -print -quit 2>/dev/null)" ]; }
# is_entered_in_use: the watchdog of the working directory runs, or a process has one of its files open.
is_entered_in_use() {
  # The writer of a pull holds this lock.
  if is_file ./partial && ! (exec 8<./partial && flock -n --exclusive 8) 2>/dev/null; then return 0; fi
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
last_header() { (open_file "$1" own && head -c 67108864 <&8) | tr -d '\0' | tr '\t' '\n' | grep '^{' | tail -n 1 | head -c 4000; }

# birth FILE: prints inode and time of birth.
birth() { TZ=UTC stat -c %i:%w -- "$1"; }

verb=$1
shift
case $verb in
# make DIR OWNER MARK: with an OWNER, QEMU's user, that one can reach the files in it that it owns, and has a directory
# "run" of its own in it. May be repeated.
make)
  [ -n "$2" ] && mode=711 || mode=700
  if message=$(mkdir -m 700 -- "$1" 2>&1); then
    enter "$1" && is_private . && [ -z "$(ls -A)" ] ||
      fail "Device or resource busy: $1 was replaced while it was created"
    write_mark "$3" &&
      { [ -z "$2" ] || { mkdir -m 700 ./run && chown -- "$2" ./run && share_run; }; } && chmod "$mode" . || {
      rm -rf -- "./$mark" "./$mark.new" ./run
      cd / && rmdir -- "$1"
      exit 1
    }
  else
    enter "$1" && is_file "./$mark" && [ "$(head -c 1001 -- "./$mark")" = "$3" ] || fail "$message"
  fi
  ;;

# make_scratch DIR ID OWNER BYTES: creates an empty image "scratch" for OWNER, mode 0600.
make_scratch)
  enter_own "$1" "$2"
  qemu-img create -q -f qcow2 ./scratch "$4" && chown -- "$3" ./scratch
  ;;

# copy_overlay DIR ID OWNER FILE always|auto: copies a disk of OWNER to "overlay", by a reflink if possible or always.
copy_overlay)
  enter_own "$1" "$2"
  owner=$3
  open_file "$4"
  cp "--reflink=$5" --sparse=auto -- /proc/self/fd/8 ./overlay
  ;;

# birth FILE: prints inode and time of birth of a regular file.
birth) if is_file "$1"; then birth "$1"; fi ;;

# make_overlay DIR ID OWNER BASE BYTES: creates an empty overlay on BASE, which is not opened, in DIR, and prints its inode
# and time of birth. May be repeated.
make_overlay)
  enter_own "$1" "$2"
  rm -f -- ./overlay || exit 1
  # With the backing format recorded, QEMU never probes it from bytes that a guest has written.
  qemu-img create -q -u -f qcow2 -F qcow2 -b "$4" ./overlay "$5" &&
    chmod 644 ./overlay && chown -- "$3" ./overlay && sync -- ./overlay && birth ./overlay
  ;;

# finish_copy DIR ID OWNER: makes the copy in DIR a complete overlay of OWNER, and prints its inode and time of birth. May be
# repeated.
finish_copy)
  enter_own "$1" "$2"
  chmod 644 ./overlay && chown -- "$3" ./overlay && sync -- ./overlay && birth ./overlay
  ;;

# publish_overlay DIR ID TARGET: gives that overlay the name TARGET beside DIR; fails if that exists. May be repeated.
publish_overlay)
  enter_own "$1" "$2"
  name=./${3##*/}
  if [ -e ./done ] && [ "$(identity ./done)" = "$(identity "../$name")" ]; then exit 0; fi
  # Shows a repetition that it is done.
  ln -T -- ./overlay ./done 2>/dev/null
  publish ./overlay "../$name"
  sync -- ..
  ;;

# check_organization SNAPSHOTS_DIR ORG OTHER...: checks the directory ORG as pin does, and that it is not an OTHER directory;
# prints "missing" without one.
check_organization)
  if [ ! -e "$1/$2" ] && [ ! -L "$1/$2" ]; then
    cd -- "$1" || exit 1
    echo missing
    exit
  fi
  pin "$1/./$2/."
  dir=$1/$2
  [ -d "$pinned" ] || busy "$dir was removed meanwhile"
  shift 2
  for other do
    [ "$(stat -L -c %d:%i -- "$pinned")" != "$(stat -L -c %d:%i -- "$other" 2>/dev/null)" ] ||
      busy "$dir is the same directory as $other"
  done
  ;;

# make_organization DIR ID ORG: creates the directory ORG beside DIR, with owner and mode of the one that both are in, unless it exists.
# QEMU's user, who may own that, cannot put another one in its place before it has owner and mode. May be repeated.
make_organization)
  enter_own "$1" "$2"
  [ "$(identity ..)" = "$(stat -L -c %d:%i -- "${1%/*}")" ] || busy "$1 was replaced"
  if [ -d ./org ]; then rmdir ./org || exit 1; fi
  # Only root may give it to another user.
  mkdir ./org && { if [ "$(id -u)" = 0 ]; then chown --reference=.. -- ./org; else chgrp --reference=.. -- ./org; fi; } &&
    chmod --reference=.. -- ./org || exit 1
  # Another process may have created it; then this one is removed with DIR.
  mv -nT -- ./org "../$3" 2>/dev/null
  sync -- ..
  ;;

# list_backups DIR: name and mark of each directory of a backup, each followed by NUL. The mark is empty if the creation was
# interrupted.
list_backups)
  for dir in "$1"/.*.backup; do
    (
      enter "$dir" || exit 0
      text=
      is_unmarked || { is_file "./$mark" && text=$(head -c 1001 -- "./$mark" | tr -d '\0'); } || exit 0
      printf '%s\0%s\0' "${dir##*/}" "$text"
    )
  done
  ;;

# remove DIR ID: a missing directory is fine. The caller has recorded DIR and ID before the creation, which may have been
# interrupted before the mark was written.
remove)
  if ! [ -e "$1" ] && ! [ -L "$1" ]; then
    # The earlier removal may not be on the disk yet.
    [ ! -d "${1%/*}" ] || sync -- "${1%/*}/"
    exit
  fi
  enter "$1" && { has_mark_id "$2" || { [ -n "$2" ] && is_unmarked; }; } || fail 'snapdeck did not create it'
  remove_entered "$1"
  ;;

# list_partials SNAPSHOTS_DIR: the directories of pulls, those in use included, of any age.
list_partials)
  for dir in "$1"/.*.pull; do
    (
      enter "$dir" && is_file "./$mark" || exit 0
      print_leftover pull "$(head -c 1001 -- "./$mark" | tr -d '\0')" "$dir"
    )
  done
  ;;

# list_leftovers SNAPSHOTS_DIR TEMP_DIR SANDBOXES_DIR OWNER
list_leftovers)
  owner=$4
  for log in "$1"/.*.partial.mark; do
    file=${log%.mark}
    is_file "$log" && is_old "$log" || continue
    if is_file "$file"; then
      # Its writer holds this lock.
      is_old "$file" && (open_file "$file" own && flock -n --exclusive 8) 2>/dev/null || continue
      print_leftover partial "$(last_header "$log")" "$file" "$log"
    fi
  done
  for dir in "$1"/.*.pull; do print_leftover_directory pull "$dir"; done
  for dir in "$1"/.*.org; do print_leftover_directory directory "$dir"; done
  for dir in "$2"/snapdeck-*; do print_leftover_directory directory "$dir"; done
  for dir in "$3"/.*.backup; do print_leftover_directory backup "$dir"; done
  ;;

# remove_leftover_partial FILE ID IDENTITY OWNER: for a file of an earlier version; prints "removed" if it is still that leftover. An older resume log has no id.
remove_leftover_partial)
  owner=$4
  is_file "$1" && is_file "$1.mark" && is_old "$1" "$1.mark" || exit 0
  open_file "$1" own
  exec 9<&8
  flock -n --exclusive 9 || exit 0
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

# remove_partial DIR ID IDENTITY: the same, of any age.
remove_partial)
  enter "$1" && [ "$(identity .)" = "$3" ] && has_mark_id "$2" && ! is_entered_in_use || exit 0
  remove_entered "$1" && echo removed
  ;;
esac
