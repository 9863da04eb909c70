# Runs in the chroot that try-deb.sh creates: installs /root/snapdeck.deb and follows README.md.
cd /root
step() {
  echo "--- $*"
  "$@"
}
quiet() {
  "$@" >/root/step.log 2>&1 || { cat /root/step.log >&2; return 1; }
}

quiet apt-get update
echo "--- apt install ./snapdeck.deb"
quiet apt-get install -y ./snapdeck.deb
step snapdeck --version
dpkg-query -W -f '${Package} ${Version}\n' snapdeck libvirt0 libvirt-clients qemu-utils openssh-client

echo "--- man page, completions"
quiet apt-get install -y --no-install-recommends man-db bash-completion
man snapdeck 2>/dev/null | sed -n 1,4p
bash -c '. /usr/share/bash-completion/completions/snapdeck && complete -p snapdeck'
for file in /usr/share/zsh/vendor-completions/_snapdeck /usr/share/fish/vendor_completions.d/snapdeck.fish \
  /usr/share/doc/snapdeck/README.md /etc/snapdeck/config.toml; do
  test -s "$file"
done
test "$(stat -c %a /etc/snapdeck/serve.env)" = 600

echo "--- doctor without a host: it must name what is missing"
if snapdeck doctor; then echo "doctor found no problem" >&2; exit 1; fi

echo "--- libvirt and QEMU"
quiet apt-get install -y --no-install-recommends libvirt-daemon-system qemu-system-x86 ovmf swtpm swtpm-tools
dpkg-query -W -f '${Package} ${Version}\n' libvirt-daemon-system qemu-system-x86
step systemd-analyze verify /usr/lib/systemd/system/snapdeck.service
cat >>/etc/libvirt/qemu.conf <<'CONF'
security_driver = "none"
namespaces = []
cgroup_controllers = []
stdio_handler = "file"
remote_display_port_min = 10900
CONF
libvirtd -d
until virsh -q -c qemu:///system list >/dev/null 2>&1; do sleep 0.2; done

step snapdeck init --yes --bucket-name "$BUCKET" --prefix "$SUITE/" --endpoint "$ENDPOINT" --region us-east-1
step mkdir -p /var/lib/libvirt/snapshots /var/lib/libvirt/sandboxes
step snapdeck doctor || echo "(exit code $?)"
sed -i -e '/^network = /d' -e 's/^\[sandbox\]$/&\nnetwork = "none"/' /root/.config/snapdeck/config.toml
qemu-img create -q -f qcow2 winserver.qcow2 1G
qemu-io -f qcow2 -c 'write -q -P 7 64M 24M' winserver.qcow2
step cp winserver.qcow2 /var/lib/libvirt/snapshots/winserver-base.qcow2
step snapdeck sandbox new web-01 winserver-base --start
step snapdeck sandbox stop web-01 --force
step snapdeck push web-01 web-v1 --plan
step snapdeck push web-01 web-v1
step snapdeck upload winserver-base
step snapdeck pull web-v1
step snapdeck verify web-v1
step snapdeck snapshots
qemu-img compare -q /var/lib/libvirt/snapshots/web-v1.qcow2 /var/lib/libvirt/sandboxes/web-01.qcow2
step snapdeck sandbox destroy web-01 --yes
echo "--- purge"
quiet apt-get purge -y snapdeck
test ! -e /etc/snapdeck/config.toml
echo "=== $SUITE: first push made"
