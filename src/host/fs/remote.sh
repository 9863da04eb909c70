# Runs on a host, for snapdeck: sh -c THIS snapdeck VERB ARGUMENT... What it was asked for goes to stdout, parted
# by NULs or as lines; what is wrong goes to stderr in the words of the system.
set -u
umask 077
fail() { printf '%s\n' "$1" >&2; exit 1; }
# seen FILE STAMP: is its inode, time and length that?
seen() { [ "$(stat -L --printf '%i %.9Y %s' -- "$1")" = "$2" ]; }
verb=$1
shift

case $verb in
# The names that end in .qcow2 in each directory, after its canonical path, and an empty one; then each note of damage
# by its name and what it says, and an empty name. A directory that is not there has the name "/".
list)
  for dir do
    realpath -mz -- "$dir" || exit 1
    if [ -e "$dir" ]; then
      find "$dir/" -mindepth 1 -maxdepth 1 -name '*.qcow2' -printf '%f\0' || exit 1
      printf '\0'
      find "$dir/" -mindepth 1 -maxdepth 1 -name '.*.qcow2.damaged' -type f -size -128 \
        -printf '%f\0' -exec cat -- {} \; -printf '\0' || :
    else
      printf '/\0\0'
    fi
    printf '\0'
  done
  ;;

# The canonical path of each file, then what stat says of those that are there: six fields each.
see)
  realpath -mz -- "$@"
  stat -L --printf '%n\0%s\0%b\0%i\0%.9Y\0%F\0' -- "$@" || :
  ;;

# The canonical path of each file, whether it is there or not.
real)
  realpath -mz -- "$@"
  ;;

# How the files begin, each under its name.
heads)
  length=$1
  shift
  head -c "$length" -v -- "$@" || :
  ;;

make_temp_dir)
  mktemp -d -- "$1/snapdeck-XXXXXXXX"
  ;;

# make_backup_dir UNDER ID OWNER
make_backup_dir)
  dir=$(mktemp -d --suffix=.backup -- "$1/.$2.XXXXXX") || exit 1
  chown -- "$3" "$dir" || {
    rmdir -- "$dir"
    exit 1
  }
  printf '%s\n' "$dir"
  ;;

backup_dirs)
  [ ! -d "$1" ] || find "$1/" -mindepth 1 -maxdepth 1 -type d -name '.*.backup' -printf '%f\0'
  ;;

remove_temp_dir)
  case ${1##*/} in
  snapdeck-* | .*.backup) rm -rf -- "$1" ;;
  *) fail "it is no directory of snapdeck's" ;;
  esac
  ;;

remove_file)
  if [ -e "$1" ] || [ -L "$1" ]; then
    rm -f -- "$1" || exit 1
    echo removed
    sync -- "${1%/*}/"
  fi
  ;;

# claim PATH OWNER MARK: a new file, which holds the mark until it is written.
claim)
  if (set -C && printf '%s' "$3" >"$1"); then
    chmod 644 -- "$1" && chown -- "$2" "$1" || {
      rm -f -- "$1"
      exit 1
    }
    sync -- "${1%/*}/"
  elif [ "$(head -c 100 -- "$1" 2>/dev/null | tr -d '\0')" != "$3" ]; then
    [ ! -e "$1" ] || fail 'File exists'
    exit 1
  fi
  ;;

copy)
  [ -f "$2" ] || fail "$2: No such file or directory"
  cat -- "$1" >"$2" && sync -- "$2"
  ;;

free_bytes)
  stat -f --printf '%a %S' -- "$1"
  ;;

# The digest of each block: hash PATH BLOCK [FROM TO BYTES]... TO is of no use here.
hash)
  path=$1 block=$2
  shift 2
  [ -r "$path" ] || fail "$path: No such file or directory"
  while [ $# -ge 3 ]; do
    dd if="$path" bs=1M iflag=skip_bytes,count_bytes skip=$(($1 * block)) count="$3" status=none | sha256sum
    shift 3
  done
  ;;

# Copies blocks, and says the digest of each as it stands there then, or "known" where FROM is what STAMP says:
# copy_blocks FROM TO STAMP BLOCK [FROM TO BYTES]...
copy_blocks)
  from=$1 to=$2 stamp=$3 block=$4
  shift 4
  while [ $# -ge 3 ]; do
    known=
    [ -z "$stamp" ] || ! seen "$from" "$stamp" || known=yes
    dd if="$from" of="$to" bs=1M iflag=skip_bytes,count_bytes skip=$(($1 * block)) count="$3" \
      oflag=seek_bytes seek=$(($2 * block)) conv=notrunc,nocreat status=none || exit 1
    if [ -n "$known" ] && seen "$from" "$stamp"; then
      echo known
    else
      dd if="$to" bs=1M iflag=skip_bytes,count_bytes skip=$(($2 * block)) count="$3" status=none | sha256sum
    fi
    shift 3
  done
  ;;

# Makes a file of SIZE share the extents of one whose inode, time and size are STAMP: clone FROM TO SIZE STAMP.
clone)
  said=moved
  if seen "$1" "$4" && cp --reflink=always -- "$1" "$2" 2>/dev/null && seen "$1" "$4"; then said=shared; fi
  truncate -s "$3" -- "$2" || exit 1
  echo $said
  ;;

