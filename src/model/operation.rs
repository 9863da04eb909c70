//! Operations that can be requested, and their outcomes.

use serde::{Deserialize, Serialize};

use super::{
    Consistency, HostName, ImageIdentity, Sandbox, SandboxId, SandboxState, SandboxVerb,
    SnapshotName, VerbKind,
};

/// An operation; in the journal of jobs it is stored as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Operation {
    /// Create a snapshot of a sandbox in any state and upload it.
    Create {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// Read the disk without a pause; the result may be inconsistent.
        live: bool,
        /// Replace an object of that name.
        overwrite: bool,
        /// Rewrite the whole image without deleted data.
        compact: bool,
    },
    /// Upload the disk of a stopped or paused sandbox.
    Push {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        sandbox: SandboxId,
        /// Name of the new object.
        name: SnapshotName,
        /// Replace an object of that name.
        overwrite: bool,
        /// Rewrite the whole image without deleted data.
        compact: bool,
    },
    /// Download an object to a host's snapshots directory.
    Pull {
        /// Host that receives the snapshot.
        host: HostName,
        /// Name of the object.
        name: SnapshotName,
        /// Replace a valid snapshot of that name on the host.
        overwrite: bool,
    },
    /// Upload a snapshot of a host as an object of the same name.
    Upload {
        /// Host of the snapshot.
        host: HostName,
        /// Name of the snapshot.
        name: SnapshotName,
        /// Replace an object of that name.
        overwrite: bool,
    },
    /// Copy a snapshot of one host to another, without the bucket.
    Copy {
        /// Host that has the snapshot.
        from: HostName,
        /// Host that receives it.
        host: HostName,
        /// Name of the snapshot.
        name: SnapshotName,
        /// Replace a valid snapshot of that name on the host.
        overwrite: bool,
    },
    /// Read a snapshot or an object and check every block.
    Verify {
        /// Host of the snapshot; `None`: the object in the bucket.
        host: Option<HostName>,
        /// Name of the snapshot.
        name: SnapshotName,
        /// Fetch bad blocks of a host's snapshot from the bucket.
        repair: bool,
    },
    /// Record the digests of a snapshot or an object that has no manifest.
    Adopt {
        /// Host of the snapshot; `None`: the object in the bucket.
        host: Option<HostName>,
        /// Name of the snapshot.
        name: SnapshotName,
    },
    /// Remove a snapshot from a host, from the bucket, or both.
    Remove {
        /// Host to remove it from, if any.
        host: Option<HostName>,
        /// Name of the snapshot.
        name: SnapshotName,
        /// Remove the object too.
        #[serde(rename = "bucket")]
        from_bucket: bool,
        /// Refuse the removal of any other image.
        #[serde(rename = "only", default, skip_serializing_if = "Option::is_none")]
        expected_identity: Option<ImageIdentity>,
    },
    /// Create a sandbox based on a snapshot.
    #[serde(rename = "new")]
    CreateSandbox {
        /// Host of the new sandbox.
        host: HostName,
        /// Id of the new sandbox.
        id: SandboxId,
        /// Properties of the new sandbox.
        #[serde(rename = "form")]
        spec: SandboxSpec,
    },
    /// Give a sandbox another id.
    #[serde(rename = "rename")]
    RenameSandbox {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        id: SandboxId,
        /// The new id.
        new_id: SandboxId,
    },
    /// Create a sandbox with the settings and a copy of the disk of another.
    #[serde(rename = "clone")]
    CloneSandbox {
        /// Host of both.
        host: HostName,
        /// The sandbox that is copied.
        id: SandboxId,
        /// Id of the new sandbox.
        new_id: SandboxId,
        /// Start it; if that fails, the new sandbox is removed again.
        start: bool,
    },
    /// Apply a verb to a sandbox.
    Sandbox {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        id: SandboxId,
        /// The verb.
        verb: SandboxVerb,
    },
}

