# Runs on a host: sh -c SCRIPT snapdeck SNAPSHOTS_DIR ORG TOKEN. Creates the directory of the snapshots ORG/NAME, with owner and mode of the
# snapshots directory, unless it exists. The token makes the name of a private directory unique: QEMU's user, who may own the
# snapshots directory, cannot put another one in its place there before it has owner and mode.
set -u
umask 077
cd -P -- "$1" || exit 1
if [ ! -e "./$2" ] && [ ! -L "./$2" ]; then
  above=$(identity .) new=$1/.$2.$3
  mkdir -m 700 -- "$new" || exit 1
  enter "$new" && is_private . && [ "$(identity ..)" = "$above" ] || busy "$new was replaced"
  failed=
  mkdir ./org && {
    # Only root may give it to another user.
    if [ "$(id -u)" = 0 ]; then chown --reference=.. -- ./org; else chgrp --reference=.. -- ./org; fi
  } && chmod --reference=.. -- ./org || failed=yes
  # Another process may have created it: then this one is removed.
  [ -n "$failed" ] || mv -nT -- ./org "../$2" 2>/dev/null
  [ ! -d ./org ] || rmdir -- ./org
  sync -- ..
  cd .. && rmdir -- "$new"
  [ -z "$failed" ] || exit 1
fi
pin "$1/./$2/."
[ -d "$pinned" ] || busy "$1/$2 was removed while it was created"
