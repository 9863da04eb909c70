//! Sandboxes, snapshots and objects as the last scan found them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{FileStamp, ImageIdentity, SandboxId, SnapshotName};

/// State of a sandbox, from libvirt. A domain that is blocked or shutting down counts as running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SandboxState {
    /// The guest runs.
    Running,
    /// The CPUs are stopped; the memory is in the host's RAM.
    Paused,
    /// There is no process.
    ShutOff,
    /// Shut off with the memory on disk (managed save).
    Saved,
    /// QEMU or the guest crashed.
    Crashed,
    /// The guest sleeps (ACPI S3).
    #[serde(alias = "asleep")]
    Suspended,
}

impl SandboxState {
    /// Returns the word for filters and themes; [`Self::label`] is for people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShutOff => "shut off",
            Self::Saved => "saved",
            Self::Crashed => "crashed",
            Self::Suspended => "suspended",
        }
    }

    /// Returns the words for people: as [`Self::as_str`], but `suspended (S3)`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Suspended => "suspended (S3)",
            _ => self.as_str(),
        }
    }

    /// Returns whether a QEMU process holds the disk open.
    pub fn is_active(self) -> bool {
        matches!(
            self,
            Self::Running | Self::Paused | Self::Crashed | Self::Suspended
        )
    }

    /// Returns whether the disk may be pushed; a saved sandbox counts as stopped.
    pub fn is_quiescent(self) -> bool {
        matches!(self, Self::Paused | Self::ShutOff | Self::Saved)
    }
}

/// A sandbox: a libvirt domain whose disk is in the host's sandboxes directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// Name of the domain.
    pub id: SandboxId,
    /// State of the domain.
    pub state: SandboxState,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Whether it starts with its host.
    #[serde(default)]
    pub autostart: bool,
    /// The disk's chain of images, overlay first.
    pub chain: Vec<ChainLink>,
    /// Path of the UEFI variables, if any; libvirt may create the file at the first start.
    pub variables: Option<String>,
}

impl Sandbox {
    /// Returns the path of the overlay on the host.
    pub fn disk(&self) -> Option<&str> {
        self.chain.first().map(|link| link.path.as_str())
    }

    /// Returns the snapshot it is based on, if the chain has one.
    pub fn base(&self) -> Option<&SnapshotName> {
        self.chain
            .iter()
            .rev()
            .find_map(|link| link.snapshot.as_ref())
    }
}

/// A domain that is not a sandbox: its disk is elsewhere, or its name is not a sandbox id. It is only listed on
/// request and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForeignDomain {
    /// Name of the domain.
    pub id: String,
    /// State of the domain.
    pub state: SandboxState,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Chain of images of its first disk; empty if that is not a file.
    pub chain: Vec<ChainLink>,
}

/// One image of a disk chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ChainLink {
    /// Path on the host.
    pub path: String,
    /// The snapshot this file is, if it is in the snapshots directory.
    pub snapshot: Option<SnapshotName>,
    /// Bytes allocated on the host's disk; `None`: unknown.
    pub size_bytes: Option<u64>,
    /// Facts of the header; `None`: not readable.
    pub facts: Option<ImageFacts>,
}

/// Compression of an image's compressed clusters (qcow2, "Header extension: compression type").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Deflate, the only type before QEMU 5.1.
    Zlib,
    /// Zstandard.
    Zstd,
    /// A type unknown to this version.
    Unknown,
}

/// Format of a backing file as the image that needs it declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackingFormat {
    /// It declares none.
    #[default]
    Undeclared,
    /// qcow2.
    Qcow2,
    /// The bytes of the disk.
    Raw,
    /// Another one.
    Other,
}

/// Facts of a qcow2 header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// 2 or 3.
    pub version: u32,
    /// Size of the guest's disk in bytes.
    pub virtual_size: u64,
    /// Size of a cluster in bytes.
    pub cluster_size: u64,
    /// Backing file as written in the header.
    pub backing_file: Option<String>,
    /// Format of the backing file as written in the header.
    #[serde(skip)]
    pub backing_format: BackingFormat,
    /// Whether guest data is in another file.
    #[serde(rename = "externalDataFile")]
    pub has_external_data_file: bool,
    /// Whether refcounts may be wrong (not closed cleanly, lazy refcounts).
    pub dirty: bool,
    /// Whether it is marked corrupt and must be opened read-only.
    pub corrupt: bool,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Whether it has subclusters (extended L2 entries).
    pub extended_l2: bool,
    /// Number of internal snapshots.
    pub internal_snapshots: u32,
    /// Width of a refcount in bits.
    pub refcount_bits: u32,
    /// Compression type of compressed clusters.
    pub compression: Compression,
}

impl ImageFacts {
    /// Returns whether the image needs no other file.
    ///
    /// Only such an image may be a snapshot: a backing or data file could be any file of the host (CVE-2024-32498).
    pub fn is_standalone(&self) -> bool {
        self.backing_file.is_none() && !self.has_external_data_file
    }
}

/// A snapshot: `NAME.qcow2` in a host's snapshots directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Name of the file without `.qcow2`.
    pub name: SnapshotName,
    /// Path on the host.
    pub path: String,
    /// Length of the file in bytes.
    pub size_bytes: u64,
    /// Bytes allocated on the host's disk.
    pub allocated_bytes: u64,
    /// Time of the last write.
    pub modified: Option<Timestamp>,
    /// Facts of the header; `None`: not a readable qcow2 image.
    pub facts: Option<ImageFacts>,
    /// Why `facts` is `None`, or why the image cannot be used as a snapshot.
    pub problem: Option<String>,
    /// Ids of sandboxes, names of other domains and paths of images without a domain that need this file.
    pub dependents: Vec<String>,
    /// Identity of the file; `None`: unknown.
    #[serde(skip)]
    pub file: Option<FileStamp>,
}

impl Snapshot {
    /// Returns the size of the guest's disk in bytes.
    pub fn virtual_size(&self) -> Option<u64> {
        self.facts.as_ref().map(|facts| facts.virtual_size)
    }
}

/// An interrupted or running pull of a host: a file that is not a snapshot yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct PartialPull {
    /// The snapshot that is to be pulled.
    pub name: SnapshotName,
    /// Bytes allocated on the host's disk.
    pub allocated_bytes: u64,
    /// Time of the last write.
    pub modified: Option<Timestamp>,
}

/// An object: a snapshot in the bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The snapshot's name.
    pub name: SnapshotName,
    /// Key in the bucket: prefix and `NAME.qcow2`.
    pub key: String,
    /// Length in bytes.
    pub size_bytes: u64,
    /// Time of the last write.
    pub modified: Option<Timestamp>,
    /// Entity tag with the quotes of the store.
    pub etag: Option<String>,
    /// Why it cannot be used: what is missing of an incomplete snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Object {
    /// Returns its identity in a form that is equal for a listing and a HEAD request, which differ in the digits of the
    /// time and in the quotes of the tag.
    pub fn identity(&self) -> ImageIdentity {
        let etag = self.etag.as_ref();
        ImageIdentity::Object {
            size_bytes: self.size_bytes,
            etag: etag.map(|etag| etag.trim_matches('"').to_owned()),
            modified: self
                .modified
                .and_then(|time| Timestamp::from_second(time.as_second()).ok()),
        }
    }
}
