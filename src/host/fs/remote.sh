# Runs on a host: sh -c SCRIPT snapdeck VERB OWNER ARGUMENT... Results are written to stdout, as lines or ended by NULs;
# stderr has the message of a failed command. OWNER is the owner of new files, USER:GROUP.
set -u
umask 077
# has_stamp FILE STAMP: compares inode, modification time, size and, if the stamp has one, change time.
has_stamp() {
  case $2 in
  *' '*' '*' '*) [ "$(stat -L --printf '%i %.9Y %s %.9Z' -- "$1")" = "$2" ] ;;
  *) [ "$(stat -L --printf '%i %.9Y %s' -- "$1")" = "$2" ] ;;
  esac
}
# check_stamp STAMP: fails unless descriptor 8 has the stamp; it may be empty: any. It was taken by name, and another file
# may have had the name.
check_stamp() {
  [ -z "$1" ] || has_stamp /proc/self/fd/8 "$1" || busy 'it was changed while it was read'
}
# canonicalize FILE...: see the verb. For realpath(1) links have no limit: thirty of them can take 2^30 steps.
canonicalize() {
  if timeout -s KILL 3 realpath -mz -- "$@" >/dev/null 2>&1; then
    timeout -s KILL 6 realpath -mz -- "$@" || exit 1
    return
  fi
  failures=0
  for file do
    [ $failures -lt 8 ] && timeout -s KILL 1 realpath -mz -- "$file" 2>/dev/null || {
      failures=$((failures + 1))
      printf '\0'
    }
  done
}
# hash_range FILE OFFSET BYTES: prints the digest of a range by the program $sum; ends with an error if it cannot be read.
sum=sha256sum nice=
hash_range() {
  set -- $({
    {
      dd if="$1" bs=1M iflag=skip_bytes,count_bytes skip="$2" count="$3" status=none
      echo "=$?" >&4
    } | $nice $sum
  } 4>&1)
  case " $* " in *' =0 '*) ;; *) exit 1 ;; esac
  for word do
    case $word in
    =* | -) ;;
    *)
      printf '%s\n' "$word"
      return
      ;;
    esac
  done
  exit 1
}
# lock_dir shared|exclusive: locks the mark of the working directory, that of a pull, as descriptor 6. Its file is opened for a
# pull under an exclusive lock: no command that writes to it for an earlier session still runs then.
lock_dir() {
  if is_file "./$mark" && exec 6<>"./$mark"; then
    for attempt in 1 2 3 4 5 6 7 8 9 10; do
      # An unattended download ends without this file.
      [ "$1" = shared ] || rm -f ./unattended
      if flock "--$1" --wait 1 6; then return; fi
    done
  fi
  fail 'Resource temporarily unavailable: another process is writing it, or just finished'
}
# take_lease, has_lease SECONDS: a lease of descriptor 8 for reading, F_SETLEASE and F_GETLEASE of fcntl(2), which lasts until that is
# closed: a process that opens the file for writing waits, and breaks it. has_lease looks after SECONDS. In a shell this takes Perl.
take_lease() {
  # The session of the file may just be closing it.
  perl -e 'open(F, "<&=8") or exit 1; for (1 .. 40) { exit 0 if fcntl(F, 1024, 0); select(undef, undef, undef, 0.05) } exit 1' 2>/dev/null
}
has_lease() {
  perl -e 'open(F, "<&=8") or exit 1; select(undef, undef, undef, $ARGV[0]);
    my $lease = fcntl(F, 1025, 0); exit !(defined $lease && $lease == 0)' "$1" 2>/dev/null
}
# read_request: reads a request from stdin, by read_config_in_time, which is followed by heartbeats.
read_request() {
  exec 3<&0 </dev/null
  read_config_in_time
  command -v curl >/dev/null || fail 'curl is not installed'
  end_without_heartbeats
}
# read_config_in_time: as read_config; kills this process group if it is not complete within 20 s.
read_config_in_time() {
  { sleep 20; kill -9 "-$$"; } >/dev/null 2>&1 3<&- &
  watcher=$!
  read_config
  kill "$watcher"
}
# end_without_heartbeats: kills this process group, which this process leads, when descriptor 3 ends or is silent for 20 s.
end_without_heartbeats() {
  {
    while byte=$(timeout 20 head -c 1 <&3) && [ -n "$byte" ]; do :; done
    kill -9 "-$$"
  } >/dev/null 2>&1 &
  watcher=$!
  trap 'kill "$watcher" 2>/dev/null' EXIT
  exec 3<&-
}
# open_target DESCRIPTOR INODE: opens the file with that inode, DEVICE:INODE, as descriptor 8, for reading and writing. A session of `open` has it
# as DESCRIPTOR, /proc/PID/fd/9: without that session, nothing is written.
open_target() {
  [ -z "$in_pull" ] || lock_dir shared
  # As if it was killed, which is what happened to its session.
  command exec 8<>"$1" || exit 137
  [ "$(stat -L -c %d:%i /proc/self/fd/8)" = "$2" ] || busy 'another process has replaced the file'
}
# open_source FILE: opens it as descriptor 7.
open_source() {
  open_file "$1"
  exec 7<&8
}
# open_ranges DESCRIPTOR INODE BYTES [OFFSET BYTES]...: opens the file with that inode, which a session of `open` has as DESCRIPTOR, as
# descriptor 8, for reading; fails if it does not have these ranges. $total is their length.
open_ranges() {
  exec 8<"$1" || exit 1
  [ "$(stat -L -c %d:%i /proc/self/fd/8)" = "$2" ] || busy 'another process has replaced the file'
  size=$(stat -L -c %s /proc/self/fd/8) || exit 1
  total=0
  shift 3
  while [ $# -ge 2 ]; do
    [ $(($1 + $2)) -le "$size" ] || fail 'the file ends before'
    total=$((total + $2))
    shift 2
  done
}
# read_ranges OFFSET BYTES...: writes ranges of descriptor 8, one behind the other.
read_ranges() {
  while [ $# -ge 2 ]; do
    dd if=/proc/self/fd/8 bs=1M iflag=fullblock,skip_bytes,count_bytes skip="$1" count="$2" status=none || return 1
    shift 2
  done
}
# hash_pieces PIECE_BYTES OFFSET BYTES...: prints the digest of each piece of ranges that are read as one, and "read" at the end.
hash_pieces() {
  piece=$1
  shift
  {
    status=$({ { read_ranges "$@"; echo $? >&4; } | print_digests >&5; } 4>&1)
  } 5>&1
  [ "$status" = 0 ] || exit 1
  echo read
}
# print_digests: prints the digest of each $piece bytes of stdin. A process for each takes long if they are small.
print_digests() {
  if [ "$piece" -lt 1048576 ] && perl -MDigest::SHA -e 1 2>/dev/null; then
    $nice perl -MDigest::SHA=sha256_hex -e 'binmode STDIN; print sha256_hex($b), "\n" while read(STDIN, $b, $ARGV[0])' "$piece"
  else
    SHELL=/bin/sh $nice split -b "$piece" --filter=sha256sum | cut -c 1-64
  fi
}
# read_config: reads the options of curl from descriptor 3, up to an empty line: they are secret, so no argument and no variable of
# the environment shows them.
read_config() {
  unset config line
  config=
  while IFS= read -r line <&3; do
    [ -n "$line" ] || return 0
    config="$config$line
"
  done
  fail 'the connection was lost'
}
# download_range OFFSET BYTES...: downloads a range to descriptor 8, by the options in $config; prints the digest of each of its blocks,
# which have these lengths, as it is in the file then, and "http STATUS EXIT" of curl.
download_range() {
  first=$1
  shift
  end=$first
  for bytes do end=$((end + bytes)); done
  {
    {
      # A redirection would not have the signature; a proxy is that of the host's environment.
      status=$(printf '%srange = "%s-%s"\n' "$config" "$first" $((end - 1)) |
        curl -q -sS -f --http1.1 -g --proto =http,https --connect-timeout 10 --speed-limit 1 --speed-time 60 \
          -w '%{http_code} %{size_download}' -o /dev/fd/5 -K -)
      code=$?
      # As for a connection that was cut: a store may answer with less than the range.
      case "$code $status" in
      "0 206 $((end - first))") ;;
      '0 206 '*) code=18 ;;
      esac
      echo "http ${status%% *} $code" >&4
    } 5>&1 | receive "$first" "$@"
  } 4>&1
}
# receive OFFSET BYTES...: writes blocks from stdin to descriptor 8, one behind the other, and prints the digest of each.
receive() {
  offset=$1
  shift
  for bytes do
    dd of=/proc/self/fd/8 bs=1M iflag=fullblock,count_bytes count="$bytes" oflag=seek_bytes seek="$offset" \
      conv=notrunc,nocreat status=none || exit 1
    hash_range /proc/self/fd/8 "$offset" "$bytes"
    offset=$((offset + bytes))
  done
}
# Prints name, time and text of the held ones of lock files. The kernel lists the inodes of all locks.
show_locks='
  locks=$(cat /proc/locks 2>/dev/null)
  stat -c "%i %Y %n" -- "$@" 2>/dev/null | {
    count=0
    while read -r inode time file && [ $count -lt 64 ]; do
      case $locks in *" FLOCK "*":$inode 0 EOF"*) ;; *) continue ;; esac
      count=$((count + 1))
      printf "%s\0%s\n" "${file##*/}" "$time"
      dd if="$file" iflag=nofollow,nonblock bs=500 count=1 status=none 2>/dev/null | tr -d "\000"
      printf "\0"
    done
  }'
