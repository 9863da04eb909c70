//! Settings as plain structs, filled by `snapdeck_settings` from files, environment and flags.

use std::path::{Component, Path};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{ContentProof, HostName, Method, is_organization};

/// All settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hosts: at least one, with unique names.
    pub hosts: Vec<HostSettings>,
    /// The bucket.
    pub bucket: BucketSettings,
    /// `[push]`.
    pub push: PushSettings,
    /// `[pull]`.
    pub pull: PullSettings,
    /// `[sandbox]`.
    pub sandbox: SandboxSettings,
    /// `[jobs]`.
    pub jobs: JobSettings,
    /// `[console]`.
    pub console: ConsoleSettings,
}

/// A libvirt host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Name on screen and in `--host`.
    pub name: HostName,
    /// libvirt URI.
    pub uri: String,
    /// Directory of the snapshots, absolute.
    pub snapshots_dir: String,
    /// Directory of the sandboxes' overlays, absolute.
    pub sandboxes_dir: String,
    /// Directory of the sandboxes' UEFI variables, absolute.
    pub nvram_dir: String,
    /// Owner of snapshots as `user:group`.
    pub owner: String,
    /// Directory for converted images before their upload, absolute.
    pub temp_dir: String,
    /// Time that a job waits for an unreachable host.
    pub reconnect_timeout: Duration,
    /// Methods to read the disk of a running sandbox, of which the first that works is used: [`Method::Backup`],
    /// [`Method::Copy`] and [`Method::Convert`].
    pub running_methods: Vec<Method>,
    /// The way of what a pull downloads to a remote host and an upload sends from it.
    pub transfer: TransferRoute,
    /// URL of the store for the host itself; `None`: that of the bucket.
    pub bucket_endpoint: Option<String>,
    /// Time for which the host continues a direct download when snapdeck is gone; zero: not at all.
    pub unattended: Duration,
    /// Bytes per second that transfers of images move to and from a remote host at most, all jobs together; 0: no limit.
    pub max_bytes_per_sec: u64,
    /// Directories in that of the snapshots which have snapshots `ORG/NAME`.
    pub organizations: Vec<String>,
}

impl HostSettings {
    /// Returns whether `name` is the directory of snapshots `NAME/...` in the snapshots directory: not if another directory of the
    /// settings is that one, or in it.
    pub fn is_organization(&self, name: &str) -> bool {
        let path = Path::new(&self.snapshots_dir).join(name);
        let others = [&self.sandboxes_dir, &self.nvram_dir, &self.temp_dir];
        let is_known = self.organizations.iter().any(|known| known == name);
        is_known
            && is_organization(name)
            && !others.iter().any(|dir| Path::new(dir).starts_with(&path))
    }

    /// Splits the path of a file in the directory of an organization in the snapshots directory into both names; `None` for any
    /// other path. Empty parts and `.` do not count, as for the kernel.
    pub fn split_organization<'a>(&self, path: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = Path::new(path).strip_prefix(&self.snapshots_dir).ok()?;
        let mut parts = rest.components();
        let [
            Some(Component::Normal(organization)),
            Some(Component::Normal(name)),
            None,
        ] = std::array::from_fn(|_| parts.next())
        else {
            return None;
        };
        let (organization, name) = (organization.to_str()?, name.to_str()?);
        // What ends with a slash is not a file.
        (path.ends_with(name) && self.is_organization(organization)).then_some((organization, name))
    }
}

/// The way of an image's bytes between the bucket and a remote host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferRoute {
    /// Direct where the host can, the rest through this machine.
    Auto,
    /// Direct only: what the host cannot move fails the job.
    Direct,
    /// Through this machine.
    #[default]
    Relay,
}

