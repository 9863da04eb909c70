//! Pins: a pinned snapshot or object is neither removed nor replaced by another image.

use snapdeck_bucket::Bucket;
use snapdeck_host::Host;
use snapdeck_model::{Annotations, Error, Kind, Result, SnapshotName};

/// Fails if the snapshot, which is to be `verb`ed on the host, is pinned there.
///
/// # Errors
/// `Conflict`; those of the host.
pub(crate) async fn refuse_pinned_snapshot(
    host: &Host,
    name: &SnapshotName,
    verb: &str,
) -> Result<()> {
    let annotations = host.snapshots().annotations(name).await?;
    refuse_pinned(name, annotations, &format!("on host {}", host.name()), verb)
}

/// Fails if the object, which is to be `verb`ed, is pinned.
///
/// # Errors
/// `Conflict`; those of the bucket.
pub(crate) async fn refuse_pinned_object(
    bucket: &Bucket,
    name: &SnapshotName,
    verb: &str,
) -> Result<()> {
    let annotations = bucket.annotations(name).await?;
    refuse_pinned(
        name,
        annotations,
        &format!("in {}", bucket.location()),
        verb,
    )
}

fn refuse_pinned(
    name: &SnapshotName,
    annotations: Option<Annotations>,
    location: &str,
    verb: &str,
) -> Result<()> {
    match annotations {
        Some(annotations) if annotations.pinned => Err(Error::new(
            Kind::Conflict,
            format!("cannot {verb} {name} {location}"),
        )
        .with_cause("it is pinned")
        .hint(format!("unpin it first: `snapdeck unpin {name}`"))),
        _ => Ok(()),
    }
}
