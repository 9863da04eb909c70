//! Builds the inventory of a host from libvirt's domains and the images in its two directories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::file_source::{self, DirListing, FileMetadataSource, copy_error};
use crate::domain::{Disk, DomainSummary};
use crate::fs::RemoteFs;
use crate::image_file::ImageFile;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{
    ChainLink, Damage, Error, ForeignDomain, Kind, Result, Sandbox, SandboxId, Snapshot,
    SnapshotName,
};

/// Maximum length of a backing chain; libvirt's limit is 200, too.
const MAX_CHAIN: usize = 200;

/// Inventory of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostInventory {
    /// Sandboxes by id.
    pub sandboxes: Vec<Sandbox>,
    /// Domains that are not sandboxes, by name.
    pub foreign_domains: Vec<ForeignDomain>,
    /// Snapshots by name.
    pub snapshots: Vec<Snapshot>,
    /// Other users of the overlay of a sandbox, or of a leftover overlay: ids, domain names, or paths of images. Overlays
    /// without other users are left out.
    pub overlay_users: BTreeMap<SandboxId, Vec<String>>,
    /// Disks with an unknown backing chain, and the cause. Any snapshot of the host may be their base, so none may be
    /// removed or replaced.
    pub unresolved_chains: Vec<String>,
    /// Other problems, one sentence each.
    pub warnings: Vec<String>,
}

/// Images that are scanned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All images of both directories.
    All,
    /// Only the chains of the domains: no snapshots, overlay users or dependents.
    Chains,
}

impl Scope {
    fn restrict(self, listings: &mut [DirListing; 2]) {
        if self == Self::Chains {
            listings.iter_mut().for_each(|dir| dir.images.clear());
        }
    }
}

/// Scans this machine. Blocks; reads the header of each image.
///
/// # Errors
/// An I/O error if a directory exists but cannot be listed.
pub(crate) fn scan_local(
    settings: &HostSettings,
    domains: &[DomainSummary],
    scope: Scope,
) -> io::Result<HostInventory> {
    let mut listings = [
        file_source::list_images(&settings.snapshots_dir)?,
        file_source::list_images(&settings.sandboxes_dir)?,
    ];
    scope.restrict(&mut listings);
    let source = &mut FileMetadataSource::Local;
    Ok(build_inventory(settings, &listings, domains, source))
}

/// Scans a remote host: one command for the directories, and one for each level of the longest chain.
///
/// # Errors
/// As [`scan_local`]; `Unreachable`.
pub(crate) async fn scan_remote(
    files: &RemoteFs,
    settings: &HostSettings,
    domains: &[DomainSummary],
    scope: Scope,
) -> Result<HostInventory> {
    let dirs = [&*settings.snapshots_dir, &*settings.sandboxes_dir];
    let listings = files.list(&dirs).await?;
    let Ok(mut listings) = <[DirListing; 2]>::try_from(listings) else {
        return Err(Error::new(
            Kind::Failed,
            format!(
                "cannot list {} on host {}",
                dirs.join(" and "),
                settings.name
            ),
        ));
    };
    scope.restrict(&mut listings);
    let images = listings.iter().flat_map(|dir| dir.images.iter().cloned());
    let disks = domains.iter().flat_map(|domain| &domain.disks);
    let mut requested: BTreeSet<PathBuf> = images
        .chain(disks.map(|disk| disk.path.clone().into()))
        .collect();
    let mut metadata = HashMap::new();
    let mut inventory = HostInventory::default();
    for _ in 0..=MAX_CHAIN {
        let paths: Vec<PathBuf> = std::mem::take(&mut requested).into_iter().collect();
        for (path, status) in paths.iter().zip(files.stat_files(&paths).await?) {
            let file = match &status.file {
                Ok(file) => Ok(file.clone()),
                Err(error) => Err(copy_error(error)),
            };
            metadata.insert(status.path.clone(), (status.path.clone(), file));
            metadata.insert(path.clone(), (status.path, status.file));
        }
        let mut source = FileMetadataSource::Prefetched {
            metadata,
            missing: BTreeSet::new(),
        };
        inventory = build_inventory(settings, &listings, domains, &mut source);
        if scope == Scope::All {
            files.prune_header_cache(&source);
        }
        match source {
            FileMetadataSource::Prefetched {
                metadata: fetched,
                missing,
            } if !missing.is_empty() => (metadata, requested) = (fetched, missing),
            _ => break,
        }
    }
    Ok(inventory)
}