# Whether there is such a file, and its first bytes: read_file PATH BYTES.
read_file)
  if [ -e "$1" ]; then
    echo there
    head -c "$2" -- "$1"
  else
    echo absent
  fi
  ;;

# Gives a file the bytes that come in, all of them or none: write_file PATH OWNER SIZE.
write_file)
  new=$(mktemp -- "${1%/*}/.${1##*/}.XXXXXXXX") || exit 1
  trap 'rm -f -- "$new"' EXIT
  cat >"$new" || exit 1
  [ "$(stat -c %s -- "$new")" = "$3" ] || fail 'the connection broke off'
  chown -- "$2" "$new" && chmod 644 -- "$new" && sync -- "$new" && mv -fT -- "$new" "$1" || exit 1
  sync -- "${1%/*}/"
  ;;

# land FROM TO replace|keep INODE
land)
  # Done already, by a try whose answer was lost.
  if [ ! -e "$1" ] && [ "$(stat -c %i -- "$2" 2>/dev/null)" = "$4" ]; then exit 0; fi
  chmod 644 -- "$1" && sync -- "$1" || exit 1
  if [ "$3" = replace ]; then
    mv -fT -- "$1" "$2" || exit 1
  elif ln -T -- "$1" "$2"; then
    # A link refuses an existing name; a second name for a moment harms nobody.
    rm -f -- "$1"
  elif [ -e "$2" ] || [ -L "$2" ]; then
    fail 'File exists'
  else
    # A file system without links.
    mv -nT -- "$1" "$2"
    [ ! -e "$1" ] || fail 'File exists'
  fi
  sync -- "${2%/*}/"
  ;;

# hold read|write|mend PATH OWNER SIZE: stands for an open file as long as it is given a dot now and then; mend is
# for one that bears its final name. Orders of one byte each: x offers the file by qemu-nbd, y ends that, m adds the
# line that follows to the file's mark, anything else ends all of it.
hold)
  mode=$1 path=$2 owner=$3 size=$4 nbd= dir=
  end_nbd() {
    if [ -n "$nbd" ]; then
      kill "$nbd" 2>/dev/null
      wait "$nbd" 2>/dev/null
    fi
    [ -z "$dir" ] || rm -rf -- "$dir"
    nbd= dir=
  }
  trap end_nbd EXIT
  trap '' HUP PIPE
  trap 'exit 1' INT TERM
  if [ "$mode" != read ]; then
    [ "$mode" = write ] || [ -e "$path" ] || fail "$path: No such file or directory"
    [ -d "${path%/*}" ] || fail "${path%/*}: No such file or directory"
    : >>"$path" || exit 1
    exec 9<>"$path" || exit 1
    # Nobody else writes this file; and it was not given its final name between its opening and the lock.
    flock -n 9 && [ "$(stat -L -c %i /proc/self/fd/9)" = "$(stat -c %i -- "$path")" ] ||
      fail 'Resource temporarily unavailable: another process is writing it, or just finished'
    if [ "$mode" = write ]; then
      chmod 600 -- "$path" || exit 1
      # Now rather than after an hour of writing.
      said=$(chown -- "$owner" "$path" 2>&1) || {
        rm -f -- "$path"
        fail "$said; see owner of the host in the settings"
      }
    fi
    printf '%s\n' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
    # In one line; what is cut off must not look whole.
    cat -- "$path.mark" 2>/dev/null | head -c 67108864 | tr '\n' '\t'
    echo
  else
    printf '\n\n'
  fi
  stat -L --printf '%s %i\n' -- "$path" || exit 1
  order=$(timeout 20 sh -c 'IFS= read -r word && printf %s "$word"') || exit 1
  if [ "$order" = fresh ]; then
    rm -f -- "$path.mark"
    truncate -s 0 -- "$path" && truncate -s "$size" -- "$path" || exit 1
  fi
  echo held
  while order=$(timeout 20 head -c 1) && [ -n "$order" ]; do
    case $order in
    .) ;;
    x)
      end_nbd
      [ "$mode" = read ] && option=-r || option=
      dir=$(mktemp -d /tmp/snapdeck-XXXXXXXX) || exit 1
      # The memory of a request is kept for the next one (mallopt(3)): to have it anew costs more than its bytes do.
      MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=134217728 MALLOC_TOP_PAD_=16777216 \
        qemu-nbd $option -f raw -k "$dir/nbd" -- "$path" </dev/null >/dev/null 2>"$dir/said" 9>&- &
      nbd=$! tries=0
      until [ -S "$dir/nbd" ] || ! kill -0 "$nbd" 2>/dev/null || [ $tries -ge 200 ]; do
        sleep 0.02
        tries=$((tries + 1))
      done
      if [ -S "$dir/nbd" ]; then echo "up $dir/nbd"; else echo "down $(tail -n 1 "$dir/said")"; fi
      ;;
    y)
      end_nbd
      echo ended
      ;;
    m) IFS= read -r line && printf '%s\n' "$line" >>"$path.mark" ;;
    *) exit 0 ;;
    esac
  done
  ;;
esac
