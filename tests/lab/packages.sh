#!/usr/bin/env bash
# Installs missing packages on Debian or Ubuntu: packages.sh build|demo|test
set -euo pipefail
cd "$(dirname "$0")/../.."

build=(gcc libc6-dev pkg-config libvirt-dev)
demo=(libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86 qemu-utils)
lab=(curl libvirt-daemon-system libvirt-clients openssh-client openssh-server openssl ovmf python3-venv swtpm
  swtpm-tools tcsh fish tmux xfsprogs)
case ${1-} in
build) packages=("${build[@]}") ;;
demo) packages=("${build[@]}" "${demo[@]}") ;;
test) packages=("${build[@]}" "${demo[@]}" "${lab[@]}") ;;
*) echo "usage: $0 build|demo|test" >&2 && exit 2 ;;
esac

if ! command -v cargo >/dev/null; then
  echo "cargo is missing: install Rust 1.94.1 or newer with rustup" >&2
  exit 1
fi

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

installed() {
  dpkg-query -W -f '${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed$'
}

# qemu-system-x86 and qemu-utils of different releases conflict.
install() {
  # With env, since sudo removes variables.
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300) version
  as_root "${apt[@]}" "$@" && return
  version=$(LC_ALL=C apt-cache policy qemu-system-x86 | sed -n 's/^ *Candidate: //p')
  echo "a plain install failed; trying qemu-utils of qemu-system-x86's version, $version" >&2
  as_root "${apt[@]}" --allow-downgrades "$@" "qemu-system-x86=$version" "qemu-utils=$version"
}

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  if ! command -v apt-get >/dev/null; then
    echo "install these packages (names in Debian): ${missing[*]}" >&2
    exit 1
  fi
  echo "installing: ${missing[*]}"
  as_root apt-get update -q -o DPkg::Lock::Timeout=300
  # All packages, not only the missing ones, so that apt removes none of them.
  install "${packages[@]}"
fi

installed_requirements=.lab/venv/requirements.txt
if [ "$1" = test ] && ! cmp -s tests/lab/requirements.txt "$installed_requirements"; then
  mkdir -p .lab
  # A concurrent run waits here and finds the environment installed.
  exec 9>.lab/lock
  flock 9
  if ! cmp -s tests/lab/requirements.txt "$installed_requirements"; then
    echo "installing an S3 server and clients of S3 and of the API into .lab/venv"
    rm -rf .lab/venv
    python3 -m venv .lab/venv
    .lab/venv/bin/pip install -q --disable-pip-version-check -r tests/lab/requirements.txt
    cp tests/lab/requirements.txt "$installed_requirements"
  fi
fi
if [ "$1" = test ]; then tests/lab/guest.sh; fi