/// Properties of a new sandbox; `[sandbox]` of the settings fills in `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The snapshot it is based on.
    pub snapshot: SnapshotName,
    /// Virtual CPUs.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Size of the disk in bytes; `None`: that of the snapshot.
    pub storage_bytes: Option<u64>,
    /// Start it; if that fails, the sandbox is removed again.
    pub start: bool,
    /// No network, whatever the settings say.
    #[serde(default)]
    pub block_network: bool,
    /// Accept a sandbox of that id with the same properties, and leave it as it is.
    #[serde(default)]
    pub accept_existing: bool,
}

impl Operation {
    /// Returns the operation's word: `create`, `push`, `pull`, `upload`, `copy`, `verify`, `adopt`, `remove`, `new`, or
    /// the name of the verb.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Push { .. } => "push",
            Self::Pull { .. } => "pull",
            Self::Upload { .. } => "upload",
            Self::Copy { .. } => "copy",
            Self::Verify { .. } => "verify",
            Self::Adopt { .. } => "adopt",
            Self::Remove { .. } => "remove",
            Self::CreateSandbox { .. } => "new",
            Self::RenameSandbox { .. } => VerbKind::Rename.as_str(),
            Self::CloneSandbox { .. } => VerbKind::Clone.as_str(),
            Self::Sandbox { verb, .. } => verb.as_str(),
        }
    }

    /// Returns the snapshot that it reads, writes or removes, if any.
    pub fn snapshot(&self) -> Option<&SnapshotName> {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Upload { name, .. }
            | Self::Copy { name, .. }
            | Self::Verify { name, .. }
            | Self::Adopt { name, .. }
            | Self::Remove { name, .. } => Some(name),
            Self::CreateSandbox { spec, .. } => Some(&spec.snapshot),
            Self::RenameSandbox { .. } | Self::CloneSandbox { .. } | Self::Sandbox { .. } => None,
        }
    }

    /// Returns the name of its result: a snapshot's, or a sandbox's id.
    pub fn subject(&self) -> &str {
        match self {
            Self::Create { name, .. }
            | Self::Push { name, .. }
            | Self::Pull { name, .. }
            | Self::Upload { name, .. }
            | Self::Copy { name, .. }
            | Self::Verify { name, .. }
            | Self::Adopt { name, .. }
            | Self::Remove { name, .. } => name.as_str(),
            Self::CreateSandbox { id, .. } | Self::Sandbox { id, .. } => id.as_str(),
            Self::RenameSandbox { new_id, .. } | Self::CloneSandbox { new_id, .. } => {
                new_id.as_str()
            }
        }
    }

    /// Returns its host, if any.
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Create { host, .. }
            | Self::Push { host, .. }
            | Self::Pull { host, .. }
            | Self::Upload { host, .. }
            | Self::Copy { host, .. }
            | Self::CreateSandbox { host, .. }
            | Self::RenameSandbox { host, .. }
            | Self::CloneSandbox { host, .. }
            | Self::Sandbox { host, .. } => Some(host),
            Self::Remove { host, .. } | Self::Verify { host, .. } | Self::Adopt { host, .. } => {
                host.as_ref()
            }
        }
    }

    /// Returns the other host, from which it copies, if any.
    pub fn source_host(&self) -> Option<&HostName> {
        match self {
            Self::Copy { from, .. } => Some(from),
            _ => None,
        }
    }

    /// Returns the sandbox that it reads, creates or changes, if any.
    pub fn sandbox(&self) -> Option<&SandboxId> {
        match self {
            Self::Create { sandbox, .. } | Self::Push { sandbox, .. } => Some(sandbox),
            Self::CreateSandbox { id, .. }
            | Self::RenameSandbox { id, .. }
            | Self::CloneSandbox { id, .. }
            | Self::Sandbox { id, .. } => Some(id),
            Self::Pull { .. }
            | Self::Upload { .. }
            | Self::Copy { .. }
            | Self::Verify { .. }
            | Self::Adopt { .. }
            | Self::Remove { .. } => None,
        }
    }

    /// Returns the id that it gives to the sandbox or to a copy of it, if it does.
    pub fn new_id(&self) -> Option<&SandboxId> {
        match self {
            Self::RenameSandbox { new_id, .. } | Self::CloneSandbox { new_id, .. } => Some(new_id),
            _ => None,
        }
    }
}

