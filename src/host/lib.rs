//! One libvirt host: its domains, its files, and commands on it.

mod address;
mod backup;
mod blocking_pool;
mod capabilities;
mod command;
mod control_dir;
mod created_files;
mod digest;
mod disk_space;
mod doctor;
mod domain;
mod domain_copy;
mod domain_files;
mod domain_xml;
mod fs;
#[cfg(test)]
mod fuzz_samples;
mod held_locks;
mod image;
mod image_file;
mod image_lock;
mod inventory;
mod leftovers;
mod libvirt;
mod load;
mod lock;
mod login;
mod login_queue;
mod login_shell;
mod org_dir;
mod peer_uid;
mod quote;
mod rate_limit;
mod reconnect;
mod sandbox;
mod scratch;
mod sftp;
mod snapshots;
mod ssh;
mod ssh_login;
mod supervisor;
mod watchdog;
mod xml;

use std::sync::Arc;
use std::time::Duration;

use self::address::Address;
use self::command::CommandRunner;
use self::fs::HostFiles;
use self::ssh::Ssh;
use snapdeck_model::settings::HostSettings;
use snapdeck_model::{Claim, Error, HostName, Kind, Result, SandboxId, SnapshotName};
use snapdeck_ownership::OwnershipRecords;

pub use backup::{Backup, Backups, Export, StaleBackup};
pub use capabilities::HostCapabilities;
pub use created_files::CreatedFiles;
pub use digest::hash_block;
pub use disk_space::DiskSpace;
pub use doctor::Doctor;
pub use domain_copy::DomainCopy;
pub use domain_xml::{DomainTemplate, find_network_device};
pub use fs::{
    BlockCopy, BlockSender, BlockState, Checksum, Content, CopySource, FileReader, FileWriter,
    HostAnswer, HostFs, PreopenedFile, PullDir, ReadFile, ResumeState, SentRange, Standby,
    WriteFile, is_without_answer,
};
pub use image::{ImageChain, ImageFormat, Images};
pub use image_file::ImageFile;
pub use image_lock::{ImageHold, ImageUser};
pub use inventory::cache::{Inventory, ScanCache};
pub use inventory::scan::HostInventory;
pub use inventory::sharing::{Directories, DirectoryId};
pub use leftovers::Leftovers;
pub use libvirt::Libvirt;
pub use load::{CpuTime, HostMemory, LoadSample};
pub use lock::{LockGuard, LockRequest, Locks};
pub use reconnect::RetryPolicy;
pub use sandbox::{
    DomainDisk, DomainFacts, FsState, SandboxFirmware, Sandboxes, Thumbnail, VncTunnel,
};
pub use scratch::ScratchDirs;
pub use snapdeck_libvirt::set_mmap_threshold;
pub use snapshots::{Snapshots, StoredManifest};
pub use watchdog::{Watchdog, Watchdogs};

/// Makes files that this process and its programs create private (umask 0077): state, logs, sockets, temporary files. What
/// others may read gets its mode explicitly.
pub fn keep_new_files_private() {
    nix::sys::stat::umask(nix::sys::stat::Mode::S_IRWXG | nix::sys::stat::Mode::S_IRWXO);
}

/// Raises the limit of open files to what the system allows, 16,384 at most: each host takes some.
pub fn raise_open_files_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let wanted = hard.min(MAX_OPEN_FILES);
    if soft < wanted {
        // Without it, few hosts work, too.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
    }
}

/// Enough for hundreds of hosts; programs that close all descriptors one by one stay quick.
const MAX_OPEN_FILES: u64 = 16 * 1024;

/// For one libvirt call that reads or changes state.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// For listing all domains and files.
const SCAN_TIMEOUT: Duration = Duration::from_secs(25);

/// A libvirt host. Cheap to clone; connects when it is first used.
///
/// The operations on it are methods of its parts: [`Host::fs`], [`Host::sandboxes`], [`Host::snapshots`] and so on.
#[derive(Clone)]
pub struct Host {
    settings: Arc<HostSettings>,
    runner: CommandRunner,
    libvirt: Libvirt,
    files: HostFiles,
    retry_policy: RetryPolicy,
    records: OwnershipRecords,
}

