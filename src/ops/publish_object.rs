//! Publishes an object: its UEFI variables first, then the image, whose metadata names them.
//!
//! The store replaces an image atomically, and the variables of the new and of the replaced image have different keys, so
//! a reader never sees the one image with the variables of the other. Only the manifest, which has the image's entity
//! tag, is written later: until then the snapshot is known to be incomplete.

use bytes::Bytes;

use snapdeck_bucket::{Bucket, MultipartObject, StoredObject};
use snapdeck_model::{
    Digest, ExpectedVariables, Kind, Object, Phase, Result, SnapshotName, SnapshotParts,
};

use crate::context::Context;
use crate::job::SnapshotJob;
use crate::request::SnapshotRequest;
use crate::variables;

/// Completes `image`, which was begun with the [parts](variables::snapshot_parts) of `variables` in its metadata.
///
/// # Errors
/// Those of the bucket; the object of that name is unchanged then, unless the error says otherwise.
pub(crate) async fn publish_object(
    job: SnapshotJob<'_>,
    image: MultipartObject<'_>,
    variables: Option<&Bytes>,
) -> Result<Object> {
    publish_image(job.bucket, job.request, job.ctx, image, variables).await
}

/// As [`publish_object`], for `image` from any source.
///
/// # Errors
/// As [`publish_object`].
pub(crate) async fn publish_image(
    bucket: &Bucket,
    request: &SnapshotRequest,
    ctx: &Context,
    image: MultipartObject<'_>,
    variables: Option<&Bytes>,
) -> Result<Object> {
    let name = &request.name;
    let prepare = async {
        let replaced = match request.overwrite {
            true => bucket.find(name).await?,
            false => None,
        };
        let is_new = match variables {
            Some(bytes) => variables::upload(bucket, name, bytes, ctx).await?,
            None => false,
        };
        Ok((replaced, is_new))
    };
    // Boxed: the futures are large.
    let (replaced, is_new) = match Box::pin(prepare).await {
        Ok(prepared) => prepared,
        Err(error) => {
            image.keep_or_abort(&error).await;
            return Err(error);
        }
    };
    let parts = variables::snapshot_parts(variables);
    // A store takes its time to join the parts, without a byte.
    ctx.progress.enter(Phase::Publishing, 0);
    let object = match Box::pin(image.complete()).await {
        Ok(object) => object,
        Err(error) => {
            // After a cancel or without a response the store may still complete it.
            let is_known = !matches!(error.kind(), Kind::Cancelled | Kind::Unreachable);
            if is_new && is_known {
                ctx.progress.enter(Phase::CleaningUp, 0);
                Box::pin(remove_unused(bucket, name, parts)).await;
            }
            return Err(error);
        }
    };
    if let Some(bytes) = variables
        && let Some(digest) = digest_of(parts)
        // A push that replaced the same object at the same time may have removed them.
        && bucket.variables_of(digest).head(name).await?.is_none()
    {
        variables::upload(bucket, name, bytes, ctx).await?;
    }
    if request.overwrite
        && let Err(error) = Box::pin(remove_replaced(bucket, name, replaced, parts, ctx)).await
    {
        ctx.warn(error.to_string());
    }
    Ok(object)
}

fn digest_of(parts: SnapshotParts) -> Option<Digest> {
    match parts.variables {
        ExpectedVariables::Digest(digest) => Some(digest),
        ExpectedVariables::Absent => None,
    }
}

/// Removes the variables of an image that was not completed, unless an image of that name has the same.
async fn remove_unused(bucket: &Bucket, name: &SnapshotName, parts: SnapshotParts) {
    let Some(digest) = digest_of(parts) else {
        return;
    };
    let result = async {
        let current = bucket.find(name).await?;
        let is_used = current
            .and_then(|current| current.parts)
            .is_some_and(|current| current.variables == parts.variables);
        match is_used {
            true => Ok(()),
            false => {
                let store = bucket.variables_of(digest);
                match store.head(name).await? {
                    Some(object) => store.delete_object(&object).await.map(|_| ()),
                    None => Ok(()),
                }
            }
        }
    };
    if let Err(error) = result.await {
        tracing::debug!("{error}");
    }
}

/// Removes the variables of the image that was replaced.
async fn remove_replaced(
    bucket: &Bucket,
    name: &SnapshotName,
    replaced: Option<StoredObject>,
    parts: SnapshotParts,
    ctx: &Context,
) -> Result<()> {
    let Some(replaced) = replaced else {
        return Ok(());
    };
    let store = match replaced.parts.map(digest_of) {
        // An image whose metadata names no variables may have some under the name of the snapshot.
        None => bucket.variables(),
        Some(None) => return Ok(()),
        Some(Some(digest)) => {
            // Another client may have replaced the image by one with those variables.
            let current = bucket.find(name).await?;
            let current = current.and_then(|current| digest_of(current.parts?));
            if digest_of(parts) == Some(digest) || current == Some(digest) {
                return Ok(());
            }
            bucket.variables_of(digest)
        }
    };
    if let Some(object) = store.head(name).await? {
        store.delete_object(&object).await?;
        ctx.info(format!(
            "removed {}, which belonged to the previous image",
            store.key(name)
        ));
    }
    Ok(())
}
