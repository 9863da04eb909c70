#!/usr/bin/env bash
# Builds .lab/guest/kernel and .lab/guest/initrd, a Linux guest for the tests that boots in seconds and runs guest.init.
# Kernel and busybox come from Debian packages, which are unpacked but not installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=.lab/guest

is_built() {
  [ -e $out/initrd ] && cmp -s tests/lab/guest.init $out/init && cmp -s tests/lab/guest.sh $out/guest.sh
}
if is_built; then exit; fi
mkdir -p .lab
# A concurrent run waits here and finds the guest built.
exec 8>.lab/guest.lock
flock 8
if is_built; then exit; fi

work=$(mktemp -d "${TMPDIR:-/tmp}/snapdeck-guest.XXXXXX")
trap 'rm -rf "$work"' EXIT
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p' | head -n 1)
echo "building the test guest from $kernel and busybox-static"
(cd "$work" && apt-get -o APT::Sandbox::User=root download -q "$kernel" busybox-static)
for package in "$work"/*.deb; do dpkg -x "$package" "$work/x"; done

root=$work/root
mkdir -p "$root"/{bin,dev,proc,sys,modules}
cp "$work/x/bin/busybox" "$root/bin/"
install -m 755 tests/lab/guest.init "$root/init"
# In the order of their dependencies.
for module in virtio virtio_ring virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console virtio_balloon button evdev; do
  cp "$(find "$work/x/lib/modules" -name "$module.ko" | grep .)" "$root/modules/"
done
mkdir -p "$work/out"
(cd "$root" && find . | "$work/x/bin/busybox" cpio -o -H newc 2>/dev/null | gzip -9) >"$work/out/initrd"
cp "$work"/x/boot/vmlinuz-* "$work/out/kernel"
cp tests/lab/guest.init "$work/out/init"
cp tests/lab/guest.sh "$work/out/"
rm -rf "$out"
mv "$work/out" "$out"
