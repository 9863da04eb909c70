#!/usr/bin/env bash
# Installs what is missing on a Debian or Ubuntu machine: packages.sh demo|test
set -euo pipefail
cd "$(dirname "$0")/../.."

build=(gcc libc6-dev pkg-config libvirt-dev)
demo=(libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils)
lab=(libvirt-daemon-system libvirt-clients python3-venv)
case ${1-} in
demo) wanted=("${build[@]}" "${demo[@]}") ;;
test) wanted=("${build[@]}" "${demo[@]}" "${lab[@]}") ;;
*) echo "usage: $0 demo|test" >&2 && exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust 1.91 or newer with rustup" >&2
  exit 1
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

installed() {
  dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed$'
}

# qemu-system-x86 and qemu-utils may come from different releases, and then exclude each other.
install() {
  local apt=(apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300) version
  as_root "${apt[@]}" "$@" && return
  version=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
  echo "a plain install failed; trying qemu-utils of qemu-system-x86's version, $version" >&2
  as_root "${apt[@]}" --allow-downgrades "$@" "qemu-system-x86=$version" "qemu-utils=$version"
}

missing=()
for package in "${wanted[@]}"; do
  installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "install these packages (Debian's names): ${missing[*]}" >&2
    exit 1
  fi
  echo "installing: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -q
  # All that is wanted, not only what is missing: no install may take away another.
  install "${wanted[@]}"
fi

if [ "$1" = test ] && ! [ -e .lab/venv/ready ]; then
  echo "installing the S3 server and a second S3 client into .lab/venv"
  rm -rf .lab/venv
  python3 -m venv .lab/venv
  .lab/venv/bin/pip install -q --disable-pip-version-check -r tests/lab/requirements.txt
  touch .lab/venv/ready
fi
