# Runs on a host: sh -c SCRIPT snapdeck HOLDER MODE PATH [MODE PATH]. Acquires locks, each MODE as of acquire, and prints "acquired", or
# what acquire prints. Holds them until stdin ends or is silent for 20 s.
set -u
umask 077
trap '' HUP PIPE
holder=$1
shift

acquire 3 "$1" "$2"
[ $# -lt 4 ] || acquire 4 "$3" "$4"
echo acquired
while byte=$(timeout 20 head -c 1) && [ -n "$byte" ]; do :; done
release 3 "$2"
[ $# -lt 4 ] || release 4 "$4"