# is_own "UID MODE": whether only root or this user can write to a file.
is_own() {
  case $1 in
  "0 "*[2367]? | "0 "*[2367] | "$(id -u) "*[2367]? | "$(id -u) "*[2367]) return 1 ;;
  "0 "* | "$(id -u) "*) ;;
  *) return 1 ;;
  esac
}
# is_same_as_new PATH: whether a file has the bytes of "new".
is_same_as_new() { is_file "$1" && dd if="$1" iflag=nofollow,nonblock status=none 2>/dev/null </dev/null | cmp -s -- ./new; }
# print_head BYTES FILE: for a file as of pin, a title and the first bytes of a file, with zeros behind its end. It may have been
# replaced since stat, by a link to a device or a FIFO, or have another length: a byte more or less would give the next file's
# header to another.
print_head() {
  case $2 in
  # A directory that was replaced ends only the part of the script that uses it.
  */./*/*) (pin "$2" && print_pinned_head "$@") ;;
  *) pinned=$2 && print_pinned_head "$@" ;;
  esac
}
# is_readable FILE: whether a file as of pin can be opened.
is_readable() (
  pin "$1"
  dd if="$pinned" iflag=nofollow,nonblock count=0 status=none </dev/null
)
print_pinned_head() {
  printf '==> %s <==\n' "$2"
  [ "$1" = 0 ] || {
    # On descriptor 4: what dd copies. In the variable: what it says of that.
    copied=$(dd if="$pinned" iflag=nofollow,nonblock,fullblock bs="$1" count=1 2>&1 >&4 4>&-) || return
    case $copied in
    '1+0 '*) ;;
    *)
      count=$(printf '%s\n' "$copied" | sed -n 's/^\([0-9]*\) bytes.*/\1/p')
      head -c $(($1 - count)) /dev/zero
      ;;
    esac
  } 4>&1
  echo
}
verb=$1 owner=$2 in_pull=
shift 2
# in DIR ID IDENTITY VERB ARGUMENT...: runs a verb in the directory of a pull; the names of its files are relative.
if [ "$verb" = in ]; then
  enter_pull "$1" "$2" "$3"
  pull_path=$1 verb=$4 in_pull=yes
  shift 4
