//! What there is: sandboxes, snapshots and objects as they were last seen.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{FileStamp, SandboxId, SnapshotName};

/// A sandbox's state, as libvirt tells it. A domain that is blocked or shutting down still runs.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// The guest runs.
    Running,
    /// Its CPUs are stopped, its memory is in the host's RAM.
    Paused,
    /// No process.
    ShutOff,
    /// Shut off with its memory on disk (managed save).
    Saved,
    /// QEMU or the guest crashed.
    Crashed,
    /// The guest sleeps (ACPI S3).
    #[serde(alias = "asleep")]
    Suspended,
}

impl SandboxState {
    /// The word on screen: `running`, `paused`, `shut off`, `saved`, `crashed`, `suspended (S3)`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShutOff => "shut off",
            Self::Saved => "saved",
            Self::Crashed => "crashed",
            Self::Suspended => "suspended (S3)",
        }
    }

    /// Is there a QEMU process that holds the disk open?
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Paused | Self::Crashed | Self::Suspended
        )
    }

    /// May its disk be pushed (spec, "Push Snapshot", requirements)? A saved sandbox counts as stopped.
    pub fn is_quiescent(self) -> bool {
        matches!(self, Self::Paused | Self::ShutOff | Self::Saved)
    }
}

/// A sandbox: a libvirt domain whose disk lies in the host's sandboxes directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Its id, the domain's name.
    pub id: SandboxId,
    /// Its state when last seen.
    pub state: SandboxState,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// The disk and what stands behind it, overlay first.
    pub chain: Vec<ChainLink>,
    /// File of its UEFI variables, where it has one; libvirt may make it at the first start only.
    pub variables: Option<String>,
}

impl Sandbox {
    /// Path of the overlay on the host.
    pub fn disk(&self) -> Option<&str> {
        self.chain.first().map(|link| link.path.as_str())
    }

    /// The snapshot it stands on, if its chain ends in one.
    pub fn base(&self) -> Option<&SnapshotName> {
        self.chain
            .iter()
            .rev()
            .find_map(|link| link.snapshot.as_ref())
    }
}

/// A guest on a host that is no sandbox of ours: its disk lies elsewhere, or its name is none of ours. It is shown
/// when asked for, and left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignDomain {
    /// Its name, whatever that is.
    pub id: String,
    /// Its state when last seen.
    pub state: SandboxState,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, in bytes.
    pub memory_bytes: u64,
    /// Its first disk and what stands behind it; empty where it has none in a file.
    pub chain: Vec<ChainLink>,
}

/// One image of a disk chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// Path on the host.
    pub path: String,
    /// The snapshot this file is, where it lies in the snapshots directory.
    pub snapshot: Option<SnapshotName>,
    /// Bytes it takes on the host's disk; `None` where the file was not seen.
    pub size_bytes: Option<u64>,
    /// What its header says; `None` where it could not be read.
    pub facts: Option<ImageFacts>,
}

/// Compression of an image's compressed clusters (qcow2, "Header extension: compression type").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Deflate, the only kind before QEMU 5.1.
    Zlib,
    /// Zstandard.
    Zstd,
    /// A type this program does not know.
    Unknown,
}

/// What a qcow2 header says of its image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// 2 or 3.
    pub version: u32,
    /// Size of the disk the guest sees, in bytes.
    pub virtual_size: u64,
    /// Bytes of a cluster.
    pub cluster_size: u64,
    /// Backing file as written in the header.
    pub backing_file: Option<String>,
    /// Guest data lies in another file.
    #[serde(rename = "externalDataFile")]
    pub has_external_data_file: bool,
    /// Refcounts may be wrong (not closed cleanly, lazy refcounts).
    pub dirty: bool,
    /// Marked corrupt: only to be opened read-only.
    pub corrupt: bool,
    /// Encrypted.
    pub encrypted: bool,
    /// Subclusters (extended L2 entries).
    pub extended_l2: bool,
    /// Snapshots inside the image.
    pub internal_snapshots: u32,
    /// Width of a refcount, in bits.
    pub refcount_bits: u32,
    /// Compression of compressed clusters.
    pub compression: Compression,
}

impl ImageFacts {
    /// Does the image need no other file? Only such an image may be a snapshot: one with a backing or
    /// data file would read files of the host (CVE-2024-32498).
    pub fn is_standalone(&self) -> bool {
        self.backing_file.is_none() && !self.has_external_data_file
    }
}

/// A snapshot: `NAME.qcow2` in a host's snapshots directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Its name.
    pub name: SnapshotName,
    /// Path on the host.
    pub path: String,
    /// Length of the file, in bytes.
    pub size_bytes: u64,
    /// Bytes it takes on the host's disk.
    pub allocated_bytes: u64,
    /// When it was last written.
    pub modified: Option<Timestamp>,
    /// What its header says; `None` where it is no readable qcow2 image.
    pub facts: Option<ImageFacts>,
    /// Why `facts` is `None`, or why it is not fit to be a snapshot.
    pub problem: Option<String>,
    /// Who needs this file: ids of sandboxes, names of other domains, paths of images that no domain has.
    pub dependents: Vec<String>,
    /// The file's stamp; `None` where it could not be looked at.
    #[serde(skip)]
    pub file: Option<FileStamp>,
}

impl Snapshot {
    /// Size of the disk the guest sees, in bytes.
    pub fn virtual_size(&self) -> Option<u64> {
        self.facts.as_ref().map(|facts| facts.virtual_size)
    }
}

/// An object: a snapshot in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The snapshot's name.
    pub name: SnapshotName,
    /// Its key in the bucket: prefix and `NAME.qcow2`.
    pub key: String,
    /// Bytes.
    pub size_bytes: u64,
    /// When it was last written.
    pub modified: Option<Timestamp>,
    /// Entity tag, with the quotes the store gave it.
    pub etag: Option<String>,
}
