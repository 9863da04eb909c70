//! All configured hosts: a file in a directory that several of them share has users on each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use futures_util::future::{join, join_all};
use serde::{Deserialize, Serialize};

use snapdeck_host::{DirectoryId, Host, HostInventory};
use snapdeck_model::{Error, HostName, Kind, Result};

/// Maximum length of the file of known directories.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// All configured hosts, and the directories that each was seen to use.
#[derive(Default)]
pub struct SharingHosts {
    hosts: Vec<Host>,
    /// File of [`KnownDirectories`].
    file: OnceLock<PathBuf>,
    known: Mutex<KnownDirectories>,
}

/// Ids of the directories of each host. They tell whether a host that does not answer may use a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
struct KnownDirectories {
    hosts: BTreeMap<HostName, KnownHost>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownHost {
    uri: String,
    /// The paths of its directories; those of other settings say nothing of the present ones.
    #[serde(default)]
    paths: Vec<String>,
    directories: BTreeSet<DirectoryId>,
}

/// A directory of a host that another host has, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SharedDirectory {
    /// Both hosts use the same directory.
    Shared {
        /// Path on this host.
        path: PathBuf,
        /// The other host.
        host: HostName,
    },
    /// It was copied with its id.
    Copied {
        /// Path on this host.
        path: PathBuf,
        /// The other host.
        host: HostName,
    },
}

impl SharingHosts {
    /// Creates the set of `hosts`. Without I/O.
    pub fn new(hosts: Vec<Host>) -> Self {
        Self {
            hosts,
            ..Self::default()
        }
    }

    /// Returns all hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Sets the file in which the directories of the hosts are kept between runs. One that cannot be read is replaced.
    pub fn remember_in(&self, file: &Path) {
        let is_short = |file: &Path| {
            let metadata = std::fs::metadata(file);
            metadata.is_ok_and(|metadata| metadata.len() <= MAX_FILE_BYTES)
        };
        if self.file.set(file.to_owned()).is_ok()
            && is_short(file)
            && let Ok(json) = std::fs::read(file)
            && let Ok(known) = serde_json::from_slice(&json)
        {
            *self.known.lock().unwrap_or_else(PoisonError::into_inner) = known;
        }
    }

