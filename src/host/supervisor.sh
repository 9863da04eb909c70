# Runs a command under limits and kills it, with all processes that it has started, at the end of stdin: snapdeck has closed
# it, was killed, or the connection is lost.
#
# sh -c SCRIPT snapdeck SECONDS KIB OWNER TARGET DIR ID IDENTITY COUNT FILE... COMMAND ARGUMENT...: CPU time and address space
# ("-": none); the images, COUNT of them, that the command reads, which choose_reader may make another user do; the image that
# it writes ("": none), a new file in a private directory, which is its descriptor 9; the directory of a pull ("": none), whose
# file is its descriptor 8.
exec 3<&0 </dev/null
new_session=$(command -v setsid)
seconds=$1 kib=$2 owner=$3 target=$4 reader=
shift 4
if [ -n "$1" ]; then
  enter_pull "$1" "$2" "$3"
  open_file ./partial own
  cd /
fi
files=$4
shift 4
if [ "$files" -gt 0 ]; then
  choose_reader "$owner" "$target" "$files" "$@" || exit 1
  shift "$files"
fi
if [ -n "$target" ]; then
  (umask 077 && set -C && : >"$target") && exec 9<>"$target" || exit 1
  [ -z "$reader" ] || chown -- "$owner" /proc/self/fd/9 || exit 1
fi
(
  if [ "$seconds" != - ]; then
    # Exceeding the soft limit shows in the exit status.
    ulimit -S -t "$seconds"; ulimit -v "$kib"
    # Each arena of malloc takes address space.
    export MALLOC_ARENA_MAX=2
  fi
  exec $new_session $reader "$@" 3<&-
) & command=$!
{ cat <&3; kill -9 "-$command" || kill -9 "$command"; } >/dev/null 2>&1 & killer=$!
exec 3<&-
wait "$command"; code=$?
kill "$killer" 2>/dev/null
exit "$code"
