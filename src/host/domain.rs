//! libvirt domains: states and files.

use std::collections::{HashMap, HashSet};

use roxmltree::Node;
use virt::connect::Connect;
use virt::domain::{
    Domain, DomainInfo, DomainPausedReason, DomainState, DomainStateReason, DomainStateReasonEnum,
};
use virt::error::{Error, ErrorNumber};
use virt_sys::{
    VIR_CONNECT_LIST_DOMAINS_AUTOSTART, VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT,
    VIR_DOMAIN_XML_INACTIVE,
};

use crate::domain_files::{DomainFiles, UnresolvedVolume};
use crate::xml::parse_xml;
use snapdeck_model::SandboxState;

/// Snapshots of a domain that are read at most.
const MAX_SNAPSHOTS: usize = 1_000;
/// Bytes of the definitions of all domains of a host that are looked at.
const MAX_DEFINITION_BYTES: usize = 128 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DomainSummary {
    pub name: String,
    pub state: SandboxState,
    pub cpus: u32,
    pub memory_bytes: u64,
    pub has_autostart: bool,
    pub files: DomainFiles,
}

/// Returns all domains of the host but those that disappear meanwhile, with the files of all their definitions.
pub(crate) fn list(connect: &Connect) -> Result<Vec<DomainSummary>, Error> {
    // Before the definitions are read: a snapshot that is created meanwhile has files that those name, too.
    let with_snapshots = list_names(connect, VIR_CONNECT_LIST_DOMAINS_HAS_SNAPSHOT)?;
    // One call instead of one for each domain.
    let with_autostart = list_names(connect, VIR_CONNECT_LIST_DOMAINS_AUTOSTART)?;
    let mut volumes = VolumeResolver::new(connect);
    let domains = connect.list_all_domains(0)?;
    domains
        .iter()
        .filter_map(|domain| {
            let summary = summarize_with(domain, &mut volumes).and_then(|mut summary| {
                summary.has_autostart = with_autostart.contains(&summary.name);
                let has_snapshots = with_snapshots.contains(&summary.name);
                add_definitions(domain, &mut summary, has_snapshots, &mut volumes)?;
                Ok(summary)
            });
            match summary {
                Err(error) if error.code().is(ErrorNumber::NoDomain) => None,
                summary => Some(summary),
            }
        })
        .collect()
}

fn list_names(connect: &Connect, flags: u32) -> Result<HashSet<String>, Error> {
    let domains = connect.list_all_domains(flags)?;
    let names = domains.iter().filter_map(|domain| domain.name().ok());
    Ok(names.collect())
}

/// Reads one domain, with the files of its current definition only.
pub(crate) fn summarize(domain: &Domain) -> Result<DomainSummary, Error> {
    let summary = summarize_with(domain, &mut VolumeResolver::new(&domain.connect()?))?;
    Ok(DomainSummary {
        has_autostart: domain.autostart()?,
        ..summary
    })
}

/// As [`summarize`], but without autostart.
fn summarize_with(
    domain: &Domain,
    volumes: &mut VolumeResolver<'_>,
) -> Result<DomainSummary, Error> {
    let info = domain.info()?;
    let mut files = DomainFiles::default();
    let xml = domain.xml_desc(0)?;
    volumes.add_definition(&mut files, &xml, true);
    Ok(DomainSummary {
        name: domain.name()?,
        state: map_state(domain, &info)?,
        cpus: info.nr_virt_cpu,
        memory_bytes: info.max_mem.saturating_mul(1024),
        has_autostart: false,
        files,
    })
}

