//! Single objects: look at one, delete one.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use jiff::Timestamp;

use super::client::Store;
use super::errors::{answer, no_such_bucket, told};
use snapdeck_model::{Error, Kind, Object, Result, SnapshotName};

/// The object, or `None`; `NotFound` where there is no bucket.
pub(super) async fn head(store: &Store, name: &SnapshotName, key: &str) -> Result<Option<Object>> {
    let Some(found) = look(store, key).await? else {
        return Ok(None);
    };
    Ok(Some(Object {
        name: name.clone(),
        key: key.to_owned(),
        size_bytes: bytes(found.content_length),
        modified: found.last_modified.as_ref().and_then(timestamp),
        etag: found.e_tag,
    }))
}

/// HeadObject. Its 404 has no body to tell a missing object from a missing bucket: then the bucket is asked.
pub(super) async fn look(store: &Store, key: &str) -> Result<Option<HeadObjectOutput>> {
    let call = store.client.head_object().bucket(&store.bucket).key(key);
    let error = match call.send().await {
        Ok(found) => return Ok(Some(found)),
        Err(error) => error,
    };
    let what = || format!("cannot look at {}", store.address(key));
    if !matches!(answer(&error), Some((404, _))) {
        return Err(told(store, what(), &error));
    }
    match store
        .client
        .head_bucket()
        .bucket(&store.bucket)
        .send()
        .await
    {
        Ok(_) => Ok(None),
        Err(error) if matches!(answer(&error), Some((404, _))) => {
            Err(no_such_bucket(store, what()))
        }
        // Who may read objects but not ask for the bucket is no less sure that the object is missing.
        Err(error) if matches!(answer(&error), Some((403, _))) => Ok(None),
        Err(error) => Err(told(store, what(), &error)),
    }
}

/// Deletes the object. DeleteObject also succeeds where there is none: hence the look before.
pub(super) async fn delete(store: &Store, name: &SnapshotName, key: &str) -> Result<()> {
    let what = format!("cannot delete {}", store.address(key));
    if head(store, name, key).await?.is_none() {
        return Err(Error::new(Kind::NotFound, what)
            .because("there is no such object")
            .hint("list the bucket's objects to see their names"));
    }
    let call = store.client.delete_object().bucket(&store.bucket).key(key);
    call.send().await.map_err(|e| told(store, what, &e))?;
    Ok(())
}

/// A length the store gave; a negative one is nonsense and counts as 0.
pub(super) fn bytes(length: Option<i64>) -> u64 {
    length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// The SDK's time as ours.
pub(super) fn timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanoseconds).ok()
}