fn build_inventory(
    settings: &HostSettings,
    [snapshots, sandboxes]: &[DirListing; 2],
    domains: &[DomainSummary],
    source: &mut FileMetadataSource,
) -> HostInventory {
    let mut scanner = Scanner {
        snapshots: ImageDirectory::from_listing(snapshots),
        sandboxes: ImageDirectory::from_listing(sandboxes),
        source,
        stat_cache: HashMap::new(),
        dependents: BTreeMap::new(),
        inventory: HostInventory::default(),
    };
    scanner.add_domains(domains);
    scanner.follow_overlays();
    scanner.add_snapshots();
    scanner.collect_overlay_users();
    let mut inventory = scanner.inventory;
    inventory.sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
    inventory.foreign_domains.sort_by(|a, b| a.id.cmp(&b.id));
    inventory.snapshots.sort_by(|a, b| a.name.cmp(&b.name));
    let dirs = [
        (&settings.snapshots_dir, snapshots),
        (&settings.sandboxes_dir, sandboxes),
    ];
    let missing = dirs.iter().filter(|(_, listing)| !listing.is_present);
    inventory.warnings.extend(
        missing.map(|(dir, _)| format!("directory {dir} does not exist on host {}", settings.name)),
    );
    inventory
}

struct ImageDirectory {
    path: PathBuf,
    images: Vec<PathBuf>,
    damages: HashMap<PathBuf, Damage>,
}

impl ImageDirectory {
    fn from_listing(listing: &DirListing) -> Self {
        let has_valid_name = |file: &&PathBuf| image_name(file).is_some();
        let images = listing.images.iter().filter(has_valid_name);
        let mut images: Vec<PathBuf> = images.cloned().collect();
        images.sort();
        Self {
            path: listing.dir.clone(),
            images,
            damages: listing.damages.iter().cloned().collect(),
        }
    }

    fn contains(&self, file: &Path) -> bool {
        file.parent() == Some(&self.path)
    }
}

/// Returns `NAME` of a file `NAME.qcow2` if it is valid.
pub(crate) fn image_name(file: &Path) -> Option<SnapshotName> {
    let name = file.file_name().and_then(OsStr::to_str)?;
    name.ends_with(".qcow2").then(|| name.parse().ok())?
}

struct Scanner<'a> {
    snapshots: ImageDirectory,
    sandboxes: ImageDirectory,
    source: &'a mut FileMetadataSource,
    /// By canonical path; the error is empty for a file that does not exist.
    stat_cache: HashMap<PathBuf, Result<ImageFile, String>>,
    /// Users of a file, by its canonical path: ids, domain names, or paths of overlays without a domain.
    dependents: BTreeMap<PathBuf, BTreeSet<String>>,
    inventory: HostInventory,
}

