//! Facts of a sandbox's domain that scans do not need: its identity, why it is shut off, and all its disks.

use std::collections::BTreeMap;

use roxmltree::Node;
use virt::domain::{Domain, DomainShutoffReason, DomainStateReason, DomainStateReasonEnum};
use virt::error::Error as VirtError;

use super::Sandboxes;
use crate::CALL_TIMEOUT;
use crate::domain::{self, child};
use crate::xml::parse_xml;
use snapdeck_model::{Result, SandboxId, SandboxState};

/// Backing files of a disk; longer chains are refused.
const MAX_BACKING_FILES: usize = 200;

/// Facts of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainFacts {
    /// UUID of the domain: unique on the host, unlike a name that was used again.
    pub uuid: String,
    /// State of the domain.
    pub state: SandboxState,
    /// Whether libvirt keeps its definition when it is shut off.
    pub is_persistent: bool,
    /// Whether its guest ended by a shutdown, as libvirt remembers; false if the reason is another or unknown.
    pub was_shut_down: bool,
    /// Disks with a file or a block device, in boot order; without removable media.
    pub disks: Vec<DomainDisk>,
    /// Backing files of these disks as the definition names them, by the path of the disk; see [`named_backing_files`].
    pub backing_files: BTreeMap<String, Vec<Option<String>>>,
}

/// A disk of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainDisk {
    /// Name of the disk in the domain, such as `vda`.
    pub target: String,
    /// Path of its file or device, or `POOL/VOLUME` of a volume.
    pub path: String,
}

impl DomainDisk {
    /// Returns whether it is a volume of a storage pool.
    pub fn is_volume(&self) -> bool {
        !self.path.starts_with('/')
    }
}

impl Sandboxes<'_> {
    /// Returns the facts of a domain.
    ///
    /// # Errors
    /// `NotFound`; `Unreachable`.
    pub async fn facts(self, id: &SandboxId) -> Result<DomainFacts> {
        self.host
            .retry_policy
            .call(|| self.call_domain(id, "inspect", CALL_TIMEOUT, read_facts))
            .await
    }
}

fn read_facts(domain: &Domain) -> std::result::Result<DomainFacts, VirtError> {
    let state = domain::state(domain)?;
    let (_, reason) = domain.state()?;
    let xml = domain.xml_desc(0)?;
    Ok(DomainFacts {
        uuid: domain.uuid()?.to_string(),
        state,
        is_persistent: domain.is_persistent()?,
        was_shut_down: state == SandboxState::ShutOff
            && matches!(
                reason,
                DomainStateReasonEnum::Known(DomainStateReason::Shutoff(reason))
                    if reason.is(DomainShutoffReason::Shutdown)
            ),
        disks: parse_disks(&xml),
        backing_files: parse_backing_files(&xml),
    })
}

/// Returns the disks in boot order: those with an `<boot order>` by that, the others by their target's letters.
fn parse_disks(xml: &str) -> Vec<DomainDisk> {
    let Ok(document) = parse_xml(xml) else {
        return Vec::new();
    };
    let Some(devices) = child(document.root_element(), "devices") else {
        return Vec::new();
    };
    let mut nodes: Vec<Node<'_, '_>> = devices
        .children()
        .filter(|node| node.has_tag_name("disk"))
        .filter(|disk| matches!(disk.attribute("device"), None | Some("disk" | "lun")))
        .collect();
    nodes.sort_by_cached_key(|disk| boot_rank(*disk));
    let disk = |node: Node<'_, '_>| {
        let source = child(node, "source")?;
        let path = source.attribute("file").or(source.attribute("dev"));
        let volume = || {
            let pool = source.attribute("pool")?;
            Some(format!("{pool}/{}", source.attribute("volume")?))
        };
        let target = child(node, "target")?.attribute("dev")?;
        Some(DomainDisk {
            target: target.to_owned(),
            path: path.map(str::to_owned).or_else(volume)?,
        })
    };
    nodes.into_iter().filter_map(disk).collect()
}

