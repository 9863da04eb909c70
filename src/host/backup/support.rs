//! Support for backup jobs by a host's libvirt and QEMU.

use virt::connect::Connect;
use virt::domain::Domain;

use super::Backups;
use crate::CALL_TIMEOUT;
use crate::capabilities::{CAPABILITIES_TIMEOUT, READ_CAPABILITIES};
use crate::domain::child;
use crate::xml::parse_xml;
use snapdeck_model::{Kind, Result, SandboxId};

impl Backups<'_> {
    /// Returns the target name of `disk`, such as `vda`, if this host can back it up, else why it cannot.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn support(self, id: &SandboxId, disk: &str) -> Result<Result<String, String>> {
        let inspect = |domain: &Domain| {
            let is_busy = domain.job_info()?.r#type != virt_sys::VIR_DOMAIN_JOB_NONE as i32;
            Ok((domain.xml_desc(0)?, is_busy))
        };
        let (xml, is_busy) = self
            .host
            .sandboxes()
            .call_domain(id, "inspect", CALL_TIMEOUT, inspect)
            .await?;
        if is_busy {
            // libvirt would wait for its end while the guest is paused.
            return Ok(Err("libvirt runs another job on it".into()));
        }
        let Some(disk) = BackupTarget::parse(&xml, disk) else {
            return Ok(Err(format!("libvirt does not list the disk {disk}")));
        };
        let target = disk.target;
        let query = move |connect: &Connect| {
            let (emulator, arch) = (disk.emulator.as_deref(), disk.arch.as_deref());
            let (machine, virt_type) = (disk.machine.as_deref(), disk.virt_type.as_deref());
            connect.domain_capabilities(emulator, arch, machine, virt_type, 0)
        };
        let capabilities = self
            .host
            .libvirt
            .call(READ_CAPABILITIES, CAPABILITIES_TIMEOUT, query)
            .await;
        match capabilities {
            Ok(capabilities) if offers_backup(&capabilities) => Ok(Ok(target)),
            Ok(_) => Ok(Err(
                "its libvirt or QEMU has no backup jobs (libvirt 7.2 and QEMU 4.2 are required)"
                    .into(),
            )),
            Err(error) if error.kind() == Kind::Unreachable => Err(error),
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// A disk of a domain, and the QEMU that the domain needs.
#[derive(Debug, PartialEq, Eq)]
struct BackupTarget {
    target: String,
    virt_type: Option<String>,
    emulator: Option<String>,
    arch: Option<String>,
    machine: Option<String>,
}

impl BackupTarget {
    fn parse(xml: &str, disk: &str) -> Option<Self> {
        let document = parse_xml(xml).ok()?;
        let root = document.root_element();
        let devices = child(root, "devices")?;
        let target = devices
            .children()
            .filter(|node| node.has_tag_name("disk"))
            .find(|node| {
                let source = child(*node, "source");
                source.is_some_and(|source| {
                    source.attribute("file").or(source.attribute("dev")) == Some(disk)
                })
            })
            .and_then(|node| child(node, "target"))?
            .attribute("dev")?;
        let os = child(root, "os").and_then(|os| child(os, "type"));
        let attribute = |name| os.and_then(|os| os.attribute(name)).map(str::to_owned);
        Some(Self {
            target: target.to_owned(),
            virt_type: root.attribute("type").map(str::to_owned),
            emulator: child(devices, "emulator")
                .and_then(|emulator| emulator.text())
                .map(str::to_owned),
            arch: attribute("arch"),
            machine: attribute("machine"),
        })
    }
}

/// `<backup supported='yes'/>` among the features (libvirt, "Domain capabilities").
pub(crate) fn offers_backup(capabilities: &str) -> bool {
    let Ok(document) = parse_xml(capabilities) else {
        return false;
    };
    child(document.root_element(), "features")
        .and_then(|features| child(features, "backup"))
        .is_some_and(|backup| backup.attribute("supported") == Some("yes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn finds_the_target_of_a_disk() {
        let xml = "<domain type='kvm'><os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type></os><devices>\
             <emulator>/usr/bin/qemu</emulator>\
             <disk device='cdrom'><source file='/iso'/><target dev='sda'/></disk>\
             <disk><source file='/s/a&amp;b.qcow2'/><target dev='vdb'/></disk></devices></domain>";
        let disk = BackupTarget::parse(xml, "/s/a&b.qcow2").unwrap();
        assert_eq!(disk.target, "vdb");
        assert_eq!(disk.emulator.as_deref(), Some("/usr/bin/qemu"));
        assert_eq!(
            (disk.virt_type.as_deref(), disk.machine.as_deref()),
            (Some("kvm"), Some("pc-q35-7.2"))
        );
        assert_eq!(BackupTarget::parse(xml, "/s/other.qcow2"), None);
    }

    #[test]
    fn reads_backup_support() {
        let capabilities = |backup| {
            format!("<domainCapabilities><features>{backup}</features></domainCapabilities>")
        };
        assert!(offers_backup(&capabilities(
            "<gic supported='no'/><backup supported='yes'/>"
        )));
        for no in ["<backup supported='no'/>", "<gic supported='yes'/>"] {
            assert!(!offers_backup(&capabilities(no)), "{no}");
        }
        assert!(!offers_backup("no xml"));
    }

    #[test]
    fn fuzz_backup_target() {
        crate::fuzz_samples::target("domain XML: backup")
            .seed(crate::fuzz_samples::DOMAIN)
            .run(|xml| {
                BackupTarget::parse(&snapdeck_fuzz::text(xml), "/sandboxes/box.qcow2");
            });
    }
}
