#!/usr/bin/env bash
# Runs a command in the lab with hosts over SSH that have the programs of Debian 13, which .lab/trixie holds: debian13.sh
# COMMAND... The programs of this machine remain those of snapdeck and of the tests. Needs root and a Debian mirror.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
release=$project/.lab/trixie
if [ ! -d "$release" ]; then
  rm -rf "$release.new"
  "$project/tests/lab/chroot.sh" make trixie "$release.new" libvirt-daemon libvirt-daemon-system libvirt-clients \
    libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils ovmf swtpm swtpm-tools openssh-server openssh-client curl procps \
    psmisc tcsh fish python3-minimal xfsprogs zstd iproute2 strace
  mv "$release.new" "$release"
fi
SNAPDECK_LAB_RELEASE=$release SNAPDECK_TEST_HOST=remote exec "$project/tests/lab/run.sh" "$@"