/// The S3-compatible bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Name; `None`: not configured. Everything else works without a bucket.
    pub name: Option<String>,
    /// Prefix of every key, such as `snapshots/`; empty or ending in `/`.
    pub prefix: String,
    /// Folders under the prefix that have snapshots `ORG/NAME`.
    pub organizations: Vec<String>,
    /// Endpoint URL of a store other than AWS, which is addressed in path style.
    pub endpoint: Option<String>,
    /// Region; `None`: that of the AWS chain, else us-east-1.
    pub region: Option<String>,
    /// Profile of the AWS files for the AWS chain; `None`: that of the chain itself.
    pub profile: Option<String>,
    /// Key pair; `None`: the AWS chain (environment, profiles, SSO, instance roles).
    pub credentials: Option<Credentials>,
    /// Checksums by which the store may show that an object without a manifest is a host's file.
    pub trusted_checksums: TrustedChecksums,
    /// Properties of new objects in the store.
    pub storage: ObjectStorage,
}

/// Properties of new objects in the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ObjectStorage {
    /// Encryption by the store.
    pub encryption: Encryption,
    /// Storage class of images and UEFI variables; `None`: that of the store.
    pub class: Option<String>,
    /// Whether the old versions of what is removed are deleted, too.
    pub deletes_versions: bool,
}

/// Encryption of new objects by the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// As the bucket is set up.
    #[default]
    Bucket,
    /// With keys of the store (SSE-S3).
    S3,
    /// With a key of the key management service (SSE-KMS).
    Kms {
        /// ID, alias or ARN of the key; `None`: the account's default key for S3.
        key: Option<String>,
    },
}

impl Encryption {
    /// Parses `bucket`, `s3`, `kms` or `kms:KEY`; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let is_key = |key: &str| {
            let mut bytes = key.bytes();
            !key.is_empty() && bytes.all(|c| c.is_ascii_alphanumeric() || b"-_:/".contains(&c))
        };
        match (text, text.strip_prefix("kms:")) {
            ("bucket", _) => Some(Self::Bucket),
            ("s3", _) => Some(Self::S3),
            ("kms", _) => Some(Self::Kms { key: None }),
            (_, Some(key)) if is_key(key) => Some(Self::Kms {
                key: Some(key.to_owned()),
            }),
            _ => None,
        }
    }
}

/// Checksums of a store that prove the content of an object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrustedChecksums {
    /// SHA-256, CRC64NVME and MD5.
    #[default]
    Any,
    /// SHA-256 alone: with the others, another image can be made on purpose.
    Sha256,
}

impl TrustedChecksums {
    /// Returns whether this kind of proof suffices.
    pub fn accepts(self, proof: ContentProof) -> bool {
        self == Self::Any || proof.is_collision_resistant()
    }
}

/// An access key pair. `Debug` does not show the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// `[push]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushSettings {
    /// Whether rewritten clusters are compressed with zstd, which QEMU before 5.1 cannot read.
    pub zstd_enabled: bool,
}

/// `[pull]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullSettings {
    /// Whether blocks whose extents are shared with another snapshot are read and checked, too.
    pub check_shared_blocks: bool,
}

/// Acceleration of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Accel {
    /// KVM if a probe guest runs with it, else emulation.
    Auto,
    /// KVM only.
    Kvm,
    /// Emulation (TCG).
    Qemu,
}

/// Firmware of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Firmware {
    /// UEFI with secure boot, which the variables may disable.
    SecureUefi,
    /// UEFI without secure boot.
    Uefi,
    /// Legacy BIOS.
    Bios,
}

/// Network of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// No network.
    None,
    /// A network of the host's libvirt.
    Libvirt(String),
    /// A bridge of the host.
    Bridge(String),
}

impl Network {
    /// Parses `none`, `bridge:NAME` or the name of a libvirt network; `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        let name = text.strip_prefix("bridge:").unwrap_or(text);
        let is_name = !name.is_empty()
            && !name
                .chars()
                .any(|c| c == '/' || c.is_whitespace() || c.is_control());
        match text.strip_prefix("bridge:") {
            _ if !is_name => None,
            Some(bridge) => Some(Self::Bridge(bridge.to_owned())),
            None if text == "none" => Some(Self::None),
            None => Some(Self::Libvirt(text.to_owned())),
        }
    }
}

/// `[sandbox]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Acceleration.
    pub accel: Accel,
    /// Virtual CPUs of a new sandbox.
    pub cpus: u32,
    /// Memory of a new sandbox in bytes.
    pub memory_bytes: u64,
    /// Firmware of a new sandbox.
    pub firmware: Firmware,
    /// Network of a new sandbox.
    pub network: Network,
    /// Domain XML of a new sandbox with placeholders (see `config/sandbox.xml`).
    pub template: String,
    /// Time that a guest may take to shut down.
    pub stop_timeout: Duration,
}

