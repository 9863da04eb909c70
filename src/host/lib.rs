//! One libvirt host: its domains, its files, and commands on it.

mod address;
mod annotations;
mod backup;
mod blocking_pool;
mod capabilities;
mod command;
mod digest;
mod doctor;
mod domain;
mod domain_xml;
mod fs;
mod guest;
mod image;
mod image_file;
mod inventory;
mod leftovers;
mod libvirt;
mod lock;
mod quote;
mod reconnect;
mod sandbox;
mod screen;
mod sftp;
mod ssh;
mod stats;
mod tunnel;
mod watchdog;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OnceCell, watch};
use tokio_util::sync::CancellationToken;

use self::address::Address;
use self::command::CommandRunner;
use self::fs::{HostFs, LocalFs, RemoteFs};
use self::libvirt::Libvirt;
use self::ssh::Ssh;
use self::watchdog::{GuardedPause, WatchdogConfig};
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{
    Damage, Error, HostName, Kind, MAX_MANIFEST_BYTES, Manifest, ProgressCell, Result, SandboxId,
    SnapshotName,
};

pub use backup::{Backup, Export, StaleBackup};
pub use capabilities::{HostCapabilities, HostMemory};
pub use digest::hash_block;
pub use domain_xml::DomainTemplate;
pub use fs::{BlockCopy, BlockState, Content, CopySource, FileReader, FileWriter, PreopenedFile};
pub use image_file::ImageFile;
pub use inventory::cache::ScanCache;
pub use inventory::scan::HostInventory;
pub use lock::{LockGuard, LockRequest};
pub use reconnect::RetryPolicy;
pub use snapdeck_libvirt::set_mmap_threshold;
pub use tunnel::VncTunnel;
pub use watchdog::Watchdog;

/// For a call that asks or tells libvirt something.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For listing all domains and files.
const SCAN_TIMEOUT: Duration = Duration::from_secs(25);

/// Longest note of damage that is read.
const MAX_DAMAGE_BYTES: u64 = 64 << 10;

/// A manifest beside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredManifest {
    /// It.
    pub manifest: Manifest,
    /// Is the file known to hold these bytes: unchanged since it was proven, and no damage known?
    pub is_verified: bool,
}

/// A host. Cheap to clone; nothing is opened until it is used.
#[derive(Clone)]
pub struct Host {
    settings: Arc<HostSettings>,
    runner: CommandRunner,
    libvirt: Libvirt,
    fs: HostFs,
    retry_policy: RetryPolicy,
    /// Does a guest really run under KVM there? Found out once.
    kvm_usable: Arc<OnceCell<bool>>,
}

impl Host {
    /// A handle for `settings`. No I/O.
    ///
    /// # Errors
    /// `InvalidInput` where the URI or a path is none this version can serve.
    pub fn new(settings: HostSettings) -> Result<Self> {
        let name = &settings.name;
        let address = address::parse(&settings.uri).map_err(|(why, hint)| {
            let what = format!("unsupported uri of host {name}: {}", settings.uri);
            Error::new(Kind::InvalidInput, what)
                .with_cause(why)
                .hint(hint)
        })?;
        let texts = [
            &settings.uri,
            &settings.snapshots_dir,
            &settings.sandboxes_dir,
            &settings.temp_dir,
        ];
        if let Some(text) = texts
            .into_iter()
            .find(|text| text.chars().any(char::is_control))
        {
            return Err(Error::new(
                Kind::InvalidInput,
                format!("{text:?} of host {name} has control characters"),
            ));
        }
        let ssh = match address {
            Address::Local => None,
            Address::Ssh(address) => Some(Ssh::new(name.clone(), *address)),
        };
        let place = CommandRunner::new(name.clone(), ssh);
        Ok(Self {
            libvirt: Libvirt::new(place.clone(), settings.uri.clone()),
            fs: match place.ssh() {
                None => HostFs::Local(LocalFs::new(name.clone())),
                Some(_) => HostFs::Remote(RemoteFs::new(place.clone())),
            },
            runner: place,
            retry_policy: RetryPolicy::no_retry(),
            kvm_usable: Arc::default(),
            settings: Arc::new(settings),
        })
    }

    /// The same host, for a job that waits for it while it is away.
    pub fn with_retry_policy(&self, patience: RetryPolicy) -> Self {
        Self {
            fs: self.fs.with_retry_policy(patience.clone()),
            retry_policy: patience,
            ..self.clone()
        }
    }

