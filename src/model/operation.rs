//! What can be asked for, and what came of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HostName, Sandbox, SandboxId, SandboxState, SnapshotName};

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
    /// Remove a snapshot from a host, from the bucket, or both.
    Remove {
        /// The host to remove it from; `None` leaves hosts alone.
        host: Option<HostName>,
        /// Which.
        name: SnapshotName,
        /// Remove the object too.
        bucket: bool,
    },
    /// Make a sandbox on a snapshot (spec, "Using Custom Snapshots").
    New {
        /// Where.
        host: HostName,
        /// The sandbox's id.
        id: SandboxId,
        /// What it is to be.
        form: SandboxForm,
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
pub struct SandboxForm {
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
    /// The operation's word: `create`, `push`, `pull`, `remove`, `new`, or that of the sandbox's verb.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Push { .. } => "push",
            Self::Pull { .. } => "pull",
            Self::Remove { .. } => "remove",
            Self::New { .. } => "new",
            Self::Sandbox { verb, .. } => verb.as_str(),
        }
    }

    /// The snapshot it is about, if any.
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Remove { name, .. } => Some(name),
            Self::New { form, .. } => Some(&form.snapshot),
            Self::Sandbox { .. } => None,
        }
    }

    /// The name of what comes of it: a snapshot's, or a sandbox's id.
    pub fn subject(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Remove { name, .. } => name.as_str(),
            Self::New { id, .. } | Self::Sandbox { id, .. } => id.as_str(),
        }
    }

    /// The host it works on, if any.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Create { host, .. }
            | Self::Push { host, .. }
            | Self::Pull { host, .. }
            | Self::New { host, .. }
            | Self::Sandbox { host, .. } => Some(host),
            Self::Remove { host, .. } => host.as_ref(),
        }
    }

    /// The sandbox it reads, makes or changes, if any.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Create { sandbox, .. } | Self::Push { sandbox, .. } => Some(sandbox),
            Self::New { id, .. } | Self::Sandbox { id, .. } => Some(id),
            Self::Pull { .. } | Self::Remove { .. } => None,
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
            Self::Remove { host, name, bucket } => {
                let places: Vec<&str> = host
                    .iter()
                    .map(HostName::as_str)
                    .chain(bucket.then_some("bucket"))
                    .collect();
                format!("remove {name} from {}", places.join(" and "))
            }
            Self::New { id, form, .. } => format!("new {id} on {}", form.snapshot),
            Self::Sandbox { id, verb, .. } => format!("{} {id}", verb.as_str()),
        }
    }
}

/// What came of an operation; its JSON is what `--json` and the HTTP API answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Outcome {
    /// Spec, "Create Snapshot", response.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Created")]
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
    },
    /// Spec, "Push Snapshot", response.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Pushed")]
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
    },
    /// A pull that ended well.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Pulled")]
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
    },
    /// A removal that ended well.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Removed")]
    Removed {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// The host it was removed from.
        host: Option<HostName>,
        /// Was the object removed?
        bucket: bool,
    },
    /// A sandbox was made.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Made")]
    Made {
        /// Its host.
        host: HostName,
        /// The sandbox as it is now.
        #[serde(flatten)]
        sandbox: Sandbox,
    },
    /// Something was done to a sandbox, or needed not be done.
    #[serde(rename_all = "camelCase")]
    #[schema(title = "Turned")]
    Turned {
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
