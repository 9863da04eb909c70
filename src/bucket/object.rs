//! Single objects: look at one, delete one.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::DateTime;
use jiff::Timestamp;

use super::client::Store;
use super::errors::{no_such_bucket_error, sdk_error, status_and_code};
use snapdeck_model::{Error, Kind, Object, Result, SnapshotName};

/// The object, or `None`; `NotFound` where there is no bucket.
pub(super) async fn head(store: &Store, name: &SnapshotName, key: &str) -> Result<Option<Object>> {
    let Some(found) = head_object(store, key).await? else {
        return Ok(None);
    };
    Ok(Some(Object {
        name: name.clone(),
        key: key.to_owned(),
        size_bytes: parse_size(found.content_length),
        modified: found.last_modified.as_ref().and_then(to_timestamp),
        etag: found.e_tag,
    }))
}

/// HeadObject. Its 404 has no body to tell a missing object from a missing bucket: then the bucket is asked.
pub(super) async fn head_object(store: &Store, key: &str) -> Result<Option<HeadObjectOutput>> {
    let call = store.client.head_object().bucket(&store.bucket).key(key);
    let error = match call.send().await {
        Ok(found) => return Ok(Some(found)),
        Err(error) => error,
    };
    let what = || format!("cannot look at {}", store.address(key));
    if !matches!(status_and_code(&error), Some((404, _))) {
        return Err(sdk_error(store, what(), &error));
    }
    match store
        .client
        .head_bucket()
        .bucket(&store.bucket)
        .send()
        .await
    {
        Ok(_) => Ok(None),
        Err(error) if matches!(status_and_code(&error), Some((404, _))) => {
            Err(no_such_bucket_error(store, what()))
        }
        // Who may read objects but not ask for the bucket is no less sure that the object is missing.
        Err(error) if matches!(status_and_code(&error), Some((403, _))) => Ok(None),
        Err(error) => Err(sdk_error(store, what(), &error)),
    }
}

/// Deletes the object. DeleteObject also succeeds where there is none: hence the look before.
pub(super) async fn delete(store: &Store, name: &SnapshotName, key: &str) -> Result<()> {
    let what = format!("cannot delete {}", store.address(key));
    if head(store, name, key).await?.is_none() {
        return Err(Error::new(Kind::NotFound, what)
            .with_cause("there is no such object")
            .hint("list the bucket's objects to see their names"));
    }
    let call = store.client.delete_object().bucket(&store.bucket).key(key);
    call.send().await.map_err(|e| sdk_error(store, what, &e))?;
    Ok(())
}

/// A length the store gave; a negative one is nonsense and counts as 0.
pub(super) fn parse_size(length: Option<i64>) -> u64 {
    length.and_then(|n| u64::try_from(n).ok()).unwrap_or(0)
}

/// The SDK's time as ours.
pub(super) fn to_timestamp(time: &DateTime) -> Option<Timestamp> {
    let nanoseconds = i32::try_from(time.subsec_nanos()).ok()?;
    Timestamp::new(time.secs(), nanoseconds).ok()
}
