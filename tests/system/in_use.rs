//! Files in use: whatever a file is used by and however it is named, it is neither removed nor replaced.
mod damaged;
mod definitions;
mod files;
mod shared;

use crate::common::{Host, run};

/// Defines a domain with these devices and returns its name.
fn define(host: &Host, short: &str, devices: &str) -> String {
    define_with(host, short, "", devices)
}

/// Defines a domain with more elements in `<os>`.
fn define_with(host: &Host, short: &str, os: &str, devices: &str) -> String {
    let id = host.id(short);
    let xml = format!(
        "<domain type='qemu'><name>{id}</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type>{os}</os>\
         <features><acpi/></features><devices>{devices}</devices></domain>"
    );
    host.define_xml(&xml);
    id
}

fn file_disk(path: &str, target: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{path}'/>\
         <target dev='{target}' bus='virtio'/></disk>"
    )
}

/// Creates an image with this text as its backing file.
fn overlay(path: &str, backing: &str) {
    let create = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", backing];
    run("qemu-img", &[&create[..], &[path]].concat());
}

/// As [`overlay`], with a backing file that qemu-img cannot open.
fn overlay_unchecked(path: &str, backing: &str) {
    let create = [
        "create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", backing, path, "1G",
    ];
    run("qemu-img", &create);
}