impl Scanner<'_> {
    fn add_domains(&mut self, domains: &[DomainSummary]) {
        for domain in domains {
            let (mut sandbox_chain, mut other_chain) = (None, None);
            for disk in &domain.disks {
                let chain = self.follow_chain(disk, &domain.name);
                let file = self.source.canonicalize(Path::new(&disk.path));
                if sandbox_chain.is_none() && self.sandboxes.contains(&file) {
                    sandbox_chain = Some(chain);
                } else {
                    other_chain.get_or_insert(chain);
                }
            }
            let (Some(chain), Ok(id)) = (sandbox_chain, domain.name.parse()) else {
                self.inventory.foreign_domains.push(ForeignDomain {
                    id: domain.name.clone(),
                    state: domain.state,
                    cpus: domain.cpus,
                    memory_bytes: domain.memory_bytes,
                    chain: other_chain.unwrap_or_default(),
                });
                continue;
            };
            self.inventory.sandboxes.push(Sandbox {
                id,
                state: domain.state,
                cpus: domain.cpus,
                memory_bytes: domain.memory_bytes,
                chain,
                variables: domain.nvram_path.clone(),
            });
        }
    }

    fn collect_overlay_users(&mut self) {
        let mut overlays: BTreeMap<SandboxId, PathBuf> = BTreeMap::new();
        for file in &self.sandboxes.images {
            if let Some(id) = image_name(file).and_then(|name| name.as_str().parse().ok()) {
                overlays.insert(id, file.clone());
            }
        }
        for sandbox in &self.inventory.sandboxes {
            overlays.insert(
                sandbox.id.clone(),
                sandbox.disk().unwrap_or_default().into(),
            );
        }
        for (id, file) in overlays {
            let canonical = self.source.canonicalize(&file);
            let is_itself =
                |user: &String| user == id.as_str() || file.to_str() == Some(user.as_str());
            let users = self.dependents.get(&canonical).into_iter().flatten();
            let others: Vec<String> = users.filter(|user| !is_itself(user)).cloned().collect();
            if !others.is_empty() {
                self.inventory.overlay_users.insert(id, others);
            }
        }
    }

    /// Follows overlays without a domain and snapshots with a backing file: they need their chains, too.
    fn follow_overlays(&mut self) {
        let images = [&self.sandboxes.images, &self.snapshots.images];
        let files: Vec<(PathBuf, PathBuf)> = images
            .into_iter()
            .flatten()
            .map(|file| (file.clone(), self.source.canonicalize(file)))
            .filter(|(_, canonical)| !self.dependents.contains_key(canonical))
            .collect();
        for (file, canonical) in files {
            let Some(path) = file.to_str().map(str::to_owned) else {
                continue;
            };
            let may_have_backing = match self.stat(&canonical) {
                Ok(image) => matches!(&image.facts, Ok(facts) if facts.backing_file.is_some()),
                // An overlay that cannot be read may have any backing file.
                Err(_) => !self.snapshots.contains(&file),
            };
            if may_have_backing {
                let disk = Disk {
                    path: path.clone(),
                    format: None,
                };
                self.follow_chain(&disk, &path);
            }
        }
    }

    fn stat(&mut self, file: &Path) -> &Result<ImageFile, String> {
        let source = &mut *self.source;
        self.stat_cache.entry(file.to_owned()).or_insert_with(|| {
            source.stat(file).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => String::new(),
                _ => error.to_string(),
            })
        })
    }

    /// Follows the chain of a disk to its end, and records `user` for every file.
    fn follow_chain(&mut self, disk: &Disk, user: &str) -> Vec<ChainLink> {
        let mut chain = Vec::new();
        let mut path = disk.path.clone();
        let mut visited = BTreeSet::new();
        loop {
            let file = self.source.canonicalize(Path::new(&path));
            if !visited.insert(file.clone()) || chain.len() == MAX_CHAIN {
                self.report_unresolved(user, &path, "its backing chain does not end");
                return chain;
            }
            self.dependents
                .entry(file.clone())
                .or_default()
                .insert(user.to_owned());
            let snapshot = self
                .snapshots
                .contains(&file)
                .then(|| image_name(&file))
                .flatten();
            let image = self.stat(&file).clone();
            // libvirt does not probe a raw disk: the guest could write a header to it.
            let is_raw = chain.is_empty() && disk.format.as_deref() == Some("raw");
            let facts = match &image {
                Ok(image) if !is_raw => image.facts.as_ref().ok().cloned(),
                _ => None,
            };
            chain.push(ChainLink {
                path: path.clone(),
                snapshot,
                size_bytes: image.as_ref().ok().map(|image| image.allocated_bytes),
                facts: facts.clone(),
            });
            if let Err(reason) = &image
                && !reason.is_empty()
            {
                self.report_unresolved(user, &path, reason);
            }
            let Some(backing) = facts.and_then(|facts| facts.backing_file) else {
                return chain;
            };
            match resolve(&file, &backing) {
                BackingFile::File(next) => path = next,
                BackingFile::Remote => {
                    chain.push(ChainLink {
                        path: backing,
                        snapshot: None,
                        size_bytes: None,
                        facts: None,
                    });
                    return chain;
                }
                BackingFile::Unknown => {
                    self.report_unresolved(
                        user,
                        &path,
                        "cannot parse the name of its backing file",
                    );
                    return chain;
                }
            }
        }
    }

    fn report_unresolved(&mut self, user: &str, path: &str, reason: &str) {
        self.inventory
            .unresolved_chains
            .push(format!("{user} ({path}: {reason})"));
    }

    fn add_snapshots(&mut self) {
        for file in std::mem::take(&mut self.snapshots.images) {
            let (Some(name), Some(path)) = (image_name(&file), file.to_str()) else {
                continue;
            };
            let path = path.to_owned();
            let canonical = self.source.canonicalize(&file);
            let damage = self.snapshots.damages.remove(&file);
            let mut users = self.dependents.get(&canonical).cloned().unwrap_or_default();
            // A snapshot with a backing file is recorded as a user of itself, too.
            users.remove(&path);
            let dependents = users.into_iter().collect();
            let snapshot = match self.stat(&canonical) {
                Ok(image) => Snapshot {
                    name,
                    path,
                    size_bytes: image.size_bytes,
                    allocated_bytes: image.allocated_bytes,
                    modified: Timestamp::from_nanosecond(image.stamp.modified_ns).ok(),
                    facts: image.facts.as_ref().ok().cloned(),
                    problem: find_problem(image).or_else(|| {
                        let damage = damage.filter(|damage| damage.is_of(image.stamp))?;
                        Some(damage.problem)
                    }),
                    dependents,
                    file: Some(image.stamp),
                },
                // It was removed after the directory was listed.
                Err(reason) if reason.is_empty() => continue,
                Err(reason) => Snapshot {
                    name,
                    path,
                    size_bytes: 0,
                    allocated_bytes: 0,
                    modified: None,
                    facts: None,
                    problem: Some(reason.clone()),
                    dependents,
                    file: None,
                },
            };
            self.inventory.snapshots.push(snapshot);
        }
    }
}

