#!/usr/bin/env bash
# Installs the Debian package in a fresh Debian 12 and 13, and makes a first push there with the commands of README.md: as
# root, with the libvirtd and QEMU of that release, to the store of the lab. Runs in the lab:
#   tests/lab/run.sh tests/lab/try-deb.sh [SUITE...]
# SNAPDECK_DEB is the package (the newest of target/debian). Needs root and a Debian mirror.
#
# A chroot has no systemd, cgroups or network of its own. So libvirtd is started by hand, with a qemu.conf that says so, and
# sandboxes have no network. The base image has no operating system, which could shut down: the stop is forced.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
chroot=$project/tests/lab/chroot.sh
deb=${SNAPDECK_DEB:-$(ls -t "$project"/target/debian/snapdeck_*.deb | head -n 1)}
if [ $# = 0 ]; then set -- bookworm trixie; fi
if [ $# -gt 1 ]; then
  failed=()
  for suite; do "$0" "$suite" || failed+=("$suite"); done
  if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
  fi
  exit
fi

suite=$1
echo "=== $suite"
root=$(mktemp -d "${TMPDIR:-/tmp}/snapdeck-deb.XXXXXX")
# Its mounts end with the processes in it.
trap 'rm -rf --one-file-system "$root"' EXIT
"$chroot" make "$suite" "$root"
cp "$deb" "$root/root/snapdeck.deb"
env -i AWS_ACCESS_KEY_ID="$SNAPDECK_LAB_S3_KEY" AWS_SECRET_ACCESS_KEY="$SNAPDECK_LAB_S3_SECRET" \
  ENDPOINT="$SNAPDECK_LAB_S3" BUCKET="$SNAPDECK_LAB_BUCKET" SUITE="$suite" HOME=/root LC_ALL=C.UTF-8 \
  DEBIAN_FRONTEND=noninteractive PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  "$chroot" enter "$root" bash -euo pipefail -c "$(cat "$project/tests/lab/try-deb-inside.sh")"
