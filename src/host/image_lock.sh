# Runs on a host: sh -c SCRIPT snapdeck VERB ARGUMENT... Finds the users of image files, and keeps writers away from one.
# QEMU locks single bytes of an image that it has open (QEMU, block/file-posix.c): 100 to 107 for what it does with it,
# 200 to 207 for what it allows no other process to do; 101 and 201 are the permission to write.
set -u
export LC_ALL=C

# find_lock DEVICE:INODE: prints "write" or "read" if /proc/locks has a lock of QEMU on that file.
find_lock() {
  awk -v file="$1" '
    $(NF - 2) == file && $2 != "FLOCK" {
      start = $(NF - 1); end = $NF == "EOF" ? 1e18 : $NF
      if (start <= 101 && end >= 101) access = "write"
      else if ((start <= 107 && end >= 100 || start <= 207 && end >= 200) && access == "") access = "read"
    }
    END { print access }' /proc/locks
}
# print_user NUMBER PID ACCESS LOCK COMMAND GUEST UUID
print_user() {
  [ "$3" = read ] || has_writer=yes
  printf '%s\0' "$@"
}
# open_image FILE: opens it as descriptor 3, and sets its inode as the kernel shows it for a descriptor, since Linux 5.14; on some
# file systems it is not that of stat(2).
open_image() {
  # Opening a file with a lease would wait, and so would a FIFO that gets the name now. The operator's path may be a link.
  message=$(dd if="$1" iflag=nonblock count=0 status=none 2>&1 </dev/null) || fail "$message"
  guard_open "$1"
  command exec 3<"$1" && is_open=yes || is_open=
  end_guard
  [ -n "$is_open" ] || exit 1
  inode=$(awk '$1 == "ino:" { print $2 }' /proc/self/fdinfo/3)
}
# print_uses: prints PID, "read" or "write", and "lock" or "" of each process with one of the descriptors on stdin, /proc/PID/fd/N, that
# is of the file with $inode. A process may have it open thousands of times. Before its first title head(1) writes no newline: it is
# that of /dev/null.
print_uses() {
  sed 's,/fd/,/fdinfo/,' | xargs -r head -vc 4096 /dev/null 2>/dev/null | awk -v inode="$inode" '
    function add() {
      if (pid == "" || other) return
      access[pid] = access[pid] == "write" || mode % 4 ? "write" : "read"
      if (lock) locks[pid] = "lock"
    }
    /^==> / { add(); split($2, part, "/"); pid = part[3]; other = mode = lock = 0 }
    # The descriptor may be of another file by now.
    $1 == "ino:" && inode != "" && $2 != inode { other = 1 }
    # The last digit of the flags is the access mode (proc(5)).
    $1 == "flags:" { mode = substr($2, length($2)) + 0 }
    $1 == "lock:" && $3 != "FLOCK" {
      end = $NF == "EOF" ? 1e18 : $NF
      if ($(NF - 1) <= 107 && end >= 100 || $(NF - 1) <= 207 && end >= 200) lock = 1
    }
    END { add(); for (pid in access) print pid, access[pid], locks[pid] }'
}
# print_guest PID: prints UUID and name of the domain that a QEMU runs. Any process can give itself arguments of any length (prctl(2),
# PR_SET_MM): only their beginning is read.
print_guest() {
  head -c 131072 "/proc/$1/cmdline" 2>/dev/null | tr '\n\0' ' \n' | awk '
    last == "-name" { name = $0; sub(/^guest=/, "", name); sub(/,.*/, "", name) }
    last == "-uuid" { uuid = $0 }
    { last = $0 }
    END { print uuid " " name }'
}
# has_unseen_writer: whether descriptor 3 is open for writing without a descriptor in /proc: one that is in a message of a socket, of
# io_uring, of the kernel's NFS server. Then there is no lease for reading (fcntl(2), F_SETLEASE). In a shell this takes Perl.
has_unseen_writer() {
  [ "$(perl -e '
    $SIG{IO} = "IGNORE";
    open(F, "<&=3") or exit;
    for (1 .. 20) {
      if (fcntl(F, 1024, 0)) { fcntl(F, 1024, 2); exit }
      # EAGAIN. Its writer may just be closing it.
      exit if $! != 11;
      select(undef, undef, undef, 0.05);
    }
    print "yes"' 2>/dev/null)" = yes ]
}

verb=$1
shift
case $verb in
# users FILE...: prints seven fields for each use of a file, each ended by NUL: the number of the file (from 1), process
# ID ("" if unknown), "write" or "read", "lock" or "", command, guest name and domain UUID of a QEMU. Then "all" if
# every process can be inspected, else "some".
users)
  number=0
  for file do
    number=$((number + 1))
    # A missing file has no users.
    [ -e "$file" ] || continue
    [ -f "$file" ] || [ -b "$file" ] || continue
    seen= has_writer= is_network=
    open_image "$file"
    device=$(awk '
      FNR == NR { if ($1 == "mnt_id:") mount = $2; next }
      $1 == mount { split($3, part, ":"); printf "%02x:%02x", part[1], part[2] }' /proc/self/fdinfo/3 /proc/self/mountinfo)
    exec 3<&-
    # By device and inode, as the file may have other names.
    uses=$(find -L /proc/[0-9]*/fd -mindepth 1 -maxdepth 1 -samefile "$file" -print 2>/dev/null | print_uses)
    guests=0
    while read -r pid access lock; do
      [ -n "$pid" ] && read -r command <"/proc/$pid/comm" || continue
      case $access$lock$command in readqemu*) ;; read?*) [ -n "$lock" ] || continue ;; esac
      guest=' '
      if [ $guests -lt 100 ]; then guest=$(print_guest "$pid"); fi
      guests=$((guests + 1))
      [ -z "$lock" ] || seen=yes
      print_user "$number" "$pid" "$access" "$lock" "$command" "${guest#* }" "${guest%% *}"
    done 2>/dev/null <<END
