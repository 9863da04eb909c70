//! What can be asked for, and what came of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Consistency, HostName, ImageIdentity, Sandbox, SandboxId, SandboxState, SnapshotName};

/// One operation, as the engine is asked for it (spec, "Push", "Pull", "Create", API reference).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Operation {
    /// Cut a snapshot from a sandbox in any state and upload it.
    Create {
        /// Where the sandbox is.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// Do not pause: best effort (spec, "Warning: Live Mode Consistency").
        live: bool,
        /// An object of that name may be replaced.
        overwrite: bool,
        /// Write the image anew, without what was deleted.
        compact: bool,
    },
    /// Upload the disk of a stopped or paused sandbox.
    Push {
        /// Where the sandbox is.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// An object of that name may be replaced.
        overwrite: bool,
        /// Write the image anew, without what was deleted.
        compact: bool,
    },
    /// Download an object to a host's snapshots directory.
    Pull {
        /// Where to.
        host: HostName,
        /// Which.
        name: SnapshotName,
        /// A valid local snapshot of that name may be replaced.
        overwrite: bool,
    },
    /// Read a snapshot or an object again and check every block of it.
    Verify {
        /// The host whose snapshot it is; `None`: the object in the bucket.
        host: Option<HostName>,
        /// Which.
        name: SnapshotName,
        /// Fetch the blocks of a snapshot that are bad.
        repair: bool,
    },
    /// Remove a snapshot from a host, from the bucket, or both.
    Remove {
        /// The host to remove it from; `None` leaves hosts alone.
        host: Option<HostName>,
        /// Which.
        name: SnapshotName,
        /// Remove the object too.
        #[serde(rename = "bucket")]
        from_bucket: bool,
        /// Only while it is this image: any other is refused.
        #[serde(rename = "only", default, skip_serializing_if = "Option::is_none")]
        expected_identity: Option<ImageIdentity>,
    },
    /// Make a sandbox on a snapshot (spec, "Using Custom Snapshots").
    #[serde(rename = "new")]
    CreateSandbox {
        /// Where.
        host: HostName,
        /// The sandbox's id.
        id: SandboxId,
        /// What it is to be.
        #[serde(rename = "form")]
        spec: SandboxSpec,
    },
    /// Do something to a sandbox.
    Sandbox {
        /// Where it is.
        host: HostName,
        /// Which.
        id: SandboxId,
        /// What.
        verb: SandboxVerb,
    },
}

/// What a new sandbox is to be. What is `None` is as `[sandbox]` of the settings has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The snapshot it stands on.
    pub snapshot: SnapshotName,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// Size of its disk, in bytes; `None`: as large as the snapshot's.
    pub storage_bytes: Option<u64>,
    /// Start it, too; where that fails there is no sandbox.
    pub start: bool,
}

/// What can be done to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SandboxVerb {
    /// Run it: from its saved state where there is one, else from its disk.
    Start,
    /// Ask its guest to shut down, by the guest agent where it answers, else by the power button (ACPI).
    Stop {
        /// How long it may take; `None`: as the settings have it.
        timeout: Option<Duration>,
        /// Cut its power when it has not obeyed by then.
        force: bool,
    },
    /// Cut its power at once: what its guest has not written is lost.
    ForceOff,
    /// Stop its CPUs; its memory stays in the host's RAM.
    Pause,
    /// Let a paused or sleeping one go on.
    Resume,
    /// Write its memory to the host's disk and end its process (managed save).
    Save,
    /// Start a saved one where it was.
    Restore,
    /// Forget its saved memory, as if its power had been cut.
    DropSaved,
    /// Remove it for good: domain, overlay, UEFI variables, saved state.
    Destroy,
}

impl SandboxVerb {
    /// The word on screen and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop { .. } => "stop",
            Self::ForceOff => "force off",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Save => "save",
            Self::Restore => "restore",
            Self::DropSaved => "drop saved",
            Self::Destroy => "destroy",
        }
    }
}