/// Adds the files of the persistent definition of an active domain, of its saved state, and of its snapshots.
fn add_definitions(
    domain: &Domain,
    summary: &mut DomainSummary,
    has_snapshots: bool,
    volumes: &mut VolumeResolver<'_>,
) -> Result<(), Error> {
    let files = &mut summary.files;
    if summary.state.is_active() {
        let xml = domain.xml_desc(VIR_DOMAIN_XML_INACTIVE)?;
        volumes.add_definition(files, &xml, false);
    }
    if summary.state == SandboxState::Saved {
        match snapdeck_libvirt::saved_xml(domain) {
            Ok(Some(xml)) => {
                volumes.add_definition(files, &xml, false);
            }
            Ok(None) => {}
            Err(error) => {
                let reason = format!("its saved state cannot be read: {}", error.message());
                files.unresolved.push(UnresolvedVolume::any_file(reason));
            }
        }
    }
    if has_snapshots {
        let snapshots = domain.list_all_snapshots(0)?;
        if snapshots.len() > MAX_SNAPSHOTS {
            let reason = format!("it has more than {MAX_SNAPSHOTS} snapshots");
            files.unresolved.push(UnresolvedVolume::any_file(reason));
        }
        for snapshot in snapshots.iter().take(MAX_SNAPSHOTS) {
            match snapshot.xml_desc(0) {
                Ok(xml) if volumes.add_definition(files, &xml, false) => {}
                Ok(_) => break,
                Err(error) if error.code().is(ErrorNumber::NoDomainSnapshot) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Adds definitions to the files of domains, and resolves volumes of storage pools to paths; each is looked up once.
struct VolumeResolver<'a> {
    connect: &'a Connect,
    /// Bytes of definitions that may still be looked at.
    rest_bytes: usize,
    paths: HashMap<(String, String), Result<Option<String>, String>>,
}

impl<'a> VolumeResolver<'a> {
    fn new(connect: &'a Connect) -> Self {
        Self {
            connect,
            rest_bytes: MAX_DEFINITION_BYTES,
            paths: HashMap::new(),
        }
    }

    /// Adds the files of a definition; returns false if there are too many bytes of them: what it names is unknown then.
    fn add_definition(&mut self, files: &mut DomainFiles, xml: &str, is_first: bool) -> bool {
        let rest = self.rest_bytes.checked_sub(xml.len());
        self.rest_bytes = rest.unwrap_or(0);
        match rest {
            Some(_) => files.add_definition(xml, is_first, &mut |pool, volume| {
                self.resolve(pool, volume)
            }),
            None => files.unresolved.push(UnresolvedVolume::any_file(format!(
                "the definitions of all domains have more than {MAX_DEFINITION_BYTES} bytes"
            ))),
        }
        rest.is_some()
    }

    fn resolve(&mut self, pool: &str, volume: &str) -> Result<Option<String>, String> {
        let key = (pool.to_owned(), volume.to_owned());
        let lookup = || volume_path(self.connect, pool, volume);
        self.paths.entry(key).or_insert_with(lookup).clone()
    }
}

/// Returns the path of a volume; `None` if it is not on this host.
///
/// An inactive pool, or one that was not refreshed, does not list the volume: its path follows from the pool's target.
fn volume_path(connect: &Connect, pool: &str, volume: &str) -> Result<Option<String>, String> {
    let explain = |error: Error| error.message().to_owned();
    let pool = connect.lookup_storage_pool_by_name(pool);
    let pool = pool.map_err(explain)?;
    let listed = pool.lookup_storage_vol_by_name(volume);
    if let Ok(path) = listed.and_then(|volume| volume.path())
        && path.starts_with('/')
    {
        return Ok(Some(path));
    }
    let xml = pool.xml_desc(0).map_err(explain)?;
    volume_path_in(&xml, volume)
}

/// Returns the path of a volume that follows from the definition of its pool; `None` if it is not on this host.
fn volume_path_in(pool_xml: &str, volume: &str) -> Result<Option<String>, String> {
    let document = parse_xml(pool_xml)?;
    let root = document.root_element();
    let target = child(root, "target").and_then(|target| child(target, "path")?.text());
    match (root.attribute("type"), target) {
        (Some("dir" | "fs" | "netfs" | "logical" | "disk" | "vstorage"), Some(target)) => {
            Ok(Some(format!("{}/{volume}", target.trim())))
        }
        (Some("rbd" | "gluster" | "sheepdog" | "iscsi-direct"), _) => Ok(None),
        _ => Err("its path is unknown".to_owned()),
    }
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

/// Returns whether libvirt is starting the domain: it is paused until its devices are ready.
pub(crate) fn is_starting_up(domain: &Domain) -> Result<bool, Error> {
    Ok(domain.info()?.state.is(DomainState::Paused)
        && is_paused_for(domain, DomainPausedReason::StartingUp)?)
}

/// Returns the first child element with this tag.
pub(crate) fn child<'a, 'xml>(node: Node<'a, 'xml>, tag: &str) -> Option<Node<'a, 'xml>> {
    node.children().find(|child| child.has_tag_name(tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fuzz_pool() {
        crate::fuzz_samples::target("storage pool XML")
            .seed(crate::fuzz_samples::POOL)
            .run(|xml| {
                let _ = volume_path_in(&snapdeck_fuzz::text(xml), "b.img");
            });
    }
}
