//! What a host has, put together from libvirt's domains and the files in its two directories.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::Value;

use super::file_source::{self, DirListing, FileMetadataSource};
use crate::domain::{Disk, DomainSummary};
use crate::fs::RemoteFs;
use crate::image_file::ImageFile;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{
    ChainLink, Damage, Error, ForeignDomain, Kind, Result, Sandbox, SandboxId, Snapshot,
    SnapshotName,
};

/// Longest chain that is followed; libvirt itself stops at 200.
const MAX_CHAIN: usize = 200;

/// What a host has, from one look at libvirt and its two directories.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostInventory {
    /// Sandboxes by id.
    pub sandboxes: Vec<Sandbox>,
    /// Guests that are no sandboxes of ours, by name.
    pub foreign_domains: Vec<ForeignDomain>,
    /// Snapshots by name.
    pub snapshots: Vec<Snapshot>,
    /// Who else needs the overlay of a sandbox, or of what is left of one, where anybody does: ids, names, or paths
    /// of images.
    pub overlay_users: BTreeMap<SandboxId, Vec<String>>,
    /// Disks whose chain could not be followed, and why: what they stand on is not known, so no snapshot of
    /// the host may be taken from under them.
    pub unresolved_chains: Vec<String>,
    /// What else is not as it should be, a sentence each.
    pub warnings: Vec<String>,
}

/// What of the two directories is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every image.
    All,
    /// What the domains stand on, and nothing else: the snapshots, sharers and dependents are not known then.
    Chains,
}

impl Scope {
    fn restrict(self, listed: &mut [DirListing; 2]) {
        if self == Self::Chains {
            listed.iter_mut().for_each(|listed| listed.images.clear());
        }
    }
}

/// Looks at the files of this machine and puts them together with `domains`. Blocks; reads the first bytes of
/// each image.
///
/// # Errors
/// The system's, where a directory is there but cannot be listed.
pub(crate) fn scan_local(
    settings: &HostSettings,
    domains: &[DomainSummary],
    scope: Scope,
) -> io::Result<HostInventory> {
    let mut listed = [
        file_source::list_images(&settings.snapshots_dir)?,
        file_source::list_images(&settings.sandboxes_dir)?,
    ];
    scope.restrict(&mut listed);
    Ok(build_inventory(
        settings,
        &listed,
        domains,
        &mut FileMetadataSource::Local,
    ))
}

/// The same of a remote host, by a handful of commands: it lists, and then looks at what turns out to be needed,
/// one command for each step down the longest chain.
///
/// # Errors
/// The host's, where a directory is there but cannot be listed; `Unreachable`.
pub(crate) async fn scan_remote(
    files: &RemoteFs,
    settings: &HostSettings,
    domains: &[DomainSummary],
    scope: Scope,
) -> Result<HostInventory> {
    let dirs = [&*settings.snapshots_dir, &*settings.sandboxes_dir];
    let listed = files.list(&dirs).await?;
    let Ok(mut listed) = <[DirListing; 2]>::try_from(listed) else {
        return Err(Error::new(
            Kind::Failed,
            format!(
                "cannot list {} on host {}",
                dirs.join(" and "),
                settings.name
            ),
        ));
    };
    scope.restrict(&mut listed);
    let images = listed
        .iter()
        .flat_map(|listed| listed.images.iter().cloned());
    let disks = domains.iter().flat_map(|domain| &domain.disks);
    let mut wanted: BTreeSet<PathBuf> = images
        .chain(disks.map(|disk| disk.path.clone().into()))
        .collect();
    let mut seen = HashMap::new();
    let mut survey = HostInventory::default();
    for _ in 0..=MAX_CHAIN {
        let paths: Vec<PathBuf> = std::mem::take(&mut wanted).into_iter().collect();
        for (asked, found) in paths.iter().zip(files.stat_files(&paths).await?) {
            let again = match &found.file {
                Ok(file) => Ok(file.clone()),
                Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
            };
            seen.insert(found.path.clone(), (found.path.clone(), again));
            seen.insert(asked.clone(), (found.path, found.file));
        }
        let mut eyes = FileMetadataSource::Prefetched {
            metadata: seen,
            missing: BTreeSet::new(),
        };
        survey = build_inventory(settings, &listed, domains, &mut eyes);
        if scope == Scope::All {
            files.prune_header_cache(&eyes);
        }
        let FileMetadataSource::Prefetched {
            metadata: known,
            missing: missed,
        } = eyes
        else {
            break;
        };
        if missed.is_empty() {
            break;
        }
        (seen, wanted) = (known, missed);
    }
    Ok(survey)
}