impl Operation {
    /// The operation's word: `create`, `push`, `pull`, `verify`, `remove`, `new`, or that of the sandbox's verb.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Push { .. } => "push",
            Self::Pull { .. } => "pull",
            Self::Verify { .. } => "verify",
            Self::Remove { .. } => "remove",
            Self::CreateSandbox { .. } => "new",
            Self::Sandbox { verb, .. } => verb.as_str(),
        }
    }

    /// The snapshot it is about, if any.
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Verify { name, .. }
            | Self::Remove { name, .. } => Some(name),
            Self::CreateSandbox { spec: form, .. } => Some(&form.snapshot),
            Self::Sandbox { .. } => None,
        }
    }

    /// The name of what comes of it: a snapshot's, or a sandbox's id.
    pub fn subject(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Verify { name, .. }
            | Self::Remove { name, .. } => name.as_str(),
            Self::CreateSandbox { id, .. } | Self::Sandbox { id, .. } => id.as_str(),
        }
    }

    /// The host it works on, if any.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Create { host, .. }
            | Self::Push { host, .. }
            | Self::Pull { host, .. }
            | Self::CreateSandbox { host, .. }
            | Self::Sandbox { host, .. } => Some(host),
            Self::Remove { host, .. } | Self::Verify { host, .. } => host.as_ref(),
        }
    }

    /// The sandbox it reads, makes or changes, if any.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Create { sandbox, .. } | Self::Push { sandbox, .. } => Some(sandbox),
            Self::CreateSandbox { id, .. } | Self::Sandbox { id, .. } => Some(id),
            Self::Pull { .. } | Self::Verify { .. } | Self::Remove { .. } => None,
        }
    }

    /// One line for a job: `push config-vm → myapp-v1.1`.
    pub fn title(&self) -> String {
        match self {
            Self::Create {
                sandbox,
                name,
                live: true,
                ..
            } => format!("create {sandbox} → {name} (live)"),
            Self::Create { sandbox, name, .. } => format!("create {sandbox} → {name}"),
            Self::Push { sandbox, name, .. } => format!("push {sandbox} → {name}"),
            Self::Pull { host, name, .. } => format!("pull {name} → {host}"),
            Self::Verify { host, name, repair } => {
                let place = host.as_ref().map_or("bucket", HostName::as_str);
                let verb = if *repair {
                    "verify and repair"
                } else {
                    "verify"
                };
                format!("{verb} {name} in {place}")
            }
            Self::Remove {
                host,
                name,
                from_bucket: bucket,
                ..
            } => {
                let places: Vec<&str> = host
                    .iter()
                    .map(HostName::as_str)
                    .chain(bucket.then_some("bucket"))
                    .collect();
                format!("remove {name} from {}", places.join(" and "))
            }
            Self::CreateSandbox { id, spec: form, .. } => format!("new {id} on {}", form.snapshot),
            Self::Sandbox { id, verb, .. } => format!("{} {id}", verb.as_str()),
        }
    }
}

/// How an object is made from a sandbox's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The base's bytes as they are, and behind them what the overlay changed.
    Append,
    /// All that is in use, written anew.
    Compact,
    /// By `qemu-img convert`, into a temporary file on the host.
    Convert,
    /// Of a running sandbox: composed, its disk read through QEMU's own backup while its guest goes on.
    Backup,
    /// Of a running sandbox: composed, its overlay copied while its guest stands still.
    Copy,
}

impl Method {
    /// Its word: `append`, `compact`, `convert`, `backup`, `copy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Compact => "compact",
            Self::Convert => "convert",
            Self::Backup => "backup",
            Self::Copy => "copy",
        }
    }
}

/// What it took to make an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferStats {
    /// How it was made.
    pub method: Method,
    /// Bytes that went from here to the store.
    pub uploaded_bytes: u64,
    /// Bytes that the store copied from an object it had.
    pub copied_bytes: u64,
    /// Bytes of the disk that did not have to be sent: copied ones, zeros, and what compression took away.
    pub saved_bytes: u64,
}

impl TransferStats {
    /// How the guest was kept still for so many milliseconds: `paused for 27 ms (backup)`; `None` where it was not.
    pub fn pause_summary(&self, paused_ms: u64) -> Option<String> {
        let method = self.method.as_str();
        match paused_ms {
            0 => None,
            1..1000 => Some(format!("paused for {paused_ms} ms ({method})")),
            _ => {
                let (seconds, tenths) = (paused_ms / 1000, paused_ms % 1000 / 100);
                Some(format!("paused for {seconds}.{tenths} s ({method})"))
            }
        }
    }

    /// Where the bytes came from, to stand behind an object's size as `size` tells bytes: ` (9 MiB sent, 2 GiB copied
    /// by the store)`; nothing for a disk that was sent whole.
    pub fn summary(&self, size: impl Fn(u64) -> String) -> String {
        let sent = size(self.uploaded_bytes);
        match (self.method, self.copied_bytes) {
            (Method::Convert, _) => String::new(),
            (_, 0) => format!(" ({sent} sent)"),
            (_, copied) => format!(" ({sent} sent, {} copied by the store)", size(copied)),
        }
    }
}