/// Method to make an object from a sandbox's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// The bytes of the base unchanged, followed by the clusters of the overlay.
    Append,
    /// All clusters in use, rewritten.
    Compact,
    /// `qemu-img convert` into a temporary file on the host.
    Convert,
    /// Running sandbox: composed; the disk is read through QEMU's backup job while the guest runs.
    Backup,
    /// Running sandbox: composed; the overlay is copied while the guest is paused.
    Copy,
}

impl Method {
    /// Returns the word in JSON and settings.
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

/// Bytes moved to make an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct TransferStats {
    /// Method that was used.
    pub method: Method,
    /// Bytes uploaded to the store.
    pub uploaded_bytes: u64,
    /// Bytes that the store copied from another object.
    pub copied_bytes: u64,
    /// Bytes of the disk that were not uploaded: copied ones, zeros, and those saved by compression.
    pub saved_bytes: u64,
}

/// Result of a dry run of a push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PushPlan {
    /// Name of the object.
    pub snapshot_name: SnapshotName,
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Host of the sandbox.
    pub host: HostName,
    /// Whether an object of that name exists; then the push needs `--overwrite`.
    #[serde(rename = "exists")]
    pub object_exists: bool,
    /// Method that would be used.
    pub method: Method,
    /// Reason for the method.
    pub reason: String,
    /// The snapshot that the sandbox is based on.
    pub base: Option<SnapshotName>,
    /// Whether the bucket provably has the bytes of the base.
    #[serde(rename = "baseInBucket")]
    pub is_base_in_bucket: bool,
    /// Reason for `is_base_in_bucket`.
    pub base_reason: String,
    /// Upper bound of the object's length in bytes; with `convert` that of the temporary file.
    pub size_bytes: u64,
    /// Upper bound of the bytes to upload.
    pub upload_bytes: u64,
    /// Bytes that the store would copy.
    pub copy_bytes: u64,
    /// Bytes of the object that no cluster refers to any more.
    pub dead_bytes: u64,
}

