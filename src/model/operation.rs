//! What can be asked for, and what came of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{HostName, SandboxId, SnapshotName};

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
}

impl Operation {
    /// The operation's word: `create`, `push`, `pull`, `remove`.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Push { .. } => "push",
            Self::Pull { .. } => "pull",
            Self::Remove { .. } => "remove",
        }
    }

    /// The snapshot's name it is about.
    pub fn snapshot(&self) -> &SnapshotName {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Remove { name, .. } => name,
        }
    }

    /// The host it works on, if any.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Create { host, .. } | Self::Push { host, .. } | Self::Pull { host, .. } => {
                Some(host)
            }
            Self::Remove { host, .. } => host.as_ref(),
        }
    }

    /// The sandbox it reads, if any.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Create { sandbox, .. } | Self::Push { sandbox, .. } => Some(sandbox),
            _ => None,
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
        }
    }
}

/// What came of an operation; its JSON is what `--json` and the HTTP API answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Spec, "Create Snapshot", response.
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
    Removed {
        /// The snapshot's name.
        snapshot_name: SnapshotName,
        /// The host it was removed from.
        host: Option<HostName>,
        /// Was the object removed?
        bucket: bool,
    },
}