impl Host {
    /// Creates a handle without any I/O.
    ///
    /// # Errors
    /// `InvalidInput` for a URI or path that is not supported.
    pub fn new(settings: HostSettings) -> Result<Self> {
        let name = &settings.name;
        let address = address::parse(&settings.uri).map_err(|(cause, hint)| {
            let summary = format!("unsupported uri of host {name}: {}", settings.uri);
            Error::new(Kind::InvalidInput, summary)
                .with_cause(cause)
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
            Address::Ssh(address) => {
                Some(Ssh::new(name.clone(), *address, settings.max_bytes_per_sec))
            }
        };
        let runner = CommandRunner::new(name.clone(), ssh);
        let settings = Arc::new(settings);
        Ok(Self {
            libvirt: Libvirt::new(runner.clone(), settings.uri.clone()),
            files: HostFiles::new(settings.clone(), &runner, OwnershipRecords::in_memory()),
            runner,
            retry_policy: RetryPolicy::no_retry(),
            records: OwnershipRecords::in_memory(),
            settings,
        })
    }

    /// Returns the same host, with `records` of what snapdeck creates on it.
    pub fn with_records(self, records: OwnershipRecords) -> Self {
        Self {
            files: HostFiles::new(self.settings.clone(), &self.runner, records.clone()),
            records,
            ..self
        }
    }

    /// Returns what manifests say of digests that are only the word of this host.
    pub fn claim(&self) -> Claim {
        Claim::new(self.name(), self.records.installation())
    }

    /// Returns its name in the records of what snapdeck creates on it.
    fn location(&self) -> &str {
        &self.settings.uri
    }

    /// Returns the same host with the retry policy of a job.
    pub fn with_retry_policy(&self, policy: RetryPolicy) -> Self {
        Self {
            files: self.files.with_retry_policy(policy.clone()),
            retry_policy: policy,
            ..self.clone()
        }
    }

    /// Closes the SSH connection; the next use opens a new one.
    pub async fn disconnect(&self) {
        if let Some(ssh) = self.runner.ssh() {
            ssh.disconnect().await;
        }
    }

    /// Returns whether it is reached over SSH.
    pub fn is_remote(&self) -> bool {
        self.runner.ssh().is_some()
    }

    /// Returns libvirt's URI on the host itself.
    fn uri_on_host(&self) -> String {
        match self.runner.ssh() {
            Some(ssh) => ssh.address().uri_on_host(),
            None => self.settings.uri.clone(),
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &HostName {
        &self.settings.name
    }

    /// Returns its settings.
    pub fn settings(&self) -> &HostSettings {
        &self.settings
    }

    /// Returns the connection to libvirt: events, capabilities, load.
    pub fn libvirt(&self) -> &Libvirt {
        &self.libvirt
    }

    /// Returns its file system.
    pub fn fs(&self) -> &dyn HostFs {
        self.files.as_fs()
    }

    /// Returns the records of the files of sandboxes on it.
    pub fn created_files(&self) -> CreatedFiles<'_> {
        CreatedFiles::new(self)
    }

    /// Returns the directories of jobs on it.
    pub fn scratch_dirs(&self) -> ScratchDirs<'_> {
        ScratchDirs::new(self)
    }

    /// Returns `qemu-img` on it.
    pub fn images(&self) -> Images<'_> {
        Images::new(self)
    }

    /// Returns the scans of its domains and images.
    pub fn inventory(&self) -> Inventory<'_> {
        Inventory::new(self)
    }

    /// Returns its snapshots, with their manifests, annotations and records of damage.
    pub fn snapshots(&self) -> Snapshots<'_> {
        Snapshots::new(self)
    }

    /// Returns its sandboxes: their libvirt domains and guests.
    pub fn sandboxes(&self) -> Sandboxes<'_> {
        Sandboxes::new(self)
    }

    /// Returns the backup jobs of its running sandboxes.
    pub fn backups(&self) -> Backups<'_> {
        Backups::new(self)
    }

    /// Returns the watchdogs that clean up on it when snapdeck is killed.
    pub fn watchdogs(&self) -> Watchdogs<'_> {
        Watchdogs::new(self)
    }

    /// Returns its locks, by which the jobs of several snapdeck processes exclude each other.
    pub fn locks(&self) -> Locks<'_> {
        Locks::new(self)
    }

    /// Returns the leftovers of interrupted jobs.
    pub fn leftovers(&self) -> Leftovers<'_> {
        Leftovers::new(self)
    }

    /// Returns its health checks.
    pub fn doctor(&self) -> Doctor<'_> {
        Doctor::new(self)
    }

    /// Returns the path of a snapshot.
    pub fn snapshot_path(&self, name: &SnapshotName) -> String {
        self.in_snapshots_dir(&name.file_name())
    }

    /// Returns the path of the private directory in which a pull writes the snapshot until it is verified.
    pub fn pull_dir(&self, name: &SnapshotName) -> String {
        self.in_snapshots_dir(&name.pull_dir_name())
    }

    /// Returns the path of the private directory in which a pull writes the UEFI variables of a snapshot.
    pub fn variables_pull_dir(&self, name: &SnapshotName) -> String {
        self.in_snapshots_dir(&name.variables_pull_dir_name())
    }

    /// Returns the path of a snapshot's UEFI variables.
    pub fn snapshot_variables_path(&self, name: &SnapshotName) -> String {
        self.in_snapshots_dir(&name.variables_file_name())
    }

    fn in_snapshots_dir(&self, file_name: &str) -> String {
        format!("{}/{file_name}", self.settings.snapshots_dir)
    }

    /// Returns the path of a sandbox's overlay.
    pub fn disk_path(&self, id: &SandboxId) -> String {
        format!("{}/{}", self.settings.sandboxes_dir, id.disk_file_name())
    }

    /// Returns whether a file is in a directory for the UEFI variables of sandboxes: that of the settings, or libvirt's.
    pub fn has_variables_directory(&self, path: &str) -> bool {
        let dirs = [&*self.settings.nvram_dir, sandbox::LIBVIRT_NVRAM_DIR];
        let parent = std::path::Path::new(path).parent();
        dirs.into_iter()
            .any(|dir| parent == Some(std::path::Path::new(dir)))
    }

    /// Returns the path of the UEFI variables that other programs keep for a snapshot: `NAME_VARS.fd` among those of the
    /// sandboxes. `None` for `ORG/NAME`: no other program keeps any for one.
    pub fn base_variables_path(&self, name: &SnapshotName) -> Option<String> {
        let dir = &self.settings.nvram_dir;
        let is_plain = name.organization().is_none();
        is_plain.then(|| format!("{dir}/{}", name.variables_file_name()))
    }

    /// Returns the path of a sandbox's UEFI variables.
    pub fn variables_path(&self, id: &SandboxId) -> String {
        format!("{}/{}", self.settings.nvram_dir, id.variables_file_name())
    }
}
