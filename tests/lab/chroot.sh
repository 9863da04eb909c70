#!/usr/bin/env bash
# A Debian release in a directory; needs root, mmdebstrap and a Debian mirror.
#   chroot.sh make SUITE DIR [PACKAGE...]   creates it with these packages
#   chroot.sh enter DIR COMMAND...          runs a command in it, with process and mount namespaces of its own: what it
#                                           started ends with it
# The mirror is that of apt on this machine, or SNAPDECK_MIRROR.
set -euo pipefail

make() {
  local suite=$1 dir=$2 mirror=${SNAPDECK_MIRROR-} packages
  shift 2
  if ! command -v mmdebstrap >/dev/null; then
    apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 mmdebstrap
  fi
  if [ -z "$mirror" ]; then
    # shellcheck disable=SC2016 # apt-get replaces it.
    mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' 'Component: main' | head -n 1)
  fi
  if [ -z "$mirror" ]; then
    echo "chroot.sh: apt knows no Debian mirror: run apt-get update, or set SNAPDECK_MIRROR" >&2
    exit 1
  fi
  packages=$(IFS=,; echo "$*")
  mmdebstrap --quiet --variant=minbase ${packages:+--include="$packages"} "$suite" "$dir" "$mirror"
}

enter() {
  # shellcheck disable=SC2016 # The inner shell replaces it.
  exec unshare --mount --propagation private --pid --fork --kill-child bash -euc '
    dir=$1
    shift
    mount -t proc proc "$dir/proc"
    mount --rbind /sys "$dir/sys"
    mount --rbind /dev "$dir/dev"
    mount -t tmpfs -o mode=755 tmpfs "$dir/run"
    # No service starts when its package is installed.
    printf "#!/bin/sh\nexit 101\n" >"$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
    if [ -e /etc/resolv.conf ]; then cp /etc/resolv.conf /etc/hosts "$dir/etc/"; fi
    exec chroot "$dir" "$@"
  ' snapdeck-chroot "$@"
}

verb=$1
shift
case $verb in
make) make "$@" ;;
enter) enter "$@" ;;
*) echo "chroot.sh: unknown verb $verb" >&2 && exit 2 ;;
esac
