//! libvirt domains: states, disks and UEFI variables.

use roxmltree::{Document, Node};
use virt::connect::Connect;
use virt::domain::{
    Domain, DomainInfo, DomainPausedReason, DomainState, DomainStateReason, DomainStateReasonEnum,
};
use virt::error::{Error, ErrorNumber};

use crate::sandbox::boot_rank;
use snapdeck_model::SandboxState;

/// Domains that are read at most.
const MAX_DOMAINS: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainSummary {
    pub name: String,
    pub state: SandboxState,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub disks: Vec<Disk>,
    pub nvram_path: Option<String>,
}

/// A disk of a domain in a file or on a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    pub path: String,
    /// `qcow2`, `raw`, ...; `None` if the domain XML names none.
    pub format: Option<String>,
}

/// Returns all domains of the host but those that disappear meanwhile.
pub(crate) fn list(connect: &Connect) -> Result<Vec<DomainSummary>, Error> {
    let domains = connect.list_all_domains(0)?;
    domains
        .iter()
        .take(MAX_DOMAINS)
        .filter_map(|domain| match summarize(domain) {
            Err(error) if error.code().is(ErrorNumber::NoDomain) => None,
            summary => Some(summary),
        })
        .collect()
}

/// Reads one domain.
pub(crate) fn summarize(domain: &Domain) -> Result<DomainSummary, Error> {
    let info = domain.info()?;
    let (disks, nvram_path) = parse_files(&domain.xml_desc(0)?);
    Ok(DomainSummary {
        name: domain.name()?,
        state: map_state(domain, &info)?,
        cpus: info.nr_virt_cpu,
        memory_bytes: info.max_mem * 1024,
        disks,
        nvram_path,
    })
}

/// Returns the state of a domain.
pub(crate) fn state(domain: &Domain) -> Result<SandboxState, Error> {
    // `Domain::state` of virt 0.5 swallows errors; `info` does not.
    map_state(domain, &domain.info()?)
}

fn map_state(domain: &Domain, info: &DomainInfo) -> Result<SandboxState, Error> {
    Ok(match info.state.unwrap_or(DomainState::NoState) {
        DomainState::Paused if is_crashed(domain)? => SandboxState::Crashed,
        DomainState::Paused => SandboxState::Paused,
        DomainState::Shutoff if domain.has_managed_save(0)? => SandboxState::Saved,
        DomainState::Shutoff => SandboxState::ShutOff,
        DomainState::Crashed => SandboxState::Crashed,
        DomainState::PMSuspended => SandboxState::Suspended,
        DomainState::NoState
        | DomainState::Running
        | DomainState::Blocked
        | DomainState::Shutdown => SandboxState::Running,
    })
}

/// A guest that panicked and is preserved is paused, too.
fn is_crashed(domain: &Domain) -> Result<bool, Error> {
    is_paused_for(domain, DomainPausedReason::Crashed)
}

fn is_paused_for(domain: &Domain, expected: DomainPausedReason) -> Result<bool, Error> {
    let (_, reason) = domain.state()?;
    Ok(matches!(
        reason,
        DomainStateReasonEnum::Known(DomainStateReason::Paused(reason)) if reason.is(expected)
    ))
}

/// Returns whether QEMU has paused the guest after a failed write.
pub(crate) fn is_paused_on_io_error(domain: &Domain) -> Result<bool, Error> {
    Ok(domain.info()?.state.is(DomainState::Paused)
        && is_paused_for(domain, DomainPausedReason::IOError)?)
}

/// Returns the disks of a domain in their order, and the file of its UEFI variables; nothing for invalid XML.
fn parse_files(xml: &str) -> (Vec<Disk>, Option<String>) {
    let Ok(document) = Document::parse(xml) else {
        return (Vec::new(), None);
    };
    let root = document.root_element();
    let nvram_path = child(root, "os")
        .and_then(|os| child(os, "nvram"))
        .and_then(|nvram| nvram.text())
        .map(|path| path.trim().to_owned())
        .filter(|path| !path.is_empty());
    let disks = child(root, "devices").map(parse_disks).unwrap_or_default();
    (disks, nvram_path)
}

/// Returns the disks in boot order, so that the first one has the system.
fn parse_disks(devices: Node<'_, '_>) -> Vec<Disk> {
    let mut nodes: Vec<Node<'_, '_>> = devices
        .children()
        .filter(|node| node.has_tag_name("disk"))
        .filter(|disk| matches!(disk.attribute("device"), None | Some("disk" | "lun")))
        .collect();
    nodes.sort_by_cached_key(|disk| boot_rank(*disk));
    nodes
        .into_iter()
        .filter_map(|disk| {
            let source = child(disk, "source")?;
            let path = source.attribute("file").or(source.attribute("dev"))?;
            Some(Disk {
                path: path.to_owned(),
                format: child(disk, "driver")
                    .and_then(|driver| driver.attribute("type"))
                    .map(str::to_owned),
            })
        })
        .collect()
}

/// Returns the first child element with this tag.
pub(crate) fn child<'a, 'xml>(node: Node<'a, 'xml>, tag: &str) -> Option<Node<'a, 'xml>> {
    node.children().find(|child| child.has_tag_name(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_disks_and_uefi_variables_but_not_removable_media() {
        let (disks, nvram_path) = parse_files(
            "<domain><os firmware='efi'><nvram template='/t'> /n/a_VARS.fd </nvram></os><devices>
               <disk type='file' device='cdrom'><source file='/iso'/></disk>
               <disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
                 <source file='/s/a&amp;b.qcow2' index='1'/>
                 <backingStore type='file'><source file='/base.qcow2'/></backingStore></disk>
               <disk type='block'><source dev='/dev/vg/lv'/></disk>
               <disk type='network'><source protocol='nbd' name='x'/></disk>
             </devices></domain>",
        );
        let paths: Vec<(&str, Option<&str>)> = disks
            .iter()
            .map(|disk| (disk.path.as_str(), disk.format.as_deref()))
            .collect();
        assert_eq!(
            paths,
            [("/s/a&b.qcow2", Some("qcow2")), ("/dev/vg/lv", None)]
        );
        assert_eq!(nvram_path.as_deref(), Some("/n/a_VARS.fd"));
        assert_eq!(parse_files("no xml"), (Vec::new(), None));
    }
}
