//! Scans of a host, complete or with cached domains.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::directory_id;
use super::scan::{self, HostInventory, Scope};
use super::sharing::DirectoryId;
use super::users::FileKey;
use crate::domain::{self, DomainSummary};
use crate::fs::HostFiles;
use crate::{CALL_TIMEOUT, Host, SCAN_TIMEOUT};
use snapdeck_model::Result;

/// Domains are listed again after this time even without an event: libvirt sends none when a saved state is discarded or a
/// guest fails to start.
const CACHE_TTL: Duration = Duration::from_secs(120);

/// Result of the last scan.
pub struct ScanCache {
    /// libvirt's event count before the domains were listed.
    event_count: u64,
    fetched_at: Instant,
    domains: Arc<[DomainSummary]>,
    inventory: HostInventory,
}

/// Scans of a host.
#[derive(Clone, Copy)]
pub struct Inventory<'a> {
    host: &'a Host,
}

impl<'a> Inventory<'a> {
    pub(crate) fn new(host: &'a Host) -> Self {
        Self { host }
    }
}

impl Inventory<'_> {
    /// Lists libvirt's domains and the two directories, and reads the header of each image.
    ///
    /// Runs no command on this machine, and a handful on another, however many files there are.
    ///
    /// # Errors
    /// `Unreachable` if libvirt does not answer or a directory cannot be listed.
    pub async fn scan(self) -> Result<HostInventory> {
        let scan = || async {
            self.scan_with_domains(self.list_domains().await?, Scope::All)
                .await
        };
        self.host.retry_policy.call(scan).await
    }

    /// As [`Inventory::scan`], for repeated scans: libvirt is queried only after an event, a change of the files, or two
    /// minutes.
    ///
    /// The result may be out of date: do not decide by it whether an operation is allowed. `cache` belongs to the caller;
    /// without one, everything is scanned.
    ///
    /// # Errors
    /// As [`Inventory::scan`]; the cache is empty then.
    pub async fn scan_cached(self, cache: &mut Option<ScanCache>) -> Result<HostInventory> {
        let is_fresh = |cache: &ScanCache| {
            self.host.libvirt.event_count() == Some(cache.event_count)
                && cache.fetched_at.elapsed() < CACHE_TTL
        };
        let mut with_cached_domains = None;
        if let Some(mut cached) = cache.take().filter(is_fresh) {
            let inventory = self
                .scan_with_domains(cached.domains.clone(), Scope::All)
                .await?;
            // They change all the time, and say nothing about domains.
            cached.inventory.locks.clone_from(&inventory.locks);
            cached.inventory.partials.clone_from(&inventory.partials);
            cached.inventory.snapshots_space = inventory.snapshots_space;
            if inventory == cached.inventory && is_fresh(&cached) {
                *cache = Some(cached);
                return Ok(inventory);
            }
            with_cached_domains = Some((cached.domains, inventory));
        }
        // Before the domains are listed: the list may lack a change that is reported meanwhile.
        let (event_count, fetched_at) = (self.host.libvirt.event_count(), Instant::now());
        let domains = self.list_domains().await?;
        let inventory = match with_cached_domains {
            Some((cached, inventory)) if cached == domains => inventory,
            _ => self.scan_with_domains(domains.clone(), Scope::All).await?,
        };
        *cache = event_count.map(|event_count| ScanCache {
            event_count,
            fetched_at,
            domains,
            inventory: inventory.clone(),
        });
        Ok(inventory)
    }

    /// Creates the ids of the two directories, by which hosts that share one are found; existing ones are kept.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn ensure_directory_ids(self) -> Result<()> {
        let settings = &self.host.settings;
        for dir in [&settings.snapshots_dir, &settings.sandboxes_dir] {
            directory_id::ensure(self.host.fs(), dir).await?;
        }
        Ok(())
    }

    /// Returns the ids of the two directories, by their canonical paths; one without an id is left out.
    ///
    /// # Errors
    /// An I/O error; `Unreachable`.
    pub async fn directory_ids(self) -> Result<BTreeMap<PathBuf, DirectoryId>> {
        let settings = &self.host.settings;
        let dirs = [&*settings.snapshots_dir, &*settings.sandboxes_dir];
        let canonical = self.host.fs().canonicalize(&dirs).await?;
        let mut ids = BTreeMap::new();
        for (dir, path) in dirs.into_iter().zip(canonical) {
            let file = format!("{dir}/{}", directory_id::FILE_NAME);
            if let Some(file) = self.host.fs().image_file(&file).await?
                && let Some(id) = file.directory_id
            {
                let inode = file.stamp.inode;
                ids.insert(path, DirectoryId { id, inode });
            }
        }
        Ok(ids)
    }

    /// Returns the users of a file, whether it exists or not.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn users_of(self, inventory: &HostInventory, path: &str) -> Result<BTreeSet<String>> {
        let fs = self.host.fs();
        let canonical = fs.canonicalize(&[path]).await?.pop();
        let file = fs.image_file(path).await?;
        let key = FileKey {
            path: canonical.unwrap_or_else(|| path.into()),
            id: file.map(|file| file.id()),
        };
        let users = inventory.users.get(&key).into_iter();
        Ok(users.map(str::to_owned).collect())
    }

    async fn list_domains(self) -> Result<Arc<[DomainSummary]>> {
        let libvirt = &self.host.libvirt;
        let domains = libvirt.call("list sandboxes", CALL_TIMEOUT, domain::list);
        Ok(domains.await?.into())
    }

    /// Combines domains with the images of their chains.
    pub(crate) async fn scan_with_domains(
        self,
        domains: Arc<[DomainSummary]>,
        scope: Scope,
    ) -> Result<HostInventory> {
        match &self.host.files {
            HostFiles::Local(files) => {
                let settings = self.host.settings.clone();
                let scan = move || scan::scan_local(&settings, &domains, scope);
                files.run("list images".into(), SCAN_TIMEOUT, scan).await
            }
            HostFiles::Remote(files) => {
                scan::scan_remote(files, &self.host.settings, domains, scope).await
            }
        }
    }
}
