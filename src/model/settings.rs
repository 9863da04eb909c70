//! Settings as plain structs. `snapdeck_settings` fills them from files, environment and flags.

use std::time::Duration;

use super::{HostName, Method};

/// All settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The hosts, at least one, names unique.
    pub hosts: Vec<HostSettings>,
    /// The bucket.
    pub bucket: BucketSettings,
    /// How objects are made from disks.
    pub push: PushSettings,
    /// How sandboxes are run.
    pub sandbox: SandboxSettings,
    /// How jobs are run.
    pub jobs: JobSettings,
    /// The console's.
    pub console: ConsoleSettings,
}

/// One libvirt host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Its name on screen and in `--host`.
    pub name: HostName,
    /// libvirt URI, as the user wrote it.
    pub uri: String,
    /// Directory of the snapshots, absolute.
    pub snapshots_dir: String,
    /// Directory of the sandboxes' overlays, absolute.
    pub sandboxes_dir: String,
    /// Directory of the sandboxes' UEFI variables, absolute.
    pub nvram_dir: String,
    /// `user:group` that snapshots belong to.
    pub owner: String,
    /// Directory for flattened images on their way to the bucket, absolute.
    pub temp_dir: String,
    /// How long a job waits for the host when it is away.
    pub reconnect_timeout: Duration,
    /// How the disk of a running sandbox is read, the first that works: [`Method::Backup`], [`Method::Copy`] and
    /// [`Method::Convert`].
    pub running_methods: Vec<Method>,
}

/// The S3-compatible bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct BucketSettings {
    /// Its name; `None` until it is configured: everything about hosts works without.
    pub name: Option<String>,
    /// What every key begins with, `snapshots/` for instance; empty or ending in `/`.
    pub prefix: String,
    /// Endpoint URL of a store other than AWS; addressed by path style.
    pub endpoint: Option<String>,
    /// Region; `None`: as the AWS chain finds it, else us-east-1.
    pub region: Option<String>,
    /// Key pair; `None`: the AWS chain (environment, profiles, SSO, instance roles).
    pub credentials: Option<Credentials>,
}

/// An access key pair. Its `Debug` shows no secret.
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

impl std::fmt::Debug for BucketSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BucketSettings")
            .field("name", &self.name)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("credentials", &self.credentials)
            .finish()
    }
}

/// `[push]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushSettings {
    /// Are clusters that are written anew compressed (zstd)? QEMU before 5.1 cannot read them then.
    pub zstd_enabled: bool,
}

/// How a sandbox's guest is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    /// KVM where a guest really runs under it, else QEMU's emulation.
    Auto,
    /// KVM only.
    Kvm,
    /// QEMU's emulation (TCG).
    Qemu,
}

/// What a sandbox boots with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// UEFI with secure boot, which the variables of the guest may leave off.
    SecureUefi,
    /// UEFI without secure boot.
    Uefi,
    /// A legacy BIOS.
    Bios,
}

/// What a sandbox is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// Nothing.
    None,
    /// A network of the host's libvirt.
    Libvirt(String),
    /// A bridge of the host.
    Bridge(String),
}

/// `[sandbox]`: how sandboxes are made and run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxSettings {
    /// Acceleration.
    pub accel: Accel,
    /// Virtual CPUs of a new one.
    pub cpus: u32,
    /// Memory of a new one, in bytes.
    pub memory_bytes: u64,
    /// What a new one boots with.
    pub firmware: Firmware,
    /// What a new one is connected to.
    pub network: Network,
    /// libvirt's XML of a new one, with placeholders (see `config/sandbox.xml`).
    pub template: String,
    /// How long a guest that is told to stop may take.
    pub stop_timeout: Duration,
}

/// `[jobs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobSettings {
    /// Jobs that run at once; the others wait in their order.
    pub max_parallel: usize,
}

/// `[console]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleSettings {
    /// Does the console take clicks and the wheel?
    pub mouse_enabled: bool,
    /// How a guest's screen is shown.
    pub picture: PictureStyle,
    /// The command that opens a VNC viewer, with `{url}` or `{host}` and `{port}` in it; `None`: one that is installed.
    pub viewer: Option<String>,
    /// The theme's name; `None`: as the background is, dark or light.
    pub theme: Option<String>,
    /// Is everything drawn with ASCII characters?
    pub ascii_only: bool,
    /// How the end of a long job is told.
    pub notification: NotificationMethod,
    /// A job is long from here on.
    pub notification_threshold: Duration,
}

/// How the end of a long job is told to an operator who looks elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationMethod {
    /// By the terminal's bell.
    Bell,
    /// By a notification of the terminal (OSC 9), with a bell for those that know none.
    Notification,
    /// Not at all.
    Off,
}

/// How a terminal shows a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PictureStyle {
    /// As its name says it can.
    Auto,
    /// kitty's graphics protocol.
    Kitty,
    /// Sixel.
    Sixel,
    /// Two coloured halves a cell: everywhere.
    Blocks,
    /// Not at all.
    Off,
}
