# Collects data for the health checks of a host: sh -c THIS snapdeck OWNER TEMP NVRAM SANDBOXES SNAPSHOTS. Prints pairs
# of a key and a value, each ended by a NUL, as soon as they are known. It removes its test files at once, and ignores
# signals so that none stays.
set -u
umask 077
trap '' HUP INT TERM PIPE
emit() { printf '%s\0%s\0' "$1" "$2"; }
# Prints a command's error message; nothing if it succeeds.
error_of() {
  message=$("$@" 2>&1 >/dev/null) && return
  printf '%s' "${message:-it failed without a message}"
}

emit time "$(date +%s.%N)"
emit user "$(id -un)"
emit uid "$(id -u)"
for program in apt-get dnf zypper; do
  if command -v "$program" >/dev/null; then emit installer "$program"; break; fi
done
for program in qemu-img qemu-io qemu-nbd virsh swtpm; do
  if command -v "$program" >/dev/null; then emit "$program" "$("$program" --version 2>&1 | head -n 1)"; fi
done
# Not all users have the directories of daemons in their PATH.
if (PATH=$PATH:/usr/sbin:/usr/local/sbin:/sbin && { command -v libvirtd || command -v virtqemud; }) >/dev/null; then
  emit libvirtd installed
fi
if command -v swtpm_setup >/dev/null; then emit swtpm_setup installed; fi
for program in realpath stat find head mktemp sync flock truncate timeout chown ln mv cp dd setsid awk grep tr tail cmp; do
  command -v "$program" >/dev/null || emit missing "$program"
done
if [ -e /dev/kvm ]; then
  emit kvm "$([ -r /dev/kvm ] && [ -w /dev/kvm ] && echo usable || echo forbidden)"
fi

owner=$1 user=${1%%:*} group=${1#*:}
shift
case $user in *[!0-9]*) user=$(id -u -- "$user" 2>/dev/null) || user= ;; esac
case $group in *[!0-9]*) group=$(getent group "$group" | cut -d : -f 3) ;; esac
emit owner "$user:$group"
for pair in libvirt-qemu:kvm qemu:qemu; do
  if id -u "${pair%:*}" >/dev/null 2>&1 && getent group "${pair#*:}" >/dev/null; then emit usual_owner "$pair"; fi
done

# A directory in one with the setgid bit has it, too.
is_private() {
  case $(stat -c '%u %a' -- "$1") in "$(id -u) 700" | "$(id -u) 2700") ;; *) return 1 ;; esac
}
# fill FILE: little data, but too much for a full disk.
fill() { head -c 65536 /dev/zero >"$1"; }
identity() { stat -c %d:%i -- "$1" 2>/dev/null; }

for kind in temp nvram sandboxes snapshots; do
  dir=$1
  shift
  emit begin "$kind"
  result=$(error_of stat -- "$dir/.")
  if [ -n "$result" ]; then emit "$kind.missing" "$result"; continue; fi
  emit "$kind.list" "$(error_of ls -A -- "$dir")"
  # In a private directory: QEMU's user may own $dir, and replace what is in it by links at any moment.
  probe=$(mktemp -d -- "$dir/.snapdeck-probe-XXXXXXXX" 2>&1)
  if [ -d "$probe" ]; then
    (
      # Another directory may have its name since.
      cd -P -- "$probe" 2>/dev/null && [ "$(identity .)" = "$(identity "$probe")" ] && [ -z "$(ls -A)" ] &&
        is_private . || {
        emit "$kind.write" "$dir: another process replaces files in it"
        exit
      }
      result=$(error_of fill ./file)
      if [ "$kind" = snapshots ]; then
        emit snapshots.chown "$(error_of chown -- "$owner" ./file)"
        emit snapshots.reflink "$(error_of cp --reflink=always ./file ./copy)"
      fi
      removal=$(error_of rm -f ./file ./copy)
      emit "$kind.write" "${result:-$removal}"
    )
    rmdir -- "$probe" 2>/dev/null
  else
    emit "$kind.write" "$probe"
  fi
  emit "$kind.owner" "$(stat -L -c '%u %a' -- "$dir")"
  emit "$kind.free" "$(stat -f --printf '%a %S' -- "$dir" 2>/dev/null)"
  if [ "$kind" = snapshots ]; then
    find "$dir/" -mindepth 1 -maxdepth 1 -type f -name '*.qcow2' ! -name '.*' -printf 'file\0%U:%G %u:%g %m %f\0' 2>/dev/null
  fi
  emit end "$kind"
done