$uses
END
    # A shared mapping writes to the file without a descriptor (proc(5), maps).
    map="^[0-9a-f]+-[0-9a-f]+ ...s [^ ]+ $device $(stat -L -c %i -- "$file") "
    for maps in $(grep -lE "$map" /proc/[0-9]*/maps 2>/dev/null); do
      pid=${maps#/proc/} pid=${pid%%/*}
      # "mw": it may be made writable (proc(5), smaps).
      awk -v map="$map" '
        /^[0-9a-f]+-[0-9a-f]+ / { is_map = $0 ~ map }
        is_map && $1 == "VmFlags:" && / mw / { found = 1 }
        END { exit !found }' "/proc/$pid/smaps" || continue
      read -r command <"/proc/$pid/comm" && print_user "$number" "$pid" write '' "$command" '' ''
    done 2>/dev/null
    # Processes that this user may not inspect, and those of other PID namespaces, are known by their locks only.
    if [ -z "$seen" ]; then
      access=$(find_lock "$device:$(stat -L -c %i -- "$file")") || exit 1
      [ -z "$access" ] || print_user "$number" '' "$access" lock '' '' ''
    fi
    for backing in /sys/block/loop*/loop/backing_file; do
      [ -e "$backing" ] || continue
      device=${backing#/sys/block/} device=${device%%/*}
      if [ "$(cat -- "$backing" 2>/dev/null)" -ef "$file" ]; then print_user "$number" '' write '' "/dev/$device" '' ''; fi
    done
    # Only an attempt to lock shows the locks of other machines. It writes nothing.
    case $(stat -f -L -c %T -- "$file") in
    nfs* | cifs | smb* | ceph | gfs* | ocfs2 | lustre | afs | fuse*)
      is_network=yes
      if [ -z "$seen" ]; then
        command -v qemu-io >/dev/null || {
          printf '%s\n' 'qemu-io is not installed: it shows the locks of other machines on a network file system' >&2
          exit 1
        }
        case $(timeout 20 qemu-io -f raw -c quit -- "$file" 2>&1 </dev/null) in
        *'Failed to get'*lock*) print_user "$number" '' write lock '' '' '' ;;
        esac
      fi
      ;;
    esac
    # The writers that others see only by their locks would be unseen ones. On a network file system a lease takes the server's leave.
    if [ -z "$has_writer$is_network" ] && [ "$(id -u)" = 0 ]; then
      searched=$inode
      open_image "$file"
      [ "$inode" = "$searched" ] || fail "$file was replaced meanwhile"
      ! has_unseen_writer || print_user "$number" '' write '' '' '' ''
      exec 3<&-
    fi
  done
  if [ "$(id -u)" = 0 ]; then printf 'all\0'; else printf 'some\0'; fi
  ;;

# hold NAME OWNER COUNT FILE...: keeps a disk and its backing files open as a reader that allows no writer, until stdin ends
# or is silent for 20 s. The first line is "qemu-io> ..." as soon as they are open; "closed" is the last one.
hold)
  trap '' HUP PIPE
  name=$1 owner=$2
  shift 2
  choose_reader "$owner" '' "$@" 2>&1 || exit 1
  {
    echo length
    while byte=$(timeout 20 head -c 1) && [ -n "$byte" ]; do :; done
  } | {
    $reader qemu-io -r -- "$name" 2>&1
    echo closed
  }
  ;;
esac