/// Returns the backing files that the definition names for each disk, by its path.
fn parse_backing_files(xml: &str) -> BTreeMap<String, Vec<Option<String>>> {
    let Ok(document) = parse_xml(xml) else {
        return BTreeMap::new();
    };
    let disks = child(document.root_element(), "devices").into_iter();
    let disks = disks.flat_map(|devices| devices.children());
    let disks = disks.filter(|node| node.has_tag_name("disk"));
    disks
        .filter_map(|disk| Some((source_path(disk)?.to_owned(), named_backing_files(disk))))
        .collect()
}

fn source_path<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    let source = child(node, "source")?;
    source.attribute("file").or(source.attribute("dev"))
}

/// Returns the files of the `<backingStore>` elements below a disk, which QEMU opens whatever the headers say. `None` is
/// the end of the chain, or a source that is not a file; beyond the last element libvirt follows the headers.
fn named_backing_files(disk: Node<'_, '_>) -> Vec<Option<String>> {
    let elements = std::iter::successors(child(disk, "backingStore"), |node| {
        child(*node, "backingStore")
    });
    elements
        .take(MAX_BACKING_FILES)
        .map(|node| source_path(node).map(str::to_owned))
        .collect()
}

/// Returns the key by which disks boot: by `<boot order>`, then by the letters of the target, `vda` before `vdb`, `vdz`
/// before `vdaa`. A stable sort keeps those of one rank, on two buses, in the order of the definition.
pub(crate) fn boot_rank(disk: Node<'_, '_>) -> (u64, usize, String) {
    let order = child(disk, "boot").and_then(|boot| boot.attribute("order")?.parse().ok());
    let target = child(disk, "target").and_then(|target| target.attribute("dev"));
    let target = target.unwrap_or_default();
    let buses = ["xvd", "hd", "sd", "vd"];
    let letters = buses.iter().find_map(|bus| target.strip_prefix(bus));
    let letters = letters.unwrap_or(target);
    (order.unwrap_or(u64::MAX), letters.len(), letters.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(disks: &str) -> Vec<String> {
        let xml = format!("<domain><devices>{disks}</devices></domain>");
        let disks = parse_disks(&xml);
        disks.into_iter().map(|disk| disk.target).collect()
    }

    fn disk(target: &str, more: &str) -> String {
        format!("<disk><source file='/s/{target}'/><target dev='{target}'/>{more}</disk>")
    }

    #[test]
    fn disks_are_in_boot_order_then_in_target_order() {
        let disks = disk("vdb", "") + &disk("vdaa", "") + &disk("vda", "");
        assert_eq!(targets(&disks), ["vda", "vdb", "vdaa"]);
        let disks =
            disk("vda", "") + &disk("vdb", "<boot order='2'/>") + &disk("vdc", "<boot order='1'/>");
        assert_eq!(targets(&disks), ["vdc", "vdb", "vda"]);
        let disks = disk("sda", "") + &disk("vda", "");
        assert_eq!(targets(&disks), ["sda", "vda"]);
    }

    #[test]
    fn removable_media_and_disks_without_a_source_are_left_out() {
        let disks = "<disk device='cdrom'><source file='/iso'/><target dev='sda'/></disk>\
             <disk device='disk'><target dev='vdb'/></disk>\
             <disk type='block' device='lun'><source dev='/dev/sdx'/><target dev='sdb'/></disk>";
        assert_eq!(targets(disks), ["sdb"]);
        assert!(parse_disks("no xml").is_empty());
    }

    #[test]
    fn fuzz_disks() {
        crate::fuzz_samples::target("domain XML: disks")
            .seed(crate::fuzz_samples::DOMAIN)
            .run(|xml| {
                let xml = snapdeck_fuzz::text(xml);
                parse_disks(&xml);
                let mut chains = parse_backing_files(&xml).into_values();
                assert!(chains.all(|chain| chain.len() <= MAX_BACKING_FILES));
            });
    }
}