fi

case $verb in
# make_pull DIR MARK: creates the directory of a pull, or uses an existing one; prints device and inode, and its mark. May be
# repeated.
make_pull)
  make_pull "$1" "$2"
  printf '%s\n%s\n' "$(identity .)" "$(head -c 1001 -- "./$mark" | tr -d '\0\n')"
  ;;

# remove_pull DIR ID IDENTITY: removes the directory of a pull; a missing one is fine.
remove_pull)
  [ -e "$1" ] || [ -L "$1" ] || exit 0
  enter_pull "$1" "$2" "$3"
  remove_entered_pull "$1"
  ;;

# remove_finished_pull DIR [recorded]: removes the directory of a pull that has nothing to resume: no file, or one that has its
# final name, too; prints its mark. "recorded": it is removed without a mark as well if it is empty.
remove_finished_pull)
  [ -d "$1" ] && enter "$1" && is_private . || exit 0
  if is_file "./$mark"; then
    if [ -e ./partial ] && [ "$(stat -c %h ./partial)" = 1 ]; then exit 0; fi
  elif [ -z "${2:-}" ] || [ -n "$(ls -A)" ]; then
    exit 0
  fi
  text=$(head -c 1001 -- "./$mark" 2>/dev/null | tr -d '\0\n')
  remove_entered_pull "$1"
  printf '%s\n' "$text"
  ;;

# list_images ORGANIZATIONS DIR...: for each directory, of which the first is that of the snapshots, its canonical path, the space of
# its file system (blocks, free blocks, bytes of a block), the names of its files but those too short for an image, of the first one
# also those in the directories of ORGANIZATIONS (separated by spaces) or "/ORG/CAUSE" for one that cannot be listed, and an empty
# field; then name and content of each damage
# record and of each held lock (after a line with its time), path and "BLOCKS TIME" of each partial file, and an empty field.
# A missing directory has no space and the single name "/".
list_images)
  # show_locks reads names in lines.
  newline='*
*'
  organizations=$1
  shift
  for dir do
    realpath -mz -- "$dir" || exit 1
    if [ -e "$dir" ]; then
      stat -f --printf '%b %a %S' -- "$dir" || :
      printf '\0'
      find "$dir/" -ignore_readdir_race -mindepth 1 -maxdepth 1 \( -name '*.qcow2' -o ! -type d \( ! -type f -o -size +15c \) \) \
        -printf '%f\0' || exit 1
      for organization in $organizations; do
        # find(1) does not follow it if it is a link.
        if [ -L "$dir/$organization" ] || [ ! -d "$dir/$organization" ]; then continue; fi
        {
          message=$(find "$dir/$organization" -ignore_readdir_race -mindepth 1 -maxdepth 1 \
            \( -name '*.qcow2' -o ! -type d \( ! -type f -o -size +15c \) \) -printf "$organization/%f\0" 2>&1 >&4) ||
            printf '/%s/%s\0' "$organization" "${message##*: }"
        } 4>&1
      done
      printf '\0'
      # NUL ends a field: a file of a directory that others may change has none.
      find "$dir/" -mindepth 1 -maxdepth 1 -name '.*.qcow2.damaged' -type f -links 1 -size -128 \
        -printf '%f\0' -exec sh -c 'dd if="$1" iflag=nofollow,nonblock bs=64K count=1 status=none | tr -d "\000"' sh {} \; \
        -printf '\0' -o \
        \( -name '.*.qcow2.lock' -o -name '.*.sandbox.lock' \) ! -name "$newline" -type f -exec sh -c "$show_locks" sh {} + || :
      find "$dir/" -mindepth 1 -maxdepth 2 -type d ! -name '.*.qcow2.pull' -prune -o \
        -path '*/.*.qcow2.pull/partial' -type f -printf '%P\0%b %Ts\0' 2>/dev/null || :
    else
      printf '\0/\0\0'
    fi
    printf '\0'
    organizations=
  done
  ;;

