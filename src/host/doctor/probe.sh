# Looks at a host for snapdeck: sh -c THIS snapdeck OWNER TEMP NVRAM SANDBOXES SNAPSHOTS. What it sees goes to stdout as
# it is seen, pairs of a key and a value, each ended by a NUL. Whatever it makes it removes at once; it is not ended
# in between, whatever becomes of whoever called it.
set -u
umask 077
trap '' HUP INT TERM PIPE
say() { printf '%s\0%s\0' "$1" "$2"; }
# What a command complains of; empty where it succeeds.
complaint() {
  words=$("$@" 2>&1 >/dev/null) && return
  printf '%s' "${words:-it said nothing}"
}

say time "$(date +%s.%N)"
say user "$(id -un)"
for program in apt-get dnf zypper; do
  if command -v "$program" >/dev/null; then say installer "$program"; break; fi
done
for program in qemu-img qemu-nbd virsh swtpm; do
  if command -v "$program" >/dev/null; then say "$program" "$("$program" --version 2>&1 | head -n 1)"; fi
done
for program in realpath stat find head mktemp sync flock truncate timeout chown ln mv cp; do
  command -v "$program" >/dev/null || say missing "$program"
done
if [ -e /dev/kvm ]; then
  say kvm "$([ -r /dev/kvm ] && [ -w /dev/kvm ] && echo usable || echo forbidden)"
fi

owner=$1 user=${1%%:*} group=${1#*:}
shift
case $user in *[!0-9]*) user=$(id -u -- "$user" 2>/dev/null) || user= ;; esac
case $group in *[!0-9]*) group=$(getent group "$group" | cut -d : -f 3) ;; esac
say owner "$user:$group"
for pair in libvirt-qemu:kvm qemu:qemu; do
  if id -u "${pair%:*}" >/dev/null 2>&1 && getent group "${pair#*:}" >/dev/null; then say usual_owner "$pair"; fi
done

# fill FILE: small, and too much for a disk that is full.
fill() { head -c 65536 /dev/zero >"$1"; }

for kind in temp nvram sandboxes snapshots; do
  dir=$1
  shift
  say begin "$kind"
  said=$(complaint stat -- "$dir/.")
  if [ -n "$said" ]; then say "$kind.missing" "$said"; continue; fi
  say "$kind.list" "$(complaint ls -A -- "$dir")"
  said=$(mktemp -- "$dir/.snapdeck-probe-XXXXXXXX" 2>&1)
  if [ -f "$said" ]; then
    file=$said
    say "$kind.write" "$(complaint fill "$file")"
    if [ "$kind" = snapshots ]; then
      say snapshots.chown "$(complaint chown -- "$owner" "$file")"
      say snapshots.reflink "$(complaint cp --reflink=always -- "$file" "$file.copy")"
    fi
    said=$(complaint rm -f -- "$file" "$file.copy")
    [ -z "$said" ] || say "$kind.write" "$said"
  else
    say "$kind.write" "$said"
  fi
  say "$kind.free" "$(stat -f --printf '%a %S' -- "$dir" 2>/dev/null)"
  case $kind in
  temp)
    find "$dir/" -mindepth 1 -maxdepth 1 -type d -name 'snapdeck-????????' -mtime +0 2>/dev/null |
      while IFS= read -r old; do
        [ -n "$(find "$old" -mtime -1 -print -quit 2>/dev/null)" ] || say old "$dir/${old##*/}"
      done
    ;;
  snapshots)
    find "$dir/" -mindepth 1 -maxdepth 1 -type f \( -name '*.qcow2' ! -name '.*' -printf 'file\0%U:%G %u:%g %m %f\0' \) \
      -o -mtime +0 \( -name '.*.qcow2.partial' -o -name '.*.qcow2.partial.mark' -o -name '.snapdeck-probe-*' \) \
      -printf "old\0$dir/%f\0" 2>/dev/null
    ;;
  esac
  say end "$kind"
done
