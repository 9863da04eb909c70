//! Builds the inventory of a host from libvirt's domains and the images in its two directories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::task::spawn_blocking;

use super::chain::{ChainWalker, Head, MAX_CHAIN};
use super::directory_id;
use super::file_source::{self, DirListing, FileMetadataSource, copy_error};
use super::sharing::Directories;
use super::users::{FileUsers, is_image};
use crate::disk_space::DiskSpace;
use crate::domain::DomainSummary;
use crate::domain_files::DomainFile;
use crate::fs::RemoteFs;
use crate::image_file::ImageFile;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{
    ChainLink, Damage, Error, ForeignDomain, HostLock, Kind, PartialPull, Result, Sandbox,
    SandboxId, SandboxState, Snapshot, SnapshotName, printable,
};

/// Images with foreign names that a warning names.
const MAX_NAMED: usize = 5;

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
    /// Those of them that snapdeck may not read, while other programs may: any overlay may be their base, too.
    pub unreadable_images: BTreeSet<String>,
    /// Disks whose backing chain leads back into itself. No program can open them; all their files are known.
    pub endless_chains: Vec<String>,
    /// The directories that may be shared with other hosts.
    pub directories: Directories,
    /// States of sandboxes on other hosts that use files of shared directories, by the text in `dependents`.
    pub user_states: BTreeMap<String, SandboxState>,
    /// Users of all files, those that are neither snapshots nor overlays included.
    pub(crate) users: FileUsers,
    /// Other problems, one sentence each.
    pub warnings: Vec<String>,
    /// Locks that jobs of snapdeck processes hold in the two directories, at most some of very many.
    pub locks: Vec<HostLock>,
    /// Partial files of pulls, by name, at most some of very many.
    pub partials: Vec<PartialPull>,
    /// Space of the file system of the snapshots directory; `None`: unknown.
    pub snapshots_space: Option<DiskSpace>,
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
            for dir in listings {
                dir.images.clear();
                dir.others.clear();
                dir.unlisted.clear();
            }
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
        file_source::list_snapshots(settings)?,
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
    fs: &RemoteFs,
    settings: &Arc<HostSettings>,
    domains: Arc<[DomainSummary]>,
    scope: Scope,
) -> Result<HostInventory> {
    let dirs = [&*settings.snapshots_dir, &*settings.sandboxes_dir];
    let listings = fs.list(&dirs).await?;
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
    let images = listings
        .iter()
        .flat_map(|dir| dir.images.iter().chain(&dir.others));
    let files = |domain: &DomainSummary| {
        let files = &domain.files;
        let all = files.disks.iter().chain(&files.images);
        let all = all.chain(&files.others);
        let paths = all.map(|file| PathBuf::from(&file.path));
        let with_id = paths.flat_map(|path| {
            let id = path.parent().map(|dir| dir.join(directory_id::FILE_NAME));
            [Some(path), id].into_iter().flatten()
        });
        with_id.collect::<Vec<_>>()
    };
    let mut requested: BTreeSet<PathBuf> = images
        .cloned()
        .chain(domains.iter().flat_map(files))
        .collect();
    let mut metadata = HashMap::new();
    let mut inventory = HostInventory::default();
    let listings = Arc::new(listings);
    for _ in 0..=MAX_CHAIN {
        let paths: Vec<PathBuf> = std::mem::take(&mut requested).into_iter().collect();
        for (path, status) in paths.iter().zip(fs.stat_files(&paths).await?) {
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
        let (settings, domains) = (settings.clone(), domains.clone());
        let listings = listings.clone();
        // With tens of thousands of files it takes a while.
        let build = move || {
            let inventory = build_inventory(&settings, &listings, &domains, &mut source);
            (inventory, source)
        };
        let source;
        (inventory, source) = spawn_blocking(build).await.map_err(|error| {
            Error::new(Kind::Failed, "cannot list images of a host").with_cause(error)
        })?;
        if scope == Scope::All {
            fs.prune_header_cache(&source);
        }
        match source {
            FileMetadataSource::Prefetched {
                metadata: fetched,
                missing,
            } if !missing.is_empty() => (metadata, requested) = (fetched, missing),
            _ => return Ok(inventory),
        }
    }
    let text = "some images (they need too many files)".to_owned();
    inventory.unresolved_chains.push(text);
    Ok(inventory)
}

fn build_inventory(
    settings: &HostSettings,
    [snapshots, sandboxes]: &[DirListing; 2],
    domains: &[DomainSummary],
    source: &mut FileMetadataSource,
) -> HostInventory {
    let mut scanner = Scanner {
        settings,
        snapshots: ImageDirectory::from_listing(settings, snapshots).without(&sandboxes.dir),
        sandboxes: ImageDirectory::from_listing(settings, sandboxes),
        walker: ChainWalker::new(source),
        raw_disks: BTreeSet::new(),
        inventory: HostInventory::default(),
    };
    scanner.add_domains(domains);
    scanner.follow_images();
    scanner.add_snapshots();
    scanner.collect_overlay_users();
    scanner.warn_of_foreign_names();
    scanner.read_directory_ids();
    for text in &snapshots.unlisted {
        // Their images may be based on any file.
        let inventory = &mut scanner.inventory;
        inventory.unresolved_chains.push(text.clone());
        inventory.unreadable_images.insert(text.clone());
    }
    if scanner.snapshots.path == scanner.sandboxes.path {
        let dir = settings.snapshots_dir.clone();
        let text = format!("all files in {dir}, which is also the sandboxes directory");
        scanner.inventory.unresolved_chains.push(text);
    }
    let mut inventory = scanner.inventory;
    inventory.snapshots_space = snapshots.space;
    inventory.locks = [&snapshots.locks[..], &sandboxes.locks[..]].concat();
    inventory.locks.sort_by(|a, b| a.resource.cmp(&b.resource));
    inventory.partials = snapshots.partials.clone();
    inventory.partials.sort_by(|a, b| a.name.cmp(&b.name));
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

pub(super) struct ImageDirectory {
    path: PathBuf,
    is_present: bool,
    /// Files with a valid name.
    images: Vec<PathBuf>,
    /// All other files; some may be images.
    others: Vec<PathBuf>,
    damages: HashMap<PathBuf, Damage>,
}

impl ImageDirectory {
    fn from_listing(settings: &HostSettings, listing: &DirListing) -> Self {
        let has_valid_name = |file: &PathBuf| image_name(settings, &listing.dir, file).is_some();
        let images = listing.images.iter().cloned();
        let (mut images, invalid): (Vec<PathBuf>, Vec<PathBuf>) = images.partition(has_valid_name);
        let mut others = [&invalid[..], &listing.others].concat();
        images.sort();
        others.sort();
        Self {
            path: listing.dir.clone(),
            is_present: listing.is_present,
            images,
            others,
            damages: listing.damages.iter().cloned().collect(),
        }
    }

    /// Returns it without the files of a directory in it: a link may lead from the sandboxes directory into that of the snapshots.
    fn without(mut self, dir: &Path) -> Self {
        if self.path != dir {
            self.images.retain(|file| file.parent() != Some(dir));
            self.others.retain(|file| file.parent() != Some(dir));
        }
        self
    }

    pub(super) fn contains(&self, file: &Path) -> bool {
        file.parent() == Some(&self.path)
    }
}

/// Returns the name of the snapshot with this file in the snapshots directory `dir`: `NAME.qcow2` or `ORG/NAME.qcow2`.
pub(crate) fn image_name(settings: &HostSettings, dir: &Path, file: &Path) -> Option<SnapshotName> {
    let name = file.strip_prefix(dir).ok()?.to_str()?;
    let name: SnapshotName = name.ends_with(".qcow2").then(|| name.parse().ok())??;
    let organization = name.organization();
    organization
        .is_none_or(|organization| settings.is_organization(organization))
        .then_some(name)
}

/// Returns the id of the sandbox whose overlay has this path.
pub(super) fn overlay_id(file: &Path) -> Option<SandboxId> {
    let name = file.file_name().and_then(OsStr::to_str)?;
    name.strip_suffix(".qcow2")?.parse().ok()
}

struct Scanner<'a> {
    settings: &'a HostSettings,
    snapshots: ImageDirectory,
    sandboxes: ImageDirectory,
    walker: ChainWalker<'a>,
    /// Disks that QEMU does not probe: their content is the guest's.
    raw_disks: BTreeSet<PathBuf>,
    inventory: HostInventory,
}

impl Scanner<'_> {
    fn add_domains(&mut self, domains: &[DomainSummary]) {
        for domain in domains {
            let (mut sandbox_chain, mut other_chain) = (None, None);
            for disk in &domain.files.disks {
                let chain = self.follow(&Head::of_domain(disk, true), &domain.name);
                let file = self.note_raw(disk);
                if sandbox_chain.is_none() && self.sandboxes.contains(&file) {
                    sandbox_chain = Some(chain);
                } else {
                    other_chain.get_or_insert(chain);
                }
            }
            self.add_other_files(domain);
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
                autostart: domain.has_autostart,
                chain,
                variables: domain.files.nvram_path.clone(),
            });
        }
    }

    fn follow(&mut self, head: &Head<'_>, user: &str) -> Vec<ChainLink> {
        let (settings, dir) = (self.settings, &self.snapshots.path);
        let name_of = |file: &Path| image_name(settings, dir, file);
        self.walker
            .follow(head, user, &name_of, &mut self.inventory)
    }

    /// Returns the canonical path of a disk, and notes it if QEMU does not probe it.
    fn note_raw(&mut self, disk: &DomainFile) -> PathBuf {
        let file = self.walker.canonicalize(Path::new(&disk.path));
        if disk.format.as_deref() == Some("raw") {
            self.raw_disks.insert(file.clone());
        }
        file
    }

    /// Records what a domain uses besides its disks, and the files that it may use.
    fn add_other_files(&mut self, domain: &DomainSummary) {
        let (files, user) = (&domain.files, &*domain.name);
        for image in &files.images {
            self.follow(&Head::of_domain(image, true), user);
            self.note_raw(image);
        }
        for file in &files.others {
            self.follow(&Head::of_domain(file, false), user);
        }
        if files.has_default_nvram {
            let name = format!("{}_VARS.fd", domain.name);
            for dir in [crate::sandbox::LIBVIRT_NVRAM_DIR, &self.settings.nvram_dir] {
                self.add_user(&Path::new(dir).join(&name), user);
            }
        }
        for unresolved in &files.unresolved {
            let text = format!("{user} ({})", unresolved.reason);
            if unresolved.volume.is_empty() {
                self.inventory.unreadable_images.insert(text.clone());
            }
            if !unresolved.has_known_base {
                self.inventory.unresolved_chains.push(text);
            }
            if unresolved.volume.is_empty() || unresolved.volume.contains('/') {
                continue;
            }
            for dir in [self.snapshots.path.clone(), self.sandboxes.path.clone()] {
                self.add_user(&dir.join(&unresolved.volume), user);
            }
        }
    }

    fn add_user(&mut self, path: &Path, user: &str) {
        let file = self.walker.key(path);
        self.inventory.users.insert(&file, user);
    }

    fn users(&mut self, path: &Path) -> BTreeSet<&str> {
        let file = self.walker.key(path);
        self.inventory.users.get(&file)
    }

    /// Images whose names no snapshot has are not listed. With two endings, the name from a listing, given back without one,
    /// would be another file's.
    fn warn_of_foreign_names(&mut self) {
        let host = &self.settings.name;
        let files = self.snapshots.others.iter();
        let dir = &self.snapshots.path;
        let names = files.filter_map(|file| Some(file.strip_prefix(dir).ok()?.to_string_lossy()));
        let is_hidden = |name: &str| name.split('/').any(|part| part.starts_with('.'));
        let images = names.filter(|name| name.ends_with(".qcow2") && !is_hidden(name));
        let (double, foreign): (Vec<_>, Vec<_>) =
            images.partition(|name| name.ends_with(".qcow2.qcow2"));
        let dir = self.snapshots.path.display();
        self.inventory.warnings.extend(double.iter().map(|name| {
            let path = printable(&format!("{dir}/{name}"));
            format!("{path} on host {host} is not listed: its name ends in .qcow2 twice")
        }));
        let shown: Vec<String> = foreign
            .iter()
            .take(MAX_NAMED)
            .map(|name| format!("\"{}\"", printable(name)))
            .collect();
        let more = match foreign.len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        if !shown.is_empty() {
            let shown = shown.join(", ");
            self.inventory.warnings.push(format!(
                "not listed in {dir} on host {host}: {shown}{more}; a snapshot's name has letters, digits, '.', '_' and '-' \
                 only: rename the file to use it"
            ));
        }
    }

    fn read_directory_ids(&mut self) {
        let own = [&self.snapshots, &self.sandboxes].map(|dir| (&*dir.path, dir.is_present));
        let users = &self.inventory.users;
        self.inventory.directories = Directories::read(own, users, &mut self.walker);
    }

    fn collect_overlay_users(&mut self) {
        let mut overlays: BTreeMap<SandboxId, PathBuf> = BTreeMap::new();
        for file in &self.sandboxes.images {
            overlays.extend(overlay_id(file).map(|id| (id, file.clone())));
        }
        for file in &self.sandboxes.others {
            overlays.extend(overlay_id(file).map(|id| (id, file.clone())));
        }
        for sandbox in &self.inventory.sandboxes {
            overlays.insert(
                sandbox.id.clone(),
                sandbox.disk().unwrap_or_default().into(),
            );
        }
        for (id, file) in overlays {
            let is_itself = |user: &&str| *user == id.as_str() || file.to_str() == Some(*user);
            let users = self.users(&file);
            let others = users.into_iter().filter(|user| !is_itself(user));
            let others: Vec<String> = others.map(str::to_owned).collect();
            if !others.is_empty() {
                self.inventory.overlay_users.insert(id, others);
            }
        }
    }

    /// Follows the images of both directories, whatever their names: overlays without a domain need their chains, too.
    fn follow_images(&mut self) {
        let dirs = [&self.sandboxes, &self.snapshots];
        let files = dirs
            .into_iter()
            .flat_map(|dir| dir.images.iter().chain(&dir.others));
        let files: Vec<PathBuf> = files.cloned().collect();
        for file in files {
            let canonical = self.walker.canonicalize(&file);
            if self.raw_disks.contains(&canonical) {
                continue;
            }
            let needs_others = match self.walker.stat(&canonical) {
                Ok(image) => {
                    let has_backing =
                        matches!(&image.facts, Ok(facts) if facts.backing_file.is_some());
                    let references = &image.other_references;
                    // A snapshot needs no other file: one with an unknown header is damaged.
                    let is_unknown =
                        references.unknown.is_some() && !self.snapshots.images.contains(&file);
                    has_backing || references.data_file.is_some() || is_unknown
                }
                // An image that cannot be read may have any backing file; a socket or a directory is not one.
                Err(error) => !error.is_missing() && error.kind != io::ErrorKind::InvalidInput,
            };
            if !needs_others {
                continue;
            }
            // An overlay of a domain may have another name there, which a relative backing file is relative to.
            let users = self.users(&file);
            let domains = users.into_iter().filter(|user| !is_image(user));
            let mut users: Vec<String> = domains.map(str::to_owned).collect();
            if users.is_empty() {
                users.push(file.to_string_lossy().into_owned());
            }
            for user in users {
                self.follow(&Head::in_directory(&file), &user);
            }
        }
    }

    fn add_snapshots(&mut self) {
        for file in std::mem::take(&mut self.snapshots.images) {
            let name = image_name(self.settings, &self.snapshots.path, &file);
            let (Some(name), Some(path)) = (name, file.to_str()) else {
                continue;
            };
            let path = path.to_owned();
            let canonical = self.walker.canonicalize(&file);
            let damage = self.snapshots.damages.remove(&file);
            // A snapshot with a backing file is recorded as a user of itself, too.
            let users = self.users(&file).into_iter().filter(|user| *user != path);
            let dependents: Vec<String> = users.map(str::to_owned).collect();
            let snapshot = match self.walker.stat(&canonical) {
                Ok(image) => Snapshot {
                    name,
                    path,
                    size_bytes: image.size_bytes,
                    allocated_bytes: image.allocated_bytes,
                    modified: Timestamp::from_nanosecond(image.stamp.modified_ns).ok(),
                    facts: image.facts.as_ref().ok().cloned(),
                    problem: find_problem(image).or_else(|| {
                        let damage = damage.filter(|damage| damage.is_of(image.stamp))?;
                        Some(printable(&damage.problem))
                    }),
                    dependents,
                    file: Some(image.stamp),
                },
                // It was removed after the directory was listed.
                Err(error) if error.is_missing() => continue,
                Err(error) => Snapshot {
                    name,
                    path,
                    size_bytes: 0,
                    allocated_bytes: 0,
                    modified: None,
                    facts: None,
                    problem: Some(printable(&error.message)),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::inventory::file_source::tests::reads;
    use snapdeck_model::settings::TransferRoute;

    /// Writes the header of an overlay (QEMU, docs/interop/qcow2).
    fn write_overlay(path: &Path, backing: &Path) {
        let name = backing.to_str().unwrap().as_bytes();
        let mut header = vec![0; 112 + name.len()];
        header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
        header[8..16].copy_from_slice(&112_u64.to_be_bytes());
        header[16..20].copy_from_slice(&(name.len() as u32).to_be_bytes());
        header[20..24].copy_from_slice(&16_u32.to_be_bytes());
        header[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
        header[96..100].copy_from_slice(&4_u32.to_be_bytes());
        header[100..104].copy_from_slice(&104_u32.to_be_bytes());
        header[112..].copy_from_slice(name);
        std::fs::write(path, header).unwrap();
    }

    #[test]
    fn overlays_based_on_each_other_are_read_once() {
        const COUNT: usize = 500;
        let dir = tempfile::tempdir().unwrap();
        let [snapshots, sandboxes] = ["snapshots", "sandboxes"].map(|name| dir.path().join(name));
        std::fs::create_dir(&snapshots).unwrap();
        std::fs::create_dir(&sandboxes).unwrap();
        let base = snapshots.join("base.qcow2");
        write_overlay(&base, Path::new(""));
        let path = |number: usize| match number {
            0 => base.clone(),
            _ => sandboxes.join(format!("o{number}.qcow2")),
        };
        for number in 1..=COUNT {
            write_overlay(&path(number), &path(number - 1));
        }
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let settings = HostSettings {
            name: "alpha".parse().unwrap(),
            uri: "qemu:///system".into(),
            snapshots_dir: text(&snapshots),
            sandboxes_dir: text(&sandboxes),
            nvram_dir: "/n".into(),
            owner: "0:0".into(),
            temp_dir: "/t".into(),
            reconnect_timeout: Default::default(),
            running_methods: Vec::new(),
            transfer: TransferRoute::Relay,
            bucket_endpoint: None,
            unattended: std::time::Duration::ZERO,
            max_bytes_per_sec: 0,
            organizations: vec!["acme".into(), "other".into()],
        };
        let before = reads();
        let inventory = scan_local(&settings, &[], Scope::All).unwrap();
        let reads = reads() - before;
        assert!(reads <= 2 * (COUNT + 10), "{reads} reads of {COUNT} files");
        // The chains that are followed to their end.
        assert_eq!(inventory.snapshots[0].dependents.len(), MAX_CHAIN - 1);
        let first: SandboxId = "o1".parse().unwrap();
        assert_eq!(inventory.overlay_users[&first].len(), MAX_CHAIN - 1);
        assert_eq!(inventory.unresolved_chains.len(), COUNT + 1 - MAX_CHAIN);
    }
}