/// Returns why an image is not a valid snapshot.
fn find_problem(image: &ImageFile) -> Option<String> {
    let facts = match &image.facts {
        Ok(facts) => facts,
        Err(reason) => return Some(reason.clone()),
    };
    match &facts.backing_file {
        Some(backing) => Some(format!("it has the backing file {backing}")),
        None if facts.has_external_data_file => Some("it has an external data file".into()),
        None if facts.corrupt => Some("it is marked corrupt".into()),
        None => None,
    }
}

enum BackingFile {
    File(String),
    /// Not a file of this host, for example an NBD export.
    Remote,
    Unknown,
}

/// Resolves the backing file name in the header of `overlay` (QEMU, docs/interop/qcow2, "backing file name": relative to
/// the overlay's directory; with the syntax of block drivers in `-drive file=`).
fn resolve(overlay: &Path, backing: &str) -> BackingFile {
    let file = |name: &str| match overlay
        .parent()
        .unwrap_or(Path::new("/"))
        .join(name)
        .to_str()
    {
        Some(path) => BackingFile::File(path.to_owned()),
        None => BackingFile::Unknown,
    };
    if let Some(json) = backing.strip_prefix("json:") {
        let Ok(json) = serde_json::from_str::<Value>(json) else {
            return BackingFile::Unknown;
        };
        let name = json
            .get("file.filename")
            .or_else(|| json.get("filename"))
            .or_else(|| json.pointer("/file/filename"));
        return name
            .and_then(Value::as_str)
            .map_or(BackingFile::Unknown, file);
    }
    if let Some(name) = backing.strip_prefix("file:") {
        return file(name);
    }
    // A protocol ends at the first colon, unless a slash precedes it.
    match backing.find([':', '/']) {
        Some(index) if backing[index..].starts_with(':') => BackingFile::Remote,
        _ => file(backing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_to_string(backing: &str) -> Option<String> {
        match resolve(Path::new("/s/o.qcow2"), backing) {
            BackingFile::File(path) => Some(path),
            BackingFile::Remote => Some("remote".into()),
            BackingFile::Unknown => None,
        }
    }

    #[test]
    fn resolves_backing_files_as_qemu_does() {
        for (backing, path) in [
            ("/b/x.qcow2", "/b/x.qcow2"),
            ("x.qcow2", "/s/x.qcow2"),
            ("../b/x.qcow2", "/s/../b/x.qcow2"),
            ("file:/b/x", "/b/x"),
            ("./a:b", "/s/./a:b"),
            ("nbd://localhost/x", "remote"),
            (
                "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"/b/x\"}}",
                "/b/x",
            ),
            ("json:{\"file.filename\":\"x\"}", "/s/x"),
        ] {
            assert_eq!(
                resolve_to_string(backing).as_deref(),
                Some(path),
                "{backing}"
            );
        }
        assert_eq!(resolve_to_string("json:{"), None);
        assert_eq!(resolve_to_string("json:{\"driver\":\"blkdebug\"}"), None);
    }
}