fn build_inventory(
    settings: &HostSettings,
    listed: &[DirListing; 2],
    domains: &[DomainSummary],
    eyes: &mut FileMetadataSource,
) -> HostInventory {
    let [snapshots, sandboxes] = listed;
    let mut look = Scanner {
        snapshots: ImageDirectory::from_listing(snapshots),
        sandboxes: ImageDirectory::from_listing(sandboxes),
        metadata: eyes,
        stat_cache: HashMap::new(),
        dependents: BTreeMap::new(),
        inventory: HostInventory::default(),
    };
    look.add_domains(domains);
    look.follow_overlays();
    look.add_snapshots();
    look.collect_overlay_users();
    let mut survey = look.inventory;
    survey.sandboxes.sort_by(|a, b| a.id.cmp(&b.id));
    survey.foreign_domains.sort_by(|a, b| a.id.cmp(&b.id));
    survey.snapshots.sort_by(|a, b| a.name.cmp(&b.name));
    survey.warnings.extend(
        [
            (&settings.snapshots_dir, snapshots),
            (&settings.sandboxes_dir, sandboxes),
        ]
        .into_iter()
        .filter(|(_, listed)| !listed.is_present)
        .map(|(dir, _)| format!("directory {dir} does not exist on host {}", settings.name)),
    );
    survey
}

/// A directory and the images in it. One that is not there has none.
struct ImageDirectory {
    path: PathBuf,
    images: Vec<PathBuf>,
    /// What is known to be wrong with them.
    damages: HashMap<PathBuf, Damage>,
}

impl ImageDirectory {
    fn from_listing(listed: &DirListing) -> Self {
        let named = |file: &&PathBuf| image_name(file).is_some();
        let mut images: Vec<PathBuf> = listed.images.iter().filter(named).cloned().collect();
        images.sort();
        Self {
            path: listed.dir.clone(),
            images,
            damages: listed.damages.iter().cloned().collect(),
        }
    }

    fn contains(&self, file: &Path) -> bool {
        file.parent() == Some(&self.path)
    }
}

/// `NAME` of a file `NAME.qcow2`, where it is a valid name.
pub(crate) fn image_name(file: &Path) -> Option<SnapshotName> {
    let name = file.file_name().and_then(OsStr::to_str)?;
    name.ends_with(".qcow2").then(|| name.parse().ok())?
}

struct Scanner<'a> {
    snapshots: ImageDirectory,
    sandboxes: ImageDirectory,
    metadata: &'a mut FileMetadataSource,
    /// Every file is looked at once.
    stat_cache: HashMap<PathBuf, Result<ImageFile, String>>,
    /// Who needs a file: ids, names, or paths of overlays that no domain has.
    dependents: BTreeMap<PathBuf, BTreeSet<String>>,
    inventory: HostInventory,
}