    /// Ends the connection to it, where it is a remote one; using it again makes a new one.
    pub async fn disconnect(&self) {
        if let Some(ssh) = self.runner.ssh() {
            ssh.disconnect().await;
        }
    }

    /// Is it another machine?
    pub fn is_remote(&self) -> bool {
        self.runner.ssh().is_some()
    }

    /// Its name.
    pub fn name(&self) -> &HostName {
        &self.settings.name
    }

    /// Its settings.
    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// A counter that moves whenever libvirt told of a change or the connection was lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.libvirt.changes()
    }

    /// Was the connection that tells of changes lost, and is there no other yet?
    pub fn is_connection_lost(&self) -> bool {
        self.libvirt.is_connection_lost()
    }

    /// Path of a snapshot.
    pub fn snapshot_path(&self, name: &SnapshotName) -> String {
        format!("{}/{}", self.settings.snapshots_dir, name.file_name())
    }

    /// Path a pull of the snapshot writes under until the image is proven.
    pub fn partial_path(&self, name: &SnapshotName) -> String {
        format!(
            "{}/{}",
            self.settings.snapshots_dir,
            name.partial_file_name()
        )
    }

    fn manifest_path(&self, name: &SnapshotName) -> String {
        format!(
            "{}/{}",
            self.settings.snapshots_dir,
            name.manifest_file_name()
        )
    }

    fn damage_path(&self, name: &SnapshotName) -> String {
        format!(
            "{}/{}",
            self.settings.snapshots_dir,
            name.damage_file_name()
        )
    }

    /// The manifest of a snapshot, where one stands beside the file, is this file's, and no damage is known; any other
    /// is ignored.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn manifest(&self, name: &SnapshotName) -> Result<Option<Manifest>> {
        let kept = self.stored_manifest(name).await?;
        Ok(kept
            .filter(|kept| kept.is_verified)
            .map(|kept| kept.manifest))
    }

    /// The manifest that stands beside a snapshot, whatever became of the file; `None` where there is neither.
    ///
    /// # Errors
    /// As [`Host::manifest`].
    pub async fn stored_manifest(&self, name: &SnapshotName) -> Result<Option<StoredManifest>> {
        let path = self.manifest_path(name);
        // One byte more tells that it is longer.
        let Some(json) = self.fs.read_file(&path, MAX_MANIFEST_BYTES + 1).await? else {
            return Ok(None);
        };
        let manifest = match Manifest::read(&json) {
            Ok(manifest) => manifest,
            Err(error) => {
                tracing::debug!("{path} on host {} is ignored: {error}", self.name());
                return Ok(None);
            }
        };
        let Some(file) = self.image_file(&self.snapshot_path(name)).await? else {
            return Ok(None);
        };
        let is_damaged = match manifest.matches_file(file.stamp) {
            true => self
                .damage(name)
                .await?
                .is_some_and(|known| known.file == file.stamp),
            false => true,
        };
        Ok(Some(StoredManifest {
            manifest,
            is_verified: !is_damaged,
        }))
    }

    /// What is known to be wrong with a snapshot, or was with an earlier file of its name.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn damage(&self, name: &SnapshotName) -> Result<Option<Damage>> {
        let path = self.damage_path(name);
        let json = self.fs.read_file(&path, MAX_DAMAGE_BYTES).await?;
        Ok(json.and_then(|json| serde_json::from_slice(&json).ok()))
    }

    /// Keeps, beside a snapshot, what is wrong with it, or that nothing is any more.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn record_damage(&self, name: &SnapshotName, damage: Option<&Damage>) -> Result<()> {
        let path = self.damage_path(name);
        let Some(damage) = damage else {
            return self.fs.remove_file(&path).await.map(|_| ());
        };
        let json = serde_json::to_vec(damage).map_err(|error| {
            Error::new(Kind::Failed, format!("cannot write {path}")).with_cause(error)
        })?;
        self.fs.write_file(&path, &self.settings.owner, json).await
    }

    /// The snapshots whose files are there, sound or not.
    ///
    /// # Errors
    /// `Unreachable` where the directory may not be listed.
    pub async fn snapshot_names(&self) -> Result<Vec<SnapshotName>> {
        let dir = self.settings.snapshots_dir.clone();
        let listed = match &self.fs {
            HostFs::Local(files) => {
                let what = format!("list {dir}");
                vec![
                    files
                        .run(what, SCAN_TIMEOUT, move || {
                            inventory::file_source::list_images(&dir)
                        })
                        .await?,
                ]
            }
            HostFs::Remote(files) => files.list(&[&dir]).await?,
        };
        let images = listed.iter().flat_map(|listed| &listed.images);
        let mut names: Vec<SnapshotName> = images
            .filter_map(|file| inventory::scan::image_name(file))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Reads and hashes whole blocks of a file, on the host; each is told as it is done. Their numbers stay.
    ///
    /// # Errors
    /// The system's; `Cancelled`; `Unreachable`.
    pub async fn hash_blocks(
        &self,
        path: &str,
        pieces: &[BlockCopy],
        told: &UnboundedSender<(BlockCopy, BlockState)>,
        cancel: &CancellationToken,
    ) -> Result<()> {
        self.fs.hash(path, pieces, told, cancel).await
    }

    /// Writes a manifest beside the snapshot it names, in the place of any other; whole or not at all. What was said of
    /// the snapshot there stays said.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn write_manifest(&self, manifest: Manifest) -> Result<()> {
        let path = self.manifest_path(&manifest.name);
        let there = self.annotations(&manifest.name).await?.unwrap_or_default();
        let json = manifest.with_existing_annotations(there).write()?;
        self.fs.write_file(&path, &self.settings.owner, json).await
    }

    /// Removes a snapshot and, after it, its manifest; returns whether the snapshot was there.
    ///
    /// # Errors
    /// The system's; `Unreachable`.
    pub async fn remove_snapshot(&self, name: &SnapshotName) -> Result<bool> {
        let removed = self.fs.remove_file(&self.snapshot_path(name)).await?;
        self.fs.remove_file(&self.manifest_path(name)).await?;
        self.fs.remove_file(&self.damage_path(name)).await?;
        Ok(removed)
    }

    /// Looks at one file; `None` where there is no such file.
    ///
    /// # Errors
    /// `Unreachable` where it may not be read; `Failed` for what is no regular file.
    pub async fn image_file(&self, path: &str) -> Result<Option<ImageFile>> {
        self.fs.image_file(path).await
    }

    /// Is there such a file?
    ///
    /// # Errors
    /// As [`Host::image_file`].
    pub async fn has_file(&self, path: &str) -> Result<bool> {
        Ok(self.image_file(path).await?.is_some())
    }

    /// Opens a file for reads at offsets.
    ///
    /// # Errors
    /// The system's, as of [`Host::image_file`].
    pub async fn open_reader(&self, path: &str) -> Result<FileReader> {
        self.fs.open_reader(path).await
    }

    /// Opens a file that somebody else writes, for a moment to come.
    pub async fn preopen(&self, path: &str) -> PreopenedFile {
        self.fs.preopen(path).await
    }

    /// Creates a file for writes at offsets, or takes up one that an earlier writer of the same content left:
    /// mode 0600, of the host's `owner`, as long as the content, locked until the writer is dropped.
    ///
    /// # Errors
    /// `Unsupported`, with nothing touched, where another process is writing that very file.
    pub async fn open_writer(&self, path: &str, content: &Content) -> Result<FileWriter> {
        let owner = &self.settings.owner;
        self.fs.open_writer(path, owner, content).await
    }

    /// Opens a snapshot to write over what is bad in it. No QEMU has it open meanwhile.
    ///
    /// # Errors
    /// `Unsupported` where one has, or another process is at it; the system's.
    pub async fn open_for_repair(&self, path: &str) -> Result<FileWriter> {
        self.fs.open_for_repair(path).await
    }

    /// Makes a fresh private directory (0700) under the host's `temp_dir`.
    ///
    /// # Errors
    /// The system's.
    pub async fn make_temp_dir(&self) -> Result<String> {
        self.fs.make_temp_dir(&self.settings.temp_dir).await
    }

    /// Removes a directory made by [`Host::make_temp_dir`], with what is in it; a missing one is fine.
    ///
    /// # Errors
    /// `Failed` for any other directory; the system's.
    pub async fn remove_temp_dir(&self, path: &str) -> Result<()> {
        self.fs.remove_temp_dir(path).await
    }

    /// Removes a file; returns whether it was there.
    ///
    /// # Errors
    /// The system's.
    pub async fn remove_file(&self, path: &str) -> Result<bool> {
        self.fs.remove_file(path).await
    }

    /// Bytes free for us at a directory.
    ///
    /// # Errors
    /// The system's.
    pub async fn free_bytes(&self, dir: &str) -> Result<u64> {
        self.fs.free_bytes(dir).await
    }

    /// Bytes a flattened copy of `disk` may take (`qemu-img measure`); `shared` while QEMU holds the disk.
    ///
    /// # Errors
    /// `Failed` with qemu-img's words.
    pub async fn measure(&self, disk: &str, shared: bool) -> Result<u64> {
        self.retry_policy
            .call(|| image::measure(&self.runner, disk, shared))
            .await
    }

    /// Flattens `disk` into the new file `target` (`qemu-img convert`); `shared` while QEMU holds the disk;
    /// progress counts to `expected_bytes`, as measured. qemu-img has ended when this returns.
    ///
    /// # Errors
    /// `Cancelled`; `NoSpace`; `Failed` with qemu-img's words.
    pub async fn convert(
        &self,
        disk: &str,
        target: &str,
        shared: bool,
        expected_bytes: u64,
        progress: &ProgressCell,
        cancel: &CancellationToken,
    ) -> Result<()> {
        image::convert(
            &self.runner,
            disk,
            target,
            shared,
            expected_bytes,
            progress,
            cancel,
        )
        .await
    }

    /// Is the image consistent (`qemu-img check`)? `Some` with a warning where it has leaked clusters only.
    ///
    /// # Errors
    /// `Damaged` where it is not; `Cancelled`; `Failed` where that could not be found out.
    pub async fn check(&self, path: &str, cancel: &CancellationToken) -> Result<Option<String>> {
        self.retry_policy
            .call(|| image::check(&self.runner, path, cancel))
            .await
    }

    /// Posts a guard over a directory made by [`Host::make_temp_dir`].
    ///
    /// # Errors
    /// `Failed` where it does not come up.
    pub async fn spawn_dir_watchdog(&self, temp_dir: &str) -> Result<Watchdog> {
        let duty = self.watchdog_config(temp_dir, None);
        self.retry_policy
            .call(|| Watchdog::spawn(&self.runner, duty.clone()))
            .await
    }

    /// Posts a guard over the coming pause of a sandbox, whose disk is copied to a directory made by
    /// [`Host::make_temp_dir`]; `None` for a guest of the embedded driver, which is out of any other process's
    /// reach.
    ///
    /// # Errors
    /// `Failed` where it does not come up: nothing may be paused then.
    pub async fn spawn_pause_watchdog(
        &self,
        id: &SandboxId,
        temp_dir: &str,
    ) -> Result<Option<Watchdog>> {
        self.spawn_watchdog(id, temp_dir, false, false).await
    }

    /// As [`Host::spawn_pause_watchdog`], over a backup and the directory it goes to; the guard removes that, too. With `thaw` the
    /// sandbox's file systems are brought to rest before.
    ///
    /// # Errors
    /// As [`Host::spawn_pause_watchdog`].
    pub async fn spawn_backup_watchdog(
        &self,
        id: &SandboxId,
        dir: &str,
        thaw: bool,
    ) -> Result<Option<Watchdog>> {
        self.spawn_watchdog(id, dir, true, thaw).await
    }

    async fn spawn_watchdog(
        &self,
        id: &SandboxId,
        dir: &str,
        backup: bool,
        thaw: bool,
    ) -> Result<Option<Watchdog>> {
        let uri = match self.runner.ssh() {
            Some(ssh) => ssh.address().uri_on_host(),
            None => self.settings.uri.clone(),
        };
        if uri.starts_with("qemu:///embed") {
            return Ok(None);
        }
        let pause = GuardedPause {
            uri,
            id: id.clone(),
            is_backup: backup,
            has_frozen_fs: thaw,
        };
        let duty = self.watchdog_config(dir, Some(pause));
        Watchdog::spawn(&self.runner, duty).await.map(Some)
    }

    fn watchdog_config(&self, dir: &str, pause: Option<GuardedPause>) -> WatchdogConfig {
        WatchdogConfig {
            dir: dir.to_owned(),
            pause,
            grace: self.settings.reconnect_timeout,
        }
    }
}