# stat_pinned FILE: the same as stat for one file as of pin, whose canonical path is the given one.
stat_pinned)
  pin "$1"
  printf '%s\0' "$1"
  message=$(stat -L -- "$pinned" 2>&1 >/dev/null) || {
    printf "stat: cannot stat '%s': %s\n" "$1" "${message##*: }" >&2
    exit 0
  }
  printf '%s\0' "$1"
  stat -L --printf '%s\0%b\0%i\0%.9Y\0%F\0%d\0%.9Z\0' -- "$pinned" || :
  ;;

# stat FILE...: all paths as of canonicalize, then eight fields of stat(1) for each file that exists.
stat)
  canonicalize "$@"
  stat -L --printf '%n\0%s\0%b\0%i\0%.9Y\0%F\0%d\0%.9Z\0' -- "$@" || :
  ;;

# canonicalize FILE...: the canonical paths; that of a file whose links lead too far is empty. The files need not exist.
canonicalize)
  canonicalize "$@"
  ;;

# read_headers [BYTES FILE]...: as print_head, up to the first file that cannot be read.
read_headers)
  while [ $# -ge 2 ] && print_head "$1" "$2" 2>/dev/null; do shift 2; done
  ;;

# read_headers_singly [BYTES FILE]...: as print_head, without files that cannot be read.
read_headers_singly)
  while [ $# -ge 2 ]; do
    if is_readable "$2"; then print_head "$1" "$2" || exit 0; fi
    shift 2
  done
  ;;

# remove_files FILE...: each as of pin; says "removed" if the first one existed.
remove_files)
  existed=unknown
  for file do
    pin "$file"
    is_there=
    if [ -e "$pinned" ] || [ -L "$pinned" ]; then is_there=removed; fi
    [ "$existed" != unknown ] || existed=$is_there
    rm -f -- "$pinned" || exit 1
    [ ! -d "${pinned%/*}" ] || sync -- "${pinned%/*}/"
  done
  echo "$existed"
  ;;

# flush_file PATH: writes its cached data to the disk.
flush_file)
  open_file "$1"
  sync --data /proc/self/fd/8
  ;;

free_bytes)
  stat -f --printf '%a %S' -- "$1"
  ;;

# hash_blocks PATH STAMP BLOCK_BYTES [SOURCE TARGET BYTES]...: prints the digest of each block, or "unreadable" for one past the
# end; TARGET is not used. Fails unless the file has the stamp, as check_stamp, when it is opened and at the end.
hash_blocks)
  path=$1 stamp=$2 block=$3
  shift 3
  # The guests of the host come first.
  nice='nice -n 10'
  open_file "$path"
  check_stamp "$stamp"
  size=$(stat -L -c %s /proc/self/fd/8) || exit 1
  while [ $# -ge 3 ]; do
    if [ $(($1 * block + $3)) -le "$size" ]; then
      hash_range /proc/self/fd/8 $(($1 * block)) "$3"
    else
      echo unreadable
    fi
    shift 3
  done
  check_stamp "$stamp"
  ;;

# hash_parts PROGRAM PATH STAMP [OFFSET BYTES]...: prints the checksum of each range by PROGRAM; STAMP as for hash_blocks.
hash_parts)
  sum=$1 path=$2 stamp=$3 nice='nice -n 10'
  shift 3
  open_file "$path"
  check_stamp "$stamp"
  size=$(stat -L -c %s /proc/self/fd/8) || exit 1
  while [ $# -ge 2 ]; do
    [ $(($1 + $2)) -le "$size" ] || fail 'the file ends before'
    hash_range /proc/self/fd/8 "$1" "$2"
    shift 2
  done
  check_stamp "$stamp"
  ;;

# list_holes PATH STAMP BLOCK_BYTES: prints offset and length of the holes that are at least as long, then "end" and the length of the
# file. A hole counts where SEEK_HOLE is exact, and after the file was written to the disk. STAMP as for hash_blocks.
list_holes)
  open_file "$1"
  check_stamp "$2"
  sync --data /proc/self/fd/8 && case $(stat -f -L -c %T /proc/self/fd/8) in
  ext2/ext3 | xfs | tmpfs)
    if command -v qemu-img >/dev/null; then
      # As raw, so that it does not read the image.
      qemu-img map --output=json -f raw -- /proc/self/fd/8 </dev/null 2>/dev/null | awk -v min="$3" '
        /"zero": true/ && /"data": false/ {
          if (!match($0, /"start": [0-9]+/)) next
          start = substr($0, RSTART + 9, RLENGTH - 9)
          if (!match($0, /"length": [0-9]+/)) next
          bytes = substr($0, RSTART + 10, RLENGTH - 10)
          if (bytes + 0 >= min + 0) print start " " bytes
        }'
    fi
    ;;
  esac
  check_stamp "$2"
  echo "end $(stat -L -c %s /proc/self/fd/8)"
  ;;

