//! Documents and answers of libvirt, for fuzzing their parsers.

use snapdeck_fuzz::FuzzTarget;
use snapdeck_libvirt::{TypedParams, Value};

/// A running domain with all that the parsers look for.
pub(crate) const DOMAIN: &str = "<domain type='kvm' id='1'><name>box</name>\
    <uuid>0c0a1b2c-0000-4000-8000-000000000001</uuid><memory unit='KiB'>65536</memory><vcpu>1</vcpu>\
    <os firmware='efi'><type arch='x86_64' machine='q35'>hvm</type><loader type='pflash'>/usr/share/OVMF_CODE.fd</loader>\
    <nvram template='/usr/share/OVMF_VARS.fd' format='raw'>/var/lib/libvirt/qemu/nvram/box_VARS.fd</nvram>\
    <kernel>/boot/vmlinuz</kernel></os><devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/sandboxes/box.qcow2'/>\
    <backingStore type='file'><format type='qcow2'/><source file='/snapshots/base.qcow2'/><backingStore/></backingStore>\
    <target dev='vda' bus='virtio'/><boot order='1'/></disk>\
    <disk type='volume' device='disk'><source pool='default' volume='b.img'/><target dev='vdb'/></disk>\
    <disk type='block' device='lun'><source dev='/dev/sdb'/><target dev='sda'/></disk>\
    <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='hda'/><readonly/></disk>\
    <graphics type='vnc' port='5900' autoport='yes' listen='127.0.0.1'><listen type='address' address='127.0.0.1'/>\
    </graphics><graphics type='vnc' socket='/run/vnc.sock'/><channel type='unix'><source mode='bind' path='/run/agent'/>\
    <target type='virtio' name='org.qemu.guest_agent.0' state='connected'/></channel>\
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm></devices>\
    <qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
    <qemu:arg value='file=/extra.img,format=raw'/></qemu:commandline></domain>";

/// The metadata of a snapshot of a domain.
pub(crate) const SNAPSHOT: &str = "<domainsnapshot><name>s1</name><memory snapshot='external' file='/var/s1.mem'/>\
    <disks><disk name='vda' snapshot='external' type='file'><driver type='qcow2'/><source file='/sandboxes/box.s1'/>\
    </disk></disks><domain><name>box</name><devices/></domain><inactiveDomain><name>box</name></inactiveDomain>\
    </domainsnapshot>";

/// Storage pools.
pub(crate) const POOL: &str = "<pool type='dir'><name>default</name><source/><target><path>/var/lib/libvirt/images</path>\
    </target></pool>";

/// Domain capabilities.
pub(crate) const CAPABILITIES: &str = "<domainCapabilities><path>/usr/bin/qemu</path><os supported='yes'>\
    <enum name='firmware'><value>efi</value></enum><loader supported='yes'><value>/usr/share/OVMF_CODE.fd</value>\
    <enum name='secure'><value>yes</value></enum></loader></os><devices><tpm supported='yes'><enum name='backendModel'>\
    <value>emulator</value></enum></tpm></devices><features><backup supported='yes'/></features></domainCapabilities>";

/// Returns a target for documents as long as libvirt's longest.
pub(crate) fn target(name: &'static str) -> FuzzTarget {
    FuzzTarget::new(name)
        .words(&[
            "<disk>",
            "<source file='/a'/>",
            "<source pool='a' volume='b'/>",
            "<backingStore>",
            "<os>",
            "<value>",
            "<a>/b</a>",
            "</",
            "/>",
            " a='/b'",
        ])
        .max_bytes(4 << 20)
        // Of a node and an attribute.
        .memory(4 << 20, 128)
}

/// Returns the parameters in lines of `NAME=NUMBER` and `NAME=:TEXT`.
pub(crate) fn typed_params(input: &[u8]) -> TypedParams {
    let text = snapdeck_fuzz::text(input);
    let fields = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let value = match value.strip_prefix(':') {
            Some(text) => Value::Text(text.to_owned()),
            None => Value::Number(value.parse().ok()?),
        };
        Some((name.to_owned(), value))
    });
    fields.collect()
}
