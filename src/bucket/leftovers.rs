//! Multipart uploads that broke off: their parts take room until they are aborted.

use std::time::SystemTime;

use aws_sdk_s3::primitives::DateTime;
use aws_sdk_s3::types::MultipartUpload;
use jiff::Timestamp;

use super::client::Store;
use super::errors::{sdk_error, status_and_code};
use super::object::{parse_size, to_timestamp};
use snapdeck_model::{Error, Kind, LEFTOVER_MIN_AGE, Leftover, LeftoverKind, Result, SnapshotName};

/// Pages of up to 1,000 entries that are read of a listing: more than a bucket or an upload can have.
const MAX_PAGES: usize = 100;

/// Uploads to keys of ours that nothing was sent to for a day. `None` where the store does not list any.
pub(super) async fn list_stale_uploads(
    store: &Store,
    prefix: &str,
) -> Result<Option<Vec<Leftover>>> {
    let what = || {
        format!(
            "cannot list the unfinished uploads to {}",
            store.address(prefix)
        )
    };
    let (mut found, mut after) = (Vec::new(), (None, None));
    for _ in 0..MAX_PAGES {
        let (key, id) = std::mem::take(&mut after);
        let call = store
            .client
            .list_multipart_uploads()
            .bucket(&store.bucket)
            .prefix(prefix)
            .set_key_marker(key)
            .set_upload_id_marker(id);
        let page = match call.send().await {
            Ok(page) => page,
            Err(error) => {
                return match status_and_code(&error) {
                    Some((501, _) | (_, "NotImplemented")) => Ok(None),
                    _ => Err(sdk_error(store, what(), &error)),
                };
            }
        };
        for upload in page.uploads() {
            if let Some(name) = upload_snapshot_name(prefix, upload) {
                let left = find_stale_upload(store, upload).await?;
                found.extend(left.map(|left| Leftover {
                    name: Some(name),
                    ..left
                }));
            }
        }
        if page.is_truncated != Some(true) || page.next_key_marker.is_none() {
            return Ok(Some(found));
        }
        after = (page.next_key_marker, page.next_upload_id_marker);
    }
    Err(Error::new(Kind::Failed, what()).with_cause("the listing does not end"))
}

/// The snapshot that was to be, where it would have become an image, or its UEFI variables.
fn upload_snapshot_name(prefix: &str, upload: &MultipartUpload) -> Option<SnapshotName> {
    let name = upload.key()?.strip_prefix(prefix)?;
    let stem = name
        .strip_suffix(".qcow2")
        .or_else(|| name.strip_suffix("_VARS.fd"))?;
    let parsed = stem.parse::<SnapshotName>().ok()?;
    (parsed.as_str() == stem).then_some(parsed)
}

/// It, where nothing was sent to it for a day: a large image over a slow line takes longer than that.
async fn find_stale_upload(store: &Store, upload: &MultipartUpload) -> Result<Option<Leftover>> {
    let (Some(key), Some(id)) = (upload.key(), upload.upload_id()) else {
        return Ok(None);
    };
    let Some(begun) = upload.initiated().copied().filter(is_old) else {
        return Ok(None);
    };
    let (mut last, mut size_bytes, mut after) = (begun, 0_u64, None);
    for _ in 0..MAX_PAGES {
        let call = store
            .client
            .list_parts()
            .bucket(&store.bucket)
            .key(key)
            .upload_id(id)
            .set_part_number_marker(after.take());
        let page = match call.send().await {
            Ok(page) => page,
            // It ended meanwhile.
            Err(error) if matches!(status_and_code(&error), Some((404, _))) => return Ok(None),
            Err(error) => {
                let what = format!("cannot inspect the upload to {}", store.address(key));
                return Err(sdk_error(store, what, &error));
            }
        };
        for part in page.parts() {
            size_bytes = size_bytes.saturating_add(parse_size(part.size));
            last = part.last_modified().map_or(last, |sent| last.max(*sent));
        }
        after = page.next_part_number_marker;
        if page.is_truncated != Some(true) || after.is_none() {
            break;
        }
    }
    Ok(is_old(&last).then(|| Leftover {
        kind: LeftoverKind::Upload,
        host: None,
        path: key.to_owned(),
        name: None,
        upload_id: Some(id.to_owned()),
        size_bytes,
        modified: to_timestamp(&last),
    }))
}

fn is_old(at: &DateTime) -> bool {
    let limit = SystemTime::now()
        .checked_sub(LEFTOVER_MIN_AGE)
        .and_then(|limit| Timestamp::try_from(limit).ok());
    limit
        .zip(to_timestamp(at))
        .is_some_and(|(limit, at)| at < limit)
}

/// Aborts an upload, unless somebody has sent to it since it was listed; tells whether it went.
pub(super) async fn abort(store: &Store, leftover: &Leftover) -> Result<bool> {
    let (key, Some(id)) = (&leftover.path, &leftover.upload_id) else {
        return Ok(false);
    };
    let now = MultipartUpload::builder()
        .key(key)
        .upload_id(id)
        .set_initiated(
            leftover
                .modified
                .map(|at| DateTime::from_secs(at.as_second())),
        )
        .build();
    if find_stale_upload(store, &now).await?.is_none() {
        return Ok(false);
    }
    let call = store
        .client
        .abort_multipart_upload()
        .bucket(&store.bucket)
        .key(key)
        .upload_id(id);
    match call.send().await {
        Ok(_) => Ok(true),
        Err(error) if matches!(status_and_code(&error), Some((404, _))) => Ok(false),
        Err(error) => {
            let what = format!("cannot abort the upload to {}", store.address(key));
            Err(sdk_error(store, what, &error))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_uploads_of_images_and_variables_are_ours() {
        let ours = |key: &str| {
            upload_snapshot_name("p/", &MultipartUpload::builder().key(key).build()).is_some()
        };
        assert!(ours("p/app-1.qcow2") && ours("p/app_VARS.fd"));
        for other in [
            "p/app.bin",
            "app.qcow2",
            "p/deep/app.qcow2",
            "p/.qcow2",
            "p/a.qcow2.qcow2",
        ] {
            assert!(!ours(other), "{other}");
        }
    }

    #[test]
    fn what_is_younger_than_a_day_is_under_way() {
        let ago = |hours: i64| {
            let now = Timestamp::now().as_second();
            DateTime::from_secs(now - hours * 60 * 60)
        };
        assert!(is_old(&ago(25)) && !is_old(&ago(23)) && !is_old(&ago(-1)));
    }
}