/// `[jobs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// Number of jobs that run at the same time; the others are queued.
    pub max_parallel: usize,
}

/// `[console]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// Whether the console uses the mouse.
    pub mouse_enabled: bool,
    /// Method to show the screen of a guest.
    pub picture: PictureStyle,
    /// Command that opens a VNC viewer, with `{url}`, or `{host}` and `{port}`; `None`: an installed one.
    pub viewer: Option<String>,
    /// Name of the theme; `None`: dark or light, by the terminal's background.
    pub theme: Option<String>,
    /// Whether only ASCII characters are drawn.
    pub ascii_only: bool,
    /// The columns of the lists.
    pub columns: ListColumns,
    /// Signal at the end of a long job.
    pub notification: NotificationMethod,
    /// Duration from which a job counts as long.
    pub notification_threshold: Duration,
}

/// Columns of the list of sandboxes that can be chosen.
pub const SANDBOX_COLUMNS: &[&str] = &["state", "base", "overlay", "cpu", "mem"];
/// Columns of the list of snapshots that can be chosen.
pub const SNAPSHOT_COLUMNS: &[&str] = &["size", "used", "bucket", "modified"];
/// Columns of the list of objects that can be chosen.
pub const BUCKET_COLUMNS: &[&str] = &["size", "on-host", "uploaded"];

/// The columns of the console's lists, in their order; `None`: all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListColumns {
    /// Of [`SANDBOX_COLUMNS`].
    pub sandboxes: Option<Vec<String>>,
    /// Of [`SNAPSHOT_COLUMNS`].
    pub snapshots: Option<Vec<String>>,
    /// Of [`BUCKET_COLUMNS`].
    pub bucket: Option<Vec<String>>,
}

/// Signal at the end of a long job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotificationMethod {
    /// The terminal's bell.
    Bell,
    /// A notification of the terminal (OSC 9) with a bell for terminals without it.
    Notification,
    /// None.
    Off,
}

/// Method to draw the screen of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PictureStyle {
    /// By the terminal's name.
    Auto,
    /// Graphics protocol of kitty.
    Kitty,
    /// Sixel.
    Sixel,
    /// Two pixels a cell, in every terminal.
    Blocks,
    /// None.
    Off,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_files_one_level_below_the_snapshots_are_those_of_an_organization() {
        let settings = HostSettings {
            name: "alpha".parse().unwrap(),
            uri: "qemu:///system".into(),
            snapshots_dir: "/s".into(),
            sandboxes_dir: "/s/boxes".into(),
            nvram_dir: "/n".into(),
            owner: "0:0".into(),
            temp_dir: "/s/tmp/deep".into(),
            reconnect_timeout: Duration::ZERO,
            running_methods: Vec::new(),
            transfer: TransferRoute::Relay,
            bucket_endpoint: None,
            unattended: Duration::ZERO,
            max_bytes_per_sec: 0,
            organizations: vec!["acme".into(), "tmp".into()],
        };
        let split = |path| settings.split_organization(path);
        for path in [
            "/s/acme/app.qcow2",
            "/./s/acme/app.qcow2",
            "//s/.//./acme//app.qcow2",
        ] {
            assert_eq!(split(path), Some(("acme", "app.qcow2")), "{path}");
        }
        for other in [
            "/s/app.qcow2",
            "/s/.app.qcow2.pull/partial",
            "/s/../app.qcow2",
            "/s/../s/acme/app.qcow2",
            "/s/acme/..",
            "/s/acme/",
            "/s/acme/app.qcow2/",
            "/s/acme/app.qcow2/.",
            "/s/acme/deep/app.qcow2",
            "/s/app.qcow2/x",
            "/sx/acme/app.qcow2",
            "/other/acme/app.qcow2",
            "partial",
            // Other directories of the host.
            "/s/boxes/web.qcow2",
            "/s/tmp/app.qcow2",
        ] {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
