//! Copy: a snapshot of one host becomes a snapshot of another, without the bucket.
//!
//! The same as a pull: in a private directory until each block has the digest of the manifest and the image passes
//! `qemu-img check`; blocks that the host has are taken there, and an interrupted copy is resumed.

use snapdeck_host::Host;
use snapdeck_model::{Outcome, Result, SnapshotName};

use crate::context::Context;
use crate::fetch::FetchHandle;
use crate::origin::Origin;
use crate::pull::receive_snapshot;

/// Copies the snapshot `name` of `source` to `host`, as [`pull`](crate::pull) does from the bucket.
///
/// # Errors
/// `NotFound` without such a snapshot; `Damaged` if it is not a sound standalone image; `Conflict` if a process writes it,
/// or it changes meanwhile; else those of a pull.
pub(crate) async fn copy_snapshot(
    source: &Host,
    host: &Host,
    name: &SnapshotName,
    overwrite: bool,
    fetch_handle: FetchHandle,
    ctx: &Context,
) -> Result<Outcome> {
    let origin = Origin::Host(source);
    let receive = receive_snapshot(host, origin, name, overwrite, fetch_handle, ctx);
    let received = Box::pin(receive).await?;
    Ok(Outcome::Copied {
        snapshot_name: name.clone(),
        snapshot_path: host.snapshot_path(name),
        size_bytes: received.size_bytes,
        from: source.name().clone(),
        host: host.name().clone(),
        skipped: received.is_skipped,
        differs: received.differs,
        repaired: received.is_repaired,
        fetched_bytes: received.fetched_bytes,
        copied_bytes: received.copied_bytes,
        resumed_bytes: received.resumed_bytes,
    })
}