/// What a push would do, found out without moving anything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushPlan {
    /// The snapshot's name.
    pub snapshot_name: SnapshotName,
    /// Where it would come from.
    pub sandbox_id: SandboxId,
    /// The host of that sandbox.
    pub host: HostName,
    /// Is there an object of that name? Then the push needs `--overwrite`.
    #[serde(rename = "exists")]
    pub object_exists: bool,
    /// How it would be made.
    pub method: Method,
    /// Why so.
    pub reason: String,
    /// The snapshot the sandbox stands on.
    pub base: Option<SnapshotName>,
    /// Does the bucket hold that snapshot's bytes, as far as can be proven?
    #[serde(rename = "baseInBucket")]
    pub is_base_in_bucket: bool,
    /// Why so.
    pub base_reason: String,
    /// Bytes of the object, at most; with `convert` those the temporary file may take.
    pub size_bytes: u64,
    /// Bytes that would go to the store, at most.
    pub upload_bytes: u64,
    /// Bytes that the store would copy.
    pub copy_bytes: u64,
    /// Bytes of the object that hold what nobody can read any more.
    pub dead_bytes: u64,
}

/// What came of an operation; its JSON is what `--json` and the HTTP API answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// Spec, "Create Snapshot", response.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SnapshotCreated")]
    Created {
        /// The snapshot's name.
        name: SnapshotName,
        /// Key of the object in the bucket.
        snapshot_path: String,
        /// Bytes of the object.
        size_bytes: u64,
        /// Was it taken without a pause?
        live_mode: bool,
        /// Where it came from.
        sandbox_id: SandboxId,
        /// The host of that sandbox.
        host: HostName,
        /// How long the guest stood still, in milliseconds; 0 where it was not paused by us.
        paused_ms: u64,
        /// How sound the file systems on its disk are.
        consistency: Consistency,
        /// What was moved for it.
        #[serde(flatten)]
        transfer: TransferStats,
    },
    /// Spec, "Push Snapshot", response.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SnapshotPushed")]
    Pushed {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// Key of the object in the bucket.
        snapshot_path: String,
        /// Bytes of the object.
        size_bytes: u64,
        /// Where it came from.
        sandbox_id: SandboxId,
        /// The host of that sandbox.
        host: HostName,
        /// What was moved for it.
        #[serde(flatten)]
        transfer: TransferStats,
    },
    /// A pull that ended well.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SnapshotPulled")]
    Pulled {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// Path of the file on the host.
        snapshot_path: String,
        /// Bytes of the file.
        size_bytes: u64,
        /// The host it is on now.
        host: HostName,
        /// A valid copy was there: nothing was fetched.
        skipped: bool,
        /// A broken copy was replaced.
        repaired: bool,
        /// Bytes that came from the bucket.
        fetched_bytes: u64,
        /// Bytes that came from other snapshots of the host.
        copied_bytes: u64,
        /// Bytes that an earlier pull had left.
        resumed_bytes: u64,
    },
    /// A verification that found all well, or made it so.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SnapshotVerified")]
    Verified {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// The host whose snapshot was verified; `None` for the object.
        host: Option<HostName>,
        /// Bytes of it, all read.
        size_bytes: u64,
        /// Was there a manifest to check every block against? Without one only its structure was checked.
        has_manifest: bool,
        /// Blocks that were bad and are repaired, from 0; one has 8 MiB.
        repaired_blocks: Vec<u64>,
        /// Bytes that came from the bucket.
        fetched_bytes: u64,
    },
    /// A removal that ended well.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SnapshotRemoved")]
    Removed {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// The host it was removed from.
        host: Option<HostName>,
        /// Was the object removed?
        #[serde(rename = "bucket")]
        from_bucket: bool,
    },
    /// A sandbox was made.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SandboxCreated")]
    SandboxCreated {
        /// Its host.
        host: HostName,
        /// The sandbox as it is now.
        #[serde(flatten)]
        sandbox: Sandbox,
    },
    /// Something was done to a sandbox, or needed not be done.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "SandboxChanged")]
    SandboxChanged {
        /// Its host.
        host: HostName,
        /// The sandbox.
        id: SandboxId,
        /// What it is now; `None`: it is gone.
        state: Option<SandboxState>,
        /// Was anything done? `false`: it was so already.
        changed: bool,
    },
}