/// Outcome of an operation; its JSON is printed with `--json` and returned by the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum Outcome {
    /// A snapshot was created.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotCreated"))]
    Created {
        /// Name of the snapshot.
        name: SnapshotName,
        /// Key of the object in the bucket.
        snapshot_path: String,
        /// Length of the object in bytes.
        size_bytes: u64,
        /// Whether the disk was read without a pause.
        live_mode: bool,
        /// The sandbox.
        sandbox_id: SandboxId,
        /// Host of the sandbox.
        host: HostName,
        /// Pause of the guest in milliseconds.
        paused_ms: u64,
        /// Consistency of the file systems on the disk.
        consistency: Consistency,
        /// Bytes moved.
        #[serde(flatten)]
        transfer: TransferStats,
    },
    /// A sandbox's disk was pushed.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotPushed"))]
    Pushed {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Key of the object in the bucket.
        snapshot_path: String,
        /// Length of the object in bytes.
        size_bytes: u64,
        /// The sandbox.
        sandbox_id: SandboxId,
        /// Host of the sandbox.
        host: HostName,
        /// Bytes moved.
        #[serde(flatten)]
        transfer: TransferStats,
    },
    /// A snapshot was pulled.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotPulled"))]
    Pulled {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Path of the file on the host.
        snapshot_path: String,
        /// Length of the file in bytes.
        size_bytes: u64,
        /// The host.
        host: HostName,
        /// Whether the host already had a valid copy and nothing was fetched.
        skipped: bool,
        /// Whether the copy that was kept is known to be another image than the object.
        differs: bool,
        /// Whether a damaged copy was replaced.
        repaired: bool,
        /// Bytes downloaded from the bucket.
        fetched_bytes: u64,
        /// Bytes copied from other snapshots of the host.
        copied_bytes: u64,
        /// Bytes kept from an interrupted pull.
        resumed_bytes: u64,
    },
    /// A snapshot of a host was uploaded.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotUploaded"))]
    Uploaded {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Key of the object in the bucket.
        snapshot_path: String,
        /// Length of the object in bytes.
        size_bytes: u64,
        /// Host of the snapshot.
        host: HostName,
        /// Bytes uploaded to the store.
        uploaded_bytes: u64,
        /// Bytes that the store copied from other objects.
        copied_bytes: u64,
    },
    /// A snapshot was copied from another host.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotCopied"))]
    Copied {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Path of the file on the host.
        snapshot_path: String,
        /// Length of the file in bytes.
        size_bytes: u64,
        /// The host that had it.
        from: HostName,
        /// The host that received it.
        host: HostName,
        /// Whether the host already had a valid copy and nothing was copied.
        skipped: bool,
        /// Whether the copy that was kept is known to be another image.
        differs: bool,
        /// Whether a damaged copy was replaced.
        repaired: bool,
        /// Bytes read on the other host.
        fetched_bytes: u64,
        /// Bytes copied from other snapshots of the receiving host.
        copied_bytes: u64,
        /// Bytes kept from an interrupted copy.
        resumed_bytes: u64,
    },
    /// A snapshot or object was verified, and repaired if requested.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotVerified"))]
    Verified {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Host of the snapshot; `None` for the object.
        host: Option<HostName>,
        /// Bytes read: the whole image.
        size_bytes: u64,
        /// Whether a manifest allowed to check every block; without one only the structure was checked.
        has_manifest: bool,
        /// Numbers of the repaired blocks, from 0; a block has 8 MiB.
        repaired_blocks: Vec<u64>,
        /// Bytes downloaded from the bucket.
        fetched_bytes: u64,
    },
    /// The digests of a snapshot or object were recorded.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotAdopted"))]
    Adopted {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// Host of the snapshot; `None` for the object.
        host: Option<HostName>,
        /// Length of the image in bytes.
        size_bytes: u64,
        /// Bytes that were read and hashed; holes of a file are not read.
        hashed_bytes: u64,
        /// Whether its manifest was written; `false`: it had a valid one.
        changed: bool,
    },
    /// A snapshot was removed.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SnapshotRemoved"))]
    Removed {
        /// Name of the snapshot.
        snapshot_name: SnapshotName,
        /// The host it was removed from, if any.
        host: Option<HostName>,
        /// Whether the object was removed.
        #[serde(rename = "bucket")]
        from_bucket: bool,
    },
    /// A sandbox was created.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SandboxCreated"))]
    SandboxCreated {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        #[serde(flatten)]
        sandbox: Sandbox,
        /// Whether it was created; `false`: it existed with the same properties.
        changed: bool,
    },
    /// A setting of a sandbox was changed.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SandboxConfigured"))]
    SandboxConfigured {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        sandbox_id: SandboxId,
        /// Virtual CPUs.
        cpus: u32,
        /// Memory in bytes.
        memory_bytes: u64,
        /// Whether it starts with its host.
        autostart: bool,
        /// Whether anything changed; `false`: it already had these settings.
        changed: bool,
    },
    /// A sandbox was renamed.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SandboxRenamed"))]
    SandboxRenamed {
        /// Host of the sandbox.
        host: HostName,
        /// The new id.
        sandbox_id: SandboxId,
        /// The id before.
        former_id: SandboxId,
        /// Path of its disk, which keeps its name.
        disk_path: String,
    },
    /// A verb was applied to a sandbox.
    #[serde(rename_all = "camelCase")]
    #[cfg_attr(feature = "openapi", schema(title = "SandboxChanged"))]
    SandboxChanged {
        /// Host of the sandbox.
        host: HostName,
        /// The sandbox.
        id: SandboxId,
        /// New state of the sandbox; `None`: it was destroyed.
        state: Option<SandboxState>,
        /// Whether anything changed; `false`: it already was in that state, or there was nothing to destroy.
        changed: bool,
    },
}
