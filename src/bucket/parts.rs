//! Whether a snapshot is complete: its image, the UEFI variables and the manifest that belong to it.
//!
//! The metadata of an image, which is written with the image, names what belongs to it. A push that ends in between
//! leaves an image that is known to be incomplete.

use super::s3::{ObjectInfo, Store};
use super::{Bucket, manifest};
use snapdeck_model::{ExpectedVariables, Result, SnapshotName};

/// Returns what is missing of the snapshot with this `image`, whose metadata was read; `None` if nothing is.
pub(super) async fn find_problem(
    bucket: &Bucket,
    store: &Store,
    name: &SnapshotName,
    image: &ObjectInfo,
) -> Result<Option<String>> {
    let Some(parts) = image.parts else {
        return Ok(None);
    };
    if let ExpectedVariables::Digest(digest) = parts.variables {
        let key = bucket.variables_of(digest).key(name);
        if store.head(&key).await?.is_none() {
            return Ok(Some(problem_text("UEFI variables", &key)));
        }
    }
    if !parts.has_manifest {
        return Ok(None);
    }
    let key = bucket.manifest_key(name);
    let object = image.clone().into_object(name.clone());
    let manifest = manifest::read(store, &key, &image.key, &object).await?;
    Ok(match manifest {
        Some(_) => None,
        None => Some(problem_text("manifest", &key)),
    })
}

/// Describes an incomplete snapshot.
pub(super) fn problem_text(what: &str, key: &str) -> String {
    format!("it is incomplete: its {what} ({key}) is missing")
}