    /// Scans a host, with the users that the files in its directories have on all hosts.
    ///
    /// # Errors
    /// Those of a scan; `Unreachable` also if another host that may use the files does not answer.
    pub async fn scan(&self, host: &Host) -> Result<HostInventory> {
        let (own, unknown) = self.scan_with_others(host).await?;
        match unknown.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(own),
        }
    }

    /// As [`SharingHosts::scan`], without the users on hosts that do not answer.
    ///
    /// # Errors
    /// Those of a scan.
    pub async fn scan_reachable(&self, host: &Host) -> Result<HostInventory> {
        self.scan_with_others(host).await.map(|(own, _)| own)
    }

    /// Returns the inventory, and an error for each host that may use the files and does not answer.
    async fn scan_with_others(&self, host: &Host) -> Result<(HostInventory, Vec<Error>)> {
        let others: Vec<&Host> = self.others(host).collect();
        if others.is_empty() {
            return Ok((host.inventory().scan().await?, Vec::new()));
        }
        let failures = self.ensure_ids().await;
        let scans = others.iter().map(|other| other.inventory().scan());
        let (own, scans) = join(host.inventory().scan(), join_all(scans)).await;
        let own = own?;
        self.remember(host, &own);
        let (mut merged, mut unknown) = (own.clone(), Vec::new());
        unknown.extend(missing_id_error(host, &own, &failures));
        for (other, scan) in others.into_iter().zip(scans) {
            match scan {
                Ok(theirs) => {
                    self.remember(other, &theirs);
                    unknown.extend(missing_id_error(other, &theirs, &failures));
                    merged.add_users_of(other.name(), &theirs, is_same_libvirt(host, other));
                }
                Err(error) => unknown.extend(self.possible_user_error(host, &own, other, error)),
            }
        }
        self.write_known();
        Ok((merged, unknown))
    }

    /// Scans all hosts as [`SharingHosts::scan`] does. A host that does not answer, and may use the files of another, is an
    /// unresolved chain there.
    pub async fn scan_all(&self) -> Vec<(HostName, Result<HostInventory>)> {
        let failures = match self.hosts.len() {
            0 | 1 => HashMap::new(),
            _ => self.ensure_ids().await,
        };
        let scans = self.hosts.iter().map(|host| host.inventory().scan());
        let scans = join_all(scans).await;
        for (host, scan) in self.hosts.iter().zip(&scans) {
            if let Ok(inventory) = scan {
                self.remember(host, inventory);
            }
        }
        self.write_known();
        let merge = |(index, own): (usize, &Result<HostInventory>)| {
            let host = &self.hosts[index];
            let merged = own.clone().map(|mut merged| {
                let is_single = self.hosts.len() == 1;
                let unknown = missing_id_error(host, &merged, &failures).filter(|_| !is_single);
                let text = |error: Error| format!("other hosts ({error})");
                merged.unresolved_chains.extend(unknown.map(text));
                let others = self.hosts.iter().zip(&scans).enumerate();
                for (_, (other, scan)) in others.filter(|(other, _)| *other != index) {
                    match (scan, own) {
                        (Ok(theirs), _) => {
                            let is_same = is_same_libvirt(host, other);
                            merged.add_users_of(other.name(), theirs, is_same);
                        }
                        (Err(error), Ok(own)) => {
                            let unknown = self.possible_user_error(host, own, other, error.clone());
                            let text = |_| format!("host {} ({error})", other.name());
                            merged.unresolved_chains.extend(unknown.map(text));
                        }
                        (Err(_), Err(_)) => {}
                    }
                }
                merged
            });
            (host.name().clone(), merged)
        };
        scans.iter().enumerate().map(merge).collect()
    }

    /// Returns the directories of a host that other hosts share, and those that are copies.
    ///
    /// # Errors
    /// An I/O error of the host; `Unreachable`.
    pub async fn shared_directories(&self, host: &Host) -> Result<Vec<SharedDirectory>> {
        let others: Vec<&Host> = self.others(host).collect();
        if others.is_empty() {
            return Ok(Vec::new());
        }
        self.ensure_ids().await;
        let reads = others.iter().map(|other| other.inventory().directory_ids());
        let (own, reads) = join(host.inventory().directory_ids(), join_all(reads)).await;
        let own = own?;
        let mut found = Vec::new();
        for (other, theirs) in others.into_iter().zip(reads) {
            let theirs = theirs.map_or_else(
                |_| self.known(other),
                |ids| Some(ids.into_values().collect()),
            );
            for their_id in theirs.into_iter().flatten() {
                let same = own.iter().filter(|(_, id)| id.id == their_id.id);
                for (path, id) in same {
                    let (path, name) = (path.clone(), other.name().clone());
                    found.push(match id.inode == their_id.inode {
                        true => SharedDirectory::Shared { path, host: name },
                        false => SharedDirectory::Copied { path, host: name },
                    });
                }
            }
        }
        found.dedup();
        Ok(found)
    }

    /// Creates the ids of the directories of all hosts; returns why one could not.
    async fn ensure_ids(&self) -> HashMap<HostName, Error> {
        let ensure = self.hosts.iter().map(async |host| {
            let result = host.inventory().ensure_directory_ids().await;
            result.err().map(|error| (host.name().clone(), error))
        });
        join_all(ensure).await.into_iter().flatten().collect()
    }

    fn others(&self, host: &Host) -> impl Iterator<Item = &Host> {
        let name = host.name().clone();
        self.hosts.iter().filter(move |other| *other.name() != name)
    }

    /// Returns an error if a host that does not answer may use the files of `host`: if it shares a directory, or was never
    /// seen.
    fn possible_user_error(
        &self,
        host: &Host,
        own: &HostInventory,
        other: &Host,
        error: Error,
    ) -> Option<Error> {
        let (host, name) = (host.name(), other.name());
        let cause = match self.known(other) {
            None => format!("it may share the directories of host {host}"),
            Some(ids) => match own.directories.find_shared(&ids) {
                None => return None,
                Some(dir) => format!("it shares {} of host {host}", dir.display()),
            },
        };
        let summary = format!("cannot determine which files host {name} uses");
        let error = Error::new(Kind::Unreachable, summary)
            .with_cause(format!("{cause}, and does not answer: {error}"))
            .hint(format!(
                "make host {name} reachable, or remove it from the settings if it no longer exists"
            ))
            .retryable();
        Some(error)
    }

    fn known(&self, host: &Host) -> Option<BTreeSet<DirectoryId>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = known.hosts.get(host.name());
        let same = entry.filter(|entry| {
            entry.uri == host.settings().uri && entry.paths == directory_paths(host)
        });
        same.map(|entry| entry.directories.clone())
    }

    fn remember(&self, host: &Host, inventory: &HostInventory) {
        if inventory.directories.without_id().is_some() {
            return;
        }
        let entry = KnownHost {
            uri: host.settings().uri.clone(),
            paths: directory_paths(host),
            directories: inventory.directories.ids(),
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.hosts.insert(host.name().clone(), entry);
    }

    /// Writes the known directories. A failure only means that they are unknown to the next run.
    fn write_known(&self) {
        let Some(file) = self.file.get() else { return };
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.clone();
        let is_unchanged = std::fs::read(file).is_ok_and(|json| {
            serde_json::from_slice(&json).is_ok_and(|old: KnownDirectories| old == known)
        });
        if is_unchanged {
            return;
        }
        let write = || {
            let dir = file.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(dir)?;
            let mut new = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut new, &known)?;
            new.persist(file).map_err(|error| error.error)?;
            Ok::<(), std::io::Error>(())
        };
        if let Err(error) = write() {
            tracing::debug!("cannot write {}: {error}", file.display());
        }
    }
}

/// Returns an error if a directory of the host has no valid id: then nothing tells which hosts share it.
///
/// A read-only directory needs none: nothing in it can be removed.
fn missing_id_error(
    host: &Host,
    inventory: &HostInventory,
    failures: &HashMap<HostName, Error>,
) -> Option<Error> {
    let dir = inventory.directories.without_id()?.display();
    let failure = failures.get(host.name()).map(Error::message);
    if failure
        .as_deref()
        .is_some_and(|text| text.contains("Read-only file system"))
    {
        return None;
    }
    let summary = format!(
        "cannot determine which hosts share {dir} of host {}",
        host.name()
    );
    let invalid = || format!("{dir}/.snapdeck-directory-id is not valid");
    let error = Error::new(Kind::Conflict, summary)
        .with_cause(failure.map_or_else(invalid, |text| text.to_string()))
        .hint(format!(
            "free space in {dir}, or remove .snapdeck-directory-id there if it is damaged: a new one is created"
        ));
    Some(error)
}

fn directory_paths(host: &Host) -> Vec<String> {
    let settings = host.settings();
    vec![
        settings.snapshots_dir.clone(),
        settings.sandboxes_dir.clone(),
    ]
}

/// Returns whether two hosts of the settings are the same libvirt.
fn is_same_libvirt(a: &Host, b: &Host) -> bool {
    a.settings().uri == b.settings().uri
}