impl Scanner<'_> {
    fn add_domains(&mut self, domains: &[DomainSummary]) {
        for domain in domains {
            let (mut ours, mut first) = (None, None);
            for disk in &domain.disks {
                let chain = self.follow_chain(disk, &domain.name);
                let file = self.metadata.canonicalize(Path::new(&disk.path));
                if ours.is_none() && self.sandboxes.contains(&file) {
                    ours = Some(chain);
                } else {
                    first.get_or_insert(chain);
                }
            }
            let (Some(chain), Ok(id)) = (ours, domain.name.parse()) else {
                self.inventory.foreign_domains.push(ForeignDomain {
                    id: domain.name.clone(),
                    state: domain.state,
                    cpus: domain.cpus,
                    memory_bytes: domain.memory_bytes,
                    chain: first.unwrap_or_default(),
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

    /// Notes who else stands on, or has, the overlay of a sandbox, or one that no sandbox has.
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
            let real = self.metadata.canonicalize(&file);
            let itself =
                |user: &String| user == id.as_str() || file.to_str() == Some(user.as_str());
            let users = self.dependents.get(&real).into_iter().flatten();
            let others: Vec<String> = users.filter(|user| !itself(user)).cloned().collect();
            if !others.is_empty() {
                self.inventory.overlay_users.insert(id, others);
            }
        }
    }

    /// Overlays that no domain has, and snapshots that stand on another: they need their files, too.
    fn follow_overlays(&mut self) {
        let images = [&self.sandboxes.images, &self.snapshots.images];
        let files: Vec<(PathBuf, PathBuf)> = images
            .into_iter()
            .flatten()
            .map(|file| (file.clone(), self.metadata.canonicalize(file)))
            .filter(|(_, real)| !self.dependents.contains_key(real))
            .collect();
        for (file, real) in files {
            let Some(path) = file.to_str().map(str::to_owned) else {
                continue;
            };
            let disk = Disk {
                path: path.clone(),
                format: None,
            };
            let needs_none = match self.stat(&real) {
                Ok(seen) => !matches!(&seen.facts, Ok(facts) if facts.backing_file.is_some()),
                // One that cannot be read may need any.
                Err(_) => self.snapshots.contains(&file),
            };
            if !needs_none {
                self.follow_chain(&disk, &path);
            }
        }
    }

    fn stat(&mut self, file: &Path) -> &Result<ImageFile, String> {
        let eyes = &mut *self.metadata;
        self.stat_cache.entry(file.to_owned()).or_insert_with(|| {
            eyes.stat(file).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => String::new(),
                _ => error.to_string(),
            })
        })
    }

    /// Follows a disk to its end, noting `user` at every file.
    fn follow_chain(&mut self, disk: &Disk, user: &str) -> Vec<ChainLink> {
        let mut chain = Vec::new();
        let mut path = disk.path.clone();
        let mut visited = BTreeSet::new();
        loop {
            let file = self.metadata.canonicalize(Path::new(&path));
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
            let seen = self.stat(&file).clone();
            // libvirt does not look inside a raw disk, whose bytes are the guest's.
            let raw = chain.is_empty() && disk.format.as_deref() == Some("raw");
            let facts = match &seen {
                Ok(seen) if !raw => seen.facts.as_ref().ok().cloned(),
                _ => None,
            };
            chain.push(ChainLink {
                path: path.clone(),
                snapshot,
                size_bytes: seen.as_ref().ok().map(|seen| seen.allocated_bytes),
                facts: facts.clone(),
            });
            if let Err(why) = seen.as_ref()
                && !why.is_empty()
            {
                self.report_unresolved(user, &path, why);
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

    fn report_unresolved(&mut self, user: &str, path: &str, why: &str) {
        self.inventory
            .unresolved_chains
            .push(format!("{user} ({path}: {why})"));
    }

    fn add_snapshots(&mut self) {
        for file in std::mem::take(&mut self.snapshots.images) {
            let (Some(name), Some(path)) = (image_name(&file), file.to_str()) else {
                continue;
            };
            let path = path.to_owned();
            let real = self.metadata.canonicalize(&file);
            let damage = self.snapshots.damages.remove(&file);
            let mut users = self.dependents.get(&real).cloned().unwrap_or_default();
            // A snapshot that stands on another is noted at itself, too.
            users.remove(&path);
            let dependents = users.into_iter().collect();
            let snapshot = match self.stat(&real) {
                Ok(seen) => Snapshot {
                    name,
                    path,
                    size_bytes: seen.size_bytes,
                    allocated_bytes: seen.allocated_bytes,
                    modified: Timestamp::from_nanosecond(seen.stamp.modified_ns).ok(),
                    facts: seen.facts.as_ref().ok().cloned(),
                    problem: find_problem(seen).or_else(|| {
                        let damage = damage.filter(|damage| damage.file == seen.stamp)?;
                        Some(damage.problem)
                    }),
                    dependents,
                    file: Some(seen.stamp),
                },
                // Gone since the directory was listed.
                Err(why) if why.is_empty() => continue,
                Err(why) => Snapshot {
                    name,
                    path,
                    size_bytes: 0,
                    allocated_bytes: 0,
                    modified: None,
                    facts: None,
                    problem: Some(why.clone()),
                    dependents,
                    file: None,
                },
            };
            self.inventory.snapshots.push(snapshot);
        }
    }
}

/// Why an image is not fit to be a snapshot.
fn find_problem(seen: &ImageFile) -> Option<String> {
    let facts = match &seen.facts {
        Ok(facts) => facts,
        Err(why) => return Some(why.clone()),
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
    /// On a server, say: no file of this host.
    Remote,
    Unknown,
}

/// The file that `backing` in the header of `overlay` names (QEMU, docs/interop/qcow2, "backing file name":
/// relative to the overlay's directory; block drivers' syntax as of `-drive file=`).
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
    // A protocol's name ends at the first colon, unless a slash comes before it.
    match backing.find([':', '/']) {
        Some(at) if backing[at..].starts_with(':') => BackingFile::Remote,
        _ => file(backing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve_to_string(backing: &str) -> Option<String> {
        match resolve(Path::new("/s/o.qcow2"), backing) {
            BackingFile::File(path) => Some(path),
            BackingFile::Remote => Some("elsewhere".into()),
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
            ("nbd://localhost/x", "elsewhere"),
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
