//! The file that a pull or repair replaces, and the checks right before it does: the download may have taken an hour.

use snapdeck_host::{Host, HostInventory};
use snapdeck_model::{Error, FileStamp, Kind, Manifest, Result, SandboxState, SnapshotName};

use crate::context::Context;
use crate::dependents::{file_users, refuse_if_in_use};
use crate::pin::refuse_pinned_snapshot;
use crate::remote_object::RemoteObject;
use crate::sharing::SharingHosts;

/// The file that had the snapshot's name when the operation began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExistingCopy {
    Absent,
    /// A snapshot that the operator asked to replace.
    Valid(FileStamp),
    /// A damaged file that may have been another image: replaced only while nothing uses it.
    Damaged(FileStamp),
    /// A damaged snapshot that had the bytes of the object: repaired also under sandboxes that are shut off.
    DamagedSameImage(FileStamp),
}

impl ExistingCopy {
    pub(crate) fn stamp(self) -> Option<FileStamp> {
        match self {
            Self::Absent => None,
            Self::Valid(stamp) | Self::Damaged(stamp) | Self::DamagedSameImage(stamp) => {
                Some(stamp)
            }
        }
    }

    pub(crate) fn is_damaged(self) -> bool {
        matches!(self, Self::Damaged(_) | Self::DamagedSameImage(_))
    }

    /// Fails if the file may not be replaced or repaired because of what `inventory` says of its users.
    ///
    /// # Errors
    /// `Conflict`, which names the users.
    pub(crate) fn refuse_if_in_use(
        self,
        host: &Host,
        inventory: &HostInventory,
        name: &SnapshotName,
    ) -> Result<()> {
        match self {
            Self::Absent => Ok(()),
            Self::Valid(_) | Self::Damaged(_) => {
                refuse_if_in_use(host, inventory, name, "replace", |_| true)
            }
            // The base of a stopped sandbox can be repaired; a running one has it open.
            Self::DamagedSameImage(_) => {
                refuse_if_in_use(host, inventory, name, "repair", |state| {
                    state != SandboxState::ShutOff
                })
            }
        }
    }

    /// Fails if the file is pinned, unless it is repaired with the bytes that it had.
    ///
    /// # Errors
    /// `Conflict`; those of the host.
    pub(crate) async fn refuse_if_pinned(self, host: &Host, name: &SnapshotName) -> Result<()> {
        match self {
            Self::Absent | Self::DamagedSameImage(_) => Ok(()),
            Self::Valid(_) | Self::Damaged(_) => {
                refuse_pinned_snapshot(host, name, "overwrite").await
            }
        }
    }

    /// Scans the host, and those that share its directories, again; fails if the file has users or a pin now, or is not
    /// the one found at the beginning.
    ///
    /// The caller holds the snapshot's lock and acts right after this.
    ///
    /// # Errors
    /// `Conflict`; those of the host.
    pub(crate) async fn check_again(
        self,
        host: &Host,
        name: &SnapshotName,
        sharing: &SharingHosts,
    ) -> Result<()> {
        let Some(stamp) = self.stamp() else {
            return Ok(());
        };
        self.refuse_if_pinned(host, name).await?;
        self.refuse_if_in_use(host, &sharing.scan(host).await?, name)?;
        let path = host.snapshot_path(name);
        let current = host.fs().image_file(&path).await?;
        if current.is_some_and(|current| current.stamp == stamp) {
            return Ok(());
        }
        Err(Error::new(
            Kind::Conflict,
            format!("cannot replace {path} on host {}", host.name()),
        )
        .with_cause("it was changed or replaced meanwhile")
        .hint("check what wrote it, then pull again"))
    }
}

/// Returns whether `source` has the bytes that the file of manifest `local` had when it was verified.
pub(crate) fn is_same_image(local: &Manifest, source: &RemoteObject) -> bool {
    compare_image(local, source) == Some(true)
}

/// Returns whether `source` has the bytes that the file of manifest `local` had; `None` if no digests show it.
pub(crate) fn compare_image(local: &Manifest, source: &RemoteObject) -> Option<bool> {
    match (&source.manifest, &local.etag) {
        (Some(remote), _) => Some(remote.has_same_content(local)),
        // See `RemoteObject::with_digests_of`.
        (None, Some(_)) => (!local.matches_object(&source.object)).then_some(false),
        (None, None) => (local.size_bytes != source.object.size_bytes).then_some(false),
    }
}

/// Fails if disks are based on the missing snapshot, unless `source` is the image that they are based on.
///
/// With `overwrite` an unknown image may be put there, but never one that is known to be another.
///
/// # Errors
/// `Conflict`, which names the users; those of the host.
pub(crate) async fn refuse_other_base(
    host: &Host,
    source: &RemoteObject,
    overwrite: bool,
    ctx: &Context,
) -> Result<()> {
    let name = &source.object.name;
    let users = file_users(host, &host.snapshot_path(name), None, ctx).await?;
    if users.is_empty() {
        return Ok(());
    }
    let manifest = host.snapshots().recorded_manifest(name).await?;
    let (path, key) = (host.snapshot_path(name), &source.object.key);
    let reason = match manifest.and_then(|local| compare_image(&local, source)) {
        Some(true) => return Ok(()),
        Some(false) => format!("{key} is a different image now"),
        None if overwrite => return Ok(()),
        None => format!("nothing proves that {key} is the same image"),
    };
    Err(Error::new(
        Kind::Conflict,
        format!("cannot {} {name} to host {}", source.verb, host.name()),
    )
    .with_cause(format!(
        "{path} is missing, {} is based on it, and {reason}",
        users.join(", ")
    ))
    .hint("restore the file from a backup, or destroy those sandboxes first"))
}

/// Fails because the damaged copy was, or may have been, another image than `source`.
pub(crate) fn different_image_error(host: &Host, source: &RemoteObject, reason: &str) -> Error {
    let name = &source.object.name;
    Error::new(
        Kind::Conflict,
        format!("cannot repair {name} on host {}", host.name()),
    )
    .with_cause(reason)
}