# copy_blocks FROM DESCRIPTOR INODE BLOCK_BYTES [SOURCE TARGET BYTES]...: copies blocks to the file that open_target opens; prints
# the digest of each copy. Stdin has heartbeats.
copy_blocks)
  exec 3<&0 </dev/null
  end_without_heartbeats
  open_source "$1"
  open_target "$2" "$3"
  block=$4
  shift 4
  while [ $# -ge 3 ]; do
    dd if=/proc/self/fd/7 of=/proc/self/fd/8 bs=1M iflag=skip_bytes,count_bytes skip=$(($1 * block)) count="$3" \
      oflag=seek_bytes seek=$(($2 * block)) conv=notrunc,nocreat status=none || exit 1
    hash_range /proc/self/fd/8 $(($2 * block)) "$3"
    shift 3
  done
  ;;

# download DESCRIPTOR INODE BLOCK_BYTES [BLOCK BYTES]...: downloads blocks of an object to the file that open_target opens; prints
# the digest of each block in the file, and "http STATUS EXIT" of curl for each request. Stdin has the options of curl, up to an
# empty line, and then heartbeats.
download)
  read_request
  open_target "$1" "$2"
  block=$3
  shift 3
  while [ $# -ge 2 ]; do
    # Blocks in a row are one request, of 16 at most.
    from=$(($1 * block)) to=$(($1 * block + $2)) sizes=$2
    shift 2
    while [ $# -ge 2 ] && [ $(($1 * block)) = "$to" ] && [ $((to - from)) -lt $((16 * block)) ]; do
      to=$((to + $2)) sizes="$sizes $2"
      shift 2
    done
    download_range "$from" $sizes || exit 1
  done
  ;;

# stand_by DESCRIPTOR INODE BLOCK_BYTES SIZE SECONDS JOB CREATOR: waits while heartbeats come. When they end, after the first one, without a
# "q", and with them the session that has the file of the pull as DESCRIPTOR, downloads the blocks that are not in the resume log yet, and
# adds them to it: for SECONDS at most, as long as the file "unattended" exists. Meanwhile it has the shared lock of the snapshot, whose
# text names JOB and CREATOR. Stdin has a request; "c" is followed by a newer one. Prints "ready".
stand_by)
  trap '' HUP PIPE
  exec 3<&0 </dev/null
  read_config_in_time
  command -v curl >/dev/null || fail 'curl is not installed'
  echo ready
  # Until then a pull that is cancelled may end without a "q".
  [ "$(timeout 20 head -c 1 <&3)" = . ] || exit 0
  while byte=$(timeout 20 head -c 1 <&3) && [ -n "$byte" ]; do
    case $byte in
    .) ;;
    c) read_config_in_time ;;
    *) exit 0 ;;
    esac
  done
  exec 3<&- >/dev/null 2>&1
  inode=$2 block=$3 size=$4 started=$(date +%s) job=$6 creator=$7 seconds=0
  until=$((started + $5)) lock_path=${pull_path%.pull}.lock
  while [ "$(stat -L -c %d:%i -- "$1")" = "$inode" ]; do
    [ $seconds -lt 60 ] && sleep 1 || exit 0
    seconds=$((seconds + 1))
  done
  # give_up: a later process has a file "unattended" of its own.
  give_up() {
    [ "$(cat ./unattended)" != "$until $$" ] || rm -f ./unattended
    exit 0
  }
  # list_done: prints the numbers of the blocks in the resume log.
  list_done() {
    tr '\t' '\n' <./partial.mark | awk '
      /^\{/ { split("", done) }
      /^[0-9]+ [0-9a-f]+$/ && length($2) == 64 { done[$1] = 1 }
      END { for (block in done) print block }'
  }
  # describe: prints the text of the lock file.
  describe() {
    printf '%s\n' "$job, unattended until $(date -u -d "@$until" '+%F %R') UTC, $(($(list_done | wc -l) * 100 / blocks)) % done, by $creator"
  }
  blocks=$(((size + block - 1) / block))
  # Before the lock, which another process takes over by removing this file. That of the lost session may last a moment longer.
  echo "$until $$" >./unattended || exit 0
  holder=$(describe)
  trap give_up EXIT
  acquire 9 shared "$lock_path" 45
  is_file "./$mark" && exec 6<>"./$mark" && flock --exclusive --wait 30 6 && is_file ./partial && exec 8<>./partial &&
    flock --nonblock 8 && [ "$(stat -L -c %d:%i /proc/self/fd/8)" = "$inode" ] && exec 7>>./partial.mark &&
    [ -e ./unattended ] || exit 0
  trap - EXIT
  {
    # Opened again, it has no lock.
    exec 6<&- 7>&- 8<&- 9<>/proc/self/fd/9
    seconds=0
    while sleep 1; do
      [ -e ./unattended ] && [ "$(date +%s)" -lt "$until" ] || { rm -f ./unattended; kill -9 "-$$"; }
      seconds=$((seconds + 1))
      [ $((seconds % 5)) = 0 ] || continue
      # Not truncated, since it may be read at any moment; its time is that of the start.
      describe | dd of=/proc/self/fd/9 conv=notrunc status=none && touch -m -d "@$started" /proc/self/fd/9
    done
  } &
  # list_ranges: prints number and count of the first missing blocks of each row, of 4 at most.
  list_ranges() {
    list_done | awk -v blocks="$blocks" '
      { done[$1] = 1 }
      END {
        for (b = 0; b < blocks; b += count) {
          for (count = 0; count < 4 && b + count < blocks && !((b + count) in done); count++);
          if (count) print b, count; else count = 1
        }
      }'
  }
  # download_ranges: downloads the ranges on stdin, and records those that came as they are.
  download_ranges() {
    tab=$(printf '\t')
    while read -r number count; do
      sizes= last=$((number + count))
      for index in $(seq "$number" $((last - 1))); do
        bytes=$((size - index * block))
        [ "$bytes" -le "$block" ] || bytes=$block
        sizes="$sizes $bytes"
      done
      lines=$(download_range $((number * block)) $sizes) || return 1
      case $lines in *'http 206 0'*) ;; *) return 1 ;; esac
      records=
      for word in $lines; do
        [ ${#word} = 64 ] || continue
        records="$records$number $word$tab" number=$((number + 1))
      done
      [ "$number" = "$last" ] && printf '\n%s' "$records" >&7 || return 1
    done
  }
  failures=0
  while ranges=$(list_ranges) && [ -n "$ranges" ] && [ $failures -lt 30 ]; do
    lanes=
    for lane in 0 1 2 3; do
      printf '%s\n' "$ranges" | awk -v lane=$lane 'NR % 4 == lane' | download_ranges &
      lanes="$lanes $!"
    done
    wait $lanes
    [ "$(list_ranges)" != "$ranges" ] && failures=0 || { failures=$((failures + 1)); sleep 10; }
  done
  rm -f ./unattended
  release 9 "$lock_path"
  ;;

# upload DESCRIPTOR INODE BLOCK_BYTES [OFFSET BYTES]...: sends ranges of the file with that inode, which a session of `open` has as
# DESCRIPTOR, as one part; prints the digest of each block of the part, "read", "md5 HEX" for all, and then of the answer the entity tag,
# the encryption, and "http STATUS EXIT" of curl. Stdin has a request.
upload)
  read_request
  open_ranges "$@"
  block=$3
  shift 3
  # The guests of the host come first.
  nice='nice -n 10'
  hash_pieces "$block" "$@"
  md5=
  for word in $({ { read_ranges "$@"; echo "=$?" >&4; } | $nice md5sum; } 4>&1); do
    case $word in
    =0 | -) ;;
    =*) exit 1 ;;
    *) md5=$word ;;
    esac
  done
  echo "md5 $md5"
  # RFC 1864: base64 of its 16 bytes.
  digest=$(for hex in $(printf '%s' "$md5" | sed 's/../0x& /g'); do printf "\\$(printf '%03o' "$hex")"; done | base64)
  read_ranges "$@" | {
    exec 7<&0
    # A redirection would not have the signature. Chunks would have no length (RFC 9112, section 6.1), which stores refuse.
    printf '%s' "$config" | curl -q -sS -f --http1.1 -g --proto =http,https --connect-timeout 10 --speed-limit 1 --speed-time 60 \
      -T /dev/fd/7 -H "Content-Length: $total" -H 'Transfer-Encoding:' -H 'Expect:' -H "Content-MD5: $digest" \
      -D - -o /dev/null -w '\nhttp %{http_code}' -K -
    echo " $?"
  } | tr -d '\r' | grep -iE '^(etag:|x-amz-server-side-encryption|http )'
  ;;

# hash_ranges DESCRIPTOR INODE PIECE_BYTES [OFFSET BYTES]...: prints the digest of each piece of ranges as those of `upload`, and "read".
# Stdin has heartbeats.
hash_ranges)
  exec 3<&0 </dev/null
  end_without_heartbeats
  open_ranges "$@"
  piece=$3
  shift 3
  nice='nice -n 10'
  hash_pieces "$piece" "$@"
  ;;

# try_request: sends a request, whose options for curl are on stdin; prints the version of curl, in a line that is empty without
# one, and what came, with the HTTP status in the last line.
try_request)
  exec 3<&0 </dev/null
  read_config
  echo "$(curl -q --version 2>/dev/null | head -n 1)"
  # The answer may be long; the status is at its end.
  printf '%s' "$config" | curl -q -sS --http1.1 -g --proto =http,https --connect-timeout 10 --max-time 20 -w '\n%{http_code}\n' -K - 2>&1 |
    tail -c 4000
  ;;

# await_commands DESCRIPTOR: waits until no command writes to the file of the pull beside a session of `open`; prints "open" if the
# session that has the file as DESCRIPTOR has not ended.
await_commands)
  [ -z "$in_pull" ] || lock_dir exclusive
  if [ -e "$1" ]; then echo open; fi
  ;;

# share_extents FROM DESCRIPTOR INODE SIZE STAMP: makes the file that open_target opens, of SIZE bytes, share the extents of FROM
# while that has the stamp. Stdin has heartbeats.
share_extents)
  exec 3<&0 </dev/null
  end_without_heartbeats
  open_source "$1"
  open_target "$2" "$3"
  result=unshared
  if has_stamp /proc/self/fd/7 "$5" && cp --reflink=always -- /proc/self/fd/7 /proc/self/fd/8 2>/dev/null &&
    has_stamp /proc/self/fd/7 "$5"; then
    result=shared
  fi
  truncate -s "$4" -- /proc/self/fd/8 || exit 1
  echo $result
  ;;

# read_file PATH LIMIT [own|trusted]: the first bytes of a file, after a line that says whether it exists; "own": one that only root or
# this user can write, others do not exist; "trusted": nor can others change a directory on its path, other files are errors.
read_file)
  pin "$1"
  set -- "$pinned" "$2" "${3:-}"
  if [ -e "$1" ] || [ -L "$1" ]; then
    case ${3:-} in
    trusted)
      open_file "$1" own
      is_own "$(stat -L -c '%u %a' /proc/self/fd/8)" || busy "$1 can be changed by another user"
      dir=$(realpath -e -- "${1%/*}") || exit 1
      while [ -n "$dir" ]; do
        owner_and_mode=$(stat -c '%u %a' -- "$dir")
        case $owner_and_mode in
        "0 1"??? | "$(id -u) 1"???) ;;
        *) is_own "$owner_and_mode" || busy "$dir can be changed by another user" ;;
        esac
        dir=${dir%/*}
      done
      ;;
    own)
      open_file "$1"
      is_own "$(stat -L -c '%u %a' /proc/self/fd/8)" || { echo missing; exit 0; }
      ;;
    *) open_file "$1" ;;
    esac
    echo exists
    head -c "$2" <&8
  else
    echo missing
  fi
  ;;

# write_file PATH TOKEN SIZE: replaces a file by stdin, atomically, by one of this user. The token makes the name of the new file
# unique.
write_file)
  write_new "$1" "$2" "$3"
  give_away 644 && mv -fT -- ./new "../$name" && sync -- .. || exit 1
  ;;

# create_new PATH TOKEN SIZE [again]: creates a file from stdin, atomically; fails if that name exists. "again": an earlier
# attempt, whose response was lost, may have created it.
create_new)
  write_new "$1" "$2" "$3"
  give_away 644 "$owner" || exit 1
  if [ -z "${4:-}" ] || ! is_same_as_new "../$name"; then publish ./new "../$name"; fi
  sync -- ..
  ;;

# create_file PATH TOKEN SIZE: creates a file of this user from stdin, atomically, unless that name exists or its directory
# does not.
create_file)
  if [ -e "$1" ] || [ -L "$1" ] || [ ! -d "${1%/*}" ]; then exit 0; fi
  write_new "$1" "$2" "$3"
  give_away 644 || exit 1
  # Another process may have created it.
  ln -T -- ./new "../$name" || [ -e "../$name" ] || [ -L "../$name" ] || exit 1
  sync -- ..
  ;;

# rename_into_place FROM TO STAMP INODE: for TO as of pin, replaces TO if it has the stamp; without a stamp, never replaces a file. Prints the stamp
# of the file if it is certain that nothing has changed it before it had this stamp.
rename_into_place)
  pin "$2"
  set -- "$1" "$pinned" "$3" "$4"
  # Done by an earlier attempt whose response was lost.
  if [ "$(stat -c %d:%i -- "$2" 2>/dev/null)" = "$4" ]; then
    # Between link and removal it has both names.
    [ "$(stat -c %d:%i -- "$1" 2>/dev/null)" != "$4" ] || rm -f -- "$1"
    sync -- "${2%/*}/"
    exit 0
  fi
  lock_dir exclusive
  open_file "$1" own
  [ "$(stat -L -c %d:%i /proc/self/fd/8)" = "$4" ] || busy 'another process has replaced the partial file'
  flock -s --wait 25 8 || busy 'another process is writing it'
  give_away 644 "$owner" || exit 1
  # Its owner may be QEMU's user, which can open it once it has its name.
  take_lease && is_leased=yes || is_leased=
  if [ -n "$3" ]; then
    is_file "$2" && has_stamp "$2" "$3" || busy 'the file of that name was changed meanwhile'
    mv -fT -- "$1" "$2" || exit 1
  elif ln -T -- "$1" "$2"; then
    # A link never replaces a file; until this line the file has both names.
    rm -f -- "$1"
  elif [ -e "$2" ] || [ -L "$2" ]; then
    fail 'File exists'
  else
    # A file system without links.
    mv -nT -- "$1" "$2"
    [ ! -e "$1" ] || fail 'File exists'
  fi
  [ "$(stat -c %d:%i -- "$2")" = "$4" ] || busy 'another process has replaced the partial file'
  stamp=$(stat -L --printf '%i %.9Y %s %.9Z' /proc/self/fd/8)
  # A write within the same step of the clock would not show in the stamp.
  case $stamp in *.000000000\ *.000000000) step=2.1 ;; *) step=0.05 ;; esac
  [ -z "$is_leased" ] || ! has_lease $step || printf '%s\n' "$stamp"
  sync -- "${2%/*}/"
  ;;

# open read|write|repair PATH SIZE|STAMP: for PATH as of pin, keeps a file open until stdin ends or is silent for 20 s; "write" and
# "repair" lock it, "write" is for the file of a pull, which gets SIZE, and "repair" for one that has its final name and STAMP, as of
# check_stamp. Prints the boot ID, the resume log in one line, and size and inode, which
# are 0 for a file that does not exist; reads "truncate HEADER", which creates or empties it, or "keep", or anything else to
# leave all as it is; prints "open", the inode and the process ID, whose descriptor 9 is the file. Commands of one byte
# follow:
#   .  nothing: a heartbeat
#   n  serve the file by qemu-nbd; prints "socket PATH" or "error MESSAGE"
#   s  stop qemu-nbd; prints "stopped"
#   l  append the line that follows to the resume log
# Any other byte ends it.
open)
  pin "$2"
  mode=$1 path=$pinned detail=$3 log=$pinned.mark new= has_log= nbd= dir=
  stop_nbd() {
    if [ -n "$nbd" ]; then
      kill "$nbd" 2>/dev/null
      wait "$nbd" 2>/dev/null
    fi
    [ -z "$dir" ] || rm -rf -- "$dir"
    nbd= dir=
  }
  # lock_file: makes descriptor 8 the locked descriptor 9, for reading and writing.
  lock_file() {
    exec 9<>/proc/self/fd/8 || exit 1
    exec 8<&-
    # Between open and lock, its last writer may have renamed it into place: then it is a finished snapshot.
    flock -n 9 && [ "$(stat -L -c %d:%i /proc/self/fd/9)" = "$(stat -c %d:%i -- "$path")" ] ||
      fail 'Resource temporarily unavailable: another process is writing it, or just finished'
  }
  # open_log: opens the resume log as descriptor 7, for appending.
  open_log() {
    open_file "$log" own
    exec 7>>/proc/self/fd/8 || exit 1
    has_log=yes
  }
  # need_log: creates the log if it does not exist.
  need_log() {
    [ -z "$has_log" ] || return 0
    dd of="$log" count=0 conv=excl status=none </dev/null && open_log
  }
  trap stop_nbd EXIT
  trap '' HUP PIPE
  trap 'exit 1' INT TERM
  if [ "$mode" = write ]; then lock_dir exclusive; fi
  if [ "$mode" != read ]; then
    [ -d "${path%/*}" ] || fail "${path%/*}: No such file or directory"
    if [ -e "$path" ] || [ -L "$path" ]; then
      open_file "$path" own
      [ "$mode" = write ] || check_stamp "$detail"
      lock_file
    else
      [ "$mode" = write ] || fail "$path: No such file or directory"
      new=yes
    fi
    printf '%s\n' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
    if [ -e "$log" ] || [ -L "$log" ]; then
      open_log
      # The newlines in it, which end truncated records, become tabs.
      head -c 67108864 <&8 | tr '\n' '\t'
    fi
    echo
  else
    open_file "$path"
    exec 9<&8
    printf '\n\n'
  fi
  if [ -n "$new" ]; then echo '0 0'; else stat -L --printf '%s %d:%i\n' /proc/self/fd/9 || exit 1; fi
  command=$(timeout 20 sh -c 'IFS= read -r line && printf %s "$line"') || exit 1
  case $command in
  truncate\ *)
    # The log first, and on the disk.
    need_log && printf '\n%s\t\n' "${command#truncate }" >&7 && sync -- /proc/self/fd/7 "${log%/*}/" || exit 1
    if [ -n "$new" ]; then
      dd of="$path" count=0 conv=excl status=none </dev/null 2>/dev/null ||
        fail "Resource temporarily unavailable: another process creates $path"
      open_file "$path" own
      lock_file
    fi
    ;;
  keep) [ -z "$new" ] || exit 1 ;;
  *) exit 1 ;;
  esac
  if [ "$mode" = write ]; then
    # A wrong owner fails here rather than after an hour of writing. It stays this user's until it gets its name: another process of
    # the owner could open it by that of qemu-img, which runs with other rights.
    message=$(chown -- "$owner" /proc/self/fd/9 2>&1) || {
      [ -z "$new" ] || rm -f -- "$path" "$log"
      fail "$message; check owner of the host in the settings"
    }
    chown -- "$(id -u):$(id -g)" /proc/self/fd/9 && chmod 644 /proc/self/fd/9 || exit 1
  fi
  case $command in
  truncate\ *) truncate -s 0 /proc/self/fd/9 && truncate -s "$detail" /proc/self/fd/9 || exit 1 ;;
  esac
  exec 6<&-
  printf 'open %s %s\n' "$(stat -L -c %d:%i /proc/self/fd/9)" $$
  while command=$(timeout 20 head -c 1) && [ -n "$command" ]; do
    case $command in
    .) ;;
    n)
      stop_nbd
      # A running guest has locked its disk, which is read while it does not change.
      if [ -b /proc/self/fd/9 ]; then protocol=host_device; else protocol=file; fi
      case $mode in
      read) set -- -r --image-opts "driver=raw,file.driver=$protocol,file.locking=off,file.filename=/proc/$$/fd/9" ;;
      *) set -- -f raw -- "/proc/$$/fd/9" ;;
      esac
      dir=$(mktemp -d /tmp/snapdeck-XXXXXXXX) || exit 1
      # Keeps the memory of a request for the next one (mallopt(3)): mapping it again costs more CPU than copying the
      # bytes.
      MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=134217728 MALLOC_TOP_PAD_=16777216 \
        qemu-nbd -k "$dir/nbd" "$@" </dev/null >/dev/null 2>"$dir/stderr" 5<&- 7>&- 8>&- 9>&- &
      nbd=$! tries=0
      until [ -S "$dir/nbd" ] || ! kill -0 "$nbd" 2>/dev/null || [ $tries -ge 200 ]; do
        sleep 0.02
        tries=$((tries + 1))
      done
      if [ -S "$dir/nbd" ]; then echo "socket $dir/nbd"; else echo "error $(tail -n 1 "$dir/stderr")"; fi
      ;;
    s)
      stop_nbd
      echo stopped
      ;;
    l) IFS= read -r line && need_log && printf '%s\n' "$line" >&7 ;;
    *) exit 0 ;;
    esac
  done
  ;;
esac
